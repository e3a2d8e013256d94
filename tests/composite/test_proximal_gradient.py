"""Proximal gradient against NumPy, scikit-learn's lasso, SciPy, and its smooth cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from sklearn.linear_model import Lasso

import raphson as rp
from raphson.composite import L1, Ball, Box, ProximalGradient, Simplex
from raphson.problems import logistic_synthetic, quadratic
from raphson.smooth import GradientDescent, Nesterov
from tests.smooth.paths import path

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(30, 8)), RNG.normal(size=30)
START = RNG.normal(size=8)
WEIGHT = 0.2


def fit(y, data):
    A, b = data
    return jnp.mean((A @ y - b) ** 2) / 2


def lasso(h=None, y0=START):
    h = L1(WEIGHT) if h is None else h
    return rp.Composite(rp.Minimize(fit, y0, (jnp.array(A), jnp.array(B))), h)


def oracle(y):
    residual = A @ y - B
    return np.mean(residual**2) / 2, A.T @ residual / len(B)


def soft(y, t):
    return np.sign(y) * np.maximum(np.abs(y) - t, 0)


def stepped(y, s, L):
    """The step from y; without a step size L is doubled until f stays below its model."""
    value, slope = oracle(y)
    L = L if s is None else 1 / s
    while True:
        x = soft(y - slope / L, WEIGHT / L)
        model = value + slope @ (x - y) + L / 2 * (x - y) @ (x - y)
        if s is not None or oracle(x)[0] <= model:
            return x, L
        L *= 2


def ista(s, count):
    y, (x, L) = START, stepped(START, s, 1.0)
    for _ in range(count):
        yield y, x, L
        y, (x, L) = x, stepped(x, s, L / 2)


def fista(s, count):
    y, before, w = START, START, 1.0
    x, L = stepped(y, s, 1.0)
    for _ in range(count):
        yield y, x, L
        w, last = (1 + np.sqrt(1 + 4 * w**2)) / 2, w
        y, before = x + (last - 1) / w * (x - before), x
        x, L = stepped(y, s, L)


@pytest.mark.parametrize("s", [0.1, None])
@pytest.mark.parametrize("momentum", [False, True])
def test_steps_are_those_of_the_paper(momentum, s):
    method = ProximalGradient(s, momentum)
    ys, states = path(lasso(), method, 15)
    for t, (y, x, L) in enumerate((fista if momentum else ista)(s, 16)):
        np.testing.assert_allclose(ys[t], y, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(states.stepped[t], x, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(states.smoothness[t], L, rtol=1e-14)
        np.testing.assert_allclose(states.gradient[t], oracle(y)[1], rtol=1e-11)
    assert s is not None or np.any(states.smoothness != 1)


@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("weight", [0.3, 0.03])
def test_reaches_the_lasso_of_scikit_learn(weight, momentum):
    theirs = Lasso(alpha=weight, fit_intercept=False, tol=1e-14, max_iter=10_000).fit(A, B)
    ours = rp.solve(lasso(L1(weight)), ProximalGradient(momentum=momentum), atol=1e-10)
    np.testing.assert_allclose(ours.value, theirs.coef_, atol=1e-8)
    assert 0 < np.sum(theirs.coef_ == 0) == np.sum(np.asarray(ours.value) == 0)


def test_reaches_the_nonnegative_fit_of_scipy():
    theirs, _ = scipy.optimize.nnls(A, B)
    ours = rp.solve(lasso(Box(0.0, np.inf)), ProximalGradient(momentum=True), atol=1e-10)
    np.testing.assert_allclose(ours.value, theirs, atol=1e-8)


@pytest.mark.parametrize("h", [Ball(0.1), Simplex(), Box(-0.05, 0.05)])
def test_reaches_a_point_where_no_feasible_direction_descends(h):
    # <g, y - z> <= 0 for every z of the set: the least <g, z> over it is in closed form.
    y = np.asarray(rp.solve(lasso(h), atol=1e-10).value)
    g = oracle(y)[1]
    least = {Ball: -0.1 * np.linalg.norm(g), Simplex: np.min(g), Box: -0.05 * np.abs(g).sum()}
    assert g @ y == pytest.approx(least[type(h)], rel=1e-7)


@pytest.mark.parametrize(("s", "momentum"), [(0.2, False), (0.2, True), (None, True)])
def test_without_h_it_is_the_method_for_smooth_functions(s, momentum):
    smooth = logistic_synthetic(40, 5)
    ys, states = path(rp.Composite(smooth, L1(0.0)), ProximalGradient(s, momentum), 20)
    theirs, of_smooth = path(smooth, (Nesterov if momentum else GradientDescent)(s), 20)
    np.testing.assert_allclose(ys, theirs, rtol=1e-12, atol=1e-14)
    if momentum:
        np.testing.assert_allclose(states.stepped, of_smooth.descended, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("momentum", [False, True])
def test_rates_hold_at_every_step(momentum):
    count = 100
    for smooth in (quadratic(np.geomspace(0.02, 3, 5)), logistic_synthetic(40, 5)):
        L, mu = smooth.facts.lipschitz, smooth.facts.strong_convexity
        problem = rp.Composite(smooth, L1(0.02))
        best = rp.solve(problem, ProximalGradient(1 / L), atol=1e-13).value
        _, states = path(problem, ProximalGradient(1 / L, momentum), count)
        values = jax.vmap(problem.minimized)(jnp.asarray(states.stepped))
        gap = np.asarray(values - problem.minimized(best))
        square, t = float(jnp.sum((problem.y0 - best) ** 2)), np.arange(1, count + 2)
        bound = 2 * L * square / (t + 1) ** 2 if momentum else L * square / (2 * t)
        assert np.all(gap <= bound)
        if not momentum:
            distance = np.sum((states.stepped - np.asarray(best)) ** 2, axis=1)
            assert np.all(distance <= (1 - mu / L) ** t * square + 1e-20)


def test_momentum_leaves_the_set_but_its_answer_does_not():
    problem, method = lasso(Ball(0.1)), ProximalGradient(0.1, momentum=True)
    ys, states = path(problem, method, 6)
    solution = rp.solve(problem, method, max_steps=6, rtol=0.0, atol=0.0, throw=False)
    np.testing.assert_allclose(solution.value, states.stepped[6], rtol=1e-12, atol=1e-15)
    finite = [np.isfinite(problem.nonsmooth.value(jnp.asarray(y[6]))) for y in (ys, states.stepped)]
    assert finite == [False, True]


def test_a_start_outside_is_no_obstacle():
    problem = lasso(Simplex(), y0=10 * START)
    history = rp.trace(problem, atol=1e-9)
    assert history.solution.converged and np.isinf(history.measures["value"][0])
    np.testing.assert_allclose(jnp.sum(history.solution.value), 1.0)


@pytest.mark.parametrize("momentum", [False, True])
def test_at_rest_it_ends_the_run(momentum):
    # A tenth of the gradient is lost in the rounding of y, the gradient is not.
    problem = rp.Composite(rp.Minimize(lambda y, _: 3e-16 * y, 1.0), L1(0.0))
    method = ProximalGradient(0.1, momentum)
    solution = rp.solve(problem, method, rtol=0.0, atol=0.0, throw=False)
    assert rp.status_name(solution.status) in ("stalled", "precise") and solution.stats.steps == 1


@pytest.mark.parametrize("momentum", [False, True])
def test_oracle_calls(momentum):
    # A step is one prox, and so is the residual.
    counted, options = rp.Counted(lasso()), {"rtol": 0, "atol": 0, "throw": False}
    method = ProximalGradient(0.1, momentum)
    counts = rp.solve(counted, method, max_steps=5, **options).stats.counts
    assert {name: int(count) for name, count in counts.items()} == {
        "value": 6,
        "gradient": 6,
        "prox": 12,
    }


def sampled(h, batch_size=3):
    loss = lambda y, sample, _: (jnp.vdot(sample[0], y) - sample[1]) ** 2 / 2
    data = jnp.array(A), jnp.array(B)
    return rp.Composite(rp.FiniteSum(loss, START, data, batch_size=batch_size), h)


def test_on_batches_it_is_the_stochastic_method():
    problem, key = sampled(L1(WEIGHT)), jax.random.key(0)
    options = {"max_steps": 6, "key": key, "throw": False}
    solution = rp.solve(rp.Counted(problem), ProximalGradient(0.05), **options)
    y = START
    for _ in range(6):
        now, key = jax.random.split(key)
        a, b = (np.asarray(part) for part in problem.sample(now))
        y = soft(y - 0.05 * a.T @ (a @ y - b) / 3, 0.05 * WEIGHT)
    np.testing.assert_allclose(solution.value, y, rtol=1e-12)
    counts = {name: int(count) for name, count in solution.stats.counts.items()}
    assert counts == {"value": 7, "gradient": 7, "prox": 7}


def test_on_batches_it_does_not_rest_where_one_does_not_move():
    problem = sampled(L1(100.0))
    options = {"max_steps": 50, "key": jax.random.key(1), "throw": False}
    assert rp.solve(problem, ProximalGradient(0.05), **options).stats.steps == 50


def test_on_batches_the_step_must_be_given():
    with pytest.raises(ValueError, match="`step_size` of ProximalGradient must be given"):
        rp.solve(sampled(L1(WEIGHT)), key=jax.random.key(0))


def test_the_average_is_that_of_projected_subgradients():
    fn = lambda y, data: jnp.mean(jnp.abs(data[0] @ y - data[1]))
    smooth = rp.Minimize(fn, jnp.zeros(8), (jnp.array(A), jnp.array(B)))
    problem, method = rp.Composite(smooth, Ball(0.3)), ProximalGradient(0.2, average=True)
    y, before = np.zeros(8), []
    for _ in range(25):
        before.append(y)
        y = y - 0.2 * A.T @ np.sign(A @ y - B) / len(B)
        y = y * min(1, 0.3 / np.linalg.norm(y))
    assert np.linalg.norm(before[-1]) == pytest.approx(0.3)  # the ball is felt
    ys, states = path(problem, method, 25)
    np.testing.assert_allclose(ys[25], y, rtol=1e-10)
    np.testing.assert_allclose(states.average[25], np.mean(before, axis=0), rtol=1e-10)
    solution = rp.solve(problem, method, max_steps=25, throw=False)
    np.testing.assert_allclose(solution.value, np.mean(before, axis=0), rtol=1e-10)


def test_no_average_with_momentum():
    with pytest.raises(ValueError, match="`average` of ProximalGradient"):
        ProximalGradient(momentum=True, average=True)
