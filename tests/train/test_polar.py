"""The polar factor against singular values, and its preconditioned steps against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from raphson.train import polar_factor
from raphson.train._polar import from_matrix_view, matrix_view
from tests.train.walk import walked

QUINTICS = [
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
]


polar = jax.jit(polar_factor, static_argnums=1)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def exact(x):
    u, _, vt = np.linalg.svd(x, full_matrices=False)
    return u @ vt


@pytest.mark.parametrize("steps", [1, 3, 4, 5])
@pytest.mark.parametrize("shape", [(5, 5), (3, 7), (7, 3)])
def test_steps_are_odd_polynomials_of_the_balanced_matrix(steps, shape):
    # By singular values, where the code multiplies matrices.
    x = normal(*shape)
    wide = x if shape[0] <= shape[1] else x.T
    balanced = wide / np.sqrt(np.abs(wide @ wide.T).sum(1, keepdims=True))
    u, s, vt = np.linalg.svd(balanced, full_matrices=False)
    assert s.max() <= 1
    for a, b, c in QUINTICS[5 - steps :]:
        s = a * s + b * s**3 + c * s**5
    expected = u @ np.diag(s) @ vt
    expected = expected if wide is x else expected.T
    np.testing.assert_allclose(polar(x, steps), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(4, 4), (3, 6), (6, 3), (1, 5)])
def test_without_steps_it_is_the_polar(shape):
    x = normal(*shape)
    np.testing.assert_allclose(polar(x, None), exact(x), rtol=0, atol=1e-13)


def test_directions_without_a_singular_value_stay_0():
    u, v = normal(6), normal(4)
    expected = np.outer(u, v) / (np.linalg.norm(u) * np.linalg.norm(v))
    np.testing.assert_allclose(polar(np.outer(u, v), None), expected, rtol=0, atol=1e-13)
    for steps in (4, None):
        np.testing.assert_array_equal(polar(jnp.zeros((3, 4)), steps), 0)
    # A row of zeros takes no part.
    x = np.vstack([normal(2, 5), np.zeros(5)])
    np.testing.assert_array_equal(polar(x)[2], 0)
    np.testing.assert_allclose(polar(x)[:2], polar(x[:2]), rtol=0, atol=1e-13)


def test_short_rows_are_balanced_too():
    found = polar(jnp.diag(jnp.array([1.0, 1e-6, -1e6])))
    np.testing.assert_allclose(found, found[0, 0] * np.diag([1, 1, -1]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("steps", [4, None])
@pytest.mark.parametrize("scale", [2.0**-100, 2.0**100])
def test_does_not_depend_on_the_scale(steps, scale):
    # Squares of either leave the range of single precision.
    x = jnp.asarray(normal(4, 6), jnp.float32)
    np.testing.assert_array_equal(polar(x * scale, steps), polar(x, steps))


def test_leading_axes_are_several_matrices():
    x = normal(2, 3, 5, 4)
    for steps in (4, None):
        apart = [[polar(matrix, steps) for matrix in row] for row in x]
        np.testing.assert_allclose(polar(x, steps), apart, rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_dtype_is_that_of_the_matrix(dtype):
    x = jnp.asarray(normal(8, 8), dtype)
    for steps in (4, None):
        assert polar(x, steps).dtype == dtype
        # It was computed in single precision, whatever it is returned in.
        wide = polar(x.astype(jnp.promote_types(dtype, jnp.float32)), steps)
        np.testing.assert_array_equal(polar(x, steps), wide.astype(dtype))


def test_optax_takes_the_same_steps():
    # Momentum 0 gives Optax the gradient itself, its shape is square, and it adds updates.
    x = normal(20, 20)
    muon = optax.contrib.muon(
        1.0, tuple(QUINTICS[1:]), 4, 0.0, nesterov=False, preconditioning="aol"
    )
    (after,) = walked(muon, jnp.zeros((20, 20)), [x])
    np.testing.assert_allclose(-after, polar(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("output_first", [False, True])
def test_matrix_view_is_outputs_by_all_else(output_first):
    leaf = jnp.arange(24.0).reshape(2, 3, 4)
    matrix = matrix_view(leaf, output_first)
    first = leaf[0] if output_first else leaf[..., 0]
    np.testing.assert_array_equal(matrix[0], first.ravel())
    assert matrix.shape == ((2, 12) if output_first else (4, 6))
    np.testing.assert_array_equal(from_matrix_view(matrix, leaf, output_first), leaf)


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        (0, "`steps` must be a whole number of at least 1, got 0."),
        (2.5, "`steps` must be a whole number of at least 1, got 2.5."),
        (6, "`steps` must be at most 5, got 6."),
    ],
)
def test_unfit_steps_are_refused(steps, says):
    with pytest.raises(ValueError, match=f"^{says}$"):
        polar_factor(jnp.eye(2), steps)


def test_differentiates_and_compiles():
    x = normal(3, 4)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(polar(x) ** 2)))(x)
    assert np.isfinite(gradient).all()
