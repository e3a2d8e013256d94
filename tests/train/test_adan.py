"""Adan against a transcription in NumPy and steps worked by hand."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from raphson.train import adan
from tests.train.walk import data, walked


def transcription(x, gradients, lr, b1, b2, b3, eps, weight_decay, max_grad_norm, no_prox):
    """The parameters after each gradient; `x` and gradients are lists of arrays."""
    x = [leaf.copy() for leaf in x]
    m, v, n = ([np.zeros_like(leaf) for leaf in x] for _ in range(3))
    before, path = None, []
    for t, raw in enumerate(gradients, 1):
        norm = np.sqrt(sum(np.sum(g**2) for g in raw))
        cut = 1.0 if max_grad_norm is None else min(1.0, max_grad_norm / norm)
        g = [cut * leaf for leaf in raw]
        before = g if before is None else before
        rate = lr(t - 1) if callable(lr) else lr
        for i in range(len(x)):
            d = g[i] - before[i]
            m[i] = b1 * m[i] + (1 - b1) * g[i]
            v[i] = b2 * v[i] + (1 - b2) * d
            n[i] = b3 * n[i] + (1 - b3) * (g[i] + b2 * d) ** 2
            u = m[i] / (1 - b1**t) + b2 * v[i] / (1 - b2**t)
            u = u / (np.sqrt(n[i] / (1 - b3**t)) + eps)
            if no_prox:
                x[i] = x[i] * (1 - rate * weight_decay) - rate * u
            else:
                x[i] = (x[i] - rate * u) / (1 + rate * weight_decay)
        before = g
        path.append([leaf.copy() for leaf in x])
    return path


SETTINGS = {
    "lr": 0.03, "b1": 0.9, "b2": 0.8, "b3": 0.95, "eps": 1e-6,
    "weight_decay": 0.1, "max_grad_norm": 2.0, "no_prox": False,
}  # fmt: skip


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"no_prox": True},
        {"max_grad_norm": None},
        {"max_grad_norm": 1e-3},
        {"weight_decay": 0.0, "max_grad_norm": None},
        {"lr": 1e-3, "b1": 0.98, "b2": 0.92, "b3": 0.99, "eps": 1e-8, "weight_decay": 0.02},
        {"b1": 0.0, "b2": 0.0, "b3": 0.0},
        {"lr": lambda t: 0.05 / (1.0 + t)},
        {"lr": lambda t: 0.05 / (1.0 + t), "no_prox": True},
    ],
)
def test_is_the_algorithm(changed):
    settings = SETTINGS | changed
    x, gradients = data()
    expected = transcription(x, gradients, **settings)
    optimizer = adan(settings.pop("lr"), **settings)
    for ours, theirs in zip(walked(optimizer, x, gradients), expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_first_steps_by_hand():
    # g = 2, then 1, with b1 = b2 = b3 = 1/2 and no eps.
    # t = 1: m, v, n = 1, 0, 2; u = (1 / .5 + 0) / sqrt(2 / .5) = 1.
    # t = 2: d = -1; m, v, n = 1, -.5, 1 + .5 (1 - .5)^2 = 1.125;
    #        u = (1 / .75 - .5 .5 / .75) / sqrt(1.125 / .75) = 1 / sqrt(1.5).
    optimizer = adan(0.1, b1=0.5, b2=0.5, b3=0.5, eps=0.0)
    path = walked(optimizer, jnp.array(1.0), [jnp.array(2.0), jnp.array(1.0)])
    np.testing.assert_allclose(path, [0.9, 0.9 - 0.1 / 1.5**0.5], rtol=1e-14)


def test_proximal_decay_by_hand():
    # u = 1 as above: (3 - 0.1) / (1 + 0.1 2), against 3 (1 - 0.1 2) - 0.1.
    for no_prox, expected in ((False, 2.9 / 1.2), (True, 2.3)):
        optimizer = adan(0.1, eps=0.0, weight_decay=2.0, no_prox=no_prox)
        (x,) = walked(optimizer, jnp.array(3.0), [jnp.array(5.0)])
        np.testing.assert_allclose(x, expected, rtol=1e-14)


@pytest.mark.parametrize("no_prox", [False, True])
@pytest.mark.parametrize("as_function", [False, True])
def test_mask_spares_what_does_not_decay(no_prox, as_function):
    x, gradients = data(5)
    mask = (lambda tree: [True, False]) if as_function else [True, False]
    decayed, plain = (
        walked(adan(0.03, weight_decay=decay, no_prox=no_prox), x, gradients)[-1]
        for decay in (0.5, 0.0)
    )
    masked = walked(adan(0.03, weight_decay=0.5, no_prox=no_prox, mask=mask), x, gradients)[-1]
    np.testing.assert_allclose(masked[0], decayed[0], rtol=1e-14)
    np.testing.assert_allclose(masked[1], plain[1], rtol=1e-14)
    assert np.all(masked[0] != plain[0])


def test_is_not_that_of_optax():
    # Optax weighs changes by 1 - b2: the two agree while there are none, and where b2 = 1/2.
    x, gradients = data(10)

    def apart(b2, count):
        ours = walked(adan(0.01, b2=b2, eps=1e-8), x, gradients[:count])[-1]
        theirs = optax.adan(0.01, b2=b2, eps=1e-8, eps_root=0.0)
        return max(
            np.max(np.abs(a - b)) for a, b in zip(ours, walked(theirs, x, gradients[:count])[-1])
        )

    assert apart(0.92, 1) < 1e-14
    assert apart(0.92, 10) > 1e-3
    assert apart(0.5, 10) < 1e-14


@pytest.mark.parametrize("no_prox", [False, True])
def test_injected_hyperparameters_can_change_along_a_run(no_prox):
    x, gradients = data()
    changing = {"learning_rate": 0.03, "weight_decay": 0.1, "max_grad_norm": 2.0}
    optimizer = optax.inject_hyperparams(adan)(**changing, no_prox=no_prox)
    plain = walked(adan(**changing, no_prox=no_prox), x, gradients)
    state = optimizer.init(x)
    step = jax.jit(optimizer.update)
    y = x
    for index, gradient in enumerate(gradients):
        updates, state = step(gradient, state, y)
        y = optax.apply_updates(y, updates)
        for a, b in zip(y, plain[index], strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-13)
    state.hyperparams["learning_rate"] = jnp.array(0.0)
    updates, _ = step(gradients[0], state, y)
    assert all(np.all(leaf == 0) for leaf in updates)


def test_small_gradients_survive_half_precision():
    # Squared, 1e-4 underflows in float16.
    x = jnp.zeros(3, jnp.float16)
    (after,) = walked(adan(0.1), x, [jnp.full(3, 1e-4, jnp.float16)])
    np.testing.assert_allclose(after, -0.1, rtol=1e-2)


@pytest.mark.parametrize(
    ("name", "value", "range"),
    [
        ("b1", 1.0, "[0, 1)"),
        ("b2", -0.1, "[0, 1)"),
        ("b3", 1.5, "[0, 1)"),
        ("b1", float("nan"), "[0, 1)"),
        ("eps", -1e-8, "[0, inf)"),
        ("learning_rate", -1.0, "[0, inf)"),
        ("learning_rate", "fast", "[0, inf)"),
        ("weight_decay", -0.1, "[0, inf)"),
        ("max_grad_norm", 0.0, "(0, inf)"),
    ],
)
def test_unfit_hyperparameters_are_refused_in_one_sentence(name, value, range):
    says = f"`{name}` of adan must be a number in {range}, got {value!r}."
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        adan(**{name: value})
