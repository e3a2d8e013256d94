"""Optimistic AMSGrad against a transcription in NumPy and steps worked by hand."""

import re

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from raphson.train import optimistic_amsgrad
from tests.train.walk import data, walked


def extrapolated(history, reg):
    """The regularized approximate minimal polynomial extrapolation of columns."""
    g = np.stack(history, axis=1)
    u = np.diff(g, axis=1)
    gram = u.T @ u
    z = np.linalg.solve(gram + reg * np.trace(gram) * np.eye(len(gram)), np.ones(len(gram)))
    return g[:, 1:] @ (z / np.sum(z))


def transcription(x, gradients, rate, b1, b2, eps, history, reg):
    half, path = x, []
    theta, v, largest, prediction = np.zeros_like(x), np.zeros_like(x), eps, 0.0
    for t, g in enumerate(gradients, 1):
        theta = b1 * theta + (1 - b1) * g
        v = b2 * v + (1 - b2) * (g - prediction) ** 2
        largest = np.maximum(largest, v)
        half = half - rate(t - 1) * theta / np.sqrt(largest)
        enough = t >= history > 1
        prediction = extrapolated(gradients[t - history : t], reg) if enough else g
        h = b1 * theta + (1 - b1) * prediction
        path.append(half - rate(t - 1) * h / np.sqrt(largest))
    return path


@pytest.mark.parametrize("history", [1, 2, 5])
@pytest.mark.parametrize("rate", [lambda t: 0.03, lambda t: 0.1 / (1 + t)])
def test_is_the_algorithm(history, rate):
    x, gradients = data()
    settings = {"b1": 0.8, "b2": 0.95, "eps": 0.01, "history": history, "reg": 1e-3}
    # The leaves are predicted together.
    flat = [np.concatenate([g[0].ravel(), g[1]]) for g in gradients]
    expected = transcription(np.concatenate([x[0].ravel(), x[1]]), flat, rate, **settings)
    for ours, theirs in zip(
        walked(optimistic_amsgrad(rate, **settings), x, gradients), expected, strict=True
    ):
        np.testing.assert_allclose(np.concatenate([ours[0].ravel(), ours[1]]), theirs, rtol=1e-9)


def test_without_momentum_and_change_is_a_step_ahead_of_amsgrad():
    # Where the last gradient predicts the next exactly, v only shrinks: s stays (1 - b2) g^2, and
    # without momentum a step is 1 / sqrt(1 - b2) learning rates; the first is two.
    optimizer = optimistic_amsgrad(0.1, b1=0.0, b2=0.75, eps=1e-12, history=1)
    path = walked(optimizer, jnp.array(1.0), [jnp.array(5.0)] * 3)
    np.testing.assert_allclose(path, [0.6, 0.4, 0.2], rtol=1e-12)


def test_agrees_with_amsgrad_on_the_way_of_the_half_steps():
    # The first prediction is 0, so that the first half step is AMSGrad's; the rest is ahead.
    x, gradients = data(1)
    (ours,) = walked(optimistic_amsgrad(0.03, b1=0.5, history=1), x, gradients)
    amsgrad = optax.amsgrad(0.03, b1=0.5, bias_correction_mu=False, bias_correction_nu=False)
    (theirs,) = walked(amsgrad, x, gradients)
    # m = g / 2, and the step ahead is m / 2 + g / 2 = 3/4 g: in all 5/2 of the half step.
    for start, a, b in zip(x, ours, theirs, strict=True):
        np.testing.assert_allclose(a - start, 2.5 * (b - start), rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e15])
def test_predictions_do_not_depend_on_the_scale(scale):
    optimizer = optimistic_amsgrad(0.1, history=3)
    state = optimizer.init(jnp.zeros(2, jnp.float32))
    for g in ([1.0, 2.0], [0.5, 1.0], [0.25, 0.5], [0.125, 0.25]):
        _, state = optimizer.update(jnp.array(g, jnp.float32) * jnp.float32(scale), state)
    np.testing.assert_allclose(np.array(state.prediction) / scale, 0.0, atol=1e-4)


def test_steady_gradients_are_predicted():
    state = optimistic_amsgrad(0.1, history=3)
    current = state.init(jnp.zeros(2))
    for _ in range(5):
        _, current = state.update(jnp.array([1.0, -2.0]), current)
    np.testing.assert_allclose(current.prediction, [1.0, -2.0], rtol=1e-12)


def test_single_precision_stays_finite():
    x = jnp.array([3.0, -2.0], jnp.float32)
    optimizer = optimistic_amsgrad(0.01)
    state = optimizer.init(x)
    for _ in range(200):
        updates, state = optimizer.update(2 * x, state)
        x = x + updates
        assert np.all(np.abs(x) < 5)


@pytest.mark.parametrize(
    ("name", "value", "range"),
    [
        ("b1", 1.0, "[0, 1)"),
        ("b2", float("nan"), "[0, 1)"),
        ("eps", 0.0, "(0, inf)"),
        ("reg", 0.0, "(0, inf)"),
        ("learning_rate", "fast", "[0, inf)"),
    ],
)
def test_unfit_hyperparameters_are_refused_in_one_sentence(name, value, range):
    says = f"`{name}` of optimistic_amsgrad must be a number in {range}, got {value!r}."
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        optimistic_amsgrad(**{name: value})


def test_a_history_of_none_is_refused_in_one_sentence():
    with pytest.raises(
        ValueError, match="^`history` must be a whole number of at least 1, got 0.$"
    ):
        optimistic_amsgrad(history=0)
