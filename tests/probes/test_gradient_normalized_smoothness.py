"""gamma against closed forms, a search over all h in NumPy, and what Lipschitz bounds promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import raphson as rp
from raphson.probes import gradient_normalized_smoothness
from raphson.problems import logistic_synthetic, quadratic

KEY = jax.random.key(0)

# e^r - 1 - r = 1: where exp is twice as far from its tangent as the gradient is great.
OF_EXP = scipy.optimize.brentq(lambda r: np.exp(r) - 2 - r, 1, 2)


def of(fn, y, args=None, **options):
    problem = rp.Minimize(fn, jnp.asarray(y), args)
    return float(gradient_normalized_smoothness(problem, problem.y0, KEY, **options))


@pytest.mark.parametrize("y", [1e-3, 1.0, -50.0])
def test_closed_forms_of_one_unknown(y):
    # On |y|^3 / 6, |e| = h^2 / 2 up to the kink, behind which it grows no faster.
    np.testing.assert_allclose(of(lambda y, _: jnp.abs(y) ** 3 / 6, y), abs(y), rtol=1e-6)
    # On the exponential gamma does not depend on y at all.
    np.testing.assert_allclose(of(lambda y, _: jnp.exp(y), y), OF_EXP, rtol=1e-6)
    # With H = 0 on the square, |e| = |h| = |h| |g| / |y|.
    np.testing.assert_allclose(of(lambda y, _: y**2 / 2, y, hessian="zero"), abs(y), rtol=1e-6)


def test_least_over_all_directions():
    # With H = 0 the error is A h, greatest along the leading eigenvector.
    for seed in range(3):
        problem = quadratic([0.1, 1.0, 4.0, 4.1], seed=seed)
        gamma = gradient_normalized_smoothness(problem, problem.y0, KEY, hessian="zero")
        slope = np.linalg.norm(problem.gradient(problem.y0))
        np.testing.assert_allclose(gamma, slope / 4.1, rtol=1e-3)
        assert np.isinf(gradient_normalized_smoothness(problem, problem.y0, KEY))


@pytest.mark.parametrize("hessian", ["exact", "gauss_newton"])
def test_against_a_search_over_the_plane(hessian):
    def bent(y, xp):
        return xp.stack([y[0] + y[1] ** 2, y[1] - y[0] * y[1], y[0] ** 3 - 1])

    problem = rp.LeastSquares(lambda y, _: bent(y, jnp), jnp.array([0.5, -0.3]))
    gamma = gradient_normalized_smoothness(problem, problem.y0, KEY, hessian=hessian)

    a, b = y = np.array([0.5, -0.3])
    jacobian = lambda a, b: np.array([[1 + 0 * a, 2 * b], [-b, 1 - a], [3 * a**2, 0 * a]])
    J, r = jacobian(a, b), bent(y, np)
    H = J.T @ J
    if hessian == "exact":
        H = H + np.array([[6 * a * r[2], -r[1]], [-r[1], 2 * r[0]]])
    g = J.T @ r
    lengths, angles = np.meshgrid(np.geomspace(1e-4, 10, 1500), np.linspace(0, 2 * np.pi, 1000))
    h = lengths * np.stack([np.cos(angles), np.sin(angles)])
    there = y[:, None, None] + h
    g_there = np.einsum("kl...,k...->l...", jacobian(*there), bent(there, np))
    error = g_there - g[:, None, None] - np.einsum("kl,l...->k...", H, h)
    radii = np.linalg.norm(g) * lengths / np.linalg.norm(error, axis=0)
    searched = np.min(np.maximum(lengths, radii)[lengths > 1e-3])
    np.testing.assert_allclose(gamma, searched, rtol=1e-2)


def test_no_less_than_lipschitz_constants_promise():
    problem = logistic_synthetic(50, 5)
    for shift in (0.0, 1.0, 10.0):
        y = problem.y0 + shift
        slope = np.linalg.norm(problem.gradient(y))
        exact, zero = (
            gradient_normalized_smoothness(problem, y, KEY, hessian=hessian)
            for hessian in ("exact", "zero")
        )
        assert exact >= np.sqrt(2 * slope / problem.facts.hessian_lipschitz)
        # At 0 the Hessian is as great as anywhere, and the bound is attained.
        bound = slope / problem.facts.lipschitz
        assert bound * (1 - 1e-6) <= zero and (shift > 0 or zero <= bound * (1 + 1e-3))


def test_error_that_lies_against_the_gradient():
    # e = 3 (r - 1)^2 at -r from 1, and none on the other side.
    gamma = of(lambda y, _: y + jnp.maximum(-y, 0) ** 3, 1.0, directions=1)
    np.testing.assert_allclose(gamma, 1 + 1 / np.sqrt(3), rtol=1e-6)


def test_stops_where_the_gradient_does():
    problem = rp.Minimize(
        lambda y, _: y**2,
        jnp.array(2.0),
        gradient=lambda y, _: jnp.where(y > 3, jnp.nan, 2 * y),
    )
    gamma = gradient_normalized_smoothness(problem, problem.y0, KEY)
    np.testing.assert_allclose(gamma, 1, rtol=1e-5)


def test_trees_vmap_and_single_precision():
    def cube(y, _):
        return jnp.sum(jnp.abs(y["u"]) ** 3) / 6 + jnp.abs(y["v"]) ** 3 / 6

    def gamma(y):
        tree = {"u": y[:1], "v": y[1]}
        return gradient_normalized_smoothness(rp.Minimize(cube, tree), tree, KEY)

    # Along one axis the error is h^2 / 2 = |g|, which is more than along any other way.
    ys = jnp.array([[1.0, 2.0], [3.0, 3.0]])
    together = jax.jit(jax.vmap(gamma))(ys)
    expected = np.sqrt(np.linalg.norm(np.asarray(ys) ** 2, axis=1))
    np.testing.assert_allclose(together, expected, rtol=1e-3)
    single = gamma(ys[0].astype(jnp.float32))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, expected[0], rtol=1e-2)


def test_refuses_other_problems():
    problem = rp.RootFind(lambda y, _: y - 1, jnp.array(0.0))
    with pytest.raises(ValueError, match="`problem` must be an objective, got a RootFind"):
        gradient_normalized_smoothness(problem, problem.y0, KEY)
    problem = rp.Minimize(lambda y, _: y**2, jnp.array(0.0))
    with pytest.raises(ValueError, match='`hessian="gauss_newton"`'):
        gradient_normalized_smoothness(problem, problem.y0, KEY, hessian="gauss_newton")
    with pytest.raises(ValueError, match="`directions` must be a whole number"):
        gradient_normalized_smoothness(problem, problem.y0, KEY, directions=0)
