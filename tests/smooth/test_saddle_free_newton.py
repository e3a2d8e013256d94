"""SaddleFreeNewton against |H| as the root of H^2, Krylov spaces by QR, and closed forms."""

import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
import scipy.linalg

import raphson as rp
from raphson.problems import cutest, cutest_best
from raphson.smooth import SaddleFreeNewton
from tests.smooth.paths import path

N = 4
START = np.array([0.3, -0.2, 0.1, 0.3])


def quartic(y, args):
    A, b = args
    return jnp.vdot(y, A @ y) / 2 + jnp.sum(y**4) / 4 - jnp.vdot(b, y)


def stated():
    """A quartic with two directions of negative curvature near 0, and its NumPy oracle."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(N, N)))[0]
    A, b = (basis * np.linspace(-2, 3, N)) @ basis.T, rng.normal(size=N)

    def oracle(y):
        value = y @ A @ y / 2 + np.sum(y**4) / 4 - b @ y
        return value, A @ y + y**3 - b, A + 3 * np.diag(y**2)

    return rp.Minimize(quartic, START, (jnp.array(A), jnp.array(b))), oracle


def known(H, g, move, rank):
    """|H| on the Krylov space, an orthonormal basis of it, and the largest curvature there."""
    Q = np.eye(len(g))
    if rank is not None and rank < len(g):
        span = [np.linalg.matrix_power(H, i) @ g for i in range(rank)]
        span += [move] if np.any(move) else []
        Q = np.linalg.qr(np.stack(span, 1))[0]
    T = Q.T @ H @ Q
    return scipy.linalg.sqrtm(T @ T).real, Q, np.linalg.norm(T, 2)


def steps(oracle, y, damping, rank, count):
    """Iterates and dampings; damping None is adaptive."""
    value, g, H = oracle(y)
    share, move = 1e-3, np.zeros_like(y)
    for _ in range(count):
        size, Q, largest = known(H, g, move, rank)
        before = y
        trial = lambda d: y - Q @ np.linalg.solve(size + d * np.eye(len(size)), Q.T @ g)  # noqa: B023
        if damping is not None:
            y, share = trial(damping), damping
        else:
            shares = share * 10.0 ** np.arange(-3, 4)
            values = [oracle(trial(d * largest))[0] for d in shares]
            best = int(np.argmin(values))
            fell = values[best] < value
            y, share = (trial(shares[best] * largest), shares[best]) if fell else (y, 1e6 * share)
        value, g, H = oracle(y)
        move = y - before if np.any(y != before) else move
        yield y, share


@pytest.mark.parametrize("rank", [None, 1, 2, 4, 9])
@pytest.mark.parametrize("damping", [0.5, None])
def test_steps_are_those_of_the_paper(damping, rank):
    problem, oracle = stated()
    method = SaddleFreeNewton(None if damping is None else jnp.array(damping), rank)
    ys, states = path(problem, method, 5)
    krylov = None if rank is None else min(rank, N)
    for t, (y, share) in enumerate(steps(oracle, START, damping, krylov, 5), 1):
        np.testing.assert_allclose(ys[t], y, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(states.damping[t], share, rtol=1e-9)
        np.testing.assert_allclose(states.value[t], oracle(y)[0], rtol=1e-9)
        np.testing.assert_allclose(states.gradient[t], oracle(y)[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("rank", [None, 3])
def test_leaves_a_saddle_by_a_factor_that_is_known(rank):
    # On a quadratic each entry is multiplied by 1 - l / (|l| + d), which is beyond 1 for l < 0.
    l, d = np.array([-1.0, -1e-3, 5.0]), 1e-4
    problem = rp.Minimize(lambda y, l: jnp.vdot(y, l * y) / 2, jnp.ones(3), jnp.array(l))
    ys, _ = path(problem, SaddleFreeNewton(d, rank), 3)
    factors = 1 - l / (np.abs(l) + d)
    np.testing.assert_allclose(ys[1:], factors ** np.arange(1, 4)[:, None], rtol=1e-6, atol=1e-9)


def test_a_krylov_space_that_ends_early_is_enough():
    # The gradient lies in the span of two eigenvectors.
    l = np.array([-2.0, 3.0, 3.0, 3.0, 3.0])
    problem = rp.Minimize(lambda y, l: jnp.vdot(y, l * y) / 2, jnp.ones(5), jnp.array(l))
    for damping in (0.1, None):
        dense, low, whole = (
            path(problem, SaddleFreeNewton(damping, rank), 2)[0] for rank in (None, 2, 5)
        )
        np.testing.assert_allclose(low, dense, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(whole, dense, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rank", [None, 3])
def test_oracle_calls(rank):
    problem, _ = stated()
    curvature = {"hessian": 4} if rank is None else {"product": 16}
    for damping, values in ((None, 7), (0.5, 1)):
        method = SaddleFreeNewton(damping, rank)
        solution = rp.solve(rp.Counted(problem), method, rtol=0, atol=0, max_steps=4, throw=False)
        counts = {name: int(count) for name, count in solution.stats.counts.items() if count > 0}
        assert counts == {"value": 1 + 4 * values, "gradient": 1 + 4, **curvature}


def test_products_do_not_form_the_hessian_of_many_unknowns():
    n = 50_000  # a matrix of 20 GB
    problem = rp.Minimize(lambda y, _: jnp.sum(jnp.cosh(y) - jnp.cos(3 * y)), jnp.full(n, 0.9))
    solution = rp.solve(problem, SaddleFreeNewton(rank=2), rtol=1e-9)
    assert np.all(np.abs(problem.gradient(solution.value)) < 1e-6)


def test_without_a_finite_hessian_a_step_follows_the_gradient():
    problem = rp.Minimize(
        lambda y, _: jnp.vdot(y, y) / 2,
        START,
        hessian=lambda y, _: lx.DiagonalLinearOperator(y * jnp.nan),
    )
    ys, _ = path(problem, SaddleFreeNewton(4.0), 1)
    np.testing.assert_allclose(ys[1], 0.75 * START, rtol=1e-14)
    ys, _ = path(problem, SaddleFreeNewton(), 1)  # which tries steps of g to 1e6 g
    np.testing.assert_allclose(ys[1], 0.0, atol=1e-15)


def test_a_step_that_does_not_lower_f_is_taken_back():
    # Told a Hessian far too small, the seven steps go from 1 to -5000 and beyond; the next seven
    # have d = 1 among them.
    problem = rp.Minimize(
        lambda y, _: y**2 / 2,
        1.0,
        hessian=lambda y, _: lx.DiagonalLinearOperator(jnp.full(1, 1e-4)),
    )
    ys, states = path(problem, SaddleFreeNewton(), 2)
    np.testing.assert_allclose(ys[1], 1.0)
    np.testing.assert_allclose(states.damping[1], 1e3)
    np.testing.assert_allclose(ys[2], 1 - 1 / 1.0001, rtol=1e-9)


@pytest.mark.parametrize(
    ("rise", "slope", "accepted"), [(4, 0.9, True), (12, 0.9, False), (4, 1.1, False)]
)
def test_a_rise_within_rounding_is_forgiven_if_the_gradient_falls(rise, slope, accepted):
    def fn(y, args):
        rise = args[0] * jnp.where(y < 5e-6, 2, 1)  # greatest for the least damping
        return jnp.where(y < 0.9, 1 + rise * jnp.finfo(y.dtype).eps, 1.0)

    problem = rp.Minimize(
        fn,
        1.0,
        (float(rise), slope),
        gradient=lambda y, args: jnp.where(y < 0.9, args[1], 1.0),
        hessian=lambda y, _: lx.DiagonalLinearOperator(jnp.ones(1)),
    )
    ys, states = path(problem, SaddleFreeNewton(), 1)
    # Of seven values that are equal but for rounding that of the least damping is taken.
    np.testing.assert_allclose(ys[1], 1 - 1 / (1 + 1e-6) if accepted else 1.0)


@pytest.mark.parametrize(("name", "rank"), [("HUMPS", None), ("BROWNDEN", None), ("BEALE", 2)])
def test_reaches_the_best_value_known(name, rank):
    problem = cutest(name)
    solution = rp.solve(problem, SaddleFreeNewton(rank=rank), rtol=0.0, atol=1e-6)
    best = cutest_best(name)
    assert float(problem.value(solution.value)) <= best + 1e-12 * (1 + abs(best))


def test_a_tree_takes_the_same_steps():
    flat, _ = stated()
    tree = rp.Minimize(
        lambda y, args: quartic(jnp.append(y["u"].ravel(), y["v"]), args),
        {"u": START[:3].reshape(3, 1), "v": START[3]},
        flat.args,
    )
    for rank in (None, 3):
        (ys, _), (trees, _) = (path(p, SaddleFreeNewton(rank=rank), 4) for p in (flat, tree))
        np.testing.assert_allclose(trees["u"][..., 0], ys[:, :3], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(trees["v"], ys[:, 3], rtol=1e-9, atol=1e-12)


def test_ends_where_a_step_moves_nothing():
    # No number's cube is within 2 units in the last place of 13: the slope never rounds to 0.
    problem = rp.Minimize(lambda y, _: y**4 / 4 - 13 * y, 1.0)
    solution = rp.solve(problem, SaddleFreeNewton(), rtol=0, atol=0, throw=False)
    assert rp.status_name(solution.status) in ("stalled", "precise")
    assert int(solution.stats.steps) < 30 and float(solution.certificate.residual) > 0
    np.testing.assert_allclose(solution.value, np.cbrt(13), rtol=4e-16)
