"""Forward gradients against their exact moments, and the signature of `jax.value_and_grad`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from raphson.train import forward_value_and_grad


def loss(params, scale=1.0):
    return scale * (jnp.sum(params["w"] ** 3) + jnp.sin(params["b"]))


PARAMS = {"w": jnp.arange(1.0, 7.0).reshape(2, 3), "b": jnp.array(0.5)}


def test_is_the_slope_along_a_direction_times_it():
    value, estimate = forward_value_and_grad(loss, directions="rademacher")(
        jax.random.key(3), PARAMS, scale=2.0
    )
    expected, gradient = jax.value_and_grad(loss)(PARAMS, 2.0)
    np.testing.assert_allclose(value, expected, rtol=1e-14)
    estimate, gradient = (np.append(tree["w"], tree["b"]) for tree in (estimate, gradient))
    signs = np.sign(estimate)  # of v, or of -v
    np.testing.assert_allclose(estimate, abs(gradient @ signs) * signs, rtol=1e-12)
    assert -7 < np.sum(signs) < 7


@pytest.mark.parametrize(("directions", "excess"), [("normal", 1), ("rademacher", -1)])
@pytest.mark.parametrize("samples", [1, 4])
def test_moments_are_exact(directions, excess, samples):
    n, draws = 20, 20_000
    g = np.linspace(-1, 2, n)
    estimate = forward_value_and_grad(lambda x: g @ x, samples, directions)
    keys = jax.random.split(jax.random.key(0), draws // samples)
    found = np.asarray(jax.jit(jax.vmap(lambda key: estimate(key, jnp.zeros(n))[1]))(keys))
    variance = np.mean(np.sum((found - g) ** 2, axis=1))
    np.testing.assert_allclose(variance, (n + excess) / samples * (g @ g), rtol=0.05)
    # Each mean is within five standard errors.
    errors = np.std(found, axis=0) / np.sqrt(len(found))
    assert np.all(np.abs(found.mean(axis=0) - g) < 5 * errors)


def test_takes_what_value_and_grad_takes():
    def fn(params, shift, *, scale):
        value = loss(params, scale) + shift
        return value, {"twice": 2 * value}

    options = {"scale": 3.0}
    estimate = jax.jit(forward_value_and_grad(fn, has_aux=True))
    (value, aux), gradient = estimate(jax.random.key(0), PARAMS, 1.0, **options)
    (expected, expected_aux), exact = jax.value_and_grad(fn, has_aux=True)(PARAMS, 1.0, **options)
    np.testing.assert_allclose(value, expected, rtol=1e-14)
    np.testing.assert_allclose(aux["twice"], expected_aux["twice"], rtol=1e-14)
    assert jax.tree.map(jnp.shape, gradient) == jax.tree.map(jnp.shape, exact)


@pytest.mark.parametrize("directions", ["normal", "rademacher"])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_estimate_has_the_dtypes_of_the_parameters(dtype, directions):
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), PARAMS) | {"other": jnp.ones(2)}
    _, estimate = forward_value_and_grad(
        lambda p: loss(p).astype(float) + jnp.sum(p["other"]), directions=directions
    )(jax.random.key(0), params)
    assert jax.tree.map(jnp.result_type, estimate) == jax.tree.map(jnp.result_type, params)


def test_descends_rosenbrocks_valley():
    def rosenbrock(x):
        return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2

    estimate = forward_value_and_grad(rosenbrock)
    optimizer = optax.adam(optax.exponential_decay(0.02, 5000, 0.05))

    def step(carry, key):
        x, state = carry
        updates, state = optimizer.update(estimate(key, x)[1], state)
        return (x + updates, state), None

    start = jnp.array([-1.0, 1.5])
    keys = jax.random.split(jax.random.key(0), 5000)
    (x, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), keys)
    assert rosenbrock(x) < 1e-2 < rosenbrock(start)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"fn": 1.0}, "`fn` must be a function, got 1.0."),
        ({"samples": 0}, "`samples` must be a whole number of at least 1, got 0."),
        ({"directions": "sign"}, "`directions` must be one of 'normal', 'rademacher', got 'sign'."),
    ],
)
def test_unfit_arguments_are_refused_in_one_sentence(options, says):
    with pytest.raises(ValueError, match=f"^{says}$"):
        forward_value_and_grad(**({"fn": loss} | options))
