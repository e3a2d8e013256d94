"""Lion-K against a transcription in NumPy, Optax's Lion, and what it converges to."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from raphson.train import lion_k
from tests.train.walk import assert_follows, data, walked


def soft(m):
    return m / np.sqrt(m**2 + 1e-2)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"b1": 0.5, "b2": 0.7},
        {"b1": 0.0, "b2": 0.0},
        {"weight_decay": 0.5},
        {"weight_decay": 0.5, "decay": "proximal"},
        {"subgradient": lambda m: m / jnp.sqrt(m**2 + 1e-2)},
        {"learning_rate": lambda t: 0.05 / (1.0 + t), "weight_decay": 0.5},
    ],
)
def test_is_the_algorithm(changed):
    settings = {"learning_rate": 0.03, "b1": 0.9, "b2": 0.99} | changed
    lr, b1, b2 = (settings[name] for name in ("learning_rate", "b1", "b2"))
    decay = settings.get("weight_decay", 0.0)
    slope = soft if "subgradient" in settings else np.sign

    def transcription(x, gradients):
        # As the paper writes it, with a momentum along which x moves.
        m, path = np.zeros_like(x), []
        for t, g in enumerate(gradients):
            ahead = b1 * m - (1 - b1) * g
            m = b2 * m - (1 - b2) * g
            rate = lr(t) if callable(lr) else lr
            before, x = x, x + rate * (slope(ahead) - decay * x)
            if "decay" in settings:
                # Implicit: the decay is of where the step ends, by a contraction.
                for _ in range(20):
                    x = before + rate * (slope(ahead) - decay * x)
            path.append(x)
        return path

    assert_follows(lion_k(**settings), transcription)


def test_with_the_sign_it_is_optax_lion():
    x, gradients = data()
    ours = walked(lion_k(0.03, 0.8, 0.9, weight_decay=0.1), x, gradients)[-1]
    theirs = walked(optax.lion(0.03, 0.8, 0.9, weight_decay=0.1), x, gradients)[-1]
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("subgradient", "nearest"),
    [
        (None, [1.0, -1.0, 0.2]),
        # On the ball of radius 1 / weight_decay; the length of c is sqrt(13.04).
        (
            lambda m: m / jnp.maximum(jnp.linalg.norm(m), 1e-6),
            np.array([3, -2, 0.2]) / 13.04**0.5,
        ),
    ],
)
def test_finds_the_nearest_point_within_the_bound(subgradient, nearest):
    c, x = jnp.array([3.0, -2.0, 0.2]), jnp.zeros(3)
    optimizer = lion_k(
        optax.cosine_decay_schedule(0.01, 2000), subgradient=subgradient, weight_decay=1.0
    )
    state = optimizer.init(x)

    def step(_, carry):
        x, state = carry
        updates, state = optimizer.update(x - c, state, x)
        return x + updates, state

    x, _ = jax.lax.fori_loop(0, 2000, step, (x, state))
    np.testing.assert_allclose(x, nearest, atol=1e-3)


def test_implicit_decay_brings_weights_within_the_bound_at_any_rate():
    # The rate times the decay is 2.5: an explicit one would multiply weights by -1.5.
    x, gradients = data(5)
    for decay, within in (("proximal", True), ("decoupled", False)):
        optimizer = lion_k(5.0, weight_decay=0.5, decay=decay)
        far = [10 * leaf for leaf in x]
        excess = [np.max(np.abs(0.5 * y[0])) - 1 for y in [far, *walked(optimizer, far, gradients)]]
        bound = max(excess[0], 0) / (1 + 5 * 0.5) ** np.arange(6)
        assert np.all(excess <= bound + 1e-12) == within


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("b1", 1.0, "`b1` of lion_k must be a number in [0, 1), got 1.0."),
        ("b2", -0.1, "`b2` of lion_k must be a number in [0, 1), got -0.1."),
        ("weight_decay", -1.0, "`weight_decay` of lion_k must be a number in [0, inf), got -1.0."),
        ("subgradient", "sign", "`subgradient` must be a function, got 'sign'."),
    ],
)
def test_unfit_hyperparameters_are_refused_in_one_sentence(name, value, says):
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        lion_k(0.1, **{name: value})
