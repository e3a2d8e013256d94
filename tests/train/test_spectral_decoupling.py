"""The penalty of spectral decoupling against its formula, its slope, and the fixed point it has."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from raphson.train import spectral_decoupling

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(7,), (7, 3)])
def test_follows_the_formula(shape):
    f = RNG.normal(size=shape)
    penalty, slope = jax.jit(jax.value_and_grad(spectral_decoupling))(jnp.asarray(f), 0.3)
    np.testing.assert_allclose(penalty, 0.15 * np.sum(f**2) / 7, rtol=1e-12)
    np.testing.assert_allclose(slope, 0.3 * f / 7, rtol=1e-12)


def test_each_class_may_have_a_size():
    f, size = RNG.normal(size=(7, 3)), np.array([0.5, 1.0, 2.0])
    penalty, slope = jax.value_and_grad(spectral_decoupling)(jnp.asarray(f), 0.3, size)
    np.testing.assert_allclose(penalty, 0.15 * np.sum((np.abs(f) - size) ** 2) / 7, rtol=1e-12)
    np.testing.assert_allclose(slope, 0.3 * (np.abs(f) - size) * np.sign(f) / 7, rtol=1e-12)
    assert spectral_decoupling(jnp.array([2.0, -2.0]), 1.0, 2.0) == 0


def test_outputs_settle_where_the_theory_has_them():
    # With cross-entropy, where 1 / (1 + exp f) = strength f, whatever the features.
    x, y = RNG.normal(size=(5, 8)), np.sign(RNG.normal(size=5))

    def loss(w):
        f = x @ w
        return jnp.mean(jax.nn.softplus(-y * f)) + spectral_decoupling(f, 0.2)

    w = jax.lax.fori_loop(0, 3000, lambda _, w: w - 0.3 * jax.grad(loss)(w), jnp.zeros(8))
    f = y * (x @ w)
    np.testing.assert_allclose(1 / (1 + np.exp(f)), 0.2 * f, rtol=1e-6)
    np.testing.assert_allclose(f, f[0], rtol=1e-6)


def test_half_precision_is_summed_in_single():
    penalty = spectral_decoupling(jnp.full((500, 300), 30.0, jnp.float16), 1.0)
    assert penalty.dtype == jnp.float32
    np.testing.assert_allclose(penalty, 300 * 900 / 2, rtol=1e-6)


@pytest.mark.parametrize("strength", [-0.1, "much", float("nan")])
def test_an_unfit_strength_is_refused_in_one_sentence(strength):
    what = "`strength` of spectral_decoupling must be a number in [0, inf), got "
    with pytest.raises(ValueError, match=f"^{re.escape(what + repr(strength))}.$"):
        spectral_decoupling(jnp.ones(3), strength)
