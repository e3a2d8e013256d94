import jax.numpy as jnp
import numpy as np
import pytest

from raphson.problems import ball_quadratic, lasso

MAKE = pytest.mark.parametrize("make", [lasso, ball_quadratic])


@MAKE
def test_minimizer_and_optimum(make):
    problem = make([0.05, 0.3, 1.0, 2.0, 4.0], seed=3)
    facts, measures = problem.facts, problem.measures(problem.facts.minimizer)
    assert measures["residual"] < 1e-14
    assert measures["value"] == pytest.approx(facts.optimum, rel=1e-13)
    hessian = problem.smooth.hessian(problem.y0).as_matrix()
    spectrum = np.linalg.eigvalsh(hessian)
    np.testing.assert_allclose(spectrum[[0, -1]], [facts.strong_convexity, facts.lipschitz])
    for direction in np.random.default_rng(0).normal(size=(40, 5)):
        y = problem.prox(facts.minimizer + 1e-3 * jnp.asarray(direction), 1e-3)
        assert problem.minimized(y) > facts.optimum


def test_the_second_part_matters_there():
    sparse, bounded = lasso().facts.minimizer, ball_quadratic(pressure=0.3)
    assert np.sum(np.asarray(sparse) == 0) == 7
    minimizer = bounded.facts.minimizer
    assert float(jnp.linalg.norm(minimizer)) == pytest.approx(1.0)
    np.testing.assert_allclose(bounded.gradient(minimizer), -0.3 * minimizer, atol=1e-14)


@MAKE
def test_refuses_a_flat_quadratic(make):
    with pytest.raises(ValueError, match="`spectrum` must be positive"):
        make([0.0, 1.0])
