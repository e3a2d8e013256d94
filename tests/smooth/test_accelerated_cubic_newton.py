"""AcceleratedCubicNewton against a transcription in NumPy, its bound, and counts made by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import raphson as rp
from raphson.problems import load, logistic_synthetic, quadratic
from raphson.smooth import AcceleratedCubicNewton
from tests.smooth.paths import path

N = 4


def cubic(H, g, M):
    """The least point of the cubic model of a convex f, by the equation for s = M |h| / 2."""
    step = lambda s: -np.linalg.solve(H + s * np.eye(len(g)), g)
    excess = lambda s: np.linalg.norm(step(s)) - 2 * s / M
    return step(scipy.optimize.brentq(excess, 1e-25, 2 * np.sqrt(M * np.linalg.norm(g)) + 1e-9))


def losses(features, labels, mu):
    """The mean logistic loss in NumPy: value, gradient and Hessian."""

    def oracle(y):
        z = labels * (features @ y)
        p = 1 / (1 + np.exp(z))
        value = np.mean(np.logaddexp(0, -z)) + mu / 2 * y @ y
        gradient = -features.T @ (labels * p) / len(z) + mu * y
        return value, gradient, (features.T * (p * (1 - p))) @ features / len(z) + mu * np.eye(N)

    return oracle


def steps(draw, exact, y, count, L=None, sigma=0.0, delta=0.0, R=1.0, sampled=False):
    """x, L and k after each step; `draw(t)` gives the oracles of the two batches of step t."""
    adaptive, start = L is None, y
    x, s, k, greatest = y, np.zeros(N), 0, 0.0
    value = exact(y)[0]
    for t in range(count):
        one, other = draw(t)
        d = 2 * delta + (k + 3) ** 1.5 * sigma / R
        b = 3 * d * (k + 1) * (k + 2) / (k + 3)
        if L is None:
            _, g, H = one(y)
            L = 0.1 * np.linalg.norm(H, 2) ** 2 / np.linalg.norm(g)
        N3 = 12 * max(greatest, L)
        # The least point of <s, z> + b/2 |z|^2 + N/6 |z|^3 lies at the length where its slope is 0.
        size = np.linalg.norm(s)
        length = max(np.roots([N3 / 2, b, -size]).real)
        v = start - (length / size * s if size else 0)
        middle = (k * x + 3 * v) / (k + 3)
        _, g, H = one(middle)
        h = cubic(H + d * np.eye(N), g, 2 * L)
        value_there, slope_there = other(middle + h)[:2]
        judge = one(middle + h)[1]
        gain, size = -judge @ h, np.linalg.norm(judge)
        if adaptive and gain < (2 / 3 / L) ** 0.5 * size**1.5 and 4 * d * gain < size**2:
            L = 4 * L
        else:
            s = s + (k + 1) * (k + 2) / 2 * slope_there
            k, greatest = k + 1, max(greatest, L)
            if value_there < value or sigma or sampled:
                x, value = middle + h, value_there
            if adaptive and gain >= (8 / 9 / L) ** 0.5 * size**1.5:
                L = L / 4
        yield x, L, k


def logistic(**options):
    problem = logistic_synthetic(40, N, regularization=1e-2, **options)
    far = eqx.tree_at(lambda p: p.y0, problem, jnp.array([6.0, -5.0, 4.0, 3.0]))
    return far, losses(*map(np.asarray, problem.data), problem.args)


OPTIONS = [
    {"L": 0.5},
    {"L": 5e-3},
    {},
    {"L": 0.5, "delta": 0.1},
    {"L": 0.5, "sigma": 0.02, "R": 3.0},
    {"sigma": 0.02, "delta": 0.1, "R": 3.0},
]


def method_of(L=None, sigma=0.0, delta=0.0, R=1.0):
    return AcceleratedCubicNewton(None if L is None else jnp.array(L), sigma, delta, R)


@pytest.mark.parametrize("options", OPTIONS)
def test_steps_are_those_of_the_paper(options):
    problem, oracle = logistic()
    ys, states = path(problem, method_of(**options), 12)
    expected = list(
        steps(lambda _: (oracle, oracle), oracle, np.asarray(problem.y0), 12, **options)
    )
    for t, (x, L, k) in enumerate(expected, 1):
        np.testing.assert_allclose(ys[t], x, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(states.lipschitz[t], L, rtol=1e-12)
        assert states.count[t] == k
        np.testing.assert_allclose(states.value[t], oracle(x)[0], rtol=1e-10)
        np.testing.assert_allclose(states.gradient[t], oracle(x)[1], atol=1e-10)


@pytest.mark.parametrize("options", [{"L": 0.5, "sigma": 0.3, "R": 3.0}, {"sigma": 0.3, "R": 3.0}])
def test_steps_on_batches(options):
    problem, exact = logistic(batch_size=8)
    method, key = method_of(**options), jax.random.key(3)
    state, y, ys, batches = method.init(problem, problem.y0, key), problem.y0, [], []
    step = eqx.filter_jit(method.step)
    for _ in range(8):
        one, other, _ = jax.random.split(state.key, 3)
        batches.append([losses(*map(np.asarray, problem.sample(k)), 1e-2) for k in (one, other)])
        y, state = step(problem, y, state)
        ys.append(y)
    start = np.asarray(problem.y0)
    expected = steps(batches.__getitem__, exact, start, 8, sampled=True, **options)
    xs, _, counts = zip(*expected, strict=True)
    np.testing.assert_allclose(ys, xs, rtol=1e-8)
    assert int(state.count) == counts[-1]


def test_verdicts_turn_at_their_thresholds():
    # On |y|^3 / 6 from y = 1, where g = 1/2 and H = 1, the step h of M = 2 L leads to y = 1 + h
    # with a gradient of (1 + h)^2 / 2: what it gains is known for each L.
    problem = rp.Minimize(lambda y, _: jnp.abs(y[0]) ** 3 / 6, jnp.ones(1))
    method = AcceleratedCubicNewton()
    state = method.init(problem, problem.y0, None)
    step = eqx.filter_jit(method.step)
    for L in np.geomspace(1e-3, 30, 40):
        h = -1 / (1 + np.sqrt(1 + 2 * L))
        kept = np.sqrt(L) * -h / ((1 + h) ** 2 / 2) ** 0.5
        factor = 4 if kept < np.sqrt(2 / 3) else 0.25 if kept >= np.sqrt(8 / 9) else 1
        y, after = step(
            problem, problem.y0, eqx.tree_at(lambda s: s.lipschitz, state, jnp.array(L))
        )
        np.testing.assert_allclose(after.lipschitz, factor * L)
        np.testing.assert_allclose(y, [1 + h if factor < 4 else 1], rtol=1e-12)
        # At the true constant, 1, the theory lets no step fail.
        assert factor < 4 or L < 1


@pytest.mark.parametrize("careful", [1.0, 10.0])
def test_the_bound_holds(careful):
    problem, _ = logistic()
    facts = problem.facts
    L, R = careful * facts.hessian_lipschitz, jnp.linalg.norm(problem.y0 - facts.minimizer)
    _, states = path(problem, AcceleratedCubicNewton(jnp.array(L)), 60)
    k = np.arange(1, 61)
    assert np.all(states.value[1:] - facts.optimum <= 12 * L * R**3 / (k * (k + 1) * (k + 2)))
    assert np.all(np.diff(states.value) <= 1e-15)


def test_oracle_calls():
    problem, _ = logistic(batch_size=8)
    for method, gradients in ((AcceleratedCubicNewton(1.0), 2), (AcceleratedCubicNewton(), 3)):
        solution = rp.solve(
            rp.Counted(problem), method, key=jax.random.key(0), max_steps=5, throw=False
        )
        counts = {name: int(count) for name, count in solution.stats.counts.items()}
        assert counts["gradient"] == 1 + 5 * gradients and counts["hessian"] == 5


def test_fits_real_data():
    problem = load("logistic/breast_cancer", regularization=1e-2)
    solution = rp.solve(problem, AcceleratedCubicNewton(), max_steps=60, throw=False)
    first, last = (problem.value(y) - problem.facts.optimum for y in (problem.y0, solution.value))
    assert last < 1e-5 * first


def test_ends_where_nothing_is_left_to_gain():
    solution = rp.solve(quadratic(), AcceleratedCubicNewton(), rtol=0, atol=0, throw=False)
    assert rp.status_name(solution.status) in ("stalled", "precise")
    assert int(solution.stats.steps) < 1000
    assert float(solution.certificate.residual) < 1e-14


@pytest.mark.parametrize("field", ["hessian_lipschitz", "distance"])
def test_refuses_what_is_not_positive(field):
    with pytest.raises(ValueError, match=f"`{field}` of AcceleratedCubicNewton must be"):
        AcceleratedCubicNewton(**{field: 0.0})
