"""Symmetric polynomial preconditioners against the paper's recursion, and against their meaning."""

import itertools
import math

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from raphson.linear import symmetric_polynomial

N = 6


def matrix(spectrum):
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(len(spectrum),) * 2))[0]
    return (basis * np.asarray(spectrum)) @ basis.T


SPECTRUM = np.array([0.1, 0.5, 1.0, 2.0, 7.0, 30.0])


def recursion(B, tau):
    """P_tau of the paper: U_i = tr(B^i) I - B^i and P_t = sum_i (-1)^(i-1) P_{t-i} U_i / t."""
    powers = [np.linalg.matrix_power(B, i) for i in range(tau + 1)]
    U = [np.trace(power) * np.eye(len(B)) - power for power in powers]
    P = [np.eye(len(B))]
    for t in range(1, tau + 1):
        P.append(sum((-1) ** (i - 1) * P[t - i] @ U[i] for i in range(1, t + 1)) / t)
    return P[tau]


@pytest.mark.parametrize("tau", range(N))
def test_is_the_papers_but_for_scale(tau):
    B = matrix(SPECTRUM)
    P = symmetric_polynomial(jnp.array(B), tau)
    scale = math.comb(N - 1, tau) * np.mean(SPECTRUM) ** tau
    np.testing.assert_allclose(scale * P.as_matrix(), recursion(B, tau), rtol=1e-9, atol=1e-10)
    assert lx.is_positive_semidefinite(P)


def test_of_the_highest_degree_is_the_adjugate():
    P = symmetric_polynomial(lx.MatrixLinearOperator(jnp.array(matrix(SPECTRUM))), N - 1)
    scale = np.prod(SPECTRUM) / np.mean(SPECTRUM) ** (N - 1)
    np.testing.assert_allclose(P.as_matrix() @ matrix(SPECTRUM), scale * np.eye(N), atol=1e-12)


@pytest.mark.parametrize("tau", [3, 12, 18])
def test_keeps_its_digits_where_the_recursion_does_not(tau):
    # On a diagonal B the weights are known as exact means of products.
    spectrum = np.geomspace(1e-6, 1e6, 20)
    P = jnp.diagonal(symmetric_polynomial(jnp.diag(jnp.array(spectrum)), tau).as_matrix())
    for i in (0, 10, 19):
        others = np.delete(spectrum / spectrum.mean(), i)
        products = [math.prod(chosen) for chosen in itertools.combinations(others, tau)]
        np.testing.assert_allclose(P[i], math.fsum(products) / len(products), rtol=1e-11)


@pytest.mark.parametrize("spectrum", [SPECTRUM, np.geomspace(1e-4, 1e4, 12), [1, 1, 1, 5, 5, 9]])
def test_conditions_fall_with_the_degree(spectrum):
    n, spectrum = len(spectrum), np.array(spectrum, float)
    B = jnp.diag(jnp.array(spectrum))
    weights = [jnp.diagonal(symmetric_polynomial(B, tau).as_matrix()) for tau in range(n)]
    conditions = [np.max(w * spectrum) / np.min(w * spectrum) for w in weights]
    assert np.all(np.diff(conditions) <= 1e-12) and conditions[0] > 5
    np.testing.assert_allclose(conditions[-1], 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("unit", [1e-30, 1.0, 1e30])
def test_has_no_units(unit, dtype):
    B = jnp.array(unit * matrix(SPECTRUM), dtype)
    P = jax.jit(lambda B: symmetric_polynomial(B, 4).as_matrix())(B)
    assert P.dtype == dtype
    expected = symmetric_polynomial(jnp.array(matrix(SPECTRUM)), 4).as_matrix()
    np.testing.assert_allclose(P, expected, atol=3e-6 if dtype == np.float32 else 1e-14)


def test_of_a_multiple_of_the_identity_or_of_zero():
    np.testing.assert_allclose(symmetric_polynomial(3 * jnp.eye(4), 2).as_matrix(), np.eye(4))
    np.testing.assert_array_equal(symmetric_polynomial(jnp.zeros((3, 3)), 2).as_matrix(), 0)


@pytest.mark.parametrize(
    ("B", "tau", "message"),
    [
        (jnp.ones((2, 3)), 1, r"`B` must be a square matrix, got the shape \(2, 3\)"),
        (jnp.eye(3), 3, "`tau` must be less than the number of unknowns, 3, got 3"),
        (jnp.eye(3), -1, "`tau` must be a whole number"),
    ],
)
def test_refuses(B, tau, message):
    with pytest.raises(ValueError, match=message):
        symmetric_polynomial(B, tau)
