"""L-SVRG against its recursion in NumPy, exact cases, and the variance that it should have."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.problems import convex, rosenbrock
from raphson.smooth import GradientDescent, LooplessSVRG

KEY = jax.random.key(3)


@eqx.filter_jit
def scanned(problem, method, count, key):
    def step(carry, _):
        return method.step(problem, *carry), (carry[0], carry[1].reference)

    start = (problem.y0, method.init(problem, problem.y0, key))
    return jax.lax.scan(step, start, length=count + 1)[1]


def path(problem, method, count, key=KEY):
    """The iterates and references after 0, 1, ..., `count` steps."""
    return jax.tree.map(np.asarray, scanned(problem.without_facts, method, count, key))


@pytest.mark.parametrize("probability", [None, 0.5, 1.0])
def test_steps_are_the_recursion(probability):
    problem = convex.logistic_synthetic(40, 5, regularization=0.05, batch_size=6)
    mu, data = problem.args, jax.tree.map(np.asarray, problem.data)

    def gradient(y, samples):
        A, b = samples
        return mu * y - A.T @ (b / (1 + np.exp(b * (A @ y)))) / len(b)

    ys, ws = path(problem, LooplessSVRG(0.7, probability), 30)
    y, w, key, renewals = np.zeros(5), np.zeros(5), KEY, 0
    for t in range(1, 31):
        key, chance, now = jax.random.split(key, 3)
        batch = jax.tree.map(np.asarray, problem.sample(now))
        v = gradient(y, batch) - gradient(w, batch) + gradient(w, data)
        renewed = bool(jax.random.bernoulli(chance, 6 / 40 if probability is None else probability))
        y, w = y - 0.7 * v, y if renewed else w
        renewals += renewed
        np.testing.assert_allclose(ys[t], y, rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(ws[t], w, rtol=1e-10, atol=1e-13)
    assert 0 < renewals <= 30 and (probability == 1.0) == (renewals == 30)


def test_the_estimate_is_exact_where_all_samples_have_one_hessian():
    centers = np.random.default_rng(0).normal(size=(50, 3))
    problem = rp.FiniteSum(
        lambda y, a, _: jnp.sum((y - a) ** 2) / 2, jnp.zeros(3), centers, batch_size=1
    )
    ys, _ = path(problem, LooplessSVRG(0.3), 40)
    expected = np.outer(1 - 0.7 ** np.arange(41), centers.mean(0))
    np.testing.assert_allclose(ys, expected, atol=1e-14)


def test_the_variance_of_a_step_is_that_of_the_theory():
    # From a reference at 0 to y the gradients of samples h change by h y: on batches of b the step
    # s v has the mean s E h y and the variance s^2 var(h) y^2 / b.
    h = np.random.default_rng(0).uniform(1, 3, 100)
    problem = rp.FiniteSum(lambda y, h, _: h * (y - 1) ** 2 / 2, jnp.array(0.0), h, batch_size=4)
    method = LooplessSVRG(0.1, 1e-12)
    keys = jax.random.split(KEY, 4000)
    ys, _ = jax.vmap(lambda key: scanned(problem, method, 2, key))(keys)
    first = 0.1 * h.mean()
    np.testing.assert_allclose(ys[:, 1], first, rtol=1e-12)
    moves = np.asarray(ys[:, 2] - ys[:, 1])
    mean, variance = 0.1 * h.mean() * (1 - first), 0.01 * h.var() * first**2 / 4
    np.testing.assert_allclose(moves.mean(), mean, atol=4 * (variance / 4000) ** 0.5)
    np.testing.assert_allclose(moves.var(), variance, rtol=0.08)


def test_on_exact_gradients_it_is_gradient_descent():
    ours = path(rosenbrock(4), LooplessSVRG(5e-4), 40)
    plain = rp.solve(
        rosenbrock(4), GradientDescent(5e-4), rtol=0.0, atol=0.0, max_steps=40, throw=False
    )
    np.testing.assert_allclose(ours[0][-1], plain.value, rtol=1e-12)
    np.testing.assert_array_equal(*ours)


def test_learns_from_samples_as_well_as_from_all_data():
    problem = convex.logistic_synthetic(200, 10, batch_size=14)
    solution = rp.solve(problem, LooplessSVRG(1.0), key=KEY, max_steps=2000, throw=False)
    assert rp.status_name(solution.status) == "converged"
    np.testing.assert_allclose(solution.value, problem.facts.minimizer, atol=1e-5)


@pytest.mark.parametrize(("probability", "gradients"), [(1.0, 1 + 3 * 7), (1e-12, 1 + 2 * 7)])
def test_oracle_calls(probability, gradients):
    problem = rp.Counted(convex.logistic_synthetic(40, 5, batch_size=6))
    method = LooplessSVRG(probability=probability)
    counts = rp.solve(problem, method, key=KEY, max_steps=7, throw=False).stats.counts
    assert int(counts["gradient"]) == int(counts["value"]) == gradients


def test_a_batch_larger_than_the_data_renews_the_reference_each_time():
    problem = convex.logistic_synthetic(4, 2, batch_size=9)
    ys, ws = path(problem, LooplessSVRG(0.1), 5)
    np.testing.assert_array_equal(ws[1:], ys[:-1])


def test_a_tree_takes_the_same_steps():
    centers = jnp.array(np.random.default_rng(0).normal(size=(50, 3)))

    def loss(y, a, _):
        return jnp.sum((y - a) ** 2 * jnp.array([1.0, 2.0, 3.0])) + jnp.sum((y - a) ** 4)

    def of_tree(y, a, _):
        return loss(jnp.append(y["u"].ravel(), y["v"]), a, None)

    method = LooplessSVRG(0.02, 0.3)
    flat = rp.FiniteSum(loss, jnp.zeros(3), centers, batch_size=4)
    start = {"u": jnp.zeros((2, 1)), "v": jnp.zeros(())}
    tree = rp.FiniteSum(of_tree, start, centers, batch_size=4)
    ys, _ = path(flat, method, 15)
    trees, _ = path(tree, method, 15)
    np.testing.assert_allclose(trees["u"][..., 0], ys[:, :2], rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(trees["v"], ys[:, 2], rtol=1e-11, atol=1e-14)


def test_a_sampled_problem_needs_a_key():
    with pytest.raises(ValueError, match="`key`"):
        rp.solve(convex.logistic_synthetic(40, 5, batch_size=6), LooplessSVRG())


@pytest.mark.parametrize(
    "bad", [{"step_size": 0.0}, {"probability": 0.0}, {"probability": 1.5}, {"step_size": "x"}]
)
def test_refuses(bad):
    with pytest.raises(ValueError, match=f"`{next(iter(bad))}` of LooplessSVRG must be"):
        LooplessSVRG(**bad)
