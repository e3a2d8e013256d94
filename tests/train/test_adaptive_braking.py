"""Adaptive braking against a transcription in NumPy and steps worked by hand."""

import re

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from raphson.train import adaptive_braking
from tests.train.walk import assert_follows, data, walked


@pytest.mark.parametrize(("momentum", "rho"), [(0.9, 2.0), (0.5, 0.3), (0.0, 1.0)])
def test_is_the_algorithm(momentum, rho):
    def transcription(x, gradients):
        v = np.zeros_like(x)
        for g in gradients:
            norms = np.linalg.norm(g) * np.linalg.norm(v)
            v = momentum * v + (1 - rho * np.sum(g * v) / max(norms, 1e-8)) * g
            x = x - 0.03 * v
            yield x

    assert_follows(adaptive_braking(0.03, momentum, rho), transcription)


def test_without_braking_is_momentum():
    x, gradients = data()
    ours = walked(adaptive_braking(0.03, 0.8, rho=0.0), x, gradients)[-1]
    theirs = walked(optax.sgd(0.03, momentum=0.8), x, gradients)[-1]
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13)


def test_brakes_by_hand():
    # v = (1, 0); then cos = 0 for g = (0, 2), 3/5 for (3, 4) and -1 for (-1, 0).
    for g, expected in (([0.0, 2.0], [0.5, 2.0]), ([3.0, 4.0], [-0.1, -0.8]), ([-1, 0], [-2.5, 0])):
        gradients = [jnp.array([1.0, 0.0]), jnp.array(g, float)]
        first, second = walked(adaptive_braking(1.0, 0.5, rho=2.0), jnp.zeros(2), gradients)
        np.testing.assert_allclose(first, [-1.0, 0.0])
        np.testing.assert_allclose(first - second, expected, atol=1e-14)


def test_angles_are_those_of_tiny_gradients_too():
    gradients = [jnp.array([1e-200, 0.0]), jnp.array([-1e-200, 0.0])]
    path = walked(adaptive_braking(1.0, 0.5, rho=2.0), jnp.zeros(2), gradients)
    np.testing.assert_allclose(path[1][0], 1.5e-200, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "value", "range"),
    [
        ("momentum", 1.0, "[0, 1)"),
        ("rho", -0.1, "[0, inf)"),
        ("learning_rate", float("nan"), "[0, inf)"),
    ],
)
def test_unfit_hyperparameters_are_refused_in_one_sentence(name, value, range):
    says = f"`{name}` of adaptive_braking must be a number in {range}, got {value!r}."
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        adaptive_braking(**{"learning_rate": 0.1, name: value})
