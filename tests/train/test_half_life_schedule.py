"""The schedule of half-lives against AdEMAMix's formula, and in AdEMAMix."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from raphson.train import half_life_schedule
from tests.train.walk import data, walked


def half_life(b):
    return np.log(0.5) / np.log(b)


def test_is_the_formula_of_the_paper():
    start, end, total = 0.9, 0.9999, 300
    t = np.arange(400)
    share = t / total
    mixed = np.log(start) * np.log(end) / ((1 - share) * np.log(end) + share * np.log(start))
    expected = np.where(t < total, np.minimum(np.exp(mixed), end), end)
    np.testing.assert_allclose(half_life_schedule(start, end, total)(t), expected, rtol=1e-14)


def test_half_life_is_linear():
    schedule = half_life_schedule(0.5, 0.99, 10)
    np.testing.assert_allclose(
        half_life(schedule(jnp.arange(12))),
        np.append(np.linspace(1.0, half_life(0.99), 11), half_life(0.99)),
        rtol=1e-12,
    )


def test_schedules_an_average_inside_compiled_code():
    x, gradients = data()
    b3 = half_life_schedule(0.9, 0.999, 10)
    optimizer = optax.contrib.ademamix(
        0.03, b3=b3, alpha=lambda count: 0.8 * jnp.minimum(count, 10)
    )
    m1, m2, v, expected = np.zeros(4), np.zeros(4), np.zeros(4), x[1]
    for t, (_, g) in enumerate(gradients):
        slow = 0.5 ** (1 / np.interp(t, [0, 10], half_life(np.array([0.9, 0.999]))))
        m1, m2 = 0.9 * m1 + 0.1 * g, slow * m2 + (1 - slow) * g
        v = 0.999 * v + 0.001 * g**2
        numerator = m1 / (1 - 0.9 ** (t + 1)) + min(t / 10, 1) * 8 * m2
        root = np.sqrt(v / (1 - 0.999 ** (t + 1)))
        expected = expected - 0.03 * numerator / (root + 1e-8)
    np.testing.assert_allclose(walked(optimizer, x, gradients)[-1][1], expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_leaves_averages_in_their_precision(dtype):
    optimizer = optax.contrib.ademamix(0.1, b3=half_life_schedule(0.9, 0.999, 10))
    x = jnp.ones(3, dtype)
    _, state = optimizer.update(x, optimizer.init(x), x)
    assert state[0].m2.dtype == dtype


def test_ends_can_be_traced():
    ends = jnp.array([0.99, 0.999])
    found = jax.jit(jax.vmap(lambda end: half_life_schedule(0.9, end, 5)(10)))(ends)
    np.testing.assert_allclose(found, ends, rtol=1e-14)


@pytest.mark.parametrize(
    ("name", "value", "range"),
    [
        ("init_value", 0.0, "(0, 1)"),
        ("end_value", 1.0, "(0, 1)"),
        ("end_value", float("nan"), "(0, 1)"),
        ("transition_steps", 0, "(0, inf)"),
    ],
)
def test_unfit_arguments_are_refused_in_one_sentence(name, value, range):
    says = f"`{name}` of half_life_schedule must be a number in {range}, got {value!r}."
    arguments = {"init_value": 0.9, "end_value": 0.999, "transition_steps": 10} | {name: value}
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        half_life_schedule(**arguments)
