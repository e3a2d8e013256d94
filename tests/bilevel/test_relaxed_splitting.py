"""RelaxedSplitting against a transcription in NumPy and the minimum of the relaxed sum."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import raphson as rp
from raphson.bilevel import RelaxedSplitting
from raphson.problems import darts_scalar

KEY = jax.random.key(2)


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


@pytest.mark.parametrize("batch_size", [3, None])
def test_steps_are_the_algorithm(batch_size):
    problem, method = sampled(batch_size), RelaxedSplitting(0.07, 0.05, 3.0, 1.5)

    @jax.jit
    def step(carry, _):
        (x, y), state = carry = method.step(problem, *carry)
        return carry, jnp.concatenate([x[None], y, state.z])

    start = problem.y0, method.init(problem, problem.y0, KEY)
    path = np.asarray(jax.lax.scan(step, start, length=6)[1])

    x, y, key = 0.5, np.array([0.9, -0.3]), KEY
    z = np.clip(y, -0.8, 0.7)
    for row in path:
        batches = problem.upper_data, problem.lower_data
        if problem.stochastic:
            key, now = jax.random.split(key)
            batches = problem.sample(now)
        (c, d), (e, s) = jax.tree.map(np.asarray, batches)
        y = y - 0.05 * (3 * (e @ y - s * x) @ e / len(s) + 1.5 * (y - z))
        y = np.clip(y, -0.8, 0.7)
        z = z - 0.05 * ((c @ z - d) @ c / len(d) + 1.5 * (z - y))
        z = np.clip(z, -0.8, 0.7)
        x = np.clip(x - 0.07 * (x / 5 - 3 * np.mean(s * (e @ y - s * x))), -1, 0.52)
        np.testing.assert_allclose(row, [x, *y, *z], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(("weight", "coupling"), [(10.0, 10.0), (1.0, 10.0), (5.0, 2.0)])
def test_ends_at_the_minimum_of_the_relaxed_sum(weight, coupling):
    method = RelaxedSplitting(weight=weight, coupling=coupling)
    run = rp.solve(darts_scalar(), method, max_steps=20_000, throw=False)
    x = 2 / (2 - 1 / (2 * weight) - 1 / coupling)
    expected = x, x - x / (2 * weight), 2 - x
    np.testing.assert_allclose((*run.value, run.state.z), expected, atol=1e-9)
    assert rp.status_name(run.status) == "max_steps"  # of a sum, not of two levels


def test_optimizers_of_optax_take_the_steps():
    method = RelaxedSplitting(optax.adam(0.02), optax.sgd(0.01, momentum=0.9))
    run = rp.solve(darts_scalar(), method, max_steps=5000, throw=False)
    np.testing.assert_allclose(run.value[0], 2 / 1.85, atol=1e-5)


def test_gradients_alone_are_asked():
    problem = rp.Counted(darts_scalar())
    counts = rp.solve(problem, RelaxedSplitting(), max_steps=7, throw=False).stats.counts
    assert int(counts["product"]) == 0
    assert int(counts["upper_gradient"]) == int(counts["lower_gradient"]) == 14


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: RelaxedSplitting(0.0), "`upper` of RelaxedSplitting must be a number in"),
        (lambda: RelaxedSplitting(inner="sgd"), "`inner` of RelaxedSplitting must be a number in"),
        (lambda: RelaxedSplitting(weight=0.0), "`weight` of RelaxedSplitting must be a number in"),
        (lambda: RelaxedSplitting(coupling=-1.0), "`coupling` of RelaxedSplitting must be a numbe"),
    ],
)
def test_unfit_hyperparameters_are_refused_in_one_sentence(build, says):
    with pytest.raises(ValueError, match=re.escape(says)) as refusal:
        build()
    assert "\n" not in str(refusal.value)
