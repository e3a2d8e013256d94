"""Bilevel problems for penalties: their facts against searches by SciPy."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from raphson.problems import coupled_levels, flat_valley, jumping_minimum, quartic_levels

CERTIFIED = [quartic_levels, flat_valley, coupled_levels]


@pytest.mark.parametrize("make", [*CERTIFIED, jumping_minimum])
def test_the_optimum_is_the_value_at_the_minimizer(make):
    problem = make()
    value = problem.upper_value(*problem.facts.minimizer, None)
    np.testing.assert_allclose(value, problem.facts.optimum, rtol=1e-14)


@pytest.mark.parametrize("make", CERTIFIED)
def test_the_minimizer_is_certified(make):
    problem = make()
    assert float(problem.measures(problem.facts.minimizer)["residual"]) < 1e-12


def test_the_quartic_minimum_against_a_search():
    def objective(x):
        y = scipy.optimize.brentq(lambda y: y + y**3 / 10 - x, -5, 5, xtol=1e-14)
        return (y - 2) ** 2 / 2 + x**2 / 10

    found = scipy.optimize.minimize_scalar(objective, (0, 2), tol=1e-10)
    facts = quartic_levels().facts
    np.testing.assert_allclose(found.x, facts.minimizer[0], atol=1e-6)
    np.testing.assert_allclose(found.fun, facts.optimum, rtol=1e-12)


@pytest.mark.parametrize("x", [2.0, -1.0])
@pytest.mark.parametrize("sigma", [1.0, 0.1])
def test_objectives_of_the_flat_valley(x, sigma):
    problem = flat_valley()
    of = lambda fn: scipy.optimize.minimize(fn, np.zeros(2), tol=1e-12).fun
    F = lambda y: float(problem.upper_value(x, jnp.asarray(y), None))
    f = lambda y: float(problem.lower_value(x, jnp.asarray(y), None))
    penalized = of(lambda y: sigma * F(y) + f(y)) / sigma
    np.testing.assert_allclose(penalized, (x - 1) ** 2 / (2 * (sigma + 2)) + x**2 / 4, atol=1e-6)
    best = of(lambda t: F(np.array([t[0], x - t[0]])))
    np.testing.assert_allclose(best, (x - 1) ** 2 / 4 + x**2 / 4, atol=1e-6)


def test_no_certificate_holds_near_the_jump():
    problem = jumping_minimum()
    offsets = [-1e-3, -1e-9, 0.0, 1e-9, 1e-3]
    for x in offsets:
        for y in (-1.0, -0.5, 1.0):
            residual = problem.measures((jnp.array(x), jnp.array(y)))["residual"]
            assert float(residual) > 0.9
    assert float(problem.measures((jnp.array(-1.0), jnp.array(1.0)))["residual"]) == 0
    # The optimistic objective is least at the jump.
    x = np.linspace(-3, 3, 601)
    values = (x + 1) ** 2 / 2 - 2 * np.where(np.abs(x) < 1e-9, 1, np.sign(x))
    assert values.argmin() == 300 and values.min() == problem.facts.optimum


def test_the_coupled_lower_level_is_a_program_of_its_own():
    problem = coupled_levels(2)
    x, (y_1, y_2) = problem.facts.minimizer

    def objective(flat):
        # All lower answers: y_1 = x + 1, and y_2 with what is left for its sum.
        x, t = flat[:2], flat[2]
        y_2 = np.array([t, -2 * x.sum() - 2 - t])
        return (np.sum((x - y_2) ** 2) + np.sum(x**2)) / 2

    found = scipy.optimize.minimize(objective, np.zeros(3), tol=1e-12)
    np.testing.assert_allclose(found.x, (*x, y_2[0]), atol=1e-6)
    np.testing.assert_allclose(found.fun, problem.facts.optimum, atol=1e-10)
    np.testing.assert_allclose(y_1, x + 1)


@pytest.mark.parametrize("n", [0, 1.5, "two"])
def test_unfit_sizes_are_refused(n):
    with pytest.raises(ValueError, match="`n` must be a whole number of at least 1"):
        coupled_levels(n)
