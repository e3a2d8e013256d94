"""DampedNewton against a transcription in NumPy, thresholds by hand, and problems with bounds."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
import scipy.optimize

import raphson as rp
from raphson.problems import cutest, cutest_best, logistic
from raphson.smooth import DampedNewton
from raphson.smooth.damped_newton import _damping
from tests.smooth.paths import path

START = np.array([3.0, -2.0, 1.0])
POWERS = pytest.mark.parametrize("q", [3, 4])


def bowl(y, args):
    A, b = args
    return jnp.sum(jnp.sqrt(1 + (A @ y - b) ** 2)) + jnp.vdot(y, y) / 200


def stated():
    """A bowl that is nearly a cone from afar, and its NumPy oracle."""
    rng = np.random.default_rng(0)
    A, b = rng.normal(size=(5, 3)), rng.normal(size=5)

    def oracle(y):
        u = A @ y - b
        root = np.sqrt(1 + u**2)
        H = (A.T / root**3) @ A + np.eye(3) / 100
        return np.sum(root) + y @ y / 200, A.T @ (u / root) + y / 100, H

    return rp.Minimize(bowl, START, (jnp.array(A), jnp.array(b))), oracle


def damping(c, q):
    return scipy.optimize.brentq(lambda a: a + c * a ** (q - 1) - 1, 0, 1, xtol=1e-15)


def steps(oracle, y, q, M, count):
    """Iterates, M, and whether the step was accepted; M None is adaptive."""
    value, g, H = oracle(y)
    adaptive, M = M is None, 1.0 if M is None else M
    for _ in range(count):
        n = np.linalg.solve(H, g)
        G = np.sqrt(g @ n)
        a = damping(M * G ** (q - 2), q)
        value_there, g_there, H_there = oracle(y - a * n)
        accepted = not adaptive or value - value_there >= a * G**2 / 4
        if accepted:
            y, value, g, H = y - a * n, value_there, g_there, H_there
        if adaptive:
            M *= 0.5 if accepted else 2
        yield y, M, accepted


@pytest.mark.parametrize("M", [0.7, None])
@POWERS
def test_steps_are_those_of_the_paper(q, M):
    problem, oracle = stated()
    ys, states = path(problem, DampedNewton(q, None if M is None else jnp.array(M)), 7)
    verdicts = []
    for t, (y, smoothness, accepted) in enumerate(steps(oracle, START, q, M, 7), 1):
        np.testing.assert_allclose(ys[t], y, rtol=1e-10, atol=1e-11)
        np.testing.assert_allclose(states.smoothness[t], smoothness, rtol=0)
        np.testing.assert_allclose(states.value[t], oracle(y)[0], rtol=1e-11)
        np.testing.assert_allclose(states.gradient[t], oracle(y)[1], rtol=0, atol=1e-10)
        verdicts.append(accepted)
    assert M is not None or (any(verdicts) and not all(verdicts))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@POWERS
def test_the_damping_solves_its_equation(q, dtype):
    small, great = (1e-300, 1e300) if dtype == np.float64 else (1e-37, 1e37)
    c = np.array([0, small, 1e-9, 1e-3, 0.1, 1, 7, 1e3, 1e9, great], dtype)
    a = np.asarray(jax.vmap(lambda c: _damping(c, q))(c))
    assert a.dtype == dtype and np.all(a > 0)
    a, c = a.astype(float), c.astype(float)
    np.testing.assert_allclose(a + c * a ** (q - 1), 1, rtol=200 * np.finfo(dtype).eps)


@pytest.mark.parametrize(("share", "factor"), [(0.99, 2.0), (1.01, 0.5)])
@POWERS
def test_the_verdict_turns_at_a_quarter(q, share, factor):
    # On 3/2 y^2, told a wrong Hessian and an M that makes a = 1/2, the step from 1 is -s, and
    # `share` is by construction the fall in units of a G^2 / 4.
    a, s = 0.5, 2 - share / 2
    H = 3 * a / s
    M = (1 - a) / (a ** (q - 1) * (3 / np.sqrt(H)) ** (q - 2))
    problem = rp.Minimize(
        lambda y, _: 1.5 * jnp.vdot(y, y),
        jnp.ones(1),
        jnp.array([H]),
        hessian=lambda y, H: lx.DiagonalLinearOperator(H),
    )
    method = DampedNewton(q)
    state = method.init(problem, problem.y0, None)
    state = eqx.tree_at(lambda s: s.smoothness, state, jnp.array(M))
    y, state = eqx.filter_jit(method.step)(problem, problem.y0, state)
    np.testing.assert_allclose(y, [1 - s if factor < 1 else 1], rtol=1e-10)
    np.testing.assert_allclose(state.smoothness, M * factor)


@POWERS
def test_falls_by_a_quarter_where_the_theory_says_so(q):
    # On y - log y, on the way up, the third and fourth derivative are at most L = 2 and 6 in the
    # local norm of where a step begins.
    M = {3: 2 / 2, 4: 7 * 6 / 18}[q]
    problem = rp.Minimize(lambda y, _: y - jnp.log(y), 0.5)
    step = eqx.filter_jit(DampedNewton(q, jnp.array(M)).step)
    for y in (1e-6, 0.1, 0.5, 0.9):
        state = DampedNewton(q, M).init(problem, jnp.array(y), None)
        there, _ = step(problem, jnp.array(y), state)
        G, a = 1 - y, (float(there) / y - 1) / (1 - y)
        np.testing.assert_allclose(a + M * G ** (q - 2) * a ** (q - 1), 1, rtol=1e-9)
        assert (y - np.log(y)) - (there - np.log(there)) >= a * G**2 / (2 if q == 3 else 4)


@POWERS
def test_oracle_calls(q):
    # A step that is taken back costs a value and a gradient too, but no Hessian.
    problem, oracle = stated()
    accepted = sum(verdict for _, _, verdict in steps(oracle, START, q, None, 7))
    assert 2 <= accepted < 7
    method = DampedNewton(q)
    solution = rp.solve(rp.Counted(problem), method, rtol=0, atol=0, max_steps=7, throw=False)
    counts = {name: int(count) for name, count in solution.stats.counts.items() if count > 0}
    assert counts == {"value": 8, "gradient": 8, "hessian": 1 + accepted}


@POWERS
def test_convergence_is_quadratic(q):
    problem, _ = stated()
    _, states = path(problem, DampedNewton(q), 20)
    norms = np.linalg.norm(states.gradient, axis=1)
    norms = norms[np.append(True, np.diff(norms) != 0)]
    local = (norms[:-1] < 1e-1) & (norms[1:] > 1e-13)
    assert np.sum(local) >= 2
    assert np.all(norms[1:][local] <= 10 * norms[:-1][local] ** 2)


@pytest.mark.parametrize(("H", "instead"), [(-4.0, 4.0), (0.0, 1.0), (np.nan, 1.0)])
def test_where_the_hessian_is_not_positive_a_step_follows_the_gradient(H, instead):
    problem = rp.Minimize(
        lambda y, _: y**2 / 2,
        3.0,
        H,
        hessian=lambda y, H: lx.DiagonalLinearOperator(H * jnp.ones(1)),
    )
    ys, _ = path(problem, DampedNewton(3, jnp.array(2.0)), 1)
    G = 3 / np.sqrt(instead)
    a = (np.sqrt(1 + 8 * G) - 1) / (4 * G)
    np.testing.assert_allclose(ys[1], 3 - a * 3 / instead, rtol=1e-13)


@POWERS
def test_finds_the_minimizer_from_where_newton_diverges(q):
    problem = logistic("breast_cancer")
    far = eqx.tree_at(lambda p: p.y0, problem, jnp.full_like(problem.y0, 10.0))
    solution = rp.solve(far, DampedNewton(q), rtol=0.0, atol=1e-12, max_steps=30)
    np.testing.assert_allclose(solution.value, problem.facts.minimizer, atol=1e-9)


@pytest.mark.parametrize("name", ["BEALE", "BROWNDEN"])
def test_reaches_the_best_value_known(name):
    problem = cutest(name)
    solution = rp.solve(problem, DampedNewton(), rtol=0.0, atol=1e-6)
    best = cutest_best(name)
    assert float(problem.value(solution.value)) <= best + 1e-12 * (1 + abs(best))


@pytest.mark.parametrize(
    ("rise", "slope", "accepted"), [(8, 0.9, True), (12, 0.9, False), (8, 1.1, False)]
)
def test_a_rise_within_rounding_is_forgiven_if_the_gradient_falls(rise, slope, accepted):
    problem = rp.Minimize(
        lambda y, args: jnp.where(y < 0.9, 1 + args[0] * jnp.finfo(y.dtype).eps, 1.0),
        1.0,
        (float(rise), slope),
        gradient=lambda y, args: jnp.where(y < 0.9, args[1], 1.0),
        hessian=lambda y, _: lx.DiagonalLinearOperator(jnp.ones(1)),
    )
    ys, _ = path(problem, DampedNewton(), 1)
    np.testing.assert_allclose(ys[1], (3 - np.sqrt(5)) / 2 if accepted else 1.0)


def test_ends_where_a_step_moves_nothing():
    # No number's cube is within 2 units in the last place of 13: the slope never rounds to 0.
    problem = rp.Minimize(lambda y, _: y**4 / 4 - 13 * y, 1.0)
    solution = rp.solve(problem, DampedNewton(), rtol=0, atol=0, throw=False)
    assert rp.status_name(solution.status) in ("stalled", "precise")
    assert int(solution.stats.steps) < 100 and float(solution.certificate.residual) > 0
    np.testing.assert_allclose(solution.value, np.cbrt(13), rtol=4e-16)
