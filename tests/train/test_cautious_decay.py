"""Cautious weight decay against a transcription in NumPy and steps worked by hand."""

import re

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from raphson.train import cautious_decay
from tests.train.walk import assert_follows, data, walked


def test_is_the_algorithm_with_adam():
    def transcription(x, gradients):
        m, v = np.zeros_like(x), np.zeros_like(x)
        for t, g in enumerate(gradients, 1):
            m = 0.9 * m + 0.1 * g
            v = 0.999 * v + 0.001 * g**2
            u = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            x = x - 0.03 * (u + 0.4 * np.where(u * x >= 0, x, 0))
            yield x

    optimizer = optax.chain(
        optax.scale_by_adam(), cautious_decay(0.4), optax.scale_by_learning_rate(0.03)
    )
    assert_follows(optimizer, transcription)


def test_decays_where_the_step_shrinks_or_rests():
    x = jnp.array([2.0, 2.0, 2.0, -2.0, 0.0])
    u = jnp.array([1.0, -1.0, 0.0, -1.0, 1.0])
    decay = cautious_decay(0.25)
    updates, _ = decay.update(u, decay.init(x), x)
    np.testing.assert_array_equal(updates, [1.5, -1.0, 0.5, -1.5, 1.0])


@pytest.mark.parametrize("mask", [[True, False], lambda tree: [True, False]])
def test_mask_spares_what_does_not_decay(mask):
    x, (u,) = data(1)
    decay, masked = cautious_decay(0.25), cautious_decay(0.25, mask)
    all_decayed, _ = decay.update(u, decay.init(x), x)
    some, _ = masked.update(u, masked.init(x), x)
    np.testing.assert_array_equal(some[0], all_decayed[0])
    np.testing.assert_array_equal(some[1], u[1])
    assert np.any(some[0] != u[0])


def test_updates_keep_their_precision():
    x = {"w": jnp.ones(2, jnp.float32), "frozen": None}
    u = {"w": jnp.ones(2, jnp.bfloat16), "frozen": None}
    decay = optax.inject_hyperparams(cautious_decay)(jnp.array(0.5, jnp.float32))
    updates, _ = decay.update(u, decay.init(x), x)
    assert updates["w"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(updates["w"], 1.5)


def test_an_optimizer_that_has_its_learning_rate_can_be_taken():
    x, gradients = data()
    whole = optax.chain(optax.adam(1.0), optax.scale(-1.0))
    made, plain = (
        optax.chain(inner, cautious_decay(0.4), optax.scale_by_learning_rate(0.03))
        for inner in (whole, optax.scale_by_adam())
    )
    for a, b in zip(walked(made, x, gradients)[-1], walked(plain, x, gradients)[-1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13)


def test_an_update_without_parameters_is_refused_in_one_sentence():
    decay = cautious_decay(0.1)
    says = "`params` must be given to the update of cautious_decay, got None."
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        decay.update(jnp.ones(2), decay.init(jnp.ones(2)))


def test_a_negative_decay_is_refused_in_one_sentence():
    says = "`weight_decay` of cautious_decay must be a number in [0, inf), got -0.1."
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        cautious_decay(-0.1)
