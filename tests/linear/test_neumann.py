"""The Neumann series against powers of a matrix in NumPy."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import raphson as rp
from raphson.linear import Neumann

RNG = np.random.default_rng(0)
ROOT, B = RNG.normal(size=(6, 6)), RNG.normal(size=6)
A = ROOT @ ROOT.T / 6 + 0.1 * np.eye(6)
STEP_SIZE = 1 / np.linalg.eigvalsh(A)[-1]


def solve(matrix, b, solver, **options):
    operator = lx.MatrixLinearOperator(jnp.asarray(matrix))
    return lx.linear_solve(operator, jnp.asarray(b), solver, options=options, throw=False)


@pytest.mark.parametrize("terms", [1, 2, 7])
def test_is_the_partial_sum(terms):
    powers = [np.linalg.matrix_power(np.eye(6) - 0.3 * A, j) for j in range(terms)]
    solution = solve(A, B, Neumann(terms, 0.3))
    np.testing.assert_allclose(solution.value, 0.3 * sum(powers) @ B, rtol=1e-13)
    assert int(solution.stats["num_steps"]) == terms
    assert bool(solution.result == lx.RESULTS.successful)


def test_many_terms_are_the_inverse_and_its_derivative():
    solver = Neumann(3000, STEP_SIZE)
    np.testing.assert_allclose(solve(A, B, solver).value, np.linalg.solve(A, B), rtol=1e-9)
    gradient = jax.grad(lambda b: solve(A, b, solver).value[0])(jnp.asarray(B))
    np.testing.assert_allclose(gradient, np.linalg.inv(A)[0], rtol=1e-9)


def test_a_start_goes_on_with_the_series():
    once = solve(A, B, Neumann(4, STEP_SIZE)).value
    twice = solve(A, B, Neumann(4, STEP_SIZE), y0=once).value
    np.testing.assert_allclose(twice, solve(A, B, Neumann(8, STEP_SIZE)).value, rtol=1e-12)


def test_stops_where_it_grows():
    solution = solve(np.diag([1.0, 3.0]), [1.0, 1e-3], Neumann(100, 0.9))
    assert bool(solution.result == lx.RESULTS.breakdown)
    # The terms are (0.1^j, 1.7^j / 1000): the fifth is longer than the fourth.
    lengths = [np.hypot(0.1**j, 1.7**j / 1000) for j in range(10)]
    first = next(j for j in range(10) if lengths[j + 1] > lengths[j])
    assert int(solution.stats["num_steps"]) == first + 1 == 4
    indefinite = solve(np.diag([1.0, -0.1]), [1.0, 1.0], Neumann(50, 0.5))
    assert bool(indefinite.result == lx.RESULTS.breakdown)
    # What A takes to 0 keeps its length: no reason to stop.
    assert bool(
        solve(np.zeros((2, 2)), [1.0, 0.3], Neumann(50, 0.5)).result == lx.RESULTS.successful
    )


def test_as_a_method_it_is_judged_by_the_problem():
    system = rp.LinearSystem(jnp.asarray(A), jnp.asarray(B))
    assert bool(rp.solve(system, Neumann(3000, STEP_SIZE)).converged)
    assert rp.status_name(rp.solve(system, Neumann(3, STEP_SIZE), throw=False).status) == "stalled"
    diverged = rp.solve(system, Neumann(100, 3 * STEP_SIZE), throw=False)
    assert rp.status_name(diverged.status) == "breakdown"


def test_trees_single_precision_and_vmap():
    like = {"u": jnp.ones(2, jnp.float32), "v": jnp.ones((), jnp.float32)}
    double = lambda tree: jax.tree.map(lambda leaf: 2 * leaf, tree)
    operator = lx.FunctionLinearOperator(double, jax.eval_shape(lambda: like))
    value = lx.linear_solve(operator, like, Neumann(30, 0.25)).value
    assert value["u"].dtype == jnp.float32
    np.testing.assert_allclose([*value["u"], value["v"]], 0.5, rtol=1e-6)
    together = jax.vmap(lambda s: solve(A, B, Neumann(5, s)).value)(jnp.array([0.1, 0.3]))
    np.testing.assert_allclose(together[1], solve(A, B, Neumann(5, 0.3)).value, rtol=1e-12)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Neumann(0, 0.1), "`terms` must be a whole number of at least 1, got 0"),
        (lambda: Neumann(5, 0.0), r"`step_size` of Neumann must be a number in \(0, inf\)"),
        (lambda: solve(np.ones((3, 2)), np.ones(3), Neumann(5, 0.1)), "must be square for Neumann"),
    ],
)
def test_refuses(build, says):
    with pytest.raises(ValueError, match=says):
        build()
