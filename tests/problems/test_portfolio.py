"""Risk parity problems: facts, oracles and refusals, against NumPy and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import raphson as rp
from raphson.problems import (
    factor_correlation,
    random_correlation,
    risk_parity,
    risk_parity_equations,
)
from raphson.smooth import RiskParity

KNOWN = pytest.mark.parametrize("make", [risk_parity, random_correlation, factor_correlation])


def in_numpy(problem):
    C, b = np.asarray(problem.C), np.asarray(problem.budget)
    return lambda y: y @ C @ y / 2 - b @ np.log(y)


@KNOWN
def test_facts_are_exact(make):
    problem = make()
    y, value = problem.facts.minimizer, in_numpy(problem)
    C, b = np.asarray(problem.C), np.asarray(problem.budget)
    np.testing.assert_allclose(y * (C @ y), b, rtol=1e-12)
    assert problem.facts.optimum == pytest.approx(value(np.asarray(y)), rel=1e-14)
    found = scipy.optimize.minimize(
        lambda u: value(np.exp(u)), np.log(problem.y0), method="BFGS", options={"gtol": 1e-9}
    )
    np.testing.assert_allclose(np.exp(found.x), y, rtol=1e-5)
    assert np.all(np.diag(C) == pytest.approx(1.0))


@KNOWN
def test_oracles_are_those_of_the_function(make):
    problem = make()
    value = in_numpy(problem)
    y = np.random.default_rng(0).uniform(0.5, 1.5, problem.y0.size)
    assert float(problem.value(jnp.array(y))) == pytest.approx(value(y), rel=1e-13)
    by_autodiff = jax.grad(problem.objective)(jnp.array(y))
    np.testing.assert_allclose(problem.gradient(jnp.array(y)), by_autodiff, rtol=1e-12, atol=1e-14)
    both = problem.value_and_gradient(jnp.array(y))
    assert float(both[0]) == pytest.approx(value(y), rel=1e-13)
    np.testing.assert_allclose(both[1], by_autodiff, rtol=1e-12, atol=1e-14)


def test_the_papers_weights():
    problem = risk_parity()
    weights = problem.weights(problem.facts.minimizer)
    np.testing.assert_allclose(weights, [0.125, 0.047, 0.083, 0.613, 0.132], atol=5e-4)
    covariance = np.asarray(problem.C) * np.outer(problem.volatility, problem.volatility)
    risk = np.asarray(weights) * (covariance @ weights)
    np.testing.assert_allclose(risk / risk.sum(), 0.2, rtol=1e-12)


def test_outside_the_orthant_there_is_no_value():
    problem = risk_parity()
    outside = problem.y0.at[2].set(-0.1)
    assert problem.value(outside) == jnp.inf and jnp.isnan(problem.gradient(outside)).any()
    solution = rp.solve(RiskParity(problem.C, y0=outside), throw=False)
    assert rp.status_name(solution.status) == "nonfinite_start"


def test_measure_of_the_imbalance_knows_no_scale():
    problem = random_correlation(5)
    y = np.random.default_rng(1).uniform(0.5, 1.5, 5)
    C = np.asarray(problem.C)
    shares = y * (C @ y) / (y @ C @ y)
    for scale in (1.0, 3.0):
        measured = problem.measures(jnp.array(scale * y))["imbalance"]
        assert float(measured) == pytest.approx(np.abs(shares - 0.2).max(), rel=1e-12)


def test_equations_start_as_the_paper_says_and_lead_to_the_minimizer():
    problem = risk_parity_equations()
    C = np.asarray(risk_parity().C)
    a = (C.sum(axis=1) - 1) / (2 * np.sqrt(C.sum()))
    np.testing.assert_allclose(problem.y0, np.sqrt(a * a + 0.2) - a, rtol=1e-13)
    solution = rp.solve(problem, rtol=0.0, atol=1e-12)
    np.testing.assert_allclose(solution.value, problem.facts.minimizer, rtol=1e-11)


def test_other_units_have_the_same_weights():
    problem, units = risk_parity(), jnp.linspace(0.5, 2.0, 5)
    solution = rp.solve(rp.Scaled(problem, units, value_scale=3.0), atol=1e-11)
    np.testing.assert_allclose(solution.value * units, problem.facts.minimizer, rtol=1e-9)
    weights = problem.rescaled(units, 3.0).weights(solution.value)
    np.testing.assert_allclose(weights, problem.weights(problem.facts.minimizer), rtol=1e-9)


@pytest.mark.parametrize(
    "covariance, budget, sentence",
    [
        (np.ones((2, 3)), None, "`covariance` must be a square matrix, got shape"),
        (np.diag([1.0, 0.0]), None, "positive diagonal"),
        (np.array([[1.0, np.nan], [np.nan, 1.0]]), None, "must be finite"),
        (np.array([[1.0, 0.5], [0.0, 1.0]]), None, "must be symmetric"),
        (np.array([[1.0, 2.0], [2.0, 1.0]]), None, "must be positive semidefinite"),
        (np.eye(2), [0.5, 0.0], "`budget` must hold positive numbers"),
        (np.eye(2), [1.0], "`budget` must hold 2 numbers"),
    ],
)
def test_what_is_no_portfolio_is_refused(covariance, budget, sentence):
    with pytest.raises(ValueError, match=sentence):
        risk_parity(covariance, budget)
