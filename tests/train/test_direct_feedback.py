"""Direct feedback alignment against its rule in NumPy, and backpropagation where they agree."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from raphson.train import feedback_value_and_grad

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
SIZES = (4, 6, 5, 3)
X, TARGET = RNG.normal(size=(7, 4)), RNG.normal(size=(7, 3))


def linear(params, h):
    product = h @ params["w"]
    return product + jnp.broadcast_to(params["b"], product.shape)


def hidden(params, h):
    return jnp.tanh(linear(params, h))


def squares(h, target):
    return jnp.sum((h - target) ** 2) / 2


LAYERS = [hidden, hidden, linear]
PARAMS = [
    {"w": RNG.normal(size=(m, n)), "b": RNG.normal(size=n)} for m, n in zip(SIZES[:-1], SIZES[1:])
]


def test_follows_the_rule():
    value, gradients = jax.jit(feedback_value_and_grad(LAYERS, squares, KEY))(PARAMS, X, TARGET)
    activations = [X]
    for layer, params in zip(LAYERS, PARAMS, strict=True):
        activations.append(np.asarray(layer(params, activations[-1])))
    e = activations[-1] - TARGET
    np.testing.assert_allclose(value, np.sum(e**2) / 2, rtol=1e-12)
    np.testing.assert_allclose(gradients[2]["w"], activations[2].T @ e, rtol=1e-12)
    np.testing.assert_allclose(gradients[2]["b"], e.sum(axis=0), rtol=1e-12)
    for i in (0, 1):
        feedback = np.asarray(jax.random.normal(jax.random.fold_in(KEY, i), (3, SIZES[i + 1])))
        blamed = e @ feedback / np.sqrt(3) * (1 - activations[i + 1] ** 2)
        np.testing.assert_allclose(gradients[i]["w"], activations[i].T @ blamed, rtol=1e-10)
        np.testing.assert_allclose(gradients[i]["b"], blamed.sum(axis=0), rtol=1e-10)


def test_feedback_is_fixed_by_the_key_and_has_unit_columns_on_the_mean():
    calls = [feedback_value_and_grad(LAYERS, squares, jax.random.key(k)) for k in (0, 0, 1)]
    first, again, other = (call(PARAMS, X, TARGET)[1][0]["w"] for call in calls)
    np.testing.assert_array_equal(first, again)
    assert np.all(first != other)
    # With e = (1, 0) and a linear layer the gradient in the bias is the first row of B.
    wide = [{"w": jnp.zeros((1, 4000)), "b": jnp.zeros(4000)}, jnp.zeros((4000, 2))]
    layers = [linear, lambda w, h: h @ w]
    call = feedback_value_and_grad(layers, lambda h: h[0], KEY)
    row = call(wide, jnp.zeros(1))[1][0]["b"]
    np.testing.assert_allclose([np.mean(row), np.var(row)], [0, 1 / 2], atol=0.05)


def test_one_layer_is_backpropagation():
    call, goal = feedback_value_and_grad([linear], squares, KEY), np.ones((7, 6))
    value, (gradient,) = call(PARAMS[:1], X, goal)
    expected = jax.value_and_grad(lambda p: squares(linear(p, X), goal))(PARAMS[0])
    np.testing.assert_allclose(value, expected[0], rtol=1e-12)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), gradient, expected[1])


def test_no_error_is_no_gradient():
    call = feedback_value_and_grad(LAYERS, lambda h: 0 * jnp.sum(h), KEY)
    value, gradients = call(tuple(PARAMS), X)
    assert value == 0 and isinstance(gradients, tuple)
    jax.tree.map(lambda leaf: np.testing.assert_array_equal(leaf, 0), gradients)


def test_samples_may_be_mapped_over():
    call = feedback_value_and_grad(LAYERS, squares, KEY)
    whole = call(PARAMS, X, TARGET)
    each = jax.vmap(call, (None, 0, 0))(PARAMS, X, TARGET)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b.sum(axis=0), rtol=1e-9), whole, each)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_gradients_have_the_dtypes_of_the_parameters(dtype):
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), PARAMS)
    x, target = jnp.asarray(X, dtype), jnp.asarray(TARGET, dtype)
    _, gradients = feedback_value_and_grad(LAYERS, squares, KEY)(params, x, target)
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (([], squares, KEY), "`layers` must hold at least one function, got []."),
        (([1.0], squares, KEY), "`layers` must be a function, got 1.0."),
        ((LAYERS, 1.0, KEY), "`loss` must be a function, got 1.0."),
        ((LAYERS, squares, 0), "`key` must be one random key, jax.random.key(0), got 0."),
        (
            (LAYERS[:2], squares, KEY),
            "`params` must hold one entry for each of the 2 layers, got 3.",
        ),
    ],
)
def test_what_is_unfit_is_refused_in_one_sentence(arguments, says):
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        feedback_value_and_grad(*arguments)(PARAMS, X, TARGET)
