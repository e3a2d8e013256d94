"""Gradient descent against its update in NumPy, rates that are attained, and counts by hand."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.problems import convex, cutest, cutest_best, polyak_lojasiewicz, rosenbrock
from raphson.smooth import GradientDescent
from raphson.smooth._shared import descent
from tests.smooth.paths import chain, path


def barrier(y):
    """A function that is NaN outside of (-1, 1), and its gradient."""
    return -np.sum(np.log(1 - y**2)), 2 * y / (1 - y**2)


def updates(oracle, y, step_size, count):
    """Gradient descent; without a step size L is halved, then doubled until f falls enough."""
    L = 1.0
    for _ in range(count):
        value, slope = oracle(y)
        L = L / 2 if step_size is None else 1 / step_size
        while step_size is None and not value - oracle(y - slope / L)[0] >= slope @ slope / (2 * L):
            L *= 2
        y = y - slope / L
        yield y, L


@pytest.mark.parametrize("step_size", [1e-3, None])
@pytest.mark.parametrize("oracle", [chain, barrier])
def test_steps_are_the_update(oracle, step_size):
    start = np.array([-0.7, 0.9, 0.3, 0.99])
    of_barrier = rp.Minimize(lambda y, _: -jnp.sum(jnp.log(1 - y**2)), start)
    problem = of_barrier if oracle is barrier else eqx.tree_at(lambda p: p.y0, rosenbrock(4), start)
    ys, states = path(problem, GradientDescent(step_size), 15)
    with np.errstate(invalid="ignore"):
        expected = list(updates(oracle, start, step_size, 15))
    for t, (y, L) in enumerate(expected, 1):
        np.testing.assert_allclose(ys[t], y, rtol=1e-12, atol=1e-13)
        value, slope = oracle(y)
        np.testing.assert_allclose(states.value[t], value, rtol=1e-12)
        np.testing.assert_allclose(states.gradient[t], slope, rtol=1e-11, atol=1e-11)
        assert step_size is not None or states.smoothness[t] == L
    if step_size is None:  # L went both ways
        assert {-1, 1} <= set(np.sign(np.diff([1, *(L for _, L in expected)])))


@pytest.mark.parametrize(
    ("curvature", "tried", "accepted"),
    [(5, 1, 8), (5, 0.3, 9.6), (8, 1, 8), (8, 8, 8), (0.3, 1, 1)],
)
def test_descent_takes_the_first_doubling_past_the_curvature(curvature, tried, accepted):
    # On curvature c the descent lemma holds for L >= c, with equality at L = c.
    problem = rp.Minimize(lambda y, c: c / 2 * y**2, jnp.array(3.0), jnp.array(1.0 * curvature))
    value, gradient = problem.value_and_gradient(problem.y0)
    y, L = eqx.filter_jit(descent)(problem, problem.y0, value, gradient, jnp.array(1.0 * tried))
    assert float(L) == accepted
    np.testing.assert_allclose(y, 3 * (1 - curvature / accepted), rtol=1e-15)


def test_rate_on_the_extreme_eigenvectors_is_exact():
    problem = convex.quadratic(np.geomspace(0.1, 2, 5))
    mu, L = problem.facts.strong_convexity, problem.facts.lipschitz
    center = np.asarray(problem.facts.minimizer)
    _, vectors = np.linalg.eigh(np.asarray(problem.args[0]))
    for vector, sign in ((vectors[:, 0], 1), (vectors[:, -1], -1)):
        moved = eqx.tree_at(lambda p: p.y0, problem, center + vector)
        ys, _ = path(moved, GradientDescent(jnp.array(2 / (L + mu))), 60)
        factors = (sign * (L - mu) / (L + mu)) ** np.arange(61)
        np.testing.assert_allclose(ys - center, np.outer(factors, vector), atol=1e-14)


@pytest.mark.parametrize("count", [1, 4, 9])
def test_the_worst_convex_function_attains_the_bound(count):
    # Drori, Teboulle (2014): after t steps of 1/L, f - f* <= L |y_0 - y*|^2 / (4 t + 2), which a
    # Huber function attains at the one t that its width is made for.
    problem = convex.huber_chain(1, width=1 / (2 * count + 1))
    _, states = path(problem, GradientDescent(jnp.array(1.0)), 12)
    bound = 1 / (4 * np.arange(13) + 2)
    assert np.all(states.value <= bound * (1 + 1e-14))
    np.testing.assert_allclose(states.value[count], bound[count], rtol=1e-13)


PROBLEMS = {
    "logistic": lambda: convex.logistic_synthetic(40, 5, regularization=0.05),
    "quadratic": lambda: convex.quadratic(np.geomspace(0.02, 3, 5), seed=1),
    "worst": lambda: convex.nesterov_worst(5, smoothness=4.0),
    "huber": lambda: convex.huber_chain(5),
    "polyak_lojasiewicz": lambda: polyak_lojasiewicz(5),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_rates_hold_at_every_step(name):
    problem = PROBLEMS[name]()
    facts, center, t = problem.facts, np.asarray(problem.facts.minimizer), np.arange(61)
    s = 1 / facts.lipschitz
    ys, states = path(problem, GradientDescent(jnp.array(s)), 60)
    gap = states.value - facts.optimum
    distance = np.linalg.norm(ys - center, axis=1)
    tiny = 1e-13 * gap[0]
    if facts.convex:
        assert np.all(2 * s * t * gap <= distance[0] ** 2)
    if facts.strong_convexity:
        assert np.all(distance**2 <= (1 - s * facts.strong_convexity) ** t * distance[0] ** 2)
        longer = 2 / (facts.lipschitz + facts.strong_convexity)
        ys, _ = path(problem, GradientDescent(jnp.array(longer)), 60)
        distance = np.linalg.norm(ys - center, axis=1)
        assert np.all(distance[1:] <= (1 - longer * facts.strong_convexity) * distance[:-1] + tiny)
    if facts.polyak_lojasiewicz:
        assert np.all(gap <= (1 - s * facts.polyak_lojasiewicz) ** t * gap[0] + tiny)


@pytest.mark.parametrize("name", ["logistic", "quadratic", "worst", "huber"])
def test_the_search_keeps_the_convex_rate(name):
    # Each step lowers |y - y*|^2 by 2 (f+ - f*) / L at least, so that with the L that were accepted
    # 2 (f_t - f*) sum 1/L <= |y_0 - y*|^2.
    problem = PROBLEMS[name]()
    _, states = path(problem, GradientDescent(), 60)
    L = states.smoothness[1:]
    assert np.all(L <= max(0.5, 2 * problem.facts.lipschitz))
    gap = states.value[1:] - problem.facts.optimum
    total = float(jnp.sum((problem.y0 - problem.facts.minimizer) ** 2))
    assert np.all(2 * gap * np.cumsum(1 / L) <= total)


def test_the_search_reaches_what_a_fixed_step_reaches():
    curvature = jnp.array([1.0, 100.0])
    problem = rp.Minimize(lambda y, _: 1e4 + jnp.vdot(curvature, y**2) / 2, jnp.ones(2))
    for method in (GradientDescent(0.01), GradientDescent()):
        assert rp.solve(problem, method, rtol=0, atol=1e-6, max_steps=5000, throw=False).converged


@pytest.mark.parametrize("name", ["ROSENBR", "EXPFIT", "ALLINITU"])
def test_reaches_the_best_value_known(name):
    problem = cutest(name)
    solution = rp.solve(problem, GradientDescent(), rtol=0.0, atol=1e-6, max_steps=20_000)
    assert float(problem.value(solution.value)) <= cutest_best(name) + 1e-11


@pytest.mark.parametrize("method", [GradientDescent(1e-3), GradientDescent()])
def test_a_tree_takes_the_same_steps(method):
    flat = rosenbrock(4)
    tree = rp.Minimize(
        lambda y, _: flat.fn(jnp.append(y["u"].ravel(), y["v"]), None),
        {"u": flat.y0[:3].reshape(3, 1), "v": flat.y0[3]},
    )
    ys, states = path(flat, method, 15)
    trees, of_trees = path(tree, method, 15)
    np.testing.assert_allclose(trees["u"][..., 0], ys[:, :3], rtol=1e-12)
    np.testing.assert_allclose(trees["v"], ys[:, 3], rtol=1e-12)
    assert of_trees.smoothness.tolist() == states.smoothness.tolist()


@pytest.mark.parametrize(
    ("method", "values"),
    [
        (GradientDescent(0.1), 1 + 4),
        # L from 1 to 1/2, 1, 2, 4, 8, then each time 4, 8; and each new point once more.
        (GradientDescent(), 1 + (5 + 1) + 3 * (2 + 1)),
    ],
)
def test_oracle_calls(method, values):
    problem = rp.Counted(rp.Minimize(lambda y, _: 2.5 * y**2, 1.0))
    counts = rp.solve(problem, method, rtol=0, atol=0, max_steps=4, throw=False).stats.counts
    counts = {name: int(count) for name, count in counts.items() if count > 0}
    assert counts == {"value": values, "gradient": 1 + 4}
