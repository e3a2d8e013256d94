"""Truncated Gauss-Newton against Steihaug's algorithm in NumPy, and on systems of many unknowns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.roots import TruncatedGaussNewton
from tests.smooth.paths import path
from tests.smooth.trust_region import START, iterates


def equations(y, _):
    """Rosenbrock's chain as ten equations in six unknowns."""
    return jnp.concatenate([10 * (y[1:] - y[:-1] ** 2), 1 - y[:-1]])


def squares(y):
    """|F|^2 / 2, its gradient and J'J, by hand."""
    F = np.concatenate([10 * (y[1:] - y[:-1] ** 2), 1 - y[:-1]])
    J = np.zeros((10, 6))
    for i in range(5):
        J[i, i], J[i, i + 1], J[5 + i, i] = -20 * y[i], 10, -1
    return F @ F / 2, J.T @ F, J.T @ J


@pytest.mark.parametrize("radius", [None, 0.3, 50.0])
def test_steps_are_those_of_steihaug(radius):
    problem = rp.LeastSquares(equations, START)
    y, state = path(problem, TruncatedGaussNewton(radius), 10)
    right = list(iterates(START, radius, 10, 0.1, fn=squares))
    np.testing.assert_allclose(y[1:], [point for point, _, _ in right], rtol=1e-8)
    np.testing.assert_allclose(state.newton.region.radius[1:], [r for _, r, _ in right], rtol=1e-8)


def broyden(y, shift):
    """Broyden's tridiagonal system."""
    padded = jnp.pad(y, 1)
    return (3 - 2 * y) * y - padded[:-2] - 2 * padded[2:] + shift


def test_root_of_many_unknowns_needs_no_matrix():
    n = 20_000  # a Jacobian would have 3 gigabytes
    solution = rp.root(broyden, -jnp.ones(n), 1.0, rtol=0.0, atol=1e-10)
    assert "TruncatedGaussNewton" in solution.stats.method
    assert float(jnp.max(jnp.abs(broyden(solution.value, 1.0)))) <= 1e-10
    counts = rp.solve(
        rp.Counted(rp.RootFind(broyden, -jnp.ones(n), 1.0)), TruncatedGaussNewton()
    ).stats.counts
    assert int(counts["jacobian"]) == 0 and int(counts["product"]) > 0


def test_a_singular_start_is_left():
    # Newton's step does not exist at 0, where the Jacobian of the first equation vanishes.
    fn = lambda y, _: jnp.stack([y[0] ** 2 + y[1] - 1, y[1] - 0.5])
    solution = rp.solve(rp.RootFind(fn, jnp.array([1e-8, 3.0])), TruncatedGaussNewton())
    np.testing.assert_allclose(jnp.abs(solution.value), [0.5**0.5, 0.5], rtol=1e-6)


def test_what_has_no_root_says_so():
    problem = rp.RootFind(lambda y, _: y**2 + 1, jnp.array([1.0]))
    solution = rp.solve(problem, TruncatedGaussNewton(), throw=False)
    assert rp.status_name(solution.status) == "not_a_root"
    assert int(solution.stats.steps) < 200


def test_a_fit_ends_at_the_closed_form():
    rng = np.random.default_rng(0)
    A, b = rng.normal(size=(30, 4)), rng.normal(size=30)
    problem = rp.LeastSquares(lambda y, data: data[0] @ y - data[1], jnp.zeros(4), (A, b))
    solution = rp.solve(problem, TruncatedGaussNewton(), rtol=0.0, atol=1e-12)
    np.testing.assert_allclose(solution.value, np.linalg.lstsq(A, b)[0], rtol=1e-10)


def test_fixed_points_and_single_precision():
    fn = lambda y, _: jnp.cos(y)
    solution = rp.solve(rp.FixedPoint(fn, jnp.float32(0.5)), TruncatedGaussNewton(), atol=1e-6)
    assert solution.value.dtype == jnp.float32
    np.testing.assert_allclose(solution.value, 0.739085, rtol=1e-6)


def test_other_data_compile_nothing():
    traced = 0

    def fn(y, shift):
        nonlocal traced
        traced += 1
        return y**3 - shift

    rp.solve(rp.RootFind(fn, jnp.ones(2), 2.0), TruncatedGaussNewton(1.0))
    first = traced
    jax.block_until_ready(
        rp.solve(rp.RootFind(fn, 2 * jnp.ones(2), 3.0), TruncatedGaussNewton(2.0)).value
    )
    assert traced == first
