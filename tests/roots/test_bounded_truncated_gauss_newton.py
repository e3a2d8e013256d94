"""Bounded truncated Gauss-Newton: a transcription in NumPy, SciPy's fits, known answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.sparse

import raphson as rp
from raphson.defaults import choose
from raphson.roots import BoundedTruncatedGaussNewton
from tests.smooth.paths import path
from tests.smooth.trust_region import steihaug

INF = np.inf
LOWER, UPPER = np.array([-2.0, -0.5, -INF, 0.1]), np.array([0.9, INF, INF, 2.0])
START = np.array([-1.2, 1.0, -0.5, 1.0])


def chain(y, _=None):
    """Rosenbrock's chain as six equations."""
    return jnp.concatenate([10 * (y[1:] - y[:-1] ** 2), 1 - y[:-1]])


def chain_and_jacobian(y):
    F, J = np.concatenate([10 * (y[1:] - y[:-1] ** 2), 1 - y[:-1]]), np.zeros((6, 4))
    for i in range(3):
        J[i, i], J[i, i + 1], J[3 + i, i] = -20 * y[i], 10, -1
    return F, J


def scaled(y, g):
    """d of Coleman and Li, and C = max(0, g dd/dy)."""
    near = np.where(g > 0, y - LOWER, UPPER - y)
    bounded = np.isfinite(near)
    return np.where(bounded, near, 1), np.where(bounded, np.abs(g), 0)


def transcribed(y, radius, count):
    F, J = chain_and_jacobian(y)
    d, _ = scaled(y, J.T @ F)
    first = np.linalg.norm(np.sqrt(d) * (J.T @ F))
    for _ in range(count):
        g = J.T @ F
        d, C = scaled(y, g)
        root = np.sqrt(d)
        slope = np.linalg.norm(root * g)
        H = root[:, None] * (J.T @ J) * root + np.diag(C)
        s = steihaug(root * g, H, radius, min(0.1, np.sqrt(slope / first)) * slope)
        descent = -d * g
        along = J @ descent
        t = min(d @ g**2 / (along @ along), radius / np.linalg.norm(root * g))
        p = np.clip(y + root * s, LOWER, UPPER) - y
        steps = [max(0.99995, 1 - np.linalg.norm(p)) * p]
        for p in (root * s, t * descent):
            share = np.min(np.where(p > 0, UPPER - y, y - LOWER) / np.abs(p))
            steps.append((1 if share > 1 else max(0.99995, 1 - np.linalg.norm(p)) * share) * p)
        models = [p @ g + np.sum((J @ p) ** 2) / 2 for p in steps]
        p = steps[np.argmin(models)]
        after, jacobian = chain_and_jacobian(y + p)
        ratio = (F @ F - after @ after) / 2 / -min(models)
        if ratio < 0.25:
            radius = min(radius, np.linalg.norm(p / root)) / 4
        elif ratio >= 0.75 and np.linalg.norm(s) > 0.9 * radius:
            radius = 2 * radius
        if ratio >= 1e-4:
            y, F, J = y + p, after, jacobian
        yield y, radius


@pytest.mark.parametrize("radius", [None, 0.3])
def test_follows_the_formulas(radius):
    problem = rp.BoundedLeastSquares(chain, START, LOWER, UPPER)
    ys, states = path(problem, BoundedTruncatedGaussNewton(radius), 9)
    expected = list(transcribed(START, radius or np.linalg.norm(START), 9))
    np.testing.assert_allclose(ys[1:], [y for y, _ in expected], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(states.region.radius[1:], [r for _, r in expected], rtol=1e-7)
    # To a bound, and at some steps the region or the model was at fault.
    assert ys[-1, 3] - LOWER[3] < 1e-3 and len({r for _, r in expected}) > 2


def broyden(y, shift):
    """Broyden's tridiagonal system."""
    padded = jnp.pad(y, 1)
    return (3 - 2 * y) * y - padded[:-2] - 2 * padded[2:] + shift


def test_a_fit_of_many_unknowns_with_active_bounds_is_scipys():
    n = 1200
    lower = np.where(np.arange(n) % 3 == 0, -0.5, -1.0)
    problem = rp.BoundedLeastSquares(broyden, jnp.full(n, -0.2), lower, 0.0, 1.0)
    got = rp.solve(problem, rtol=0.0, atol=1e-9)
    assert got.stats.method == "BoundedTruncatedGaussNewton"

    def jacobian(y):
        return scipy.sparse.diags_array(
            [3 - 4 * y, -np.ones(n - 1), -2 * np.ones(n - 1)], offsets=[0, -1, 1], format="csr"
        )

    def residual(y):
        padded = np.pad(y, 1)
        return (3 - 2 * y) * y - padded[:-2] - 2 * padded[2:] + 1

    tight = dict.fromkeys(("xtol", "ftol", "gtol"), 1e-10)
    expected = scipy.optimize.least_squares(
        residual, np.full(n, -0.2), jacobian, (lower, 0.0), "trf", tr_solver="lsmr", **tight
    )
    held = expected.active_mask != 0
    assert 300 < np.sum(held) < 500
    np.testing.assert_allclose(got.value, expected.x, atol=1e-5)
    np.testing.assert_allclose(got.value[held], lower[held], atol=1e-9)
    # Ours is the better one.
    assert np.sum(np.square(residual(np.asarray(got.value)))) <= 2 * expected.cost


def test_a_linear_fit_ends_at_the_answer_known():
    problem = rp.problems.nonnegative_fit()
    solution = rp.solve(problem, BoundedTruncatedGaussNewton(), rtol=0.0, atol=1e-8)
    np.testing.assert_allclose(solution.value, problem.facts.minimizer, atol=1e-9)
    # Newton's step along the bounds: the convergence is fast, though |F| is not 0.
    assert int(solution.stats.steps) <= 10


def test_a_root_of_many_unknowns_needs_no_matrix():
    n = 20_000  # a Jacobian would have 3 gigabytes
    problem = rp.Counted(rp.BoundedRootFind(broyden, jnp.full(n, -0.2), -1.0, 0.0, 1.0))
    solution = rp.solve(problem, rtol=0.0, atol=1e-8)
    assert float(jnp.max(jnp.abs(broyden(solution.value, 1.0)))) <= 1e-8
    counts = solution.stats.counts
    assert int(counts["jacobian"]) == 0 and int(counts["product"]) > 0


@pytest.mark.parametrize("n, method", [(500, "TrustRegion"), (501, "TruncatedGaussNewton")])
def test_the_default_goes_by_the_number_of_unknowns(n, method):
    chosen, reason = choose(rp.BoundedRootFind(lambda y, _: y - 0.5, jnp.ones(n), 0.0, 2.0))
    assert type(chosen).__name__ == f"Bounded{method}"
    assert f"{n} unknowns within bounds" in reason


def test_a_root_in_a_corner():
    problem = rp.problems.brown_almost_linear()
    solution = rp.solve(problem, BoundedTruncatedGaussNewton(), rtol=0.0, atol=1e-9)
    np.testing.assert_allclose(solution.value, 1.0, atol=1e-8)


def test_stays_strictly_inside_where_the_function_is_defined():
    # F is NaN beyond the bounds, has no derivative on them, and there is its root.
    fn = lambda y, _: jnp.stack([jnp.sqrt(y[0]) - jnp.sqrt(y[1]), jnp.log(2 - y[1]) - jnp.log(2.0)])
    problem = rp.BoundedRootFind(fn, jnp.array([1.0, 1.9]), 0.0, jnp.array([INF, 2.0]))
    ys, _ = path(problem, BoundedTruncatedGaussNewton(), 40)
    assert np.all(ys > 0) and np.all(ys[:, 1] < 2)
    assert ys[-1].max() < 1e-4


def test_a_root_beyond_the_bounds_is_no_answer():
    problem = rp.BoundedRootFind(lambda y, _: y**2 - 4, jnp.array([1.5]), 0.0, 1.75)
    solution = rp.solve(problem, BoundedTruncatedGaussNewton(), throw=False)
    assert rp.status_name(solution.status) == "not_a_root"
    np.testing.assert_allclose(solution.value, 1.75, atol=1e-5)


def test_pytrees_in_single_precision():
    y0 = {"a": jnp.ones(2, jnp.float32), "b": jnp.float32(1.0)}
    lower = {"a": jnp.array([0.0, -INF]), "b": -2.0}
    fn = lambda y, _: [y["a"] - jnp.array([-1.0, -3.0], jnp.float32), y["b"] ** 2 - 1.5]
    problem = rp.BoundedLeastSquares(fn, y0, lower, 5.0)
    solution = rp.solve(problem, BoundedTruncatedGaussNewton())
    assert solution.value["a"].dtype == jnp.float32
    np.testing.assert_allclose(solution.value["a"], [0.0, -3.0], atol=1e-4)
    np.testing.assert_allclose(solution.value["b"], 1.5**0.5, rtol=1e-4)


def test_derivatives_of_a_fit_with_active_bounds():
    def fitted(shift):
        problem = rp.BoundedLeastSquares(
            lambda y, a: y - a * jnp.array([1.0, -1.0]), jnp.full(2, 0.5), 0.0, 1.0, shift
        )
        method = BoundedTruncatedGaussNewton()
        return rp.solve(problem, method, rtol=0.0, atol=1e-10, throw=False).value

    np.testing.assert_allclose(jax.jacrev(fitted)(0.25), [1.0, 0.0], atol=1e-10)


@pytest.mark.parametrize("bad", [{"radius": 0.0}, {"max_products": 0}])
def test_refuses(bad):
    with pytest.raises(ValueError, match=f"`{next(iter(bad))}`"):
        BoundedTruncatedGaussNewton(**bad)
