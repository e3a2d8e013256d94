"""Self-distillation against its steps one by one, its limits, and a search for the weight."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from raphson.train import distillation_weight, self_distilled

RNG = np.random.default_rng(0)
X = np.sort(RNG.uniform(-2, 2, 30))
K = np.exp(-((X[:, None] - X) ** 2))
Y = np.sin(3 * X) + 0.3 * RNG.normal(size=30)
SMOOTHER = K @ np.linalg.inv(K + 0.1 * np.eye(30))


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_follows_the_steps(weight, steps):
    y = Y
    for _ in range(steps):
        y = SMOOTHER @ (weight * Y + (1 - weight) * y)
    np.testing.assert_allclose(self_distilled(K, Y, 0.1, weight, steps), y, atol=1e-10)


def test_the_limit_is_a_larger_ridge():
    limit = K @ np.linalg.solve(K + 0.1 / 0.3 * np.eye(30), Y)
    np.testing.assert_allclose(self_distilled(K, Y, 0.1, 0.3, 200), limit, atol=1e-10)


def test_several_targets_in_single_precision():
    y = jnp.asarray(np.stack([Y, Y**2], axis=1), jnp.float32)
    fit = jax.jit(self_distilled, static_argnums=4)(jnp.asarray(K, jnp.float32), y, 0.1, 0.3, 3)
    assert fit.dtype == jnp.float32
    each = [self_distilled(K, np.asarray(column, float), 0.1, 0.3, 3) for column in y.T]
    np.testing.assert_allclose(fit, np.stack(each, axis=1), atol=1e-4)


def test_the_weight_is_the_best_of_a_search():
    f, g, v = RNG.normal(size=(3, 40, 2))
    weights = np.linspace(-2, 3, 50_001)
    fits = weights[:, None, None] * f + (1 - weights[:, None, None]) * g
    best = weights[np.argmin(np.sum((fits - v) ** 2, axis=(1, 2)))]
    np.testing.assert_allclose(distillation_weight(f, g, v), best, atol=1e-4)
    assert distillation_weight(f, f, v) == 1
    assert distillation_weight(v, g, v) == 1 and distillation_weight(f, v, v) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((0.0, 0.5, 1), "`ridge` of self_distilled must be a number in (0, inf), got 0.0."),
        ((0.1, 1.5, 1), "`weight` of self_distilled must be a number in [0, 1], got 1.5."),
        ((0.1, 0.5, 0), "`steps` must be a whole number of at least 1, got 0."),
    ],
)
def test_unfit_arguments_are_refused_in_one_sentence(arguments, says):
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        self_distilled(K, Y, *arguments)
