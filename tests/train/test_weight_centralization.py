"""Weight centralization against means taken over a list, and the penalty that it stands for."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from raphson.train import weight_centralization

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("epoch", [1, 3])
def test_is_the_gradient_of_the_penalty(epoch):
    optimizer = optax.chain(weight_centralization(0.7, epoch), optax.sgd(0.2))
    gradients = RNG.normal(size=(10, 4))
    ours = jnp.ones(4)
    x, ends, state = np.ones(4), [], optimizer.init(ours)
    step = jax.jit(optimizer.update)
    for t, g in enumerate(gradients):
        if t > 0 and t % epoch == 0:
            ends.append(x)
        pull = 0.7 * (x - np.mean(ends, axis=0)) if ends else 0
        x = x - 0.2 * (g + pull)
        updates, state = step(jnp.asarray(g), state, ours)
        ours = ours + updates
        np.testing.assert_allclose(ours, x, rtol=1e-12)
    assert len(ends) == 9 // epoch


def test_no_weight_pulls_nothing():
    g, x = jnp.array([1.0, -2.0]), jnp.array([3.0, 4.0])
    optimizer = weight_centralization(0.0, 1)
    state = optimizer.init(x)
    for _ in range(3):
        pulled, state = optimizer.update(g, state, x + state.count)
        np.testing.assert_array_equal(pulled, g)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_center_is_at_least_single_and_updates_are_as_gradients(dtype):
    x = {"w": jnp.ones((2, 3), dtype), "frozen": None}
    optimizer = weight_centralization(0.1, 1)
    state = optimizer.init(x)
    pulled, after = jax.jit(optimizer.update)(x, state, x)
    assert pulled["w"].dtype == dtype
    assert after.center["w"].dtype == jnp.promote_types(dtype, jnp.float32)
    assert jax.tree.map(jnp.result_type, state) == jax.tree.map(jnp.result_type, after)


def test_weights_can_be_injected():
    x = jnp.ones(2)
    injected = optax.inject_hyperparams(weight_centralization, static_args="epoch")(0.5, epoch=1)
    state = injected.init(x)
    for shift in (0.0, 0.0, 1.0):
        pulled, state = injected.update(jnp.zeros(2), state, x + shift)
    np.testing.assert_allclose(pulled, 0.5 * (2 - 1.5), rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((-1.0, 1), "`weight` of weight_centralization must be a number in [0, inf), got -1.0."),
        ((1.0, 0), "`epoch` must be a whole number of at least 1, got 0."),
    ],
)
def test_unfit_arguments_are_refused_in_one_sentence(arguments, says):
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        weight_centralization(*arguments)


def test_parameters_are_asked_for():
    optimizer = weight_centralization(0.1, 1)
    says = "`params` must be given to the update of weight_centralization, got None."
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)))
