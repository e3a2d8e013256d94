"""The normalization against NumPy, its two ends in Optax, the method it makes, and 0."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from raphson.problems import rosenbrock
from raphson.smooth import NormalizedGradient
from raphson.train import normalize_by_gradient_power
from tests.smooth.paths import path
from tests.train.walk import data, walked


@pytest.mark.parametrize("power", [0.0, 0.4, 1.0])
def test_divides_by_the_power_of_the_norm_over_all_leaves(power):
    x, (g,) = data(1)
    updates, _ = normalize_by_gradient_power(power).update(g, optax.EmptyState(), x)
    size = np.sqrt(sum(np.sum(leaf**2) for leaf in g))
    for ours, leaf in zip(updates, g, strict=True):
        np.testing.assert_allclose(ours, leaf / size**power, rtol=1e-13)


def test_with_power_1_it_is_optax():
    x, gradients = data(5)
    pair = (normalize_by_gradient_power(), optax.normalize_by_update_norm())
    paths = (walked(optax.chain(by, optax.sgd(0.1)), x, gradients) for by in pair)
    for ours, theirs in zip(*paths, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_before_sgd_it_is_the_method(power):
    problem = rosenbrock(4)
    optimizer = optax.chain(normalize_by_gradient_power(power), optax.sgd(0.01))
    ys, _ = path(problem, NormalizedGradient(0.01, power), 8)
    y, state = problem.y0, optimizer.init(problem.y0)
    for expected in ys[1:]:
        updates, state = optimizer.update(problem.gradient(y), state, y)
        y = optax.apply_updates(y, updates)
        np.testing.assert_allclose(y, expected, rtol=1e-12)


@pytest.mark.parametrize("power", [0.0, 0.4, 1.0])
def test_0_stays_0_and_has_a_derivative(power):
    transformation = normalize_by_gradient_power(power)

    def total(g):
        return jnp.sum(transformation.update(g, optax.EmptyState())[0])

    assert total(jnp.zeros(3)) == 0
    assert np.all(np.isfinite(jax.grad(total)(jnp.zeros(3))))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64])
def test_updates_are_as_gradients_and_norms_at_least_single(dtype):
    g = {"w": jnp.full((2, 3), 300, dtype), "frozen": None}  # 300 squared is too much for float16
    transformation = normalize_by_gradient_power(1.0)
    updates, _ = jax.jit(transformation.update)(g, transformation.init(g))
    assert updates["w"].dtype == dtype and updates["frozen"] is None
    np.testing.assert_allclose(np.asarray(updates["w"], float), 6**-0.5, rtol=1e-2)


def test_the_power_is_injected_and_mapped_over():
    x, gradients = data(2)
    plain = walked(normalize_by_gradient_power(0.3), x, gradients)[-1][1]
    injected = optax.inject_hyperparams(normalize_by_gradient_power)(0.3)
    np.testing.assert_allclose(walked(injected, x, gradients)[-1][1], plain, rtol=1e-6)
    last = jax.vmap(lambda p: walked(normalize_by_gradient_power(p), x, gradients)[-1])(
        jnp.array([0.0, 0.3])
    )
    np.testing.assert_allclose(last[1][1], plain, rtol=1e-12)


@pytest.mark.parametrize("power", [-0.1, 1.5])
def test_powers_outside_the_range_are_refused(power):
    with pytest.raises(ValueError, match="^`power` of normalize_by_gradient_power must be"):
        normalize_by_gradient_power(power)
