"""MinimaxPenalty against a transcription in NumPy, and the minimum that its penalty has."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import raphson as rp
from raphson.bilevel import MinimaxPenalty
from raphson.problems import flat_valley, quartic_levels

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
    problem = sampled(batch_size)
    method = MinimaxPenalty(0.07, optax.sgd(0.05, momentum=0.5), lambda k: 2.0 + k)

    @jax.jit
    def step(carry, _):
        (x, y), state = carry = method.step(problem, *carry)
        return carry, jnp.concatenate([x[None], y, state.z])

    start = problem.y0, method.init(problem, problem.y0, KEY)
    path = np.asarray(jax.lax.scan(step, start, length=6)[1])

    x, y, key = 0.5, np.array([0.9, -0.3]), KEY
    z, of_y, of_z = np.clip(y, -0.8, 0.7), np.zeros(2), np.zeros(2)
    for k, row in enumerate(path):
        w, batches = 2.0 + k, (problem.upper_data, problem.lower_data)
        if problem.stochastic:
            key, now = jax.random.split(key)
            batches = problem.sample(now)
        (c, d), (e, s) = jax.tree.map(np.asarray, batches)
        of_z = 0.5 * of_z + w * (e @ z - s * x) @ e / len(s)
        z = np.clip(z - 0.05 * of_z, -0.8, 0.7)
        of_y = 0.5 * of_y + (c @ y - d) @ c / len(d) + w * (e @ y - s * x) @ e / len(s)
        y = np.clip(y - 0.05 * of_y, -0.8, 0.7)
        slope = x / 5 - w * (np.mean(s * (e @ y - s * x)) - np.mean(s * (e @ z - s * x)))
        x = np.clip(x - 0.07 * slope, -1, 0.52)
        np.testing.assert_allclose(row, [x, *y, *z], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("w", [2.0, 10.0, 50.0])
def test_ends_at_the_minimum_of_the_penalized_objective(w):
    method = MinimaxPenalty(0.1, 0.4 / w, w)
    x, y = rp.solve(flat_valley(), method, max_steps=10_000, throw=False).value
    # With sigma = 1 / w, that of (x - 1)^2 / (2 (sigma + 2)) + x^2 / 4.
    np.testing.assert_allclose(x, 2 / (1 / w + 4), atol=1e-9)
    total = (x + 1 / (2 * w)) / (1 + 1 / (2 * w))
    np.testing.assert_allclose(y, (1 + (total - 1) / 2, (total - 1) / 2), atol=1e-6)


def test_a_growing_penalty_takes_the_bias_away():
    problem = quartic_levels()
    exact = problem.facts.minimizer[0]
    # An inner step as long as the penalty lets it be, whatever that is.
    inner = optax.chain(optax.scale_by_schedule(lambda k: 1 / (10.0 + k)), optax.scale(-0.3))
    runs = (MinimaxPenalty(0.1, inner, lambda k: 10.0 + k), MinimaxPenalty(0.1, 0.03, 10.0))
    ends = [rp.solve(problem, run, max_steps=3000, throw=False).value[0] for run in runs]
    assert abs(ends[0] - exact) < 1e-3 < abs(ends[1] - exact)


def test_gradients_alone_are_asked():
    problem = rp.Counted(flat_valley())
    counts = rp.solve(problem, MinimaxPenalty(), max_steps=7, throw=False).stats.counts
    assert int(counts["product"]) == 0
    assert int(counts["upper_gradient"]) == 14 and int(counts["lower_gradient"]) == 28


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: MinimaxPenalty(0.0), "`upper` of MinimaxPenalty must be a number in"),
        (lambda: MinimaxPenalty(inner="adam"), "`inner` of MinimaxPenalty must be a number in"),
        (lambda: MinimaxPenalty(penalty=0.0), "`penalty` of MinimaxPenalty must be a number in"),
    ],
)
def test_unfit_hyperparameters_are_refused_in_one_sentence(build, says):
    with pytest.raises(ValueError, match=re.escape(says)) as refusal:
        build()
    assert "\n" not in str(refusal.value)
