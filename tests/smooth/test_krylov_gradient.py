"""KrylovGradient against its normal equations in NumPy, and against the best that can be."""

import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import raphson as rp
from raphson.linear import symmetric_polynomial
from raphson.problems import cutest, cutest_best, logistic_synthetic, quadratic
from raphson.smooth import KrylovGradient
from tests.smooth.paths import path

N = 6
SPECTRUM = np.array([0.1, 0.5, 1.0, 2.0, 7.0, 30.0])


def stated():
    problem = logistic_synthetic(30, N)
    A, b, mu = *map(np.asarray, problem.data), problem.args

    def oracle(y):
        z = b * (A @ y)
        value = np.mean(np.logaddexp(0, -z)) + mu / 2 * y @ y
        return value, -A.T @ (b / (1 + np.exp(z))) / len(z) + mu * y

    def hessian(y):
        p = 1 / (1 + np.exp(A @ y))
        return (A.T * (p * (1 - p))) @ A / len(A) + mu * np.eye(N)

    return problem, oracle, hessian, A.T @ A / len(A)


def steps(oracle, matrix_at, y, tau, count):
    M = 4.0
    for _ in range(count):
        (value, g), B = oracle(y), matrix_at(y)
        powers = np.stack([np.linalg.matrix_power(B, i) @ g for i in range(tau + 1)], axis=1)
        Q = np.linalg.qr(powers)[0]
        d = Q @ np.linalg.solve(Q.T @ B @ Q, Q.T @ g)
        M /= 2
        while oracle(y - d / M)[0] > value - 0.45 * g @ d / M:
            M *= 2
        y = y - d / M
        yield y, M


@pytest.mark.parametrize("tau", [0, 1, 3])
@pytest.mark.parametrize("given", [True, False])
def test_steps_solve_the_normal_equations(given, tau):
    problem, oracle, hessian, B = stated()
    operator = lx.MatrixLinearOperator(jnp.array(B)) if given else None
    matrix_at = (lambda y: B) if given else hessian
    ys, states = path(problem, KrylovGradient(operator, tau), 6)
    expected = steps(oracle, matrix_at, np.zeros(N), tau, 6)
    for t, (y, M) in enumerate(expected, 1):
        np.testing.assert_allclose(ys[t], y, rtol=1e-7)
        np.testing.assert_allclose(states.smoothness[t], M)


def test_solves_a_quadratic_by_as_many_products_as_it_has_curvatures():
    problem = quadratic(np.repeat([1.0, 10.0, 500.0], 4))
    for tau, error in ((1, 1e-3), (2, 1e-18)):
        # The first step is half of it, on purpose.
        solution = rp.solve(problem, KrylovGradient(tau=tau), rtol=0.0, max_steps=2, throw=False)
        value = float(problem.value(solution.value))
        assert (value < error) == (tau == 2) and value < float(problem.value(problem.y0))


@pytest.mark.parametrize("tau", range(N))
def test_falls_as_far_as_any_fixed_polynomial(tau):
    problem = quadratic(SPECTRUM, seed=1)
    g, H = problem.gradient(problem.y0), problem.args[0]
    ys, states = path(problem, KrylovGradient(tau=tau), 1)
    # The first step, at M = 2, is half of the one that falls furthest. Where that one falls to, an
    # error of it counts by its square; where its half falls to, the error itself.
    assert states.smoothness[1] == 2
    fall = states.value[0] - problem.value(ys[0] - 2 * (ys[0] - ys[1]))
    d = symmetric_polynomial(H, tau).mv(g)
    best = jnp.vdot(g, d) ** 2 / jnp.vdot(d, H @ d) / 2
    assert fall >= best * (1 - 1e-12)


def test_oracle_calls():
    problem, *_ = stated()
    method = KrylovGradient(tau=2)
    counts = rp.solve(rp.Counted(problem), method, max_steps=4, throw=False).stats.counts
    assert int(counts["product"]) == 4 * 3 and int(counts["gradient"]) == 1 + 4


@pytest.mark.parametrize("name", ["ROSENBR", "ALLINITU", "HAIRY"])
def test_goes_downhill_where_curvature_is_negative(name):
    problem = cutest(name)
    solution = rp.solve(problem, KrylovGradient(tau=3), rtol=0.0, atol=1e-6, max_steps=5000)
    assert float(problem.value(solution.value)) <= cutest_best(name) + 1e-8


def test_ends_where_a_step_moves_nothing():
    problem = rp.Minimize(lambda y, _: y**4 / 4 - 2 * y, 1.0)
    solution = rp.solve(problem, KrylovGradient(), rtol=0, atol=0, throw=False)
    assert int(solution.stats.steps) < 100
    np.testing.assert_allclose(solution.value, np.cbrt(2), rtol=4e-16)


def test_takes_a_matrix_for_its_operator():
    problem, *_, B = stated()
    ys, others = (
        path(problem, KrylovGradient(of, 2), 4)[0]
        for of in (B, lx.MatrixLinearOperator(jnp.array(B)))
    )
    np.testing.assert_array_equal(ys, others)


@pytest.mark.parametrize("B", [2.0, np.ones(N), "abc"])
def test_refuses_what_is_no_matrix(B):
    with pytest.raises(ValueError, match="`B` must be a Lineax operator or a matrix, got"):
        KrylovGradient(B)


@pytest.mark.parametrize("B", [np.eye(N - 1), np.ones((N, N + 1)), np.eye(N, dtype=np.float32)])
def test_refuses_a_matrix_that_does_not_fit(B):
    with pytest.raises(
        ValueError, match=r"`B` of KrylovGradient must map float64\[6\], the entries"
    ):
        rp.solve(stated()[0], KrylovGradient(B))
