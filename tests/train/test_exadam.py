"""EXAdam against a transcription in NumPy and steps worked by hand."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from raphson.train import exadam
from tests.train.walk import assert_follows, walked

SETTINGS = {"b1": 0.8, "b2": 0.95, "eps": 0.1, "weight_decay": 0.1}


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"weight_decay": 0.0},
        {"b1": 0.0, "b2": 0.0},
        {"b1": 0.9, "b2": 0.999, "eps": 1e-8},
    ],
)
def test_is_the_algorithm(changed):
    settings = SETTINGS | changed
    b1, b2, eps, decay = settings.values()

    def transcription(x, gradients):
        m, v = np.zeros_like(x), np.zeros_like(x)
        for t, g in enumerate(gradients, 1):
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * g * g
            d1 = 1 + v / (v + eps) * b2**t
            d2 = 1 + m * m / (m * m + eps) * b1**t
            m_tilde = m / (1 - b1**t) * d1
            v_tilde = v / (1 - b2**t) * d2
            g_tilde = g / (1 - b1**t) * d1
            x = x * (1 - 0.03 * decay) - 0.03 * (m_tilde + g_tilde) / (np.sqrt(v_tilde) + eps)
            yield x

    assert_follows(exadam(0.03, **settings), transcription)


def test_first_step_by_hand():
    # b1 = b2 = 1/2, no eps: c = d = 3/2, m = g / 2, v = g^2 / 2; u = 3/2 (3/2 g) / (1/2) over
    # the root of 3/2 g^2, which is 3 sqrt(3/2).
    (x,) = walked(exadam(0.1, b1=0.5, b2=0.5, eps=0.0), jnp.array(1.0), [jnp.array(-4.0)])
    np.testing.assert_allclose(x, 1 + 0.3 * 1.5**0.5, rtol=1e-14)


def test_parameters_without_gradient_stay():
    path = walked(exadam(0.1), jnp.array([1.0, 2.0]), [jnp.array([0.0, 1.0])] * 3)
    np.testing.assert_array_equal([x[0] for x in path], 1.0)


@pytest.mark.parametrize(
    ("name", "value", "range"),
    [
        ("b1", 1.0, "[0, 1)"),
        ("b2", float("nan"), "[0, 1)"),
        ("eps", -1e-8, "[0, inf)"),
        ("weight_decay", -0.1, "[0, inf)"),
        ("learning_rate", "fast", "[0, inf)"),
    ],
)
def test_unfit_hyperparameters_are_refused_in_one_sentence(name, value, range):
    says = f"`{name}` of exadam must be a number in {range}, got {value!r}."
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        exadam(**{name: value})
