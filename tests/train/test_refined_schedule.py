"""Refined schedules against the paper's loops in NumPy and schedules worked by hand."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from raphson.train import refined_schedule
from tests.train.walk import data, walked


def transcription(norms, smoothing, power):
    """The paper's algorithm, the learning rates of all steps, of which the largest is 1."""
    steps = len(norms)
    reach = int(smoothing * steps / 2)

    def at(index):
        return norms[max(index, 0) if index < steps else 2 * steps - 1 - index]

    smooth = [np.median([at(t + k) for k in range(-reach, reach + 1)]) for t in range(steps)]
    weights = [1 / norm**power for norm in smooth]
    rates = np.array([weights[t] * sum(weights[t + 1 :]) for t in range(steps)])
    return rates / max(rates)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.35, 1.0])
@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_is_the_algorithm(smoothing, power):
    norms = np.random.default_rng(0).exponential(size=60)
    schedule = refined_schedule(0.3, norms, smoothing, power)
    found = jax.jit(jax.vmap(schedule))(jnp.arange(60))
    np.testing.assert_allclose(found, 0.3 * transcription(norms, smoothing, power), rtol=1e-12)


def test_norms_that_stay_the_same_give_linear_decay():
    found = refined_schedule(0.3, np.full(50, 7.0))(np.arange(60))
    linear = optax.linear_schedule(0.3, 0.0, 49)
    np.testing.assert_allclose(found, linear(np.arange(60)), rtol=1e-12, atol=1e-15)


def test_warms_up_where_norms_fall_and_anneals_where_they_grow():
    count, linear = np.arange(100), np.linspace(1, 0, 100)[:95]
    falling = refined_schedule(1.0, np.where(count < 20, 5.0 - count / 5, 1.0))(count)
    assert np.all(np.diff(falling[:15]) > 0) and np.argmax(falling) > 10
    growing = refined_schedule(1.0, np.where(count > 80, 1 + (count - 80) / 10, 1.0))(count)
    assert np.all(np.diff(growing[:95] / linear) < 1e-12) and growing[90] < 0.03


def test_spikes_are_filtered_out():
    norms = np.ones(100)
    norms[[10, 50, 97]] = 1e6, 1e-6, 1e3
    np.testing.assert_allclose(
        refined_schedule(1.0, norms)(np.arange(100)), np.linspace(1, 0, 100), atol=1e-12
    )
    assert refined_schedule(1.0, norms, smoothing=0.0)(60) < 1e-3


def test_is_the_learning_rate_of_a_run():
    x, gradients = data(4)
    schedule = refined_schedule(0.5, [1.0, 2.0, 1.0, 1.0], smoothing=0.0)
    # Weights 1, 1/4, 1, 1 with the tails 9/4, 2, 1, 0.
    rates = 0.5 * np.array([9, 2, 4, 0]) / 9
    expected = x[1] - sum(rate * g for rate, (_, g) in zip(rates, gradients))
    np.testing.assert_allclose(walked(optax.sgd(schedule), x, gradients)[-1][1], expected)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_units_of_the_norms_do_not_matter(scale):
    norms = np.array([1.0, 3.0, 2.0, 5.0, 1.0])
    np.testing.assert_allclose(
        refined_schedule(1.0, scale * norms, 0.0)(np.arange(5)),
        refined_schedule(1.0, norms, 0.0)(np.arange(5)),
        rtol=1e-12,
    )


def test_peak_can_be_traced_and_mapped_over():
    found = jax.vmap(lambda peak: refined_schedule(peak, [1.0, 1.0, 1.0])(1))(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(found, [0.5, 1.0])


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("peak_value", -1.0, "a number in [0, inf)"),
        ("smoothing", 1.5, "a number in [0, 1]"),
        ("power", -2.0, "a number in [0, inf)"),
        ("gradient_norms", [1.0], "two or more positive numbers, one a step"),
        ("gradient_norms", [1.0, 0.0], "two or more positive numbers, one a step"),
        ("gradient_norms", [1.0, float("nan")], "two or more positive numbers, one a step"),
        ("gradient_norms", 3.0, "two or more positive numbers, one a step"),
    ],
)
def test_unfit_arguments_are_refused_in_one_sentence(name, value, expected):
    says = f"`{name}` of refined_schedule must be {expected}, got {value!r}."
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        refined_schedule(**{"peak_value": 1.0, "gradient_norms": [1.0, 2.0]} | {name: value})
