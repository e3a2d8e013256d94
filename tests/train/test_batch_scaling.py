"""Curvatures of batches against dense Hessians in NumPy, closed forms and random matrices."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from raphson.train import batch_curvature, curvature_and_noise

KEY = jax.random.key(0)


def test_both_lines_of_the_formula():
    sizes = np.array([1.0, 3.0, 10.0, 100.0])
    found = jax.vmap(lambda size: batch_curvature(2.0, 40.0, size))(sizes)
    # sqrt(v / B) is 6.3, 3.7, 2 and 0.6: at 2 both lines are 4.
    np.testing.assert_allclose(found, [2 * 40**0.5, 2 * (40 / 3) ** 0.5, 4.0, 2.2], rtol=1e-14)


def test_nothing_is_left_out_of_a_whole_batch():
    assert batch_curvature(2.0, 40.0, 500, num_samples=500) == 2.0
    np.testing.assert_allclose(
        batch_curvature(2.0, 40.0, 100, num_samples=500), 2.0 + 0.8 * 0.4 / 2.0, rtol=1e-14
    )


@pytest.mark.parametrize("scale", [0.1, 0.3, 0.6])
def test_is_the_greatest_eigenvalue_of_a_noisy_matrix(scale):
    n, rng = 500, np.random.default_rng(0)
    noise = np.triu(scale * rng.normal(size=(n, n)))
    noisy = noise + np.triu(noise, 1).T
    noisy[0, 0] += 10.0
    noisy[1, 1] += 8.0
    greatest = np.linalg.eigvalsh(noisy)[-1]
    np.testing.assert_allclose(batch_curvature(10.0, n * scale**2, 1), greatest, rtol=0.05)


def dense(hessians):
    """Eigenvalue and noise from the Hessians of samples."""
    mean = np.mean(hessians, axis=0)
    eigenvalues, vectors = np.linalg.eigh(mean)
    departures = (hessians - mean) @ vectors[:, -1]
    squares = np.sum(departures**2, axis=1) - (departures @ vectors[:, -1]) ** 2
    return eigenvalues[-1], np.sum(squares) / (len(hessians) - 1)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_are_those_of_dense_hessians(sign):
    rng = np.random.default_rng(0)
    samples = {"a": rng.normal(size=(30, 6)) * np.arange(1, 7), "b": rng.normal(size=30)}
    x = {"w": rng.normal(size=(2, 2)), "b": rng.normal(size=2)}

    def loss(x, sample):
        z = sample["a"] @ jnp.append(x["w"].ravel(), x["b"])
        return sign * jax.nn.softplus(z * sample["b"]) + jnp.sum(x["w"] ** 4)

    def of_flat(flat, sample):
        return loss({"w": flat[:4].reshape(2, 2), "b": flat[4:]}, sample)

    flat = jnp.append(x["w"].ravel(), x["b"])
    expected = dense(np.asarray(jax.vmap(jax.hessian(of_flat), (None, 0))(flat, samples)))
    found = jax.jit(lambda x: curvature_and_noise(loss, x, samples, KEY))(x)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_space_that_ends_early_is_no_matter():
    # All eigenvalues are equal, and below 0.
    found = curvature_and_noise(lambda x, a: -a * jnp.sum(x**2), jnp.ones(5), jnp.ones(3), KEY)
    np.testing.assert_allclose(found, [-2.0, 0.0], atol=1e-14)


def test_few_products_suffice_where_one_curvature_stands_out():
    rows = np.random.default_rng(0).normal(size=(40, 300)) + 1.0
    found = curvature_and_noise(lambda x, a: (a @ x) ** 2 / 2, jnp.ones(300), rows, KEY, steps=8)
    expected = dense(rows[:, :, None] * rows[:, None, :])
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_are_at_least_in_single_precision(dtype):
    rows = jnp.asarray([[2.0, 0.0], [1.0, 1.0], [1.0, -1.0]], dtype)
    found = curvature_and_noise(lambda x, a: (a @ x) ** 2 / 2, jnp.ones(2, dtype), rows, KEY)
    assert all(number.dtype == jnp.promote_types(dtype, jnp.float32) for number in found)
    np.testing.assert_allclose(found, [2.0, 1.0], rtol=1e-5)
    assert batch_curvature(*found, 2).dtype == found[0].dtype


@pytest.mark.parametrize(
    ("name", "value", "range"),
    [
        ("curvature", 0.0, "(0, inf)"),
        ("noise", -1.0, "[0, inf)"),
        ("batch_size", 0, "(0, inf)"),
        ("num_samples", -5, "(0, inf)"),
    ],
)
def test_unfit_arguments_are_refused_in_one_sentence(name, value, range):
    says = f"`{name}` of batch_curvature must be a number in {range}, got {value!r}."
    arguments = {"curvature": 1.0, "noise": 1.0, "batch_size": 1} | {name: value}
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        batch_curvature(**arguments)


def test_unfit_measurements_are_refused():
    for arguments, says in (
        ((3, jnp.ones(2), jnp.ones(3), KEY), "`loss` must be a function, got 3."),
        ((jnp.sum, jnp.ones(2), jnp.ones(3), None), "`key` must be one random key"),
        ((jnp.sum, jnp.ones(2), jnp.ones(3), KEY, 0), "`steps` must be a whole number of at le"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(says)}"):
            curvature_and_noise(*arguments)
