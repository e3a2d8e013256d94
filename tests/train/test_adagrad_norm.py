"""AdaGrad-Norm against a transcription in NumPy, and its steps by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from raphson.train import adagrad_norm
from tests.train.walk import data, walked


@pytest.mark.parametrize("rate", [0.3, lambda t: 0.3 / (1.0 + t)])
def test_is_the_algorithm(rate):
    x, gradients = data(20)
    path = walked(adagrad_norm(rate), x, gradients)
    x, total = [np.asarray(leaf) for leaf in x], 0.0
    for t, (ours, g) in enumerate(zip(path, gradients, strict=True)):
        total += sum(np.sum(np.asarray(leaf) ** 2) for leaf in g)
        step = (rate(t) if callable(rate) else rate) / np.sqrt(total)
        x = [x - step * np.asarray(g) for x, g in zip(x, g, strict=True)]
        for a, b in zip(ours, x, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)


def test_of_one_number_it_is_optax_adagrad():
    x, gradients = jnp.ones(()), list(jnp.array([0.5, -2.0, 3.0, 0.1]))
    theirs = optax.adagrad(0.3, initial_accumulator_value=0.0, eps=0.0)
    a, b = (walked(optimizer, x, gradients) for optimizer in (adagrad_norm(0.3), theirs))
    np.testing.assert_allclose(a, b, rtol=1e-6)


def test_steps_by_hand():
    # A gradient of 3 and 4 has the norm 5; before there was any, nothing moves.
    x, optimizer = {"a": jnp.zeros(()), "b": jnp.zeros(())}, adagrad_norm(1.0)
    state = optimizer.init(x)
    for a, b, expected in ((0, 0, [0, 0]), (3, 4, [-0.6, -0.8]), (12, 0, [-12 / 13, 0])):
        g = {"a": jnp.array(float(a)), "b": jnp.array(float(b))}
        updates, state = optimizer.update(g, state)
        np.testing.assert_allclose([updates["a"], updates["b"]], expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64])
def test_the_sum_is_at_least_single_and_updates_are_as_gradients(dtype):
    x = {"w": jnp.full((2, 3), 300, dtype), "frozen": None}
    optimizer = adagrad_norm(0.1)
    state = optimizer.init(x)
    updates, after = jax.jit(optimizer.update)(x, state, x)
    assert updates["w"].dtype == dtype
    np.testing.assert_allclose(np.asarray(updates["w"], float), -0.1 / 6**0.5, rtol=1e-2)
    kinds = [jax.tree.map(jnp.result_type, held) for held in (state, after)]
    assert kinds[0] == kinds[1]
    assert jnp.promote_types(dtype, jnp.float32) in jax.tree.leaves(kinds[0])


def test_learning_rates_below_0_are_refused_injected_and_mapped_over():
    with pytest.raises(ValueError, match="^`learning_rate` of adagrad_norm must be a number in .0"):
        adagrad_norm(-1.0)
    x, gradients = data(3)
    plain = walked(adagrad_norm(0.1), x, gradients)[-1][1]
    injected = optax.inject_hyperparams(adagrad_norm)(0.1)
    np.testing.assert_allclose(walked(injected, x, gradients)[-1][1], plain, rtol=1e-6)
    last = jax.vmap(lambda rate: walked(adagrad_norm(rate), x, gradients)[-1])(
        jnp.array([0.0, 0.1])
    )
    np.testing.assert_allclose(last[1][1], plain, rtol=1e-12)
