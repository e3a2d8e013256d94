"""Steepest descent: each direction against what defines it, and against other names of it."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from raphson.train import operator_norms, polar_factor, steepest_descent
from tests.train.walk import data, walked


def spectral(x):
    return np.linalg.norm(x, 2)


NORMS = {
    "max": lambda x: np.abs(x).max(),
    "frobenius": np.linalg.norm,
    "spectral": spectral,
    "rms": lambda x: np.sqrt(x.shape[1] / x.shape[0]) * spectral(x),
    "rows": lambda x: np.linalg.norm(x, axis=1).max(),
    "columns": lambda x: np.linalg.norm(x, axis=0).max(),
}
DUALS = {
    "max": lambda g: np.abs(g).sum(),
    "frobenius": np.linalg.norm,
    "spectral": lambda g: np.linalg.norm(g, "nuc"),
    "rms": lambda g: np.sqrt(g.shape[0] / g.shape[1]) * np.linalg.norm(g, "nuc"),
    "rows": lambda g: np.linalg.norm(g, axis=1).sum(),
    "columns": lambda g: np.linalg.norm(g, axis=0).sum(),
}


def updated(gradient, *options, **named):
    """The update at the parameters 0 with a learning rate of 1."""
    x = jax.tree.map(jnp.zeros_like, gradient)
    optimizer = steepest_descent(1.0, *options, **named)
    return jax.jit(optimizer.update)(gradient, optimizer.init(x), x)[0]


@pytest.mark.parametrize("norm", NORMS)
def test_direction_has_norm_1_and_attains_the_dual_norm(norm):
    rng = np.random.default_rng(0)
    for shape in ((4, 6), (6, 4)):
        g = rng.normal(size=shape)
        t = -np.asarray(updated(g, norm, dualized=False, exact=True))
        np.testing.assert_allclose(NORMS[norm](t), 1, rtol=1e-12)
        np.testing.assert_allclose(np.sum(g * t), DUALS[norm](g), rtol=1e-12)
        # No other step of that norm falls further, so that the dual norm is right, too.
        others = rng.normal(size=(2000, *shape))
        falls = [np.sum(g * other) / NORMS[norm](other) for other in others]
        assert max(falls) < DUALS[norm](g)


@pytest.mark.parametrize("norm", NORMS)
def test_step_minimizes_the_quadratic_bound(norm):
    rng = np.random.default_rng(1)
    g, rate = rng.normal(size=(3, 5)), 0.3

    def bound(step):
        return np.sum(g * step) + NORMS[norm](step) ** 2 / (2 * rate)

    optimizer = steepest_descent(rate, norm, exact=True)
    (step,) = walked(optimizer, np.zeros((3, 5)), [g])
    np.testing.assert_allclose(bound(step), -rate / 2 * DUALS[norm](g) ** 2, rtol=1e-12)
    for scale in (1e-3, 1e-1):
        assert all(bound(step) < bound(step + scale * rng.normal(size=(3, 5))) for _ in range(200))


@pytest.mark.parametrize("dualized", [False, True])
def test_is_the_algorithm(dualized):
    x, gradients = data(20)
    decay, lr = 0.1, lambda t: 0.05 / (1.0 + t)
    y = [leaf.copy() for leaf in x]
    optimizer = steepest_descent(lr, ["rms", "max"], dualized, True, weight_decay=decay)
    for t, path in enumerate(walked(optimizer, x, gradients)):
        g = gradients[t]
        u, s, vt = np.linalg.svd(g[0], full_matrices=False)
        steps = [np.sqrt(2 / 3) * u @ vt, np.sign(g[1])]
        dual = np.sqrt(2 / 3) * s.sum() + np.abs(g[1]).sum() if dualized else 1.0
        y = [leaf - lr(t) * (dual * step + decay * leaf) for leaf, step in zip(y, steps)]
        for a, b in zip(path, y, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_is_sign_descent():
    x, gradients = data()
    sign = optax.sign_sgd(0.1)
    ours = walked(steepest_descent(0.1, "max", dualized=False), x, gradients)[-1]
    for a, b in zip(ours, walked(sign, x, gradients)[-1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_is_muon_after_momentum():
    rng = np.random.default_rng(0)
    x, gradients = rng.normal(size=(4, 6)), rng.normal(size=(10, 4, 6))
    momentum, y = np.zeros((4, 6)), x
    ours = walked(
        optax.chain(
            optax.trace(0.95, nesterov=True), steepest_descent(0.1, "spectral", dualized=False)
        ),
        x,
        gradients,
    )
    for g, path in zip(gradients, ours, strict=True):
        momentum = 0.95 * momentum + g
        y = y - 0.1 * polar_factor(g + 0.95 * momentum)
        np.testing.assert_allclose(path, y, rtol=0, atol=1e-12)


def test_shapes_tell_outputs_from_inputs():
    g = np.random.default_rng(0).normal(size=(2, 3, 5))
    flat = g.reshape(2, 15)
    expected = updated(flat, "rms", exact=True).reshape(2, 3, 5)
    np.testing.assert_allclose(updated(g, "rms", exact=True), expected, rtol=0, atol=1e-12)
    # Stored the other way round, the outputs are 5.
    other = np.moveaxis(g, -1, 0)
    expected = np.moveaxis(updated(other, "rms", exact=True), 0, -1)
    ours = updated(g, "rms", exact=True, output_first=False)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12)


def test_roles_are_read_from_paths_and_shapes():
    params = {
        "token_Embedding": {"weight": jnp.ones((7, 3))},
        "layers": [{"weight": jnp.ones((3, 3)), "bias": jnp.ones(3)}, jnp.ones((2, 3, 3, 3))],
        "scale": jnp.ones(()),
        "none": None,
    }
    assert operator_norms(params) == {
        "token_Embedding": {"weight": "rows"},
        "layers": [{"weight": "rms", "bias": "max"}, "rms"],
        "scale": "max",
        "none": None,
    }
    gradient = jax.tree.map(lambda leaf: 2.0 * leaf, params)
    expected = updated(gradient, operator_norms(params))
    for norms in (None, operator_norms):
        jax.tree.map(np.testing.assert_array_equal, updated(gradient, norms), expected)


def test_zero_gradients_move_nothing_and_scales_do_not_matter():
    for norm in NORMS:
        np.testing.assert_array_equal(updated(jnp.zeros((3, 4)), norm), 0)
        for scale in (2.0**-100, 2.0**100):
            g = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)
            small = updated(scale * g, norm, dualized=False)
            np.testing.assert_array_equal(small, updated(g, norm, dualized=False))


def test_mask_spares_what_does_not_decay():
    x, gradients = data(5)
    masked, decayed, plain = (
        walked(steepest_descent(0.03, weight_decay=decay, mask=mask), x, gradients)[-1]
        for decay, mask in ((0.5, [True, False]), (0.5, None), (0.0, None))
    )
    np.testing.assert_allclose(masked[0], decayed[0], rtol=1e-14)
    np.testing.assert_allclose(masked[1], plain[1], rtol=1e-14)
    assert np.all(masked[0] != plain[0])


@pytest.mark.parametrize(
    ("named", "says"),
    [
        (
            {"weight_decay": -0.1},
            "`weight_decay` of steepest_descent must be a number in [0, inf), got -0.1.",
        ),
        (
            {"norms": "l2"},
            "`norms` of steepest_descent must be made of max, frobenius, spectral, rms, rows, "
            "columns, got 'l2'.",
        ),
        (
            {"norms": "rows"},
            "`norms` of steepest_descent must be 'max' or 'frobenius' for a leaf of the shape "
            "(4,), got 'rows'.",
        ),
    ],
)
def test_what_is_unfit_is_refused_in_one_sentence(named, says):
    with pytest.raises(ValueError, match=f"^{re.escape(says)}"):
        updated(jnp.ones(4), **named)
