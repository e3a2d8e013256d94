"""HybridSARAH against its recursion in NumPy, exact cases, and the variance it should have."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.problems import convex, rosenbrock
from raphson.smooth import GradientDescent, HybridSARAH

KEY = jax.random.key(3)


@eqx.filter_jit
def scanned(problem, method, count, key):
    def step(carry, _):
        return method.step(problem, *carry), (carry[0], carry[1].estimate)

    start = (problem.y0, method.init(problem, problem.y0, key))
    return jax.lax.scan(step, start, length=count + 1)[1]


def path(problem, method, count, key=KEY):
    """The iterates and estimates after 0, 1, ..., `count` steps."""
    return jax.tree.map(np.asarray, scanned(problem.without_facts, method, count, key))


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_steps_are_the_recursion(weight):
    problem = convex.logistic_synthetic(40, 5, regularization=0.05, batch_size=6)
    mu, data = problem.args, jax.tree.map(np.asarray, problem.data)

    def gradient(y, samples):
        A, b = samples
        return mu * y - A.T @ (b / (1 + np.exp(b * (A @ y)))) / len(b)

    ys, vs = path(problem, HybridSARAH(0.7, weight), 20)
    y, key = np.zeros(5), KEY
    v = gradient(y, data)
    for t in range(1, 21):
        key, *both = jax.random.split(key, 3)
        B, C = (jax.tree.map(np.asarray, problem.sample(now)) for now in both)
        y, before = y - 0.7 * v, y
        v = (1 - weight) * (v + gradient(y, B) - gradient(before, B)) + weight * gradient(y, C)
        np.testing.assert_allclose(ys[t], y, rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(vs[t], v, rtol=1e-9, atol=1e-12)


def test_the_variance_of_the_estimate_is_that_of_the_theory():
    # The loss of a sample (h, c) is linear but for h y^2 / 2. With moves d of y the error has the
    # variance E+ = (1 - w)^2 (E + var(h) d^2 / b) + w^2 var(h y + c) / b; d is the same for all
    # seeds but for terms of the order of the step size, which is tiny.
    rng = np.random.default_rng(0)
    h, c = rng.uniform(1, 3, 100), rng.normal(size=100)
    loss = lambda y, sample, _: sample[0] * y**2 / 2 + sample[1] * y
    problem = rp.FiniteSum(loss, jnp.array(50.0), (h, c), batch_size=4)
    s, w = 1e-3, 0.25
    keys = jax.random.split(KEY, 4000)
    ys, vs = map(np.asarray, jax.vmap(lambda k: scanned(problem, HybridSARAH(s, w), 12, k))(keys))
    errors, y = vs - (h.mean() * ys + c.mean()), ys.mean(0)
    expected = [0.0]
    for t in range(12):
        moved = expected[-1] + h.var() * (y[t + 1] - y[t]) ** 2 / 4
        fresh = np.var(h * y[t + 1] + c) / 4
        expected.append((1 - w) ** 2 * moved + w**2 * fresh)
    np.testing.assert_allclose(errors.var(0), expected, rtol=0.1, atol=1e-12)
    assert np.all(np.abs(errors.mean(0)[1:]) < 4 * errors.std(0)[1:] / 4000**0.5)


def test_on_exact_gradients_it_is_gradient_descent():
    ys, _ = path(rosenbrock(4), HybridSARAH(5e-4), 40)
    plain = rp.solve(
        rosenbrock(4), GradientDescent(5e-4), rtol=0.0, atol=0.0, max_steps=40, throw=False
    )
    np.testing.assert_allclose(ys[-1], plain.value, rtol=1e-12)


def test_oracle_calls():
    problem = rp.Counted(convex.logistic_synthetic(40, 5, batch_size=6))
    counts = rp.solve(problem, HybridSARAH(), key=KEY, max_steps=7, throw=False).stats.counts
    assert int(counts["gradient"]) == int(counts["value"]) == 1 + 3 * 7


def test_a_tree_takes_the_same_steps():
    centers = jnp.array(np.random.default_rng(0).normal(size=(50, 3)))

    def loss(y, a, _):
        return jnp.sum((y - a) ** 2 * jnp.array([1.0, 2.0, 3.0])) + jnp.sum((y - a) ** 4)

    def of_tree(y, a, _):
        return loss(jnp.append(y["u"].ravel(), y["v"]), a, None)

    method = HybridSARAH(0.02)
    flat = rp.FiniteSum(loss, jnp.zeros(3), centers, batch_size=4)
    start = {"u": jnp.zeros((2, 1)), "v": jnp.zeros(())}
    tree = rp.FiniteSum(of_tree, start, centers, batch_size=4)
    ys, _ = path(flat, method, 15)
    trees, _ = path(tree, method, 15)
    np.testing.assert_allclose(trees["u"][..., 0], ys[:, :2], rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(trees["v"], ys[:, 2], rtol=1e-11, atol=1e-14)


def test_a_sampled_problem_needs_a_key():
    with pytest.raises(ValueError, match="`key`"):
        rp.solve(convex.logistic_synthetic(40, 5, batch_size=6), HybridSARAH())


@pytest.mark.parametrize("bad", [{"step_size": 0.0}, {"weight": -0.1}, {"weight": 1.5}])
def test_refuses(bad):
    with pytest.raises(ValueError, match=f"`{next(iter(bad))}` of HybridSARAH must be"):
        HybridSARAH(**bad)
