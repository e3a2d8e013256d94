"""Implicit gradients against a transcription in NumPy, with every kind of linear solver."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optax
import optax.tree as otu
import pytest

import raphson as rp
from raphson.bilevel import ImplicitGradient
from raphson.linear import Neumann, Nystrom
from raphson.problems import darts_scalar, non_singleton, ridge_penalty

PROBLEM = ridge_penalty(20, 4, held_out=10)
A, B, A_OUT, B_OUT = map(np.asarray, PROBLEM.args)
INNER, STEPS = 0.3, 3


def gradients(x, y):
    """F_y, f_y, f_yy and f_xy by hand."""
    F_y = A_OUT.T @ (A_OUT @ y - B_OUT) / len(B_OUT)
    f_yy = A.T @ A / len(B) + np.exp(x) * np.eye(4)
    return F_y, f_yy @ y - A.T @ B / len(B), f_yy, np.exp(x) * y


def transcription(solve, steps, upper):
    """x, y and v of each step, where `solve(f_yy, F_y, v)` answers the linear system."""
    x, y, v, xs = -1.0, np.zeros(4), np.zeros(4), []
    for k in range(steps + 1):
        if k > 0:
            x = x - upper * hypergradient
        for _ in range(STEPS):
            y = y - INNER * gradients(x, y)[1]
        # The start is where the first lower steps set out, and only they are taken back.
        F_y, f_y, f_yy, f_xy = gradients(x, y)
        v = solve(f_yy, F_y, v)
        hypergradient, left = -f_xy @ v, F_y - f_yy @ v
        if k == 0:
            y = np.zeros(4)
        xs.append((x, y, v, (hypergradient, f_y, left)))
    return xs[1:]


def method(upper):
    """One that compiles fast."""
    return ImplicitGradient(upper, rp.smooth.GradientDescent(0.2), 5, Neumann(5, 0.2))


def exact(f_yy, F_y, v):
    return np.linalg.solve(f_yy, F_y)


def neumann(f_yy, F_y, v, warm=True):
    v = v if warm else np.zeros(4)
    for _ in range(3):
        v = v + 0.3 * (F_y - f_yy @ v)
    return v


def nystrom(f_yy, F_y, v):
    C, W = f_yy[:, :2], f_yy[:2, :2]
    return np.linalg.solve(C @ np.linalg.solve(W, C.T) + 0.1 * np.eye(4), F_y)


CASES = {
    "cg": ({}, exact),
    "damped": ({"damping": 0.2}, lambda H, b, v: np.linalg.solve(H + 0.2 * np.eye(4), b)),
    "lu": ({"solver": lx.LU()}, exact),
    "neumann": ({"solver": Neumann(3, 0.3)}, neumann),
    "neumann_from_0": (
        {"solver": Neumann(3, 0.3), "warm_start": False},
        lambda H, b, v: neumann(H, b, v, warm=False),
    ),
    "neumann_damped": (
        {"solver": Neumann(3, 0.3), "damping": 0.2},
        lambda H, b, v: neumann(H + 0.2 * np.eye(4), b, v),
    ),
    "nystrom": ({"solver": Nystrom(2, 0.1)}, nystrom),
}


@pytest.mark.parametrize("case", CASES)
def test_steps_are_those_written_out(case):
    options, solve = CASES[case]
    inner = rp.smooth.GradientDescent(INNER)
    options = {"solver": lx.CG(1e-13, 1e-13)} | options
    method = ImplicitGradient(0.5, inner, STEPS, **options)
    y, state = PROBLEM.y0, jax.jit(lambda y: method.init(PROBLEM, y, None))(PROBLEM.y0)
    step = jax.jit(lambda y, state: method.step(PROBLEM, y, state))
    for x, lower, v, residual in transcription(solve, 6, 0.5):
        y, state = step(y, state)
        np.testing.assert_allclose(y[0], x, atol=1e-11)
        np.testing.assert_allclose(y[1], lower, atol=1e-11)
        np.testing.assert_allclose(state.v, v, atol=1e-10)
        known = method.known(PROBLEM, y, state).residual
        for ours, theirs in zip(known, residual, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-10)


@pytest.mark.parametrize("solver", [lx.GMRES(1e-12, 1e-12), Neumann(20, 0.3)])
def test_finds_the_best_penalty(solver):
    method = ImplicitGradient(optax.adam(0.1), solver=solver)
    solution = rp.solve(PROBLEM, method, atol=1e-8)
    for ours, exact in zip(solution.value, PROBLEM.facts.minimizer, strict=True):
        np.testing.assert_allclose(ours, exact, atol=1e-5)


def test_a_solver_that_does_not_converge_is_not_called_converged():
    # The bias of few terms is in the residual; a warm start takes it away.
    short = Neumann(2, 0.3)
    cold = rp.solve(
        PROBLEM, ImplicitGradient(2.0, solver=short, warm_start=False), max_steps=2000, throw=False
    )
    assert rp.status_name(cold.status) == "max_steps"
    assert abs(float(cold.value[0] - PROBLEM.facts.minimizer[0])) > 1e-3
    assert bool(rp.solve(PROBLEM, ImplicitGradient(2.0, solver=short)).converged)


@pytest.mark.parametrize(
    "solver", [Neumann(50, 3.0), lx.CG(1e-10, 1e-10)], ids=["neumann", "conjugate_gradients"]
)
def test_a_linear_solve_that_fails_is_a_breakdown(solver):
    # Neumann's step is beyond 2 / L; the Hessian of `non_singleton` is singular.
    problem = PROBLEM if isinstance(solver, Neumann) else non_singleton()
    solution = rp.solve(problem, ImplicitGradient(solver=solver), throw=False)
    assert rp.status_name(solution.status) == "breakdown"
    assert int(solution.stats.steps) == 1
    assert all(np.all(np.isfinite(leaf)) for leaf in solution.value)


def test_a_solver_that_leaves_more_than_it_got_is_a_breakdown():
    class Wrong(lx.LU):
        def compute(self, state, vector, options):
            value, result, stats = super().compute(state, vector, options)
            return -value, result, stats

    solution = rp.solve(PROBLEM, ImplicitGradient(solver=Wrong()), throw=False)
    assert rp.status_name(solution.status) == "breakdown"


def test_damping_gives_a_singular_lower_level_an_answer():
    # With f_yy = diag(1, 0) the multiplier of y_2, (y_2 - x) / damping, does not move x.
    method = ImplicitGradient(0.1, damping=1e-6)
    solution = rp.solve(non_singleton(), method, max_steps=300, throw=False)
    assert rp.status_name(solution.status) == "max_steps"
    np.testing.assert_allclose(solution.value[0], 0.5, atol=1e-5)
    np.testing.assert_allclose(solution.certificate.residual, 0.5, atol=1e-5)


def test_unknowns_may_be_trees():
    upper = lambda x, y, _: jnp.sum((y["u"] - 1) ** 2) + (y["v"] - 2) ** 2 + x["a"] ** 2
    lower = lambda x, y, _: jnp.sum((y["u"] - x["a"]) ** 2) + 2 * (y["v"] - x["b"][0]) ** 2
    start = {"a": 0.0, "b": [0.0]}, {"u": jnp.zeros(2), "v": 0.0}
    x, y = rp.solve(rp.Bilevel(upper, lower, *start), method(0.2)).value
    found = [x["a"], x["b"][0], *y["u"], y["v"]]
    np.testing.assert_allclose(found, [2 / 3, 2, 2 / 3, 2 / 3, 2], atol=1e-5)


def test_batches_are_drawn_at_both_levels():
    rng = np.random.default_rng(0)
    data = jnp.asarray(rng.normal(2.0, 0.1, (50,))), jnp.asarray(rng.normal(1.0, 0.1, (60,)))
    fit = lambda x, y, a, _: (y - a) ** 2
    shifted = lambda x, y, a, _: (y - a - x) ** 2
    problem = rp.BilevelSum(fit, shifted, 0.0, 0.0, *data, batch_size=10)
    method = ImplicitGradient(0.05, inner=optax.sgd(0.1), solver=Neumann(5, 0.4))
    run = rp.solve(problem, method, key=jax.random.key(0), max_steps=400, throw=False)
    assert float(run.value[0]) == pytest.approx(float(data[0].mean() - data[1].mean()), abs=0.1)


def vanish(x, y, _):
    return jnp.sum((y - 1) ** 2) + jnp.exp(x["a"]) * jnp.sum(x["b"] ** 2)


@pytest.mark.parametrize("solver", [lx.CG(1e-10, 1e-10), Neumann(3, 0.1)])
def test_an_x_without_influence_is_refused(solver):
    start = {"a": 1.0, "b": jnp.ones(3)}, jnp.zeros(2)
    problem = rp.Bilevel(lambda x, y, _: jnp.sum(y**2), vanish, *start)
    with pytest.raises(ValueError, match="`x` must enter `upper`, or `lower` together with y"):
        rp.solve(problem, ImplicitGradient(solver=solver))


def test_an_x_that_moves_one_level_alone_is_not_refused():
    start = {"a": 1.0, "b": jnp.ones(3)}, jnp.zeros(2)
    direct = rp.Bilevel(lambda x, y, _: jnp.sum(y**2) + otu.norm(x, squared=True), vanish, *start)
    x, _ = rp.solve(direct, method(0.2)).value
    np.testing.assert_allclose([x["a"], *x["b"]], 0, atol=1e-5)
    # f_yx vanishes where this starts, but not everywhere.
    through = rp.Bilevel(lambda x, y, _: (y - 1) ** 2, lambda x, y, _: (y - x**2) ** 2, 0.5, 0.0)
    x, _ = rp.solve(through, method(0.1)).value
    np.testing.assert_allclose(x, 1.0, atol=1e-5)


def test_architecture_search_by_second_derivatives():
    np.testing.assert_allclose(rp.solve(darts_scalar()).value, (1.0, 1.0), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"upper": 0.0}, r"`upper` of ImplicitGradient must be a number in \(0, inf\)"),
        ({"inner_steps": 0}, "`inner_steps` must be a whole number of at least 1"),
        ({"solver": "cg"}, "`solver` must be a linear solver of Lineax, got 'cg'"),
        ({"damping": -1.0}, r"`damping` of ImplicitGradient must be a number in \[0, inf\)"),
    ],
)
def test_unfit_hyperparameters_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        ImplicitGradient(**options)
