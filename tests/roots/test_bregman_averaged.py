"""Bregman averages against a transcription in NumPy, Krasnoselskii-Mann and closed forms."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.roots import BregmanAveraged, KrasnoselskiiMann

LOGIT = np.array([0.3, -0.2, 0.5])
A = np.array([[0.2, -0.5, 0.1], [0.4, 0.3, -0.2], [0.0, 0.6, 0.1]])
START = np.array([0.7, 0.2, 0.1])
SIMPLEX = jnp.log, jax.nn.softmax


def softened(y, xp=jnp):
    """A map of probabilities to probabilities."""
    weights = xp.exp(2 * (A @ y) + LOGIT)
    return weights / xp.sum(weights)


def falling(t):
    return 2 / (t + 2)


@eqx.filter_jit
def iterates(problem, method, count):
    def step(carry, _):
        y, state = method.step(problem, *carry)
        return (y, state), (y, method.known(problem, y, state).residual)

    start = problem.y0, method.init(problem, problem.y0, None)
    return jax.lax.scan(step, start, length=count)[1]


@pytest.mark.parametrize("weight", [0.3, 1.0, falling])
def test_on_the_simplex_steps_are_normalized_geometric_means(weight):
    problem = rp.FixedPoint(lambda y, _: softened(y), jnp.array(START))
    ys, residuals = iterates(problem, BregmanAveraged(SIMPLEX, weight), 6)
    y = START
    for t, (got, residual) in enumerate(zip(ys, residuals)):
        a = weight(t) if callable(weight) else weight
        mean = y ** (1 - a) * softened(y, np) ** a
        y = mean / mean.sum()
        np.testing.assert_allclose(got, y, rtol=1e-12)
        np.testing.assert_allclose(residual, softened(y, np) - y, rtol=0, atol=1e-14)


@pytest.mark.parametrize("weight", [0.3, 1.0, falling])
def test_without_a_mirror_it_is_krasnoselskii_mann(weight):
    problem = rp.FixedPoint(lambda y, _: softened(y), jnp.array(START))
    ours, plain = (
        iterates(problem, method, 8)
        for method in (BregmanAveraged(weight=weight), KrasnoselskiiMann(weight))
    )
    np.testing.assert_allclose(ours, plain, rtol=1e-13, atol=1e-15)


def test_the_logarithm_of_a_power_shrinks_as_the_weights_say():
    # T(y) = y^g has the factor 1 - a (1 - g) in the dual, whatever the distance.
    problem = rp.FixedPoint(lambda y, _: y**0.2, jnp.array([1e-6, 30.0]))
    ys, _ = iterates(problem, BregmanAveraged((jnp.log, jnp.exp), 0.25), 10)
    factor = (1 - 0.25 * 0.8) ** np.arange(1, 11)
    np.testing.assert_allclose(jnp.log(ys), np.outer(factor, np.log([1e-6, 30.0])), rtol=1e-12)


def test_finds_the_fixed_point_and_its_derivative():
    target = jnp.array([0.2, 0.3, 0.5])
    # softmax(g log y + (1 - g) log p) rests at p.
    fn = lambda y, p: jax.nn.softmax(0.4 * jnp.log(y) + 0.6 * jnp.log(p))
    solve = lambda p: rp.solve(
        rp.FixedPoint(fn, jnp.ones(3) / 3, p), BregmanAveraged(SIMPLEX), rtol=0.0, atol=1e-12
    )
    np.testing.assert_allclose(solve(target).value, target, atol=1e-11)
    jacobian = jax.jit(jax.jacrev(lambda p: solve(p / p.sum()).value))(target)
    np.testing.assert_allclose(jacobian, np.eye(3) - np.outer(target, np.ones(3)), atol=1e-9)


def test_trees_and_single_precision():
    start = {"u": jnp.full((2, 1), 4.0, jnp.float32), "v": jnp.array(9.0, jnp.float32)}
    mirror = tuple(lambda y, fn=fn: jax.tree.map(fn, y) for fn in (jnp.log, jnp.exp))
    problem = rp.FixedPoint(lambda y, _: jax.tree.map(jnp.sqrt, y), start)
    ys, _ = iterates(problem, BregmanAveraged(mirror, falling), 2)
    assert {leaf.dtype for leaf in jax.tree.leaves(ys)} == {jnp.dtype("float32")}
    power = 0.5 * (1 / 3 + 2 / 3 * 0.5)
    np.testing.assert_allclose(ys["u"][-1], np.full((2, 1), 4.0**power), rtol=1e-5)
    np.testing.assert_allclose(ys["v"][-1], 9.0**power, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mirror": jnp.log}, "`mirror` of BregmanAveraged must be a pair of functions"),
        ({"mirror": (jnp.log, 3)}, "`mirror` of BregmanAveraged must be a pair of functions"),
        ({"weight": 1.5}, r"`weight` of BregmanAveraged must be a number in \(0, 1\]"),
        ({"weight": 0}, r"`weight` of BregmanAveraged must be a number in \(0, 1\]"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        BregmanAveraged(**arguments)
