"""AuON against a transcription in NumPy and what remains of it by hand."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from raphson.train import auon
from tests.train.walk import data, walked


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"momentum": 0.0},
        {"gamma": 3.0},
        {"gamma": 0.0},
        {"weight_decay": 0.2},
        {"output_first": False},
        {"learning_rate": lambda t: 0.05 / (1.0 + t)},
    ],
)
def test_is_the_algorithm(changed):
    settings = {
        "learning_rate": 0.03, "momentum": 0.95, "gamma": 1.0, "output_first": True,
        "weight_decay": 0.0,
    } | changed  # fmt: skip
    lr, b, gamma, first, decay = settings.values()
    x, gradients = data()
    # Leaves of 3 outputs by 2 inputs, and the other way round.
    x = [x[0].T, x[0], x[1]]
    gradients = [[g[0].T, g[0], g[1]] for g in gradients]
    larger = [1.5, 1.0, 1.0] if first else [1.0, 1.5, 1.0]
    y, m = [leaf.copy() for leaf in x], [np.zeros_like(leaf) for leaf in x]
    for t, path in enumerate(walked(auon(**settings), x, gradients)):
        for i, g in enumerate(gradients[t]):
            m[i] = b * m[i] + (1 - b) * g
            G = (1 - b) * g + b * m[i]
            G = G / np.linalg.norm(G)
            u = np.sqrt(larger[i]) * G / np.sqrt(np.mean(np.cosh(gamma * G) ** 2))
            rate = lr(t) if callable(lr) else lr
            y[i] = y[i] - rate * (u + decay * y[i])
            np.testing.assert_allclose(path[i], y[i], rtol=0, atol=1e-12)


def test_first_step_by_hand():
    # G = (.6, .8) whatever the momentum; gamma = 0 leaves a mean of 1.
    (x,) = walked(auon(0.5, gamma=0.0), jnp.zeros(2), [jnp.array([3.0, 4.0])])
    np.testing.assert_allclose(x, [-0.3, -0.4], rtol=1e-14)


def test_kernels_count_as_outputs_by_all_else():
    g = np.random.default_rng(0).normal(size=(12, 1, 2, 2))
    (kernel,) = walked(auon(0.1), jnp.zeros(g.shape), [g])
    (matrix,) = walked(auon(0.1), jnp.zeros((12, 4)), [g.reshape(12, 4)])
    np.testing.assert_allclose(kernel.reshape(12, 4), matrix, rtol=1e-14)


def test_zero_gradients_move_nothing_and_scales_do_not_matter():
    g = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)
    after = walked(auon(0.1), jnp.zeros_like(g), [0 * g])
    np.testing.assert_array_equal(after, 0)
    for scale in (2.0**-100, 2.0**100):
        pair = (walked(auon(0.1), jnp.zeros_like(g), [s * g])[0] for s in (1.0, scale))
        np.testing.assert_array_equal(*pair)


def test_mask_spares_what_does_not_decay():
    x, gradients = data(5)
    masked, decayed, plain = (
        walked(auon(0.03, weight_decay=decay, mask=mask), x, gradients)[-1]
        for decay, mask in ((0.5, [True, False]), (0.5, None), (0.0, None))
    )
    np.testing.assert_allclose(masked[0], decayed[0], rtol=1e-14)
    np.testing.assert_allclose(masked[1], plain[1], rtol=1e-14)
    assert np.all(masked[0] != plain[0])


@pytest.mark.parametrize(
    ("name", "value", "range"),
    [
        ("momentum", 1.0, "[0, 1)"),
        ("gamma", -1.0, "[0, inf)"),
        ("gamma", float("nan"), "[0, inf)"),
        ("weight_decay", -0.1, "[0, inf)"),
        ("learning_rate", "fast", "[0, inf)"),
    ],
)
def test_unfit_hyperparameters_are_refused_in_one_sentence(name, value, range):
    says = f"`{name}` of auon must be a number in {range}, got {value!r}."
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        auon(**({"learning_rate": 0.1} | {name: value}))
