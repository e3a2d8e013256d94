"""Subgradient descent against its update in NumPy, an attained bound, and batches by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.problems import nonsmooth_worst
from raphson.smooth import SubgradientDescent
from tests.smooth.paths import path

RNG = np.random.default_rng(0)
A, B, START = RNG.normal(size=(12, 4)), RNG.normal(size=12), RNG.normal(size=4)


def absolute(y, _):
    return jnp.sum(jnp.abs(A @ y - B))


def subgradient(y):
    return A.T @ np.sign(A @ y - B)


STEPS = {
    "roots": (SubgradientDescent(0.2, average=True), lambda t: 0.2 / np.sqrt(t + 1), None),
    "constant": (SubgradientDescent(0.2, 0.0, average=True), lambda t: 0.2, None),
    "harmonic": (SubgradientDescent(0.2, 1.0, average=True), lambda t: 0.2 / (t + 1), None),
    "strongly convex": (
        SubgradientDescent(strong_convexity=3.0, average=True),
        lambda t: 2 / (3 * (t + 2)),
        lambda t: t + 1,
    ),
}


@pytest.mark.parametrize("name", STEPS)
def test_steps_and_averages_are_those_of_the_books(name):
    method, size, weight = STEPS[name]
    weight = weight or size
    ys, states = path(rp.Minimize(absolute, START), method, 20)
    y, seen = START, []
    np.testing.assert_array_equal(states.average[0], START)
    for t in range(20):
        np.testing.assert_allclose(ys[t], y, rtol=1e-12, atol=1e-13)
        seen.append(y)
        y = y - size(t) * subgradient(y)
        mean = np.average(seen, axis=0, weights=[weight(s) for s in range(t + 1)])
        np.testing.assert_allclose(states.average[t + 1], mean, rtol=1e-12, atol=1e-13)


def test_answers_the_average_only_if_asked():
    problem, options = rp.Minimize(absolute, START), {"max_steps": 9, "throw": False}
    last, mean = (rp.solve(problem, SubgradientDescent(average=a), **options) for a in (0, 1))
    ys, states = path(problem, SubgradientDescent(average=True), 9)
    np.testing.assert_allclose(last.value, ys[9], rtol=1e-12)
    np.testing.assert_allclose(mean.value, states.average[9], rtol=1e-12)
    assert last.state.average is None


@pytest.mark.parametrize("count", [1, 5, 16])
def test_the_absolute_value_attains_the_bound(count):
    # From 1 by steps of 1/T the first T iterates lie on one side of the kink: their mean is at
    # D^2 / (2 s T) + s G^2 / 2 = (1 + 1/T) / 2.
    problem = rp.Minimize(lambda y, _: jnp.abs(y), jnp.array(1.0))
    method = SubgradientDescent(1 / count, 0.0, average=True)
    mean = rp.solve(problem, method, max_steps=count, throw=False).value
    np.testing.assert_allclose(mean, (1 + 1 / count) / 2, rtol=1e-14)


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
def test_the_weighted_bound_holds_at_every_step(decay):
    truth = RNG.normal(size=4)
    problem = rp.Minimize(lambda y, _: jnp.sum(jnp.abs(A @ (y - truth))), START)
    ys, states = path(problem, SubgradientDescent(0.1, decay, average=True), 200)
    longest = np.max(np.linalg.norm(states.subgradient, axis=1))
    s = 0.1 / np.arange(1, 201) ** decay
    squares = np.sum((START - truth) ** 2) + longest**2 * np.cumsum(s**2)
    gaps = np.asarray(jax.vmap(problem.objective)(states.average[1:]))
    assert np.all(gaps <= squares / (2 * np.cumsum(s)))


def test_the_strongly_convex_bound_holds_at_every_step():
    problem = nonsmooth_worst(9)
    mu = problem.facts.strong_convexity
    _, states = path(problem, SubgradientDescent(strong_convexity=mu, average=True), 300)
    longest = np.max(np.linalg.norm(states.subgradient, axis=1))
    gaps = np.asarray(jax.vmap(problem.objective)(states.average[1:])) - problem.facts.optimum
    assert np.all(gaps <= 2 * longest**2 / (mu * np.arange(2, 302)))


def test_on_batches_it_is_stochastic_gradient_descent():
    data = jnp.arange(8.0)
    problem = rp.FiniteSum(lambda y, s, _: jnp.abs(y - s), jnp.array(0.3), data, batch_size=3)
    method, key = SubgradientDescent(0.5, 0.0, average=True), jax.random.key(0)
    options = {"max_steps": 6, "key": key, "throw": False}
    mean = rp.solve(problem, method, **options).value
    y, seen = 0.3, []
    for _ in range(6):
        now, key = jax.random.split(key)
        seen.append(y)
        y = y - 0.5 * float(np.mean(np.sign(y - np.asarray(problem.sample(now)))))
    np.testing.assert_allclose(mean, np.mean(seen), rtol=1e-12)
    counts = rp.solve(rp.Counted(problem), method, **options).stats.counts
    assert int(counts["value"]) == int(counts["gradient"]) == 7


@pytest.mark.parametrize("bad", [{"step_size": 0.0}, {"decay": 1.5}, {"strong_convexity": -1.0}])
def test_refuses(bad):
    with pytest.raises(ValueError, match=f"`{next(iter(bad))}` of SubgradientDescent must be"):
        SubgradientDescent(**bad)
