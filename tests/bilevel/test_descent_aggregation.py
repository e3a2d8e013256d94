"""Descent aggregation against autodiff through the steps, and its closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import raphson as rp
from raphson.bilevel import DescentAggregation
from raphson.problems import non_singleton

TARGET = jnp.array([0.8, -1.5, 0.3])


def upper(x, y, _):
    return jnp.sum((y - TARGET) ** 2) / 2 + jnp.sin(x["a"]) * y[0] ** 2 + x["b"] @ x["b"]


def lower(x, y, _):
    return jnp.sum(y[:2] ** 4) / 4 + (1 + x["a"] ** 2) * y[0] ** 2 / 2 - y[:2] @ x["b"]


def problem(sets=(None, None)):
    x = {"a": jnp.array(0.3), "b": jnp.array([0.9, -0.4])}
    return rp.Bilevel(upper, lower, x, jnp.array([0.5, 0.1, -0.6]), sets=sets)


def unrolled(x, y, weights, project):
    """dF/dx through the steps from y, and the last one."""

    def value(x):
        z = y
        for weight in weights:
            by_F, by_f = jax.grad(upper, 1)(x, z, None), jax.grad(lower, 1)(x, z, None)
            z = project(z - 0.3 * weight * by_F - 0.2 * (1 - weight) * by_f)
        return upper(x, z, None), z

    return jax.grad(value, has_aux=True)(x)


BOX = (None, rp.composite.Box(-0.4, 0.4)), lambda y: jnp.clip(y, -0.4, 0.4)


@pytest.mark.parametrize(
    ("weight", "weights", "held"),
    [
        (1.0, [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5], None),
        (0.6, [0.6, 0.3, 0.2, 0.15, 0.12], BOX),
        (lambda k: 0.4 * 0.9**k, [0.4, 0.36, 0.324, 0.2916, 0.26244], None),
    ],
)
def test_steps_are_those_of_autodiff(weight, weights, held):
    sets, project = held or ((None, None), lambda y: y)
    levels = problem(sets)
    method = DescentAggregation(0.3, 0.3, 0.2, 5, weight)
    step = jax.jit(lambda y, state: method.step(levels, y, state))
    z, state = levels.y0, method.init(levels, levels.y0, None)
    x, y0 = levels.y0
    for _ in range(4):
        gradient, y = unrolled(x, y0, weights, project)
        x = jax.tree.map(lambda x, h: x - 0.3 * h, x, gradient)
        z, state = step(z, state)
        ours, theirs = jax.tree.leaves((z, state.hypergradient)), jax.tree.leaves((x, y, gradient))
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-13)


def test_finds_the_best_of_many_minima_as_far_as_its_steps_reach():
    def distance(T, weight=1.0):
        method = DescentAggregation(0.2, 0.7, 0.7, T, weight)
        solution = rp.solve(non_singleton(), method, max_steps=500, throw=False)
        assert rp.status_name(solution.status) == "stalled"
        x, y = solution.value
        return float(x), float(y[1])

    (x16, y16), (x64, y64) = distance(16), distance(64)
    assert 1e-4 < 1 - x64 < 1e-3 < 1 - x16 < 5e-3
    assert 1e-2 < 1 - y64 < 0.02 < 1 - y16 < 0.06
    # y_2 of the start is left where it is by what descends f alone.
    np.testing.assert_allclose(distance(64, lambda k: 0.0), (0.5, 0.0), atol=1e-12)


def test_cost_is_two_gradients_and_two_products_a_lower_step():
    method = DescentAggregation(0.1, 0.3, 0.2, 9)
    run = lambda steps: (
        rp.solve(
            rp.Counted(problem()), method, rtol=0, atol=0, max_steps=steps, throw=False
        ).stats.counts
    )
    one, three = run(1), run(3)
    spent = {name: int(three[name] - one[name]) for name in one}
    assert (spent["lower_gradient"], spent["upper_gradient"], spent["product"]) == (18, 20, 36)


def test_batches_are_replayed_on_the_way_back():
    samples = jnp.asarray(np.random.default_rng(0).normal(size=(7, 2)))
    above = lambda x, y, a, _: (y - a[0] * x) ** 2
    below = lambda x, y, a, _: (a[1] * y**2 + jnp.exp(a[0]) * (y - x) ** 2) / 2
    sampled = rp.BilevelSum(above, below, 0.5, 0.2, samples, samples**2, batch_size=2)
    method = DescentAggregation(1.0, 0.3, 0.1, 3)
    key = jax.random.key(5)
    _, state = method.step(sampled, sampled.y0, method.init(sampled, sampled.y0, key))
    keys = jax.random.split(key, 5)

    def value(x):
        y = sampled.y0[1]
        for k, (first, second) in enumerate(map(sampled.sample, keys[2:])):
            by_F, by_f = (
                sampled.upper_gradient(x, y, first)[1],
                sampled.lower_gradient(x, y, second)[1],
            )
            y = y - 0.3 / (k + 1) * by_F - 0.1 * k / (k + 1) * by_f
        return sampled.upper_value(x, y, sampled.sample(keys[1])[0])

    np.testing.assert_allclose(state.hypergradient, jax.grad(value)(sampled.y0[0]), rtol=1e-12)


def test_takes_a_transformation_for_the_upper_level():
    method = DescentAggregation(optax.adam(0.05), 0.7, 0.7, 64)
    x, _ = rp.solve(non_singleton(), method, max_steps=400, throw=False).value
    np.testing.assert_allclose(x, 1.0, atol=2e-3)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"upper": 0.0}, r"`upper` of DescentAggregation must be a number in \(0, inf\)"),
        ({"upper_step_size": 0.0}, "`upper_step_size` of DescentAggregation must be"),
        ({"lower_step_size": 0.0}, "`lower_step_size` of DescentAggregation must be"),
        ({"inner_steps": 0}, "`inner_steps` must be a whole number of at least 1"),
        ({"weight": 0.0}, r"`weight` of DescentAggregation must be a number in \(0, 1\]"),
    ],
)
def test_unfit_hyperparameters_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        DescentAggregation(**options)
