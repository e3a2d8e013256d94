"""Singular roots against dual spaces and multiplicities in closed form, and matrices in NumPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import raphson as rp
from raphson.problems import circle_and_hyperbola, griewank_osborne
from raphson.roots import PolynomialSystem, multiplicity_structure, singular_root

RNG = np.random.default_rng(0)


def kobayashi_suzuki_sakai(n):
    """y_i^2 + sum y - 2 y_i = n - 1, that is z_i^2 = -sum z around the root y = 1."""
    eye = np.eye(n, dtype=int)
    exponents = np.vstack([2 * eye, eye, np.zeros((1, n), int)])
    return PolynomialSystem(
        exponents, np.hstack([eye, 1.0 - 2 * eye, np.full((n, 1), 1.0 - n)]), np.ones(n)
    )


def crossed_lines():
    """x^2 = y^2 and x y = 0 around the root (1, -2)."""
    exponents = [[2, 0], [1, 0], [0, 2], [0, 1], [1, 1], [0, 0]]
    x, y = np.array([1.0, -2, 0, 0, 0, 1]), np.array([0.0, 0, 1, 4, 0, 4])
    product = np.array([0.0, 2, 0, -1, 1, -2])
    return PolynomialSystem(exponents, np.stack([x - y, product]), [1.0, -2.0])


def gauss_newton(problem, steps):
    """The roots that so many steps lead to."""
    flat, unravel = ravel_pytree(problem.y0)

    @jax.jit
    def linearized(flat):
        y = unravel(flat)
        return ravel_pytree(problem.mapping(y))[0], problem.jacobian(y).as_matrix()

    path = [np.asarray(flat)]
    for _ in range(steps):
        F, J = linearized(path[-1])
        path.append(path[-1] - np.linalg.lstsq(J, F, None)[0])
    return np.array(path)[:, : problem.y0[0].size]


@pytest.mark.parametrize(
    ("problem", "root", "dual"),
    [
        (circle_and_hyperbola(), [1, 1], [{(0, 0): 1}, {(1, 0): 1, (0, 1): -1}]),
        (
            griewank_osborne(),
            [0, 0],
            [{(0, 0): 1}, {(1, 0): 1}, {(2, 0): 1, (0, 1): 1}],
        ),
        (
            crossed_lines(),
            [1, -2],
            [{(0, 0): 1}, {(1, 0): 1}, {(0, 1): 1}, {(2, 0): 1, (0, 2): 1}],
        ),
    ],
)
def test_dual_spaces_in_closed_form(problem, root, dual):
    found = multiplicity_structure(problem, root)
    assert found.multiplicity == len(dual) == len(found.functionals)
    places = {tuple(g): i for i, g in enumerate(found.exponents)}
    expected = np.zeros((len(dual), len(places)))
    for row, functional in zip(expected, dual, strict=True):
        for g, c in functional.items():
            row[places[g]] = c
    projections = [np.linalg.pinv(rows) @ rows for rows in (expected, found.functionals)]
    np.testing.assert_allclose(*projections, atol=1e-14)
    at_basis = found.functionals[:, [places[tuple(b)] for b in found.basis]]
    np.testing.assert_allclose(at_basis, np.eye(len(dual)), atol=1e-14)
    # Near the root it is nearly the same.
    near = multiplicity_structure(problem, np.array(root) + [2e-3, -1e-3])
    projection = np.linalg.pinv(near.functionals) @ near.functionals
    np.testing.assert_allclose(projection, projections[0], atol=1e-2)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_a_known_multiplicity(n):
    # Bezout: all other roots are z = t (+-1, ..., +-1) with t = -sum z / t not 0.
    others = (2**n - (math.comb(n, n // 2) if n % 2 == 0 else 0)) // 2
    y = 1 + 1e-3 * RNG.normal(size=n)
    assert multiplicity_structure(kobayashi_suzuki_sakai(n), y).multiplicity == 2**n - others


def test_a_regular_root_is_simple():
    found = multiplicity_structure(circle_and_hyperbola(), [1.6, 0.4])
    assert found.multiplicity == 1 and found.basis.tolist() == [[0, 0]]
    extended = singular_root(griewank_osborne(), [1.0, 2.0])
    np.testing.assert_allclose(
        extended.mapping(extended.y0)[0][:, 0], griewank_osborne().mapping(jnp.array([1.0, 2.0]))
    )


def test_the_equations_are_those_of_matrices_that_commute():
    extended = singular_root(griewank_osborne(), [2e-3, 1e-3])
    x, y, *c = RNG.normal(size=5)
    X = np.array([[x, 0, 0], [1, x, 0], [0, 1, x]])
    Y = np.array([[y, 0, 0], [c[0], y, 0], [c[1], c[2], y]])
    first = 29 / 16 * np.linalg.matrix_power(X, 3) - 2 * Y @ X
    F, commutators = extended.mapping((jnp.array([x, y]), jnp.array(c)))
    np.testing.assert_allclose(F, [first[:, 0], (Y - X @ X)[:, 0]], rtol=1e-12)
    np.testing.assert_allclose(commutators[0, 1], X @ Y - Y @ X, atol=1e-12)
    assert np.any(commutators)


def test_in_one_unknown_they_are_the_derivatives():
    c = np.poly([1.0, 1.0, 1.0, -2.0])
    extended = singular_root(PolynomialSystem(np.arange(5)[::-1, None], [c], [1.0]), [1.001])
    assert extended.y0[1].shape == (0,)
    F, _ = extended.mapping((jnp.array([0.3]), jnp.zeros(0)))
    expected = [np.polyval(np.polyder(c, k), 0.3) / math.factorial(k) for k in range(3)]
    np.testing.assert_allclose(F[0], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("problem", "y", "root"),
    [
        (circle_and_hyperbola(), [1.02, 0.99], [1, 1]),
        (griewank_osborne(), [0.02, 0.01], [0, 0]),
        (crossed_lines(), [1.01, -1.99], [1, -2]),
        (kobayashi_suzuki_sakai(3), [1.01, 1.0, 0.99], [1, 1, 1]),
    ],
)
def test_the_root_is_simple_and_reached_quadratically(problem, y, root):
    extended = singular_root(problem, y)
    errors = np.linalg.norm(gauss_newton(extended, 5) - np.array(root), axis=1)
    assert np.all(errors[1:] < np.maximum(20 * errors[:-1] ** 2, 1e-14))
    assert errors[-1] < 1e-14


def test_single_precision():
    problem = circle_and_hyperbola()
    exponents, coefficients = problem.args
    single = PolynomialSystem(exponents, coefficients.astype(np.float32), np.ones(2, np.float32))
    extended = singular_root(single, [1.02, 0.99])
    root, _ = rp.solve(extended, rp.roots.LevenbergMarquardt(), rtol=0.0, atol=1e-6).value
    assert root.dtype == jnp.float32
    np.testing.assert_allclose(root, 1, atol=1e-5)  # of F itself a residual of 1e-7 leaves 3e-4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: singular_root(rp.problems.cubic_root(), [0.0]),
            "must be a PolynomialSystem, got a RootFind",
        ),
        (
            lambda: multiplicity_structure(
                PolynomialSystem([[1, 1], [2, 0]], np.eye(2), [0.0, 2.0]), [0.0, 2.0], max_order=4
            ),
            "must be near an isolated root: .* functionals of order 4",
        ),
        (lambda: singular_root(griewank_osborne(), [0.0, 0.0], rtol=1.0), "`rtol` must be a"),
        (lambda: singular_root(griewank_osborne(), [0.0, 0.0], max_order=0), "`max_order` must be"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
