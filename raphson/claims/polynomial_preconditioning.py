"""Polynomial preconditioning: the greatest eigenvalues cease to count."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import raphson as rp

from ..linear import symmetric_polynomial
from ..problems import quadratic
from ..smooth import GradientDescent, KrylovGradient, Minimize, PreconditionedGradient
from . import Budget, Paper, Verdict, claim
from ._history import history

PAPER = Paper(
    slug="polynomial-preconditioning",
    title="Polynomial Preconditioning for Gradient Methods",
    authors="Doikov, Rodomanov",
    year=2023,
    implements=(
        "raphson.linear.symmetric_polynomial",
        "raphson.smooth.PreconditionedGradient",
        "raphson.smooth.KrylovGradient",
    ),
    note=(
        "Step sizes are found by backtracking here. The accelerated form takes Nesterov's momentum "
        "between iterates, for which the metric P^-1 is not needed."
    ),
)


@claim(
    PAPER,
    "Where tau eigenvalues of B are far greater than the others, the condition number of P_tau B "
    "is the sum of the others over the least, whatever the gap.",
)
def great_eigenvalues_are_cut_off(_: Budget) -> Verdict:
    rest = np.array([1.0, 2.0, 3.0, 5.0])

    def excess(tau: int) -> float:
        def ratio(gap: float) -> float:
            spectrum = np.append(rest, gap * np.array([1.0, 2.0, 8.0]))
            P = symmetric_polynomial(jnp.diag(jnp.asarray(spectrum)), tau)
            product = np.asarray(jnp.diagonal(P.as_matrix())) * spectrum
            return float(np.max(product) / np.min(product) / np.sum(rest) * np.min(rest))

        return max(ratio(gap) for gap in (1e2, 1e4, 1e6))

    case = (
        "greatest condition number over that, 3 of 7 eigenvalues 1e2 to 1e6 greater; control: P_2"
    )
    return Verdict(excess(3), 1.2, excess(2), case)


@claim(
    PAPER,
    "On logistic regression with 3 directions of the features that are 1e2 times as long, the "
    "gradient method with P_3 needs at most 1/20 of the steps of gradient descent.",
)
def polynomial_spares_steps(budget: Budget) -> Verdict:
    problem, B = _stretched(budget)
    plain = _steps(problem, GradientDescent())

    def share(tau: int) -> float:
        return _steps(problem, PreconditionedGradient(symmetric_polynomial(B, tau))) / plain

    case = f"steps to |g| <= 1e-6 over the at least {plain:.0f} of gradient descent; control: P_2"
    return Verdict(share(3), 1 / 20, share(2), case)


@claim(
    PAPER,
    "With momentum the rate depends on the square root of the condition number of P B: on a "
    "quadratic f - f* <= (a + b)/2 exp(-t / sqrt(b/a)) D^2, where a and b are the extreme "
    "eigenvalues of P H and D is the distance to the minimizer in the metric P^-1.",
)
def accelerated_rate_is_that_of_the_root(budget: Budget) -> Verdict:
    steps = budget.pick(200, 500)
    problem = quadratic(np.append(np.linspace(0.1, 3, 20), [1e3, 2e3, 8e3]))
    P = symmetric_polynomial(problem.args[0], 3)
    metric = np.linalg.inv(P.as_matrix())
    a, *_, b = np.sort(np.linalg.eigvals(P.as_matrix() @ problem.args[0]).real)
    D = np.asarray(problem.y0 - problem.facts.minimizer)
    bound = (a + b) / 2 * np.exp(-np.arange(steps + 1) / (b / a) ** 0.5) * (D @ metric @ D)

    def excess(method: PreconditionedGradient) -> float:
        return float(np.max(history(problem, method, steps)["gap"] / bound))

    accelerated = PreconditionedGradient(P, True, float(1 / b), float(a))
    plain = PreconditionedGradient(P, step_size=float(2 / (a + b)))
    case = f"greatest (f - f*) / bound over {steps} steps, P_3; control: without momentum"
    return Verdict(excess(accelerated), 1.0, excess(plain), case)


@claim(
    PAPER,
    "The Krylov method of degree tau needs no more steps than the gradient method with P_tau, for "
    "every tau from 0 on.",
)
def krylov_is_as_good_as_any_polynomial(budget: Budget) -> Verdict:
    problem, B = _stretched(budget, 30.0)
    taus = range(budget.pick(5, 8))
    fixed = [_steps(problem, PreconditionedGradient(symmetric_polynomial(B, tau))) for tau in taus]

    def worst(less: int) -> float:
        methods = (KrylovGradient(B, max(0, tau - less)) for tau in taus)
        return max(_steps(problem, m) / steps for m, steps in zip(methods, fixed, strict=True))

    case = (
        f"greatest ratio of steps, at most 4000, tau = 0 to {taus[-1]}, 3 directions 30 times as "
        "long; control: Krylov of 2 degrees less"
    )
    return Verdict(worst(0), 1.0, worst(2), case)


def _steps(problem: Minimize, method: Any) -> float:
    solution = rp.solve(problem, method, rtol=0.0, atol=1e-6, max_steps=4000, throw=False)
    return float(solution.stats.steps)


def _stretched(budget: Budget, times: float = 100.0) -> tuple[Minimize, Float[Array, "d d"]]:
    """Logistic regression with three features in units that are too small, and B >= H."""
    n, d = budget.pick((100, 10), (400, 40))
    rng = np.random.default_rng(0)
    unit = np.where(np.arange(d) < 3, times, 1.0)
    A, model, mu = unit * rng.normal(size=(n, d)), rng.normal(size=d) / unit, 1e-2
    b = np.where(rng.random(n) < 1 / (1 + np.exp(-A @ model)), 1.0, -1.0)
    B = jnp.asarray(A.T @ A / (4 * n) + mu * np.eye(d))
    return Minimize(_logistic, jnp.zeros(d), (jnp.asarray(A), jnp.asarray(b), mu)), B


def _logistic(y: Float[Array, " d"], args: tuple[Array, Array, float]) -> Float[Array, ""]:
    A, b, mu = args
    return jnp.mean(jnp.logaddexp(0.0, -b * (A @ y))) + mu / 2 * jnp.vdot(y, y)
