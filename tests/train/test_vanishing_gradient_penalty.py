"""The penalty on vanishing gradients against a transcription in NumPy for Pascanu's network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from raphson.train import vanishing_gradient_penalty

N, T = 4, 6
RNG = np.random.default_rng(0)
W, W_IN, B = RNG.normal(size=(N, N)), RNG.normal(size=(N, 2)), RNG.normal(size=N)
START, INPUTS, TARGETS = RNG.normal(size=N), RNG.normal(size=(T, 2)), RNG.normal(size=(T, N))


def cell(params, x, u):
    w, w_in, b = params
    return w @ jnp.tanh(x) + w_in @ u + b


def loss(states):
    return jnp.sum((states - TARGETS) ** 2) / 2


def penalty(w, start=START):
    return vanishing_gradient_penalty(cell, loss, (w, W_IN, B), start, INPUTS)


def transcription(w):
    """The penalty and its immediate derivative by W, by the formulas of the paper."""
    x = [START]
    for u in INPUTS:
        x.append(w @ np.tanh(x[-1]) + W_IN @ u + B)
    d = x[T] - TARGETS[T - 1]
    total, derivative = 0.0, np.zeros_like(w)
    for k in range(T - 1, -1, -1):
        slope = 1 - np.tanh(x[k]) ** 2
        back = (w.T @ d) * slope
        ratio = np.linalg.norm(back) / np.linalg.norm(d)
        total += (ratio - 1) ** 2
        direction = back / np.linalg.norm(back)
        derivative += 2 * (ratio - 1) * np.outer(d, slope * direction) / np.linalg.norm(d)
        if k > 0:
            d = back + x[k] - TARGETS[k - 1]
    return total, derivative


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_is_the_penalty_of_the_paper(scale):
    expected, derivative = transcription(scale * W)
    ours, gradient = jax.jit(jax.value_and_grad(penalty))(scale * W)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)
    np.testing.assert_allclose(gradient, derivative, rtol=1e-10, atol=1e-12)


def test_only_the_recurrent_weights_are_regularized():
    def of_all(params):
        return vanishing_gradient_penalty(cell, loss, params, START, INPUTS)

    w, w_in, b = jax.grad(of_all)((W, W_IN, B))
    assert np.all(w != 0) and np.all(w_in == 0) and np.all(b == 0)
    np.testing.assert_array_equal(jax.grad(penalty, argnums=1)(W, START), 0.0)


def test_length_is_kept_by_rotations():
    rotation, _ = np.linalg.qr(W)
    ours = vanishing_gradient_penalty(
        lambda q, x, u: q @ x, lambda states: states[-1, 0], rotation, START, INPUTS
    )
    np.testing.assert_allclose(ours, 0.0, atol=1e-28)


def test_no_derivative_adds_nothing():
    # The loss does not see the last two states: of the rest each ratio is 1/2.
    ours, gradient = jax.value_and_grad(
        lambda w: vanishing_gradient_penalty(
            lambda w, x, u: w * x, lambda states: states[T - 3, 0], w, jnp.ones(1), jnp.zeros(T)
        )
    )(0.5)
    np.testing.assert_allclose([ours, gradient], [(T - 2) / 4, -(T - 2)], rtol=1e-12)


def test_a_derivative_that_dies_has_a_finite_gradient():
    ours, gradient = jax.value_and_grad(penalty)(np.zeros((N, N)))
    np.testing.assert_allclose(ours, T)
    assert np.all(np.isfinite(gradient))


def test_tiny_derivatives_are_still_compared():
    # In single precision 1e-30 squared underflows.
    for scale in (1e-30, 1.0):
        ours = vanishing_gradient_penalty(
            lambda w, x, u: w * x,
            lambda states: scale * states[-1, 0],  # noqa: B023
            jnp.float32(0.5),
            jnp.ones(1, jnp.float32),
            jnp.zeros(3, jnp.float32),
        )
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, 0.75, rtol=1e-6)


def test_sequences_are_mapped_over():
    starts = np.stack([START, 2 * START])
    ours = jax.vmap(lambda start: penalty(W, start))(starts)
    np.testing.assert_allclose(ours[0], penalty(W), rtol=1e-12)
    assert ours[1] != ours[0]
