"""Guided forward gradients against the projection of the exact gradient, block by block."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from raphson.train import guided_value_and_grad


def loss(params, scale=1.0):
    return scale * sum(jnp.sum(jnp.sin(leaf) + leaf**3) for leaf in jax.tree.leaves(params))


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


PARAMS = [{"w": normal(2, 3), "b": normal(3)}, None, (normal(4, seed=1), normal(seed=2))]
GUESS = jax.tree.map(lambda leaf: normal(*leaf.shape, seed=3), PARAMS)


def test_is_the_projection_of_each_block():
    value, estimate = guided_value_and_grad(loss, lambda params, scale: GUESS)(PARAMS, 2.0)
    expected, gradient = jax.value_and_grad(loss)(PARAMS, 2.0)
    np.testing.assert_allclose(value, expected, rtol=1e-14)
    assert jax.tree.structure(estimate) == jax.tree.structure(PARAMS)
    for block in (0, 2):
        g, v, e = (ravel_pytree(tree[block])[0] for tree in (gradient, GUESS, estimate))
        np.testing.assert_allclose(e, g @ v / (v @ v) * v, rtol=1e-12)


@pytest.mark.parametrize("params", [normal(3), {"a": normal(3)}, (normal(3),)])
def test_an_array_is_one_block(params):
    guess = jax.tree.map(jnp.ones_like, params)
    _, estimate = guided_value_and_grad(loss, lambda params: guess)(params)
    (g,) = jax.tree.leaves(jax.grad(loss)(params))
    np.testing.assert_allclose(*jax.tree.leaves(estimate), np.full(3, np.mean(g)), rtol=1e-12)


def test_the_gradient_itself_is_its_own_best_guess():
    _, estimate = jax.jit(guided_value_and_grad(loss, jax.grad(loss)))(PARAMS)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), estimate, jax.grad(loss)(PARAMS)
    )


def test_scales_of_guesses_do_not_matter_and_no_guess_is_no_estimate():
    x = jnp.asarray(normal(5), jnp.float32)

    def along(scale):
        return guided_value_and_grad(loss, lambda x: scale * jnp.cos(x))(x)[1]

    for scale in (-3.0, 1e12):
        np.testing.assert_allclose(along(scale), along(1.0), rtol=1e-5)
    np.testing.assert_array_equal(along(0.0), 0)


def test_takes_what_value_and_grad_takes():
    def fn(params, shift, *, scale):
        value = loss(params, scale) + shift
        return value, {"twice": 2 * value}

    call = guided_value_and_grad(fn, lambda params, shift, scale: params, has_aux=True)
    (value, aux), _ = jax.jit(call)(PARAMS, 1.0, scale=3.0)
    expected, expected_aux = fn(PARAMS, 1.0, scale=3.0)
    np.testing.assert_allclose(value, expected, rtol=1e-14)
    np.testing.assert_allclose(aux["twice"], expected_aux["twice"], rtol=1e-14)


def test_estimate_has_the_dtypes_of_the_parameters():
    params = {"half": jnp.ones(3, jnp.bfloat16), "double": jnp.ones(3)}
    _, estimate = guided_value_and_grad(loss, lambda params: params)(params)
    assert jax.tree.map(jnp.result_type, estimate) == jax.tree.map(jnp.result_type, params)


@pytest.mark.parametrize(
    ("fn", "guess", "says"),
    [
        (1.0, loss, "`fn` must be a function, got 1.0"),
        (loss, "local", "`guess` must be a function, got 'local'"),
        (loss, lambda x: x[0], "`guess` must return what is shaped as its input float64.3., got"),
    ],
)
def test_what_is_unfit_is_refused(fn, guess, says):
    with pytest.raises(ValueError, match=f"^{says}"):
        guided_value_and_grad(fn, guess)(jnp.ones(3))
