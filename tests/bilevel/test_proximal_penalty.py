"""ProximalPenalty against a transcription in NumPy and the closed forms of the flat valley."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.bilevel import ProximalPenalty
from raphson.problems import valleys

KEY = jax.random.key(5)
LOOPS = {
    "double": {"inner_steps": 4, "center": 1.0},
    "single": {"inner_steps": 1, "center": 0.3},
}


def sampled(batch_size):
    """f has the samples (c'y - s x)^2 / 2, F has (c'y - d)^2 / 2 + x^2 / 10, y in a box."""
    rng = np.random.default_rng(1)

    def upper(x, y, sample, _):
        c, d = sample
        return (c @ y - d) ** 2 / 2 + x**2 / 10

    def lower(x, y, sample, _):
        c, s = sample
        return (c @ y - s * x) ** 2 / 2

    data = [(rng.normal(size=(20, 2)), rng.normal(size=20)) for _ in range(2)]
    sets = rp.composite.Box(-1.0, 0.52), rp.composite.Box(-0.8, 0.7)
    start = 0.5, jnp.array([0.9, -0.3])
    return rp.BilevelSum(upper, lower, *start, *data, batch_size=batch_size, sets=sets)


def transcription(problem, method, sigma, count):
    """x, y and z after each step."""

    def batches(key):
        if not problem.stochastic:
            return jax.tree.map(np.asarray, (problem.upper_data, problem.lower_data))
        return jax.tree.map(np.asarray, problem.sample(key))

    def gradients(x, y, z, key):
        (c, d), (e, s) = batches(key)
        F = x / 5, (c @ y - d) @ c / len(d)
        f_y, f_z = ((-np.mean(s * (e @ w - s * x)), (e @ w - s * x) @ e / len(s)) for w in (y, z))
        return F, f_y, f_z

    def estimated(level, now, key):
        new = [g[level] for g in gradients(*now, key)]
        if method.momentum is None:
            return new
        if level in held:
            m = 1 if k == 0 else method.momentum(k)
            old = [g[level] for g in gradients(*held[level][0], key)]
            new = [g + (1 - m) * (e - h) for g, e, h in zip(new, held[level][1], old, strict=True)]
        held[level] = now, new
        return new

    x, y, key = 0.5, np.array([0.9, -0.3]), KEY
    z = c = d = np.clip(y, -0.8, 0.7)
    path, held = [], {}
    for k in range(count):
        keys = [None] * (method.inner_steps + 2)
        if problem.stochastic:
            keys = jax.random.split(key, method.inner_steps + 2)
        key, last, *inner = keys
        for each in inner:
            F, f_y, f_z = estimated(1, (x, y, z), each)
            g, r = method.inner_step_size, method.radius
            y = np.clip(y - g * (sigma(k) * F + f_y + (y - c) / r), -0.8, 0.7)
            z = np.clip(z - g * (f_z + (z - d) / r), -0.8, 0.7)
        c, d = c + method.center * (y - c), d + method.center * (z - d)
        F, f_y, f_z = estimated(0, (x, y, z), last)
        x = np.clip(x - method.step_size * (F + (f_y - f_z) / sigma(k)), -1, 0.52)
        path.append(np.array([x, *y, *z]))
    return np.array(path)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("batch_size", [3, None])
@pytest.mark.parametrize("momentum", [None, lambda k: 1 / (k + 2)])
def test_steps_are_the_algorithm(loop, batch_size, momentum):
    problem = sampled(batch_size)
    fading = lambda k: 0.5 / (k + 1)
    for sigma, penalty in ((lambda k: 0.2, 0.2), (fading, fading)):
        method = ProximalPenalty(0.07, penalty, 0.15, 0.6, **LOOPS[loop], momentum=momentum)

        @jax.jit
        def step(carry, _, method=method):
            (x, y), state = carry = method.step(problem, *carry)
            return carry, jnp.concatenate([x[None], y, state.z])

        start = problem.y0, method.init(problem, problem.y0, KEY)
        path = np.asarray(jax.lax.scan(step, start, length=4)[1])
        expected = transcription(problem, method, sigma, 4)
        np.testing.assert_allclose(path, expected, rtol=1e-10, atol=1e-12)
        assert np.ptp(path[:, 0]) > 0.005


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("sigma", [0.5, 0.1, 0.02])
def test_ends_at_the_minimum_of_the_penalized_objective(loop, sigma):
    problem, method = valleys.flat_valley(), ProximalPenalty(penalty=sigma, **LOOPS[loop])
    x, y = rp.solve(problem, method, max_steps=5000, throw=False).value
    # Of (x - 1)^2 / (2 (sigma + 2)) + x^2 / 4; y is nearest to (1, 0) for its sum.
    np.testing.assert_allclose(x, 2 / (sigma + 4), atol=1e-9)
    total = (x + sigma / 2) / (1 + sigma / 2)
    np.testing.assert_allclose(y, (1 + (total - 1) / 2, (total - 1) / 2), atol=1e-5)


def test_a_fading_penalty_leaves_no_bias_behind():
    problem = valleys.quartic_levels()
    method = ProximalPenalty(penalty=lambda k: 1 / (k + 1.0))
    x, _ = rp.solve(problem, method, max_steps=10_000, throw=False).value
    constant, _ = rp.solve(problem, ProximalPenalty(), max_steps=10_000, throw=False).value
    exact = problem.facts.minimizer[0]
    assert abs(x - exact) < abs(constant - exact) / 10


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("sigma", [0.1, 0.01, 0.001])
@pytest.mark.parametrize("start", [1.0, 0.0])
def test_a_jump_is_never_certified(loop, sigma, start):
    problem = valleys.jumping_minimum()
    problem = eqx.tree_at(lambda p: p.y0[0], problem, jnp.array(start))
    method = ProximalPenalty(penalty=sigma, **LOOPS[loop])
    for tolerance in (1e-6, 0.5):
        run = rp.solve(problem, method, atol=tolerance, max_steps=2000, throw=False)
        assert rp.status_name(run.status) == "max_steps"
        assert float(run.certificate.residual) > 0.9


def test_beside_the_jump_there_is_a_certified_answer():
    problem = valleys.jumping_minimum()
    problem = eqx.tree_at(lambda p: p.y0, problem, (jnp.array(-0.5), jnp.array(1.0)))
    run = rp.solve(problem, ProximalPenalty(penalty=0.1))
    np.testing.assert_allclose(run.value, (-1, 1), atol=1e-6)


def test_levels_may_be_trees_in_single_precision():
    one = jnp.ones((), jnp.float32)
    upper = lambda x, y, _: (x["a"] - 2) ** 2 + (y[0] - 2) ** 2 + y[1] ** 2
    lower = lambda x, y, _: (y[0] - x["a"]) ** 2
    problem = rp.Bilevel(upper, lower, {"a": one}, [one, one])
    method = ProximalPenalty(*np.array([0.1, 0.1, 0.2, 1.0, 1.0]))
    run = rp.solve(problem, method, max_steps=3000, throw=False)
    assert {leaf.dtype for leaf in jax.tree.leaves((run.value, run.state.z))} == {one.dtype}
    np.testing.assert_allclose(jax.tree.leaves(run.value), (2, 2, 0), atol=1e-3)


def test_gradients_alone_are_asked():
    problem = rp.Counted(valleys.flat_valley())
    method = ProximalPenalty(inner_steps=3)
    counts = rp.solve(problem, method, max_steps=7, throw=False).stats.counts
    assert int(counts["product"]) == 0
    assert int(counts["upper_gradient"]) == 7 * (3 + 1)
    assert int(counts["lower_gradient"]) == 2 * 7 * (3 + 1)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: ProximalPenalty(0.0), "`step_size` of ProximalPenalty must be a number in"),
        (lambda: ProximalPenalty(penalty=0.0), "`penalty` of ProximalPenalty must be a number"),
        (lambda: ProximalPenalty(inner_step_size=-1.0), "`inner_step_size` of ProximalPenalty"),
        (lambda: ProximalPenalty(radius=0.0), "`radius` of ProximalPenalty must be a number in"),
        (lambda: ProximalPenalty(center=0.0), "`center` of ProximalPenalty must be a number in"),
        (lambda: ProximalPenalty(center=1.1), "`center` of ProximalPenalty must be a number in"),
        (lambda: ProximalPenalty(momentum=0.0), "`momentum` of ProximalPenalty must be a number"),
        (lambda: ProximalPenalty(inner_steps=0), "`inner_steps` must be a whole number of at"),
    ],
)
def test_unfit_hyperparameters_are_refused_in_one_sentence(build, says):
    with pytest.raises(ValueError, match=re.escape(says)) as refusal:
        build()
    assert "\n" not in str(refusal.value)
