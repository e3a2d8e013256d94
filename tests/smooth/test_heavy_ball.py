"""The heavy ball against other forms of its recursion in NumPy, closed forms, and its rates."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.problems import convex, cutest, cutest_best, rosenbrock
from raphson.smooth import HeavyBall
from tests.smooth.paths import chain, path


def two_steps(y, step_size, momentum, count):
    """Polyak (1964): each iterate from the last two."""
    before = y
    for _ in range(count):
        y, before = y - step_size * chain(y)[1] + momentum * (y - before), y
        yield y


def averaging(x, step_size, count):
    """Garrigos, Gower (2023): a run z of gradient steps, and x, which averages it."""
    z = x
    for t in range(count):
        z = z - step_size * chain(x)[1]
        weight = (t + 1) / 2
        x = weight / (weight + 1) * x + z / (weight + 1)
        yield x


@pytest.mark.parametrize("momentum", [0.0, 0.8, None])
def test_steps_are_those_of_the_other_form(momentum):
    problem = rosenbrock(4)
    start, s = np.asarray(problem.y0), 5e-4
    ys, states = path(problem, HeavyBall(s, momentum), 25)
    expected = averaging(start, s, 25) if momentum is None else two_steps(start, s, momentum, 25)
    for t, y in enumerate(expected, 1):
        np.testing.assert_allclose(ys[t], y, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(states.value[t], chain(y)[0], rtol=1e-11)
        np.testing.assert_allclose(states.gradient[t], chain(y)[1], rtol=1e-11, atol=1e-10)


def polyak(problem):
    """Polyak's hyperparameters, and m^t (1 + (1 - sqrt m) t), the error where m is a root twice."""
    root_L, root_mu = np.sqrt(problem.facts.lipschitz), np.sqrt(problem.facts.strong_convexity)
    root = (root_L - root_mu) / (root_L + root_mu)
    return HeavyBall(jnp.array(4 / (root_L + root_mu) ** 2), jnp.array(root**2)), root


def test_the_rate_on_the_extreme_eigenvectors_is_exact():
    # Polyak's choice makes sqrt m a double root on the curvature mu, and -sqrt m on L.
    problem = convex.quadratic(np.geomspace(0.1, 2, 5))
    method, root = polyak(problem)
    center, t = np.asarray(problem.facts.minimizer), np.arange(81)
    _, vectors = np.linalg.eigh(np.asarray(problem.args[0]))
    for vector, r in ((vectors[:, 0], root), (vectors[:, -1], -root)):
        moved = eqx.tree_at(lambda p: p.y0, problem, center + vector)
        ys, _ = path(moved, method, 80)
        errors = r**t * (1 + (1 - r) * t)
        np.testing.assert_allclose(ys - center, np.outer(errors, vector), rtol=0, atol=1e-13)


@pytest.mark.parametrize("spectrum", [np.geomspace(0.1, 2, 5), np.linspace(0.001, 1, 5)])
def test_polyaks_rate_holds_at_every_step_on_quadratics(spectrum):
    problem = convex.quadratic(spectrum, seed=2)
    method, root = polyak(problem)
    ys, _ = path(problem, method, 80)
    distance = np.linalg.norm(ys - np.asarray(problem.facts.minimizer), axis=1)
    t = np.arange(81)
    assert np.all(distance <= root**t * (1 + (1 + root) * t) * distance[0] + 1e-15)


def test_iterate_averaging_goes_two_thirds_as_fast_down_a_slope():
    # The run of gradient steps is at t s w, and its average with weights 1, 2, ..., t at 2/3 of it.
    w, s = 0.01, 0.25
    problem = convex.huber_chain(1, width=w)
    ys, _ = path(problem, HeavyBall(s, None), 60)
    np.testing.assert_allclose(ys[:, 0], 2 / 3 * s * w * np.arange(61), rtol=1e-13)


PROBLEMS = {
    "logistic": lambda: convex.logistic_synthetic(40, 5, regularization=0.05),
    "quadratic": lambda: convex.quadratic(np.geomspace(0.02, 3, 5), seed=1),
    "worst": lambda: convex.nesterov_worst(41, smoothness=4.0),
    "huber": lambda: convex.huber_chain(41),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_last_iterate_of_averaging_has_the_rate_of_the_handbook(name):
    problem = PROBLEMS[name]()
    s = 1 / (4 * problem.facts.lipschitz)
    _, states = path(problem, HeavyBall(jnp.array(s), None), 80)
    gap = states.value - problem.facts.optimum
    total = float(jnp.sum((problem.y0 - problem.facts.minimizer) ** 2))
    assert np.all(s * np.arange(1, 82) * gap <= total)


@pytest.mark.parametrize("name", ["ROSENBR", "EXPFIT", "ALLINITU"])
def test_reaches_the_best_value_known(name):
    problem = cutest(name)
    solution = rp.solve(problem, HeavyBall(1e-3), rtol=0.0, atol=1e-6)
    assert float(problem.value(solution.value)) <= cutest_best(name) + 1e-11


@pytest.mark.parametrize("momentum", [0.8, None])
def test_a_tree_takes_the_same_steps(momentum):
    flat, method = rosenbrock(4), HeavyBall(5e-4, momentum)
    tree = rp.Minimize(
        lambda y, _: flat.fn(jnp.append(y["u"].ravel(), y["v"]), None),
        {"u": flat.y0[:3].reshape(3, 1), "v": flat.y0[3]},
    )
    ys, _ = path(flat, method, 15)
    trees, _ = path(tree, method, 15)
    np.testing.assert_allclose(trees["u"][..., 0], ys[:, :3], rtol=1e-12)
    np.testing.assert_allclose(trees["v"], ys[:, 3], rtol=1e-12)


@pytest.mark.parametrize("momentum", [0.8, None])
def test_oracle_calls(momentum):
    problem = rp.Counted(rp.Minimize(lambda y, _: 2.5 * y**2, 1.0))
    method = HeavyBall(0.01, momentum)
    counts = rp.solve(problem, method, rtol=0, atol=0, max_steps=4, throw=False).stats.counts
    counts = {name: int(count) for name, count in counts.items() if count > 0}
    assert counts == {"value": 1 + 4, "gradient": 1 + 4}


@pytest.mark.parametrize("momentum", [0.8, None])
def test_on_batches_it_takes_their_gradients(momentum):
    data = np.random.default_rng(0).normal(size=(8, 2))
    loss = lambda y, a, _: jnp.vdot(a, y) ** 2 / 2 - y[0]
    problem = rp.FiniteSum(loss, jnp.zeros(2), data, batch_size=3)
    key = jax.random.key(0)
    options = {"max_steps": 6, "key": key, "throw": False}
    last = rp.solve(problem, HeavyBall(0.2, momentum), **options).value
    y = z = before = np.zeros(2)
    for t in range(6):
        now, key = jax.random.split(key)
        a = np.asarray(problem.sample(now))
        gradient = a.T @ (a @ y) / 3 - np.array([1.0, 0.0])
        if momentum is None:
            z = z - 0.2 * gradient
            weight = (t + 1) / 2
            y = weight / (weight + 1) * y + z / (weight + 1)
        else:
            y, before = y - 0.2 * gradient + momentum * (y - before), y
    np.testing.assert_allclose(last, y, rtol=1e-12)
    counts = rp.solve(rp.Counted(problem), HeavyBall(0.2, momentum), **options).stats.counts
    assert int(counts["value"]) == int(counts["gradient"]) == 7
