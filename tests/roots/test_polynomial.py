"""Polynomial systems against NumPy, and Smale's certificate against closed forms and real roots."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.problems import circle_and_hyperbola, griewank_osborne
from raphson.roots import PolynomialSystem, alpha_certificate, deflated

RNG = np.random.default_rng(0)


def univariate(coefficients, y0=0.0):
    """By coefficients from the highest power down, as in NumPy."""
    exponents = np.arange(len(coefficients))[::-1, None]
    return PolynomialSystem(exponents, [coefficients], [y0])


def random_system(n=2, degree=3):
    grid = np.indices((degree + 1,) * n).reshape(n, -1).T
    exponents = grid[grid.sum(1) <= degree]
    return PolynomialSystem(exponents, RNG.normal(size=(n, len(exponents))), RNG.normal(size=n))


def test_values_and_derivatives_are_those_of_numpy():
    c = RNG.normal(size=5)
    problem = univariate(c)
    for y in (-1.5, 0.0, 2.0):
        np.testing.assert_allclose(problem.residual(jnp.array([y])), [np.polyval(c, y)])
        J = problem.jacobian(jnp.array([y])).as_matrix()
        np.testing.assert_allclose(J, [[np.polyval(np.polyder(c), y)]])


def test_it_is_a_root_finding_problem_like_others():
    solution = rp.solve(rp.Scaled(univariate([1.0, 0.0, -2.0], 1.0), 2.0), atol=1e-12)
    np.testing.assert_allclose(2 * solution.value, [2**0.5])
    problem = univariate([1.0, 0.0, -2.0], np.float32(1.0))
    assert rp.solve(problem).value.dtype == jnp.float32


@pytest.mark.parametrize("d", [2, 3, 5])
@pytest.mark.parametrize("y", [0.0, 1.0, -3.0])
def test_the_certificate_of_a_power_in_closed_form(d, y):
    # Bombieri's norm of (x + z)^d is 2^(d/2), for it is invariant under rotations.
    problem = univariate(np.poly(-np.ones(d)))
    got = alpha_certificate(problem, [y])
    size = np.sqrt(1 + y**2)
    slope = d * abs(y + 1) ** (d - 1)
    mu = max(1, 2 ** (d / 2) * np.sqrt(d) * size ** (d - 1) / slope)
    np.testing.assert_allclose(got.gamma, mu * d**1.5 / (2 * size), rtol=1e-10)
    np.testing.assert_allclose(got.beta, abs(y + 1) / d, rtol=1e-10)
    np.testing.assert_allclose(got.alpha, got.beta * got.gamma)
    np.testing.assert_allclose(got.distance, 2 * got.beta)


def test_gamma_bounds_all_derivatives():
    for _ in range(5):
        problem = random_system()
        y, directions = RNG.normal(size=2), RNG.normal(size=(200, 2))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        J = np.asarray(problem.jacobian(jnp.asarray(y)).as_matrix())

        def along(v, f=problem.mapping, y=y):
            second = jax.jacfwd(jax.jacfwd(lambda t: f(y + t * v)))
            return jnp.stack([second(0.0), jax.jacfwd(second)(0.0)])

        derivatives = np.asarray(jax.vmap(along)(jnp.asarray(directions)))
        sizes = np.linalg.norm(np.linalg.solve(J[None, None], derivatives[..., None]), axis=(2, 3))
        gamma = max((sizes[:, k - 2].max() / math.factorial(k)) ** (1 / (k - 1)) for k in (2, 3))
        assert gamma <= float(alpha_certificate(problem, y).gamma)


def test_a_certified_point_has_a_root_nearby_to_which_newton_converges_quadratically():
    c = np.poly([-2.0, 0.5, 3.0])
    problem = univariate(c)
    certificates = jax.vmap(lambda y: alpha_certificate(problem, y[None]))(jnp.linspace(-4, 4, 401))
    accepted = 0
    for y, ok, far in zip(
        np.linspace(-4, 4, 401), certificates.certified, certificates.distance, strict=True
    ):
        if not ok:
            continue
        accepted += 1
        gap = np.min(np.abs(y - np.array([-2.0, 0.5, 3.0])))
        assert gap <= far
        for k in range(1, 5):  # Smale: the k-th error is at most 2^(1 - 2^k) times the first
            y = y - np.polyval(c, y) / np.polyval(np.polyder(c), y)
            after = np.min(np.abs(y - np.array([-2.0, 0.5, 3.0])))
            assert after <= 0.5 ** (2**k - 1) * gap + 1e-15
    assert 3 <= accepted < 100


def test_a_residual_that_rounds_to_zero_beside_a_singular_root_certifies_nothing():
    problem, y = circle_and_hyperbola(), 1 + 2.0**-28 * np.array([1.0, -1.0])
    assert not np.any(problem.mapping(jnp.asarray(y)))
    assert not bool(alpha_certificate(problem, y).certified)


def test_a_singular_jacobian_certifies_nothing():
    got = alpha_certificate(circle_and_hyperbola(), jnp.ones(2))
    assert float(got.alpha) == np.inf and not bool(got.certified)


@pytest.mark.parametrize("seed", [0, 3])
def test_the_deflated_system_is_that_of_the_formula(seed):
    problem = griewank_osborne()
    system = deflated(problem, problem.y0, order=1, seed=seed)
    assert system.y0.shape == (2 + 2,)
    rng = np.random.default_rng(seed)
    B = np.linalg.qr(rng.normal(size=(2, 2)))[0]
    combine = np.linalg.qr(rng.normal(size=(5, 4)))[0]
    h = np.asarray(system.y0[2:])
    for _ in range(3):
        y, v = RNG.normal(size=(2, 2))
        F, slope = jax.jvp(problem.mapping, (jnp.asarray(y),), (jnp.asarray(B @ v),))
        expected = combine.T @ np.concatenate([F, slope, [h @ v - 1]])
        np.testing.assert_allclose(system.mapping(jnp.append(y, v)), expected, rtol=1e-12)
    # h, and the v to begin with, are the unit vector that J B shrinks most.
    J = np.asarray(problem.jacobian(problem.y0).as_matrix())
    units = RNG.normal(size=(2, 50))
    units /= np.linalg.norm(units, axis=0)
    np.testing.assert_allclose(np.linalg.norm(h), 1)
    assert np.linalg.norm(J @ B @ h) <= np.linalg.norm(J @ B @ units, axis=0).min()


def test_where_nothing_is_singular_the_system_is_itself():
    problem = circle_and_hyperbola()
    system = deflated(problem, [2.0, 0.5])
    np.testing.assert_array_equal(system.y0, [2.0, 0.5])
    for ours, given in zip(system.args, problem.args, strict=True):
        np.testing.assert_array_equal(ours, given)


@pytest.mark.parametrize(
    ("coefficients", "y", "rtol", "unknowns"),
    [
        (np.poly([1.0, 2.0]), [1.01], 0.05, 1),
        (np.poly([1.0, 1.0]), [1.01], 0.05, 2),
        (np.poly([1.0, 1.0, 1.0]), [1.01], 0.01, 4),
    ],
)
def test_deflates_as_often_as_a_multiple_root_needs(coefficients, y, rtol, unknowns):
    system = deflated(univariate(coefficients), y, rtol=rtol)
    assert system.y0.shape == (unknowns,)
    deflations = {1: 0, 2: 1, 4: 2}[unknowns]
    # No further deflation is made where one is allowed, nor is one left out.
    more = deflated(univariate(coefficients), y, rtol=rtol, order=deflations + 1)
    assert more.y0.shape == (unknowns,)
    assert deflations == 0 or (
        deflated(univariate(coefficients), y, rtol=rtol, order=deflations - 1).y0.size < unknowns
    )


def test_deflates_until_it_is_regular():
    system = deflated(griewank_osborne(), [2e-3, 1e-3], rtol=0.01)
    assert system.y0.shape == (8,)
    solution = rp.solve(system, rp.roots.LevenbergMarquardt(), rtol=0.0, atol=1e-13, throw=False)
    np.testing.assert_allclose(solution.value[:2], 0, atol=1e-12)
    assert bool(alpha_certificate(system, solution.value).certified)


@pytest.mark.parametrize(
    ("problem", "order"), [(circle_and_hyperbola(), 1), (griewank_osborne(), 2)]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_singular_roots_are_found_to_the_last_digit(problem, order, seed):
    system = deflated(problem, problem.y0, order=order, seed=seed)
    y = system.y0
    for _ in range(12):
        y = y - np.linalg.solve(system.jacobian(y).as_matrix(), system.mapping(y))
    np.testing.assert_allclose(y[:2], problem.facts.minimizer, atol=1e-12)
    assert bool(alpha_certificate(system, y).certified)
    singular = np.linalg.svd(problem.jacobian(y[:2]).as_matrix(), compute_uv=False)
    assert singular[-1] < 1e-11


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: PolynomialSystem([[0.5]], [[1.0]], [1.0]),
            "`exponents` must be a matrix of whole",
        ),
        (lambda: PolynomialSystem([[1], [1]], [[1.0, 2.0]], [1.0]), "no row twice"),
        (lambda: PolynomialSystem([[1]], [[1.0, 2.0]], [1.0]), "a column for each of the 1 rows"),
        (lambda: PolynomialSystem([[1]], [[1.0]], [1.0, 2.0]), r"got \(1, 1\) and \(2,\)"),
        (
            lambda: alpha_certificate(rp.RootFind(lambda y, _: jnp.exp(y), jnp.ones(1)), [1.0]),
            "must be a PolynomialSystem, got a RootFind: .* nothing is certified",
        ),
        (
            lambda: alpha_certificate(PolynomialSystem([[1]], [[1.0], [2.0]], [1.0]), [1.0]),
            "as many equations as unknowns, got 2 for 1",
        ),
        (
            lambda: deflated(PolynomialSystem([[1, 1], [2, 0]], np.eye(2), [0, 2.0]), [0, 2.0]),
            "must be near an isolated root: after 4 deflations",
        ),
        (lambda: deflated(univariate([1.0, 0.0]), [2.0], order=-1), "`order` must be a whole"),
        (lambda: deflated(univariate([1.0, 0.0]), [2.0], rtol=2.0), "`rtol` must be a number"),
        (lambda: deflated(rp.problems.cubic_root(), [2.0]), "must be a PolynomialSystem"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
