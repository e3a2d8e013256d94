"""diffGrad against a transcription in NumPy and steps worked by hand."""

import re

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from raphson.train import diffgrad
from tests.train.walk import assert_follows, data, walked


@pytest.mark.parametrize(
    "settings",
    [
        {"b1": 0.8, "b2": 0.95, "eps": 1e-3},
        {"b1": 0.0, "b2": 0.0, "eps": 0.1},
        {"b1": 0.9, "b2": 0.999, "eps": 1e-8},
    ],
)
def test_is_the_algorithm(settings):
    b1, b2, eps = settings.values()

    def transcription(x, gradients):
        m, v, before = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
        for t, g in enumerate(gradients, 1):
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * g * g
            c = 1 / (1 + np.exp(-np.abs(g - before)))
            step = 0.03 * np.sqrt(1 - b2**t) / (1 - b1**t)
            x = x - step * c * m / (np.sqrt(v) + eps)
            before = g
            yield x

    assert_follows(diffgrad(0.03, **settings), transcription)


def test_first_steps_by_hand():
    # Without eps, Adam's steps on a constant gradient are 1; the coefficient is that of |g - 0| = 2
    # at first, then that of no change, 1/2.
    path = walked(diffgrad(0.1, eps=0.0), jnp.array(1.0), [jnp.array(-2.0)] * 3)
    first = 0.1 / (1 + np.exp(-2))
    np.testing.assert_allclose(path, 1 + np.array([first, first + 0.05, first + 0.1]), rtol=1e-14)


def test_is_adam_where_gradients_change_wildly():
    x, gradients = data(10)
    gradients = [[1e6 * g for g in gradient] for gradient in gradients]
    for ours, adam in zip(
        walked(diffgrad(0.03), x, gradients), walked(optax.adam(0.03), x, gradients), strict=True
    ):
        for a, b in zip(ours, adam, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10)


@pytest.mark.parametrize(
    ("name", "value", "range"),
    [
        ("b1", 1.0, "[0, 1)"),
        ("b2", float("nan"), "[0, 1)"),
        ("eps", -1e-8, "[0, inf)"),
        ("learning_rate", "fast", "[0, inf)"),
    ],
)
def test_unfit_hyperparameters_are_refused_in_one_sentence(name, value, range):
    says = f"`{name}` of diffgrad must be a number in {range}, got {value!r}."
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        diffgrad(**{name: value})
