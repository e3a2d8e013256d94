"""Regularized gradients against the derivative of the penalty and differences in NumPy."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from raphson.train import regularized_value_and_grad

MODES = ("forward", "backward", "central", "exact")
RNG = np.random.default_rng(0)
ROWS, X = RNG.normal(size=(20, 4)), {"w": RNG.normal(size=(2, 1)), "b": RNG.normal(size=2)}


def loss(x, rows=ROWS):
    return jnp.mean(jax.nn.softplus(rows @ jnp.append(x["w"].ravel(), x["b"])) ** 2)


def flat(tree):
    return np.append(np.ravel(tree["w"]), tree["b"])


def slope(x):
    """The gradient of the loss in NumPy."""
    z = ROWS @ x
    return 2 * (np.logaddexp(0, z) / (1 + np.exp(-z))) @ ROWS / len(z)


@pytest.mark.parametrize("epsilon", [0.01, 0.7])
@pytest.mark.parametrize("gamma", [0.0, 0.3])
def test_is_the_formula_of_each_mode(gamma, epsilon):
    x = flat(X)
    g = slope(x)
    up, down = slope(x + epsilon * g), slope(x - epsilon * g)
    for mode, difference in {
        "forward": (up - g) / epsilon,
        "backward": (g - down) / epsilon,
        "central": (up - down) / (2 * epsilon),
    }.items():
        value, ours = jax.jit(regularized_value_and_grad(loss, gamma, epsilon, mode))(X)
        np.testing.assert_allclose(flat(ours), g + gamma * difference, rtol=1e-12)
        np.testing.assert_allclose(value, np.mean(np.logaddexp(0, ROWS @ x) ** 2), rtol=1e-14)


def test_exact_is_the_derivative_of_the_penalty():
    def penalized(x):
        return loss(x) + 0.3 / 2 * optax.tree.norm(jax.grad(loss)(x), squared=True)

    _, ours = regularized_value_and_grad(loss, 0.3, 1.0, "exact")(X)
    np.testing.assert_allclose(flat(ours), flat(jax.grad(penalized)(X)), rtol=1e-12)


@pytest.mark.parametrize(("mode", "order"), [("forward", 1), ("backward", 1), ("central", 2)])
def test_differences_come_to_the_exact_one_in_their_order(mode, order):
    exact = flat(regularized_value_and_grad(loss, 0.3, 1.0, "exact")(X)[1])
    errors = [
        np.linalg.norm(flat(regularized_value_and_grad(loss, 0.3, epsilon, mode)(X)[1]) - exact)
        for epsilon in (1e-2, 1e-3)
    ]
    np.testing.assert_allclose(np.log10(errors[0] / errors[1]), order, atol=0.02)


def test_is_sharpness_aware_where_gamma_is_epsilon():
    g = jax.grad(loss)(X)
    ahead = jax.tree.map(lambda x, g: x + 0.4 * g, X, g)
    _, ours = regularized_value_and_grad(loss, 0.4, 0.4)(X)
    np.testing.assert_allclose(flat(ours), flat(jax.grad(loss)(ahead)), rtol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_takes_the_arguments_of_the_loss_and_what_comes_with_it(mode):
    def with_aux(x, rows, *, scale):
        return scale * loss(x, rows), x["b"]

    both = regularized_value_and_grad(with_aux, 0.1, 0.2, mode, has_aux=True)
    (value, aux), ours = both(X, ROWS[:5], scale=2.0)
    plain, gradient = regularized_value_and_grad(lambda x: 2.0 * loss(x, ROWS[:5]), 0.1, 0.2, mode)(
        X
    )
    np.testing.assert_array_equal(aux, X["b"])
    np.testing.assert_allclose(value, plain)
    np.testing.assert_allclose(flat(ours), flat(gradient), rtol=1e-13)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_gradients_are_as_the_parameters(mode, dtype):
    x = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), X)
    value, ours = regularized_value_and_grad(lambda x: jnp.sum(x["w"] ** 2), 0.1, 0.5, mode)(x)
    assert value.dtype == dtype and all(leaf.dtype == dtype for leaf in jax.tree.leaves(ours))
    np.testing.assert_allclose(ours["w"].astype(float), 2.4 * X["w"], rtol=3e-2)


def test_strengths_can_be_traced_and_mapped_over():
    ours = jax.vmap(lambda gamma: regularized_value_and_grad(loss, gamma, gamma)(X)[1]["b"])
    np.testing.assert_allclose(
        ours(jnp.array([0.1, 0.4]))[1], regularized_value_and_grad(loss, 0.4, 0.4)(X)[1]["b"]
    )


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("gamma", -1.0, "`gamma` of regularized_value_and_grad must be a number in [0, inf)"),
        ("epsilon", 0.0, "`epsilon` of regularized_value_and_grad must be a number in (0, inf)"),
        ("fn", 3, "`fn` must be a function"),
        ("mode", "up", "`mode` must be one of 'forward', 'backward', 'central', 'exact'"),
    ],
)
def test_unfit_arguments_are_refused_in_one_sentence(name, value, expected):
    arguments = {"fn": loss, "gamma": 0.1, "epsilon": 0.1} | {name: value}
    with pytest.raises(ValueError, match=f"^{re.escape(f'{expected}, got {value!r}.')}$"):
        regularized_value_and_grad(**arguments)
