"""The term of ConvergeSmooth against its rule, batch by batch in plain Python."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from raphson.train import smooth_convergence

RNG = np.random.default_rng(0)


def test_follows_the_rule():
    losses = 1 + 0.05 * RNG.normal(size=(6, 20)) + 0.03 * np.sin(np.arange(6))[:, None]
    smooth = smooth_convergence(0.7, 0.02, 0.04)

    def epoch(state, losses):
        def batch(state, loss):
            extra, state = smooth.term(loss, state)
            return state, extra

        state, extras = jax.lax.scan(batch, state, losses)
        return smooth.end_epoch(state), extras

    _, found = jax.jit(lambda losses: jax.lax.scan(epoch, smooth.init(), losses))(losses)
    means, expected = losses.mean(axis=1), np.zeros_like(losses)
    for t in range(1, 6):
        rise = means[t - 1] - means[t - 2] if t > 1 else means[0]
        away = losses[t] - means[t - 1]
        tolerance = min(max(rise, 0.02), 0.04)
        expected[t] = 0.7 * losses[t] * np.sign(away) * (np.abs(away) > tolerance)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert len(np.unique(np.sign(found))) == 3


def test_its_slope_is_the_weight_and_means_are_no_part_of_it():
    smooth = smooth_convergence(0.5)
    _, state = smooth.term(jnp.array(1.0), smooth.init())
    state = smooth.end_epoch(state)

    def extra(loss):
        return smooth.term(loss, state)[0]

    def counted(loss):
        return smooth.term(loss, state)[1].total

    slopes = [float(jax.grad(extra)(loss)) for loss in (0.5, 1.0, 1.5)]
    assert slopes == [-0.5, 0.0, 0.5] and jax.grad(counted)(2.0) == 0


def test_keeps_dtypes():
    smooth = smooth_convergence()
    state = smooth.end_epoch(smooth.term(jnp.array(1.0, jnp.bfloat16), smooth.init())[1])
    extra, after = smooth.term(jnp.array(2.0, jnp.bfloat16), state)
    assert extra.dtype == jnp.bfloat16 and extra == 2
    assert jax.tree.map(jnp.result_type, after) == jax.tree.map(jnp.result_type, smooth.init())


@pytest.mark.parametrize("name", ["weight", "least", "most"])
def test_arguments_below_0_are_refused_in_one_sentence(name):
    says = f"`{name}` of smooth_convergence must be a number in [0, inf), got -1."
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        smooth_convergence(**{name: -1})
