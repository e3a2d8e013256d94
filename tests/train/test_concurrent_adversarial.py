"""Concurrent adversarial gradients against their formula, by hand and in NumPy."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from raphson.train import concurrent_value_and_grad

RNG = np.random.default_rng(0)
X, Y = RNG.uniform(0, 1, size=(6, 4)), RNG.normal(size=6)
W, OLD = RNG.normal(size=(2, 4))


def loss(w, x, y):
    return jnp.mean((x @ w - y) ** 2) / 2


def by_hand(w, x):
    error = x @ w - Y
    return np.mean(error**2) / 2, x.T @ error / 6


@pytest.mark.parametrize("old", [W, OLD])
@pytest.mark.parametrize("mix", [0.0, 0.3, 1.0])
def test_follows_the_formula(old, mix):
    moved = np.clip(X + 0.2 * np.sign(np.outer(X @ old - Y, old)), 0, 1)
    (clean, slope), (robust, other) = by_hand(W, X), by_hand(W, moved)
    call = jax.jit(concurrent_value_and_grad(loss, 0.2, mix, 0.0, 1.0))
    value, gradient = call(W, old, X, Y)
    np.testing.assert_allclose(value, (1 - mix) * clean + mix * robust, rtol=1e-12)
    np.testing.assert_allclose(gradient, (1 - mix) * slope + mix * other, rtol=1e-12)


def test_adversarial_samples_are_worse_and_within_reach():
    plain, moved = (concurrent_value_and_grad(loss, e, 1.0)(W, W, X, Y)[0] for e in (0.0, 0.1))
    np.testing.assert_allclose(plain, by_hand(W, X)[0], rtol=1e-12)
    # Of a linear model, each error grows by epsilon times the sum of absolute weights.
    error = np.abs(X @ W - Y) + 0.1 * np.sum(np.abs(W))
    np.testing.assert_allclose(moved, np.mean(error**2) / 2, rtol=1e-12)


def test_stale_weights_get_no_gradient():
    call = concurrent_value_and_grad(loss, 0.2)
    slope = jax.grad(lambda old: call(W, old, X, Y)[0])(jnp.asarray(OLD))
    np.testing.assert_array_equal(slope, 0)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_trees_keep_their_dtypes(dtype):
    w, x = {"w": jnp.asarray(W, dtype)}, {"a": jnp.asarray(X, dtype)}
    call = concurrent_value_and_grad(lambda w, x: jnp.sum(x["a"] @ w["w"]), 0.1)
    value, gradient = call(w, w, x)
    assert value.dtype == gradient["w"].dtype == dtype


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((1.0, 0.1), "`loss` must be a function, got 1.0."),
        (
            (loss, -1),
            "`epsilon` of concurrent_value_and_grad must be a number in [0, inf), got -1.",
        ),
        ((loss, 1, 2), "`mix` of concurrent_value_and_grad must be a number in [0, 1], got 2."),
    ],
)
def test_what_is_unfit_is_refused_in_one_sentence(arguments, says):
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        concurrent_value_and_grad(*arguments)
