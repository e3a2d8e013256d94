"""Nesterov's method against Bubeck's recursion in NumPy, closed forms, and rates at every step."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.problems import convex, cutest, cutest_best, rosenbrock
from raphson.smooth import GradientDescent, Nesterov


@eqx.filter_jit
def scanned(problem, method, count):
    def step(carry, _):
        y, state = carry
        answer = method.answer(problem, y, state)
        return method.step(problem, y, state), (y, answer, state)

    start = (problem.y0, method.init(problem, problem.y0, None))
    return jax.lax.scan(step, start, length=count + 1)[1]


def path(problem, method, count):
    """The iterates, answers and states after 0, 1, ..., `count` steps."""
    return jax.tree.map(np.asarray, scanned(problem.without_facts, method, count))


def oracle_of(problem):
    """Mean logistic loss with a ridge, and its gradient, in NumPy."""
    (A, b), mu = map(np.asarray, problem.data), problem.args

    def oracle(y):
        z = b * (A @ y)
        slope = mu * y - A.T @ (b / (1 + np.exp(z))) / len(b)
        return np.mean(np.log1p(np.exp(-z))) + mu / 2 * y @ y, slope

    return oracle


def recursion(oracle, x, step_size, strong_convexity, count):
    """Bubeck (2015), section 3.7: x_t, the y_{t+1} that a gradient step reaches, and L."""
    L, before, weight = 1.0, x, 1.0
    for _ in range(count):
        value, slope = oracle(x)
        if step_size is not None:
            L = 1 / step_size
        while step_size is None and value - oracle(x - slope / L)[0] < slope @ slope / (2 * L):
            L *= 2
        y = x - slope / L
        yield x, y, L
        if strong_convexity is None:
            following = (1 + np.sqrt(1 + 4 * weight**2)) / 2
            gamma, weight = (1 - weight) / following, following
        else:
            kappa = L / strong_convexity
            gamma = (1 - np.sqrt(kappa)) / (1 + np.sqrt(kappa))
        x, before = (1 - gamma) * y + gamma * before, y


@pytest.mark.parametrize("strong_convexity", [None, 0.05])
@pytest.mark.parametrize("step_size", [0.02, None])
def test_steps_are_the_recursion(step_size, strong_convexity):
    problem = convex.logistic_synthetic(40, 5, regularization=0.05)
    # Features in other units: L is found above 1, its start, and grows again along the way.
    A = np.asarray(problem.data[0]) * np.geomspace(1, 20, 5)
    problem = eqx.tree_at(lambda p: p.data[0], problem, jnp.array(A))
    problem = eqx.tree_at(lambda p: p.y0, problem, jnp.linspace(-2, 3, 5))
    xs, ys, states = path(problem, Nesterov(step_size, strong_convexity), 30)
    oracle = oracle_of(problem)
    expected = list(recursion(oracle, np.linspace(-2, 3, 5), step_size, strong_convexity, 31))
    for t, (x, y, L) in enumerate(expected):
        np.testing.assert_allclose(xs[t], x, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(ys[t], y, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(states.value[t], oracle(x)[0], rtol=1e-12)
        np.testing.assert_allclose(states.gradient[t], oracle(x)[1], rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(states.smoothness[t], L, rtol=1e-15)
    assert step_size is not None or 1 < expected[0][2] < expected[-1][2]


def test_the_rate_on_the_extreme_eigenvectors_is_exact():
    # With q = sqrt(mu / L), 1 - q is a double root on the curvature mu, where t gradients leave the
    # error (1 + q t) (1 - q)^t. On the curvature L one gradient leaves none.
    problem = convex.quadratic(np.geomspace(0.1, 2, 5))
    mu, L = problem.facts.strong_convexity, problem.facts.lipschitz
    q, t = np.sqrt(mu / L), np.arange(1, 82)
    center = np.asarray(problem.facts.minimizer)
    _, vectors = np.linalg.eigh(np.asarray(problem.args[0]))
    slowest = (1 + q * t) * (1 - q) ** t
    for vector, errors in ((vectors[:, 0], slowest), (vectors[:, -1], 0 * slowest)):
        moved = eqx.tree_at(lambda p: p.y0, problem, center + vector)
        _, ys, _ = path(moved, Nesterov(jnp.array(1 / L), jnp.array(mu)), 80)
        np.testing.assert_allclose(ys - center, np.outer(errors, vector), rtol=0, atol=2e-14)


PROBLEMS = {
    "logistic": lambda: convex.logistic_synthetic(40, 5, regularization=0.05),
    "quadratic": lambda: convex.quadratic(np.geomspace(0.02, 3, 5), seed=1),
    "worst": lambda: convex.nesterov_worst(41, smoothness=4.0),
    "huber": lambda: convex.huber_chain(41),
}


@pytest.mark.parametrize("search", [False, True])
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_convex_rate_holds_at_every_step(name, search):
    # After t gradients f - f* <= L |y_0 - y*|^2 / (2 w^2), where the weight w is at least
    # (t + 1) / 2; a search pays for the greatest L that it took.
    problem = PROBLEMS[name]()
    L = problem.facts.lipschitz
    method = Nesterov() if search else Nesterov(jnp.array(1 / L))
    _, ys, states = path(problem, method, 80)
    gap = np.asarray(jax.vmap(problem.value)(jnp.array(ys))) - problem.facts.optimum
    total = float(jnp.sum((problem.y0 - problem.facts.minimizer) ** 2))
    assert np.all(states.smoothness <= (max(1, 2 * L) if search else L * (1 + 1e-15)))
    assert np.all(states.weight >= np.arange(2, 83) / 2)
    assert np.all(gap <= states.smoothness * total / (2 * states.weight**2))


def test_gradient_descent_is_slower_than_the_accelerated_rate():
    problem = convex.nesterov_worst(41, smoothness=4.0)
    step_size = jnp.array(1 / problem.facts.lipschitz)
    _, _, states = path(problem, GradientDescent(step_size), 80)
    gap = states.value[-1] - problem.facts.optimum
    total = float(jnp.sum(problem.facts.minimizer**2))
    assert gap > 2 * problem.facts.lipschitz * total / 80**2


@pytest.mark.parametrize("search", [False, True])
@pytest.mark.parametrize("name", ["logistic", "quadratic"])
def test_the_linear_rate_holds_at_every_step(name, search):
    # Bubeck (2015), theorem 3.18, before its proof bounds 1 - q by exp(-q).
    problem = PROBLEMS[name]()
    L, mu = problem.facts.lipschitz, problem.facts.strong_convexity
    method = Nesterov(None if search else jnp.array(1 / L), jnp.array(mu))
    _, ys, states = path(problem, method, 80)
    L = states.smoothness[-1]
    gap = np.asarray(jax.vmap(problem.value)(jnp.array(ys))) - problem.facts.optimum
    total = float(jnp.sum((problem.y0 - problem.facts.minimizer) ** 2))
    rate = (1 - np.sqrt(mu / L)) ** np.arange(1, 82)
    assert np.all(gap <= (L + mu) / 2 * total * rate + 1e-15)


@pytest.mark.parametrize("name", ["ROSENBR", "EXPFIT", "ALLINITU"])
def test_reaches_the_best_value_known(name):
    problem = cutest(name)
    solution = rp.solve(problem, Nesterov(), rtol=0.0, atol=1e-6, max_steps=20_000)
    assert float(problem.value(solution.value)) <= cutest_best(name) + 1e-11


@pytest.mark.parametrize("method", [Nesterov(1e-3), Nesterov(None, 0.5)])
def test_a_tree_takes_the_same_steps(method):
    flat = rosenbrock(4)
    tree = rp.Minimize(
        lambda y, _: flat.fn(jnp.append(y["u"].ravel(), y["v"]), None),
        {"u": flat.y0[:3].reshape(3, 1), "v": flat.y0[3]},
    )
    for of_flat, of_tree in zip(path(flat, method, 15)[:2], path(tree, method, 15)[:2]):
        np.testing.assert_allclose(of_tree["u"][..., 0], of_flat[:, :3], rtol=1e-12)
        np.testing.assert_allclose(of_tree["v"], of_flat[:, 3], rtol=1e-12)


@pytest.mark.parametrize(
    ("method", "values"),
    [
        (Nesterov(0.1), 1 + 4),
        # L = 1, 2, 4, 8 at the start, 8 ever after; and each point with its gradient.
        (Nesterov(), (4 + 1) + 4 * (1 + 1)),
    ],
)
def test_oracle_calls(method, values):
    problem = rp.Counted(rp.Minimize(lambda y, _: 2.5 * y**2, 1.0))
    counts = rp.solve(problem, method, rtol=0, atol=0, max_steps=4, throw=False).stats.counts
    counts = {name: int(count) for name, count in counts.items() if count > 0}
    assert counts == {"value": values, "gradient": 1 + 4}
