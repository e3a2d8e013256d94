"""Risk parity by coordinate descent against its formula in NumPy, and against other minimizers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.problems import factor_correlation, random_correlation, risk_parity
from raphson.smooth import RiskParity, RiskParityCCD

VARIANTS = pytest.mark.parametrize("variant", ["improved", "original"])


def sweep(C, b, y, variant):
    """Each coordinate at its minimum in turn, every product taken anew."""
    y = y.copy()
    for i in range(len(y)):
        v = np.sqrt(y @ C @ y / b.sum()) if variant == "original" else 1
        a = (C[i] @ y - C[i, i] * y[i]) / 2
        y[i] = (np.sqrt(a * a + C[i, i] * v * b[i]) - a) / C[i, i]
    return y * np.sqrt(b.sum() / (y @ C @ y)) if variant == "improved" else y


def stated(n, seed=0):
    """A covariance of no structure, budgets that are not equal, a start that is not even."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(n, n + 2)) * rng.uniform(0.1, 3, n)[:, None]
    return factors @ factors.T, rng.uniform(0.5, 2, n), rng.uniform(0.5, 2, n)


@VARIANTS
@pytest.mark.parametrize("n", [1, 3, 8, 13, 16])
def test_steps_are_sweeps_through_the_coordinates(n, variant):
    covariance, b, y = stated(n)
    s = np.sqrt(np.diag(covariance))
    C = covariance / np.outer(s, s)
    problem = RiskParity(jnp.array(covariance), jnp.array(b), jnp.array(y))
    method, got = RiskParityCCD(variant), problem.y0
    state, step = method.init(problem, got, None), jax.jit(method.step)
    for _ in range(3):
        y = sweep(C, b, y, variant)
        got, state = step(problem, got, state)
        np.testing.assert_allclose(got, y, rtol=1e-12)
        np.testing.assert_allclose(state.product, C @ y, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(
            method.known(problem, got, state).residual, C @ y - b / y, rtol=1e-10, atol=1e-11
        )


@VARIANTS
@pytest.mark.parametrize("make", [risk_parity, random_correlation, factor_correlation])
def test_ends_at_the_known_weights(make, variant):
    problem = make()
    solution = rp.solve(problem, RiskParityCCD(variant), rtol=0.0, atol=1e-12)
    np.testing.assert_allclose(solution.value, problem.facts.minimizer, rtol=1e-11)


def test_is_the_default_and_agrees_with_a_general_minimizer():
    problem = risk_parity(budget=[0.1, 0.1, 0.2, 0.3, 0.3])
    solution, general = rp.solve(problem), rp.solve(problem, rp.smooth.LazyNewton(), atol=1e-11)
    assert solution.stats.method == "RiskParityCCD"
    np.testing.assert_allclose(solution.value, general.value, rtol=1e-6)
    np.testing.assert_allclose(
        problem.weights(solution.value), [0.077, 0.025, 0.074, 0.648, 0.176], atol=5e-4
    )


def test_tiny_budgets_are_met_to_rounding():
    # Here sqrt(a^2 + b) - a cancels: the budget is 1e-14 of what the other asset makes of it.
    C, b = jnp.array([[1.0, 0.9], [0.9, 1.0]]), jnp.array([1.0, 1e-14])
    problem = RiskParity(C, b)
    y = rp.solve(problem, RiskParityCCD(), rtol=0.0, atol=1e-13, throw=False).value
    np.testing.assert_allclose(y * (C @ y), b, rtol=1e-12)


def test_sensitivity_of_the_weights_is_that_of_finite_differences():
    covariance, b, _ = stated(4)

    def first(b):
        problem = RiskParity(jnp.array(covariance), b)
        return problem.weights(rp.solve(problem, rtol=0.0, atol=1e-12).value)[0]

    h = 1e-5 * np.eye(4)
    differences = [(first(jnp.array(b + e)) - first(jnp.array(b - e))) / 2e-5 for e in h]
    np.testing.assert_allclose(jax.grad(first)(jnp.array(b)), differences, rtol=1e-6)


def test_rests_where_rounding_leaves_nothing():
    solution = rp.solve(random_correlation(20), rtol=0.0, atol=0.0, throw=False)
    assert rp.status_name(solution.status) in ("precise", "stalled")
    assert solution.stats.steps < 100 and solution.certificate.residual < 1e-14


def test_single_precision():
    problem = RiskParity(jnp.array(stated(9)[0], jnp.float32))
    solution = rp.solve(problem)
    assert solution.value.dtype == jnp.float32 and bool(solution.converged)


def test_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="`variant` of RiskParityCCD must be one of 'improved'"):
        RiskParityCCD("better")
