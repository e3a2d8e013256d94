"""Gradients that come whatever the parameters are, and where a transformation takes those."""

import jax
import numpy as np
import optax


def walked(optimizer, x, gradients):
    """The parameters after each gradient, by the transformation."""

    @jax.jit
    def step(x, state, gradient):
        updates, state = optimizer.update(gradient, state, x)
        return optax.apply_updates(x, updates), state

    state, path = optimizer.init(x), []
    for gradient in gradients:
        x, state = step(x, state, gradient)
        path.append(x)
    return path


def data(count=25):
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(2, 3)), rng.normal(size=4)]
    return x, [[rng.normal(size=(2, 3)), rng.normal(size=4)] for _ in range(count)]


def assert_follows(optimizer, transcription, count=25, atol=1e-12):
    """`transcription` takes an array and its gradients and yields where it is after each."""
    x, gradients = data(count)
    path = walked(optimizer, x, gradients)
    for i in range(len(x)):
        expected = list(transcription(x[i], [gradient[i] for gradient in gradients]))
        np.testing.assert_allclose([y[i] for y in path], expected, rtol=0, atol=atol)
