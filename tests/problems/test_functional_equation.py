"""The paradise fish's equation against a recursion written out, and its two forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.problems import paradise_fish, paradise_fish_fit
from raphson.problems.functional_equation import fish_polynomial


def recursed(x, alpha, beta, depth):
    """T applied `depth` times to f(x) = x, by its recursion and without a grid."""
    if depth == 0:
        return x
    up = recursed((1 - alpha) * x + alpha, alpha, beta, depth - 1)
    return x * up + (1 - x) * recursed((1 - beta) * x, alpha, beta, depth - 1)


def test_picard_is_the_recursion():
    problem = paradise_fish(0.3, 0.6, n=2001)
    y = problem.y0
    for depth in range(1, 5):
        y = problem.apply(y)
        for at in (0.1, 0.5, 0.85):
            expected = recursed(at, 0.3, 0.6, depth)
            assert float(jnp.interp(at, problem.y0, y)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("alpha, beta", [(0.2, 0.5), (0.1, 0.3), (0.4, 0.4)])
def test_the_minimizer_solves_it(alpha, beta):
    problem = paradise_fish(alpha, beta, n=101)
    f = problem.facts.minimizer
    assert float(jnp.abs(problem.residual(f)).max()) < 1e-14
    assert f[0] == 0 and f[-1] == 1 and bool((jnp.diff(f) > 0).all())
    solution = rp.solve(problem, rp.roots.KrasnoselskiiMann(), rtol=0.0, atol=1e-11)
    np.testing.assert_allclose(solution.value, f, atol=1e-9)


def test_who_learns_alike_from_both_ends_as_begun():
    # For alpha = beta the chance is a martingale: f(x) = x.
    problem = paradise_fish(0.4, 0.4, n=33)
    np.testing.assert_allclose(problem.facts.minimizer, problem.y0, atol=1e-13)
    c = rp.solve(paradise_fish_fit(0.4, 0.4)).value
    np.testing.assert_allclose(c, 0.0, atol=1e-9)


def test_the_ends_are_pinned():
    # Any constant solves the equation but for them.
    problem = paradise_fish(n=9)
    assert float(jnp.abs(problem.residual(jnp.full(9, 0.7))).max()) == pytest.approx(0.7)


def test_the_fit_is_linear_and_least():
    problem = paradise_fish_fit(terms=3)
    x, roots = (np.asarray(a) for a in problem.args[:2])

    def operated(f):
        return f(x) - x * f(0.8 * x + 0.2) - (1 - x) * f(0.5 * x)

    columns = [operated(lambda t, j=j: t * (1 - t) * t**j) for j in range(3)]
    A, b = roots[:, None] * np.stack(columns, axis=1), -roots * operated(lambda t: t)
    expected = np.linalg.lstsq(A, b)[0]
    solution = rp.solve(problem, rtol=0.0, atol=1e-12)
    np.testing.assert_allclose(solution.value, expected, rtol=1e-8)
    np.testing.assert_allclose(jax.jacfwd(problem.residual)(problem.y0), A, atol=1e-13)


def test_both_forms_agree():
    f = paradise_fish(n=401).facts.minimizer
    c = rp.solve(paradise_fish_fit(terms=8)).value
    np.testing.assert_allclose(fish_polynomial(c, jnp.linspace(0, 1, 401)), f, atol=1e-3)


@pytest.mark.parametrize("make", [paradise_fish, paradise_fish_fit])
@pytest.mark.parametrize("alpha, beta, name", [(0.0, 0.5, "alpha"), (0.2, 1.5, "beta")])
def test_what_is_no_learning_is_refused(make, alpha, beta, name):
    with pytest.raises(ValueError, match=rf"`{name}` must be a number in \(0, 1\)"):
        make(alpha, beta)
