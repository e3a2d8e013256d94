"""AdaMomentum against a transcription in NumPy and steps worked by hand."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from raphson.train import adamomentum
from tests.train.walk import assert_follows, walked

SETTINGS = {"b1": 0.8, "b2": 0.95, "eps": 1e-4, "weight_decay": 0.1}


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
            v = b2 * v + (1 - b2) * m * m + eps
            u = m / (1 - b1**t) / np.sqrt(v / (1 - b2**t))
            x = x - 0.03 * (u + decay * x)
            yield x

    assert_follows(adamomentum(0.03, **settings), transcription)


def test_first_step_is_long():
    # m = g / 10 and v = (1 - b2) m^2, so that u = g / |m| = 10.
    (x,) = walked(adamomentum(0.1, eps=0.0), jnp.array(3.0), [jnp.array(5.0)])
    np.testing.assert_allclose(x, 2.0, rtol=1e-14)


def test_parameters_without_gradient_stay():
    path = walked(adamomentum(0.1), jnp.array([1.0, 2.0]), [jnp.array([0.0, 1.0])] * 3)
    np.testing.assert_array_equal([x[0] for x in path], 1.0)


def test_donated_it_moves_no_more_memory_than_adamw():
    x = jnp.ones((512, 512))

    def traffic(optimizer):
        def step(x, state, gradient):
            updates, state = optimizer.update(gradient, state, x)
            return optax.apply_updates(x, updates), state

        compiled = jax.jit(step, donate_argnums=(0, 1)).lower(x, optimizer.init(x), x).compile()
        return compiled.cost_analysis()["bytes accessed"]

    assert traffic(adamomentum(0.1)) < 1.01 * traffic(optax.adamw(0.1))


@pytest.mark.parametrize(
    ("name", "value", "range"),
    [
        ("b1", 1.0, "[0, 1)"),
        ("b2", -0.1, "[0, 1)"),
        ("eps", -1e-8, "[0, inf)"),
        ("weight_decay", float("nan"), "[0, inf)"),
        ("learning_rate", "fast", "[0, inf)"),
    ],
)
def test_unfit_hyperparameters_are_refused_in_one_sentence(name, value, range):
    says = f"`{name}` of adamomentum must be a number in {range}, got {value!r}."
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        adamomentum(**{name: value})
