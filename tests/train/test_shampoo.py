"""Shampoo against a transcription in NumPy, a Kronecker product known exactly, and Adam."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from raphson.train import shampoo
from tests.train.walk import assert_follows, data, walked


def inverse_power(matrix, exponent, damping):
    eigenvalues, vectors = np.linalg.eigh(matrix)
    damped = eigenvalues + damping * eigenvalues[-1]
    return vectors @ np.diag(damped**-exponent) @ vectors.T


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"exponent": 0.25},
        {"exponent": 0.25, "b1": 0.0, "grafting": False},
        {"grafting": False},
        {"every": 3, "weight_decay": 0.1},
        {"learning_rate": lambda t: 0.05 / (1.0 + t)},
        {"max_size": 2},
        {"max_size": 1},
    ],
)
def test_is_the_algorithm(changed):
    settings = {
        "learning_rate": 0.03, "b1": 0.9, "b2": 0.95, "exponent": 0.5, "eps": 1e-6,
        "damping": 1e-3, "grafting": True, "every": 1, "max_size": 9, "weight_decay": 0.0,
    } | changed  # fmt: skip
    lr, b1, b2, exponent, eps, damping, grafting, every, largest, decay = settings.values()

    def transcription(x, gradients):
        m, v = np.zeros_like(x), np.zeros_like(x)
        left, right = (np.zeros((n, n)) for n in (x.shape[0], x.shape[-1]))
        for t, g in enumerate(gradients, 1):
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
            mean, squares = m / (1 - b1**t), v / (1 - b2**t)
            u = mean / (np.sqrt(squares) + eps)
            if x.ndim == 2 and min(x.shape) <= largest:
                left = b2 * left + (1 - b2) * g @ g.T
                right = b2 * right + (1 - b2) * g.T @ g
                trace = np.trace(left) / (1 - b2**t)
                if (t - 1) % every == 0:
                    roots = [
                        inverse_power(f / np.trace(f), exponent, damping)
                        if len(f) <= largest
                        else np.eye(len(f))
                        for f in (left, right)
                    ]
                w = roots[0] @ mean @ roots[1] / np.sqrt(trace)
                u = w * np.linalg.norm(u) / np.linalg.norm(w) if grafting else w
            rate = lr(t - 1) if callable(lr) else lr
            x = x - rate * (u + decay * x)
            yield x

    assert_follows(shampoo(**settings), transcription)


@pytest.mark.parametrize("exponent", [0.25, 0.5])
def test_one_gradient_by_hand(exponent):
    # G = U S V' alone: L / tr L = U S^2 U' / sum S^2, so that U becomes
    # U (S / |S|)^(1 - 4 exponent) V'.
    g = np.random.default_rng(0).normal(size=(3, 3))
    u, s, vt = np.linalg.svd(g)
    s = s / np.linalg.norm(s)
    optimizer = shampoo(1.0, exponent=exponent, damping=0.0, grafting=False)
    (after,) = walked(optimizer, np.zeros((3, 3)), [g])
    np.testing.assert_allclose(after, -(u * s ** (1 - 4 * exponent)) @ vt, rtol=1e-9)


def test_shapes_tell_outputs_from_inputs():
    rng = np.random.default_rng(0)
    gradients = [rng.normal(size=(2, 3, 5)) for _ in range(3)]
    x = np.zeros((2, 3, 5))
    ours = walked(shampoo(0.1), x, gradients)[-1]
    flat = walked(shampoo(0.1), x.reshape(2, 15), [g.reshape(2, 15) for g in gradients])[-1]
    np.testing.assert_allclose(ours, flat.reshape(2, 3, 5), rtol=1e-9)
    # Stored the other way round, the outputs are 5.
    other = [np.moveaxis(g, 0, -1) for g in gradients]
    ours = walked(shampoo(0.1, output_first=False), np.moveaxis(x, 0, -1), other)[-1]
    np.testing.assert_allclose(np.moveaxis(ours, -1, 0), flat.reshape(2, 3, 5), rtol=1e-9)


def test_with_grafting_leaves_move_as_far_as_by_adam():
    x, gradients = data(5)
    ours, adam = (walked(make(0.03), x, gradients)[0] for make in (shampoo, optax.adam))
    for a, b, start in zip(ours, adam, x, strict=True):
        np.testing.assert_allclose(np.linalg.norm(a - start), np.linalg.norm(b - start), rtol=1e-7)
    np.testing.assert_allclose(ours[1], adam[1], rtol=1e-7)
    assert np.all(ours[0] != adam[0])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_what_no_gradient_moves_stays(dtype):
    # One row of three has gradients, as one word of a vocabulary in a batch.
    g = jnp.outer(jnp.arange(3) == 1, jnp.array([1.0, -2.0, 0.5, 0.0])).astype(dtype)
    for gradient in (g, jnp.zeros((3, 4), dtype)):
        for scale in (1e-12, 1e12):
            (after,) = walked(shampoo(0.1), jnp.zeros((3, 4), dtype), [scale * gradient])
            assert bool(jnp.all(jnp.isfinite(after)))
            np.testing.assert_allclose(after[0], 0, atol=1e-6)
            assert bool(jnp.any(after[1] != 0)) == bool(jnp.any(gradient))


def test_state_is_two_copies_and_two_matrices_a_side():
    state = jax.eval_shape(shampoo(0.1).init, {"w": jnp.ones((5, 7)), "b": jnp.ones(7)})
    sizes = sum(leaf.size for leaf in jax.tree.leaves(state))
    assert sizes - 1 == 2 * (35 + 7) + 2 * (25 + 49)  # and the count


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ({"b1": 1.0}, "`b1` of shampoo must be a number in [0, 1), got 1.0."),
        ({"exponent": -0.5}, "`exponent` of shampoo must be a number in [0, inf), got -0.5."),
        ({"damping": -1.0}, "`damping` of shampoo must be a number in [0, inf), got -1.0."),
        ({"every": 0}, "`every` must be a whole number of at least 1, got 0."),
        ({"max_size": 2.5}, "`max_size` must be a whole number of at least 1, got 2.5."),
    ],
)
def test_unfit_hyperparameters_are_refused_in_one_sentence(named, says):
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        shampoo(0.1, **named)
