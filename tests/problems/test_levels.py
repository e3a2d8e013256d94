"""The facts of the bilevel problems against closed forms in NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from raphson.problems import darts_scalar, non_singleton, ridge_penalty


@pytest.mark.parametrize("seed", range(3))
def test_ridge_penalty_is_least_on_held_out_data(seed):
    problem = ridge_penalty(30, 6, 1.5, held_out=40, seed=seed)
    A, b, A_out, b_out = map(np.asarray, problem.args)

    def value(x):
        y = np.linalg.solve(A.T @ A / 30 + np.exp(x) * np.eye(6), A.T @ b / 30)
        return np.mean((A_out @ y - b_out) ** 2) / 2, y

    x, y = problem.facts.minimizer
    assert value(x)[0] == pytest.approx(float(problem.facts.optimum), rel=1e-12)
    np.testing.assert_allclose(value(x)[1], y, rtol=1e-12)
    grid = np.linspace(-8, 4, 1000)
    assert min(value(x)[0] for x in grid) >= problem.facts.optimum
    found = minimize_scalar(lambda x: value(x)[0], bracket=(x - 0.5, x, x + 0.5), tol=1e-10)
    assert found.x == pytest.approx(float(x), abs=1e-6)
    assert problem.upper_value(*problem.y0, None) == pytest.approx(np.mean(b_out**2) / 2)


@pytest.mark.parametrize("make", [ridge_penalty, non_singleton, darts_scalar])
def test_solutions_solve_and_starts_do_not(make):
    problem = make()
    measures = problem.measures(problem.facts.minimizer)
    assert measures["residual"] < 1e-13 and measures["distance"] == 0
    assert measures["value"] == pytest.approx(float(problem.facts.optimum))
    assert problem.measures(problem.y0)["residual"] > 0.01


def test_the_flat_lower_level_knows_the_optimistic_answer():
    # At (1/2, (1/2, 0)) both gradients vanish, but F can be lowered along the minima of f.
    measures = non_singleton().measures((jnp.array(0.5), jnp.array([0.5, 0.0])))
    assert measures["lower"] == 0 and measures["hypergradient"] == 0
    assert measures["residual"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "`n` must be a whole number of at least 1, got 0"),
        ({"d": 1.5}, "`d` must be a whole number"),
        ({"noise": 0.0}, "`noise` must be a positive number, got 0.0"),
        ({"held_out": 0}, "`held_out` must be a whole number of at least 1"),
        ({"seed": -1}, "`seed` must be a whole number of at least 0"),
    ],
)
def test_unfit_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ridge_penalty(**arguments)
