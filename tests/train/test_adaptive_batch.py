"""Adaptive batch sizes against the formulas in NumPy and sizes worked by hand."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from raphson.train import coordinate_test, inner_product_test, norm_test

TESTS = {
    "norm_test": norm_test,
    "coordinate_test": coordinate_test,
    "inner_product_test": inner_product_test,
}


def drawn(b, noise, seed=0):
    rng = np.random.default_rng(seed)
    mean = {"w": rng.normal(size=(2, 3)), "b": rng.normal(size=())}
    return jax.tree.map(lambda m: m + noise * rng.normal(size=(b, *m.shape)), mean)


def rows(gradients):
    return np.column_stack([gradients["w"].reshape(-1, 6), gradients["b"]])


@pytest.mark.parametrize("b", [2, 16])
@pytest.mark.parametrize("noise", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("eta", [0.1, 0.7])
def test_is_the_formula(b, noise, eta):
    gradients = drawn(b, noise)
    variance, mean = np.var(rows(gradients), axis=0, ddof=1), np.mean(rows(gradients), axis=0)
    by_norm = np.ceil(np.sum(variance) / (eta**2 * np.sum(mean**2)))
    by_entry = np.max(np.ceil(variance / (eta * mean) ** 2))
    assert norm_test(gradients, eta) == max(b, by_norm)
    assert jax.jit(coordinate_test)(gradients, eta) == max(b, by_entry)
    assert by_entry >= by_norm
    inner, square = rows(gradients) @ mean, np.sum(mean**2)
    across = rows(gradients) - np.outer(inner / square, mean)
    by_product = np.ceil(np.var(inner, ddof=1) / (eta * square) ** 2)
    assert inner_product_test(gradients, eta) == max(b, by_product) <= max(b, by_norm)
    for nu in (eta / 4, 4 * eta):
        by_angle = np.ceil(np.sum(across**2) / (b - 1) / (nu**2 * square))
        assert jax.jit(inner_product_test)(gradients, eta, nu) == max(b, by_product, by_angle)


@pytest.mark.parametrize("test", TESTS.values())
def test_batch_is_kept_just_where_the_test_holds(test):
    # Mean 1 and variance 4: at b = 4 the relative error is 1.
    gradients = jnp.array([3.0, 3.0, -1.0, -1.0]) * jnp.sqrt(0.75) + 1 - jnp.sqrt(0.75)
    assert test(gradients, 1.0 + 1e-9) == 4
    assert test(gradients, 0.999) == 5
    assert test(gradients, 0.5) == 16


def test_shards_stand_for_their_samples():
    # Of a normal sample, the means of shards tell the same variance in expectation.
    gradients = 1.0 + np.random.default_rng(0).normal(size=(4000, 8, 5))
    whole = norm_test(gradients.reshape(-1, 5), 0.005)
    shards = norm_test(gradients.mean(axis=1), 0.005, samples=8)
    np.testing.assert_allclose(whole, 40_000, rtol=0.02)
    np.testing.assert_allclose(shards, 40_000, rtol=0.05)
    assert norm_test(gradients.mean(axis=1), 10.0, samples=8) == 32_000


@pytest.mark.parametrize("test", TESTS.values())
def test_what_is_exact_needs_no_more_samples(test):
    assert test(jnp.ones((3, 2)), 0.1) == 3
    assert test(jnp.zeros((3, 2)), 0.1) == 3


def test_an_entry_that_never_moves_asks_for_nothing():
    gradients = drawn(16, 0.1)
    with_dead = gradients | {"dead": jnp.zeros((16, 4))}
    for test in TESTS.values():
        assert test(with_dead, 0.1) == test(gradients, 0.1)


@pytest.mark.parametrize("test", TESTS.values())
def test_sizes_are_limited(test):
    no_mean = jnp.array([[1.0], [-1.0]])
    assert test(no_mean, 0.1) == 2**30
    assert test(no_mean, 0.1, limit=512) == 512
    assert inner_product_test(no_mean, 0.1, nu=5.0, limit=512) == 512
    assert test(jnp.full((2, 1), jnp.nan), 0.1, limit=512) == 512
    assert test(jnp.ones((16, 1)), 0.1, limit=8) == 8
    largest = test(no_mean.astype(jnp.float32), 0.1, limit=2**31 - 1)
    assert largest.dtype == jnp.int32 and largest == 2**31 - 1


@pytest.mark.parametrize("test", TESTS.values())
def test_half_precision_is_averaged_in_single(test):
    # Summed in float16, squares of 300 overflow.
    gradients = jnp.asarray(300 + 30 * np.random.default_rng(0).normal(size=(64, 3)), jnp.float16)
    assert abs(test(gradients, 0.01) - test(gradients.astype(jnp.float64), 0.01)) <= 1


def test_batches_are_mapped_over():
    both = jnp.stack([drawn(8, 1.0)["w"], drawn(8, 5.0, 1)["w"]])
    sizes = jax.vmap(lambda gradients: norm_test(gradients, 0.3))(both)
    assert sizes.tolist() == [int(norm_test(gradients, 0.3)) for gradients in both]


@pytest.mark.parametrize("owner", TESTS)
def test_unfit_arguments_are_refused_in_one_sentence(owner):
    test, gradients = TESTS[owner], jnp.ones((2, 3))
    for arguments, says in (
        ({"eta": 0.0}, f"`eta` of {owner} must be a number in (0, inf), got 0.0."),
        ({"samples": 0}, "`samples` must be a whole number of at least 1, got 0."),
        ({"limit": 0.5}, "`limit` must be a whole number of at least 1, got 0.5."),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
            test(gradients, **{"eta": 0.1} | arguments)
    says = "`nu` of inner_product_test must be a number in (0, inf], got 0.0."
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        inner_product_test(gradients, 0.1, 0.0)
    for unfit in (jnp.ones(()), jnp.ones((1, 3)), [jnp.ones((2, 3)), jnp.ones((4, 3))]):
        with pytest.raises(ValueError, match=f"^`gradients` of {owner} must be arrays with one fi"):
            test(unfit, 0.1)
