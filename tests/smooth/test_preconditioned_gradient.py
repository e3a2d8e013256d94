"""PreconditionedGradient against a transcription in NumPy, its twin in other units, and rates."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import raphson as rp
from raphson.linear import symmetric_polynomial
from raphson.problems import load, quadratic
from raphson.smooth import GradientDescent, Nesterov, PreconditionedGradient
from tests.smooth.paths import chain, path

P = np.diag([0.5, 2.0, 1.0, 3.0]) + 0.2
START = np.array([-1.2, 1.0, 0.3, 0.8])
OPERATOR = lx.MatrixLinearOperator(jnp.array(P), lx.positive_semidefinite_tag)


def rosenbrock(y, _):
    return jnp.sum(100 * (y[1:] - y[:-1] ** 2) ** 2 + (1 - y[:-1]) ** 2)


def steps(y, count, accelerated, step_size, mu):
    last, weight, L = y, 1.0, 1.0
    if accelerated and step_size is None:
        d = P @ chain(y)[1]
        L = d @ np.asarray(jax.hessian(rosenbrock)(jnp.array(y), None)) @ d / (d @ chain(y)[1])
    for _ in range(count):
        value, g = chain(y)
        d = P @ g
        if step_size is None:
            L = L if accelerated else L / 2
            while chain(y - d / L)[0] > value - g @ d / (2 * L):
                L *= 2
        else:
            L = 1 / step_size
        x = y - d / L
        following = (1 + np.sqrt(1 + 4 * weight**2)) / 2
        c = (weight - 1) / following
        if mu is not None:
            c = (np.sqrt(L / mu) - 1) / (np.sqrt(L / mu) + 1)
        y, last, weight = x + accelerated * c * (x - last), x, following
        yield y


@pytest.mark.parametrize("step_size", [None, 1e-4])
@pytest.mark.parametrize(("accelerated", "mu"), [(False, None), (True, None), (True, 0.1)])
def test_steps_are_those_of_the_formula(accelerated, mu, step_size):
    problem = rp.Minimize(rosenbrock, START)
    ys, states = path(problem, PreconditionedGradient(OPERATOR, accelerated, step_size, mu), 12)
    np.testing.assert_allclose(ys[1:], list(steps(START, 12, accelerated, step_size, mu)))
    np.testing.assert_allclose(states.value[5], chain(ys[5])[0])
    np.testing.assert_allclose(states.gradient[5], chain(ys[5])[1])


def test_without_a_preconditioner_is_gradient_descent():
    problem = rp.Minimize(rosenbrock, START)
    for method in (PreconditionedGradient(), PreconditionedGradient(step_size=1e-3)):
        twin = GradientDescent(method.step_size)
        np.testing.assert_array_equal(path(problem, method, 20)[0], path(problem, twin, 20)[0])


def test_is_the_plain_method_in_the_units_of_the_preconditioner():
    # With y = S z and P = S S^T, preconditioned steps in y are plain ones in z.
    S = (
        np.diag([1.0, 3.0, 0.5, 2.0])
        @ np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    )
    problem = rp.Minimize(rosenbrock, START)
    other = rp.Minimize(lambda z, S: rosenbrock(S @ z, None), np.linalg.solve(S, START), S)
    operator = lx.MatrixLinearOperator(jnp.array(S @ S.T))
    ys = path(problem, PreconditionedGradient(operator, step_size=1e-4), 20)[0]
    np.testing.assert_allclose(ys, path(other, GradientDescent(1e-4), 20)[0] @ S.T)
    ys = path(problem, PreconditionedGradient(operator, True, 1e-4), 20)[0]
    np.testing.assert_allclose(ys, path(other, Nesterov(1e-4), 20)[0] @ S.T)


@pytest.mark.parametrize("tau", [0, 1, 3])
def test_the_rate_on_a_quadratic_is_that_of_the_condition_of_PB(tau):
    spectrum = np.array([1, 2, 3, 300, 500, 1000.0])
    problem = quadratic(spectrum)
    P = symmetric_polynomial(problem.hessian(problem.y0), tau)
    a, *_, b = np.sort(np.linalg.eigvals(P.as_matrix() @ problem.args[0]).real)
    rate = (b - a) / (b + a)
    half = int(-6 / np.log(rate))  # where f is down by 1e-5
    _, states = path(problem, PreconditionedGradient(P, step_size=2 / (a + b)), 2 * half)
    shrunk = states.value[2 * half] / states.value[half]
    np.testing.assert_allclose(np.log(shrunk), 2 * half * np.log(rate), rtol=0.01)


def test_a_tree_takes_the_same_steps():
    problem = rp.Minimize(
        lambda y, _: rosenbrock(jnp.append(y["u"].ravel(), y["v"]), None),
        {"u": START[:3].reshape(3, 1), "v": START[3]},
    )
    flat, method = rp.Minimize(rosenbrock, START), PreconditionedGradient(OPERATOR)
    trees, ys = path(problem, method, 8)[0], path(flat, method, 8)[0]
    np.testing.assert_allclose(trees["u"][..., 0], ys[:, :3])
    np.testing.assert_allclose(trees["v"], ys[:, 3])


def test_helps_on_real_data():
    problem = load("ridge/diabetes")
    operator = symmetric_polynomial(problem.hessian(problem.y0), 3)
    plain, cut = (
        rp.solve(problem, PreconditionedGradient(P), rtol=1e-3, max_steps=20_000).stats.steps
        for P in (None, operator)
    )
    assert cut < 0.5 * plain


def test_ends_where_a_step_moves_nothing():
    problem = rp.Minimize(lambda y, _: y**4 / 4 - 2 * y, 1.0)
    method = PreconditionedGradient(step_size=0.1)
    solution = rp.solve(problem, method, rtol=0, atol=0, throw=False)
    assert int(solution.stats.steps) < 200
    np.testing.assert_allclose(solution.value, np.cbrt(2), rtol=4e-16)


def test_takes_a_matrix_for_its_operator():
    problem = rp.Minimize(rosenbrock, START)
    ys, others = (path(problem, PreconditionedGradient(of), 4)[0] for of in (P, OPERATOR))
    np.testing.assert_array_equal(ys, others)


def test_refuses_a_matrix_that_does_not_fit():
    with pytest.raises(ValueError, match="`preconditioner` must be a Lineax operator or a matrix"):
        PreconditionedGradient(1.0)
    with pytest.raises(
        ValueError, match=r"`preconditioner` .* got a map of float64\[3\] to float64"
    ):
        rp.solve(rp.Minimize(rosenbrock, START), PreconditionedGradient(np.eye(3)))
