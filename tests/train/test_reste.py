"""ReSTE's slopes against differences of its power, and by hand."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from raphson.train import reste_power, reste_sign


def slopes(x, *options, **named):
    return jax.grad(lambda x: jnp.sum(reste_sign(x, *options, **named)))(jnp.asarray(x))


def test_forward_is_the_sign_with_1_at_0():
    x = jnp.array([-3.0, -1e-30, 0.0, 1e-30, 3.0])
    for power in (1.0, 3.0):
        np.testing.assert_array_equal(reste_sign(x, power), [-1, -1, 1, 1, 1])


def test_power_1_is_straight_through_within_the_cut():
    x = jnp.array([-1.6, -1.5, -0.1, 0.0, 0.05, 1.5, 1.6])
    np.testing.assert_array_equal(slopes(x), [0, 1, 1, 1, 1, 1, 0])


@pytest.mark.parametrize("power", [1.0, 1.5, 3.0])
def test_slopes_are_those_of_the_power(power):
    def surrogate(x):
        return np.sign(x) * np.abs(x) ** (1 / power)

    x, h = np.array([-1.4, -0.5, 0.11, 0.7, 1.3]), 1e-6
    differences = (surrogate(x + h) - surrogate(x - h)) / (2 * h)
    np.testing.assert_allclose(slopes(x, power), differences, rtol=1e-8)
    # In the core it is the mean slope from 0 to its end, at 0 too.
    inside = slopes(np.array([-0.1, 0.0, 0.03]), power)
    np.testing.assert_allclose(inside, surrogate(0.1) / 0.1, rtol=1e-12)


def test_slopes_integrate_to_the_power():
    # What lies between is trained by as much as the surrogate rises over it.
    edges = np.linspace(0, 1.2, 400_001)
    middles = (edges[1:] + edges[:-1]) / 2
    total = np.sum(slopes(middles, 2.5, core=0.2)) * (edges[1] - edges[0])
    np.testing.assert_allclose(total, 1.2 ** (1 / 2.5), rtol=1e-5)


def test_gradients_are_passed_on_by_the_slope():
    x, weights = jnp.array([0.5, -0.2]), jnp.array([2.0, -3.0])
    gradient = jax.grad(lambda x: weights @ reste_sign(x, 2.0))(x)
    np.testing.assert_allclose(gradient, weights * slopes(x, 2.0), rtol=1e-14)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_keeps_the_dtype_and_compiles_with_any_power(dtype):
    x = jnp.array([[0.5, -0.3]], dtype)
    call = jax.jit(
        jax.vmap(jax.value_and_grad(lambda x, o: jnp.sum(reste_sign(x, o)), 0), (0, None))
    )
    value, gradient = call(x, 2.0)
    assert value.dtype == gradient.dtype == dtype
    np.testing.assert_array_equal(call(x, 3.0)[0], value)
    assert np.all(call(x, 3.0)[1] != gradient)


def test_power_rises_along_a_cosine():
    power = reste_power(60, 4.0)
    counts = np.array([0, 20, 60, 61, 1000])
    expected = [1, 1 + 3 * (1 - np.cos(np.pi / 6)), 4, 4, 4]
    np.testing.assert_allclose([power(count) for count in counts], expected, rtol=1e-12)
    np.testing.assert_allclose(jax.jit(power)(jnp.array(20)), expected[1], rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda: reste_sign(jnp.ones(1), 0.5),
            "`power` of reste_sign must be a number in [1, inf)",
        ),
        (
            lambda: reste_sign(jnp.ones(1), cut=0),
            "`cut` of reste_sign must be a number in (0, inf)",
        ),
        (
            lambda: reste_sign(jnp.ones(1), core=-1),
            "`core` of reste_sign must be a number in (0, inf)",
        ),
        (lambda: reste_power(10, 0.9), "`final` of reste_power must be a number in [1, inf)"),
        (lambda: reste_power(0), "`steps` must be a whole number of at least 1"),
    ],
)
def test_unfit_numbers_are_refused(call, says):
    with pytest.raises(ValueError, match=f"^{re.escape(says)}"):
        call()
