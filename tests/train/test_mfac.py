"""M-FAC against dense inverses in NumPy, as its window of gradients moves on."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from raphson.train import inverse_fisher, mfac
from tests.train.walk import data, walked


def dense_inverse(rows, damping):
    """By the paper's static algorithm: rank one after rank one."""
    inverse = np.eye(rows.shape[1]) / damping
    for g in rows:
        h = inverse @ g
        inverse = inverse - np.outer(h, h) / (len(rows) + g @ h)
    return inverse


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"history": 1},
        {"damping": 1e-3},
        {"momentum": 0.0},
        {"lr": lambda t: 0.1 / (1 + t)},
        {"weight_decay": 0.2},
    ],
)
def test_is_the_algorithm(changed):
    settings = {"lr": 0.03, "history": 4, "damping": 0.3, "momentum": 0.9, "weight_decay": 0.0}
    settings |= changed
    lr, history, damping, momentum, decay = settings.values()
    x, gradients = data()
    y = np.concatenate([leaf.ravel() for leaf in x])
    rows, m = np.zeros((history, y.size)), np.zeros(y.size)
    optimizer = mfac(lr, history, damping, momentum, decay)
    for t, ours in enumerate(walked(optimizer, x, gradients)):
        g = np.concatenate([leaf.ravel() for leaf in gradients[t]])
        rows = np.vstack([rows[1:], g])
        m = momentum * m + (1 - momentum) * dense_inverse(rows, damping) @ g
        y = y - (lr(t) if callable(lr) else lr) * (m + decay * y)
        ours = np.concatenate([leaf.ravel() for leaf in ours])
        np.testing.assert_allclose(ours, y, rtol=1e-9, atol=1e-11)


def test_products_are_kept_through_many_replacements():
    # 300 parameters, 32 gradients, replaced three times over.
    rng = np.random.default_rng(0)
    optimizer = mfac(1.0, history=32)
    x = jnp.zeros(300)
    state = optimizer.init(x)
    step = jax.jit(optimizer.update)
    gradients = rng.normal(size=(100, 300))
    for g in gradients:
        updates, state = step(g, state, x)
    expected = -dense_inverse(gradients[-32:], 1e-5) @ gradients[-1]
    np.testing.assert_allclose(updates, expected, rtol=1e-6, atol=1e-6 * np.max(np.abs(expected)))
    history = np.asarray(state[0].history)
    np.testing.assert_allclose(state[0].gram, history @ history.T, rtol=1e-12, atol=1e-12)


def test_single_precision_keeps_its_digits():
    # x - G'(...) G x would lose what damping is below the gradients' squares, five digits here.
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(20, 50))
    (*_, last), optimizer = gradients, mfac(1.0, history=16)
    given = [jnp.asarray(g, jnp.float32) for g in gradients]
    path = walked(optimizer, jnp.zeros(50, jnp.float32), given)
    expected = -dense_inverse(gradients[-16:], 1e-5) @ last
    np.testing.assert_allclose(path[-1] - path[-2], expected, atol=1e-3 * np.max(np.abs(expected)))


def test_alike_gradients_leave_single_precision_finite():
    x = jnp.zeros(5, jnp.float32)
    path = walked(mfac(1e-4), x, [jnp.full(5, 1e3, jnp.float32)] * 50)
    assert np.all(np.isfinite(path)) and np.all(np.diff(np.array(path), axis=0) < 0)


@pytest.mark.parametrize("damping", [1e-5, 0.1, 10.0])
def test_inverse_fisher_is_the_inverse(damping):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(7, 20))
    x = rng.normal(size=20)
    split = [jnp.array(rows[:, :6].reshape(7, 2, 3)), {"rest": jnp.array(rows[:, 6:])}]
    ours = inverse_fisher(split, [jnp.array(x[:6].reshape(2, 3)), {"rest": x[6:]}], damping)
    expected = np.linalg.solve(damping * np.eye(20) + rows.T @ rows / 7, x)
    flat = np.concatenate([ours[0].ravel(), ours[1]["rest"]])
    np.testing.assert_allclose(flat, expected, rtol=1e-8, atol=1e-10 / damping)


def test_inverse_fisher_can_be_compiled_and_mapped_over():
    rng = np.random.default_rng(0)
    rows, vectors = jnp.array(rng.normal(size=(3, 5))), jnp.array(rng.normal(size=(4, 5)))
    mapped = jax.jit(jax.vmap(lambda x: inverse_fisher(rows, x, 0.1)))(vectors)
    dense = jnp.linalg.inv(0.1 * jnp.eye(5) + rows.T @ rows / 3)
    np.testing.assert_allclose(mapped, vectors @ dense, rtol=1e-9)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"damping": 0.0}, "`damping` of mfac must be a number in (0, inf), got 0.0."),
        ({"momentum": 1.0}, "`momentum` of mfac must be a number in [0, 1), got 1.0."),
        ({"history": 0}, "`history` must be a whole number of at least 1, got 0."),
    ],
)
def test_unfit_hyperparameters_are_refused_in_one_sentence(options, says):
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        mfac(**options)
    with pytest.raises(ValueError, match="^`damping` of inverse_fisher must be a number"):
        inverse_fisher(jnp.ones((2, 3)), jnp.ones(3), -1.0)
