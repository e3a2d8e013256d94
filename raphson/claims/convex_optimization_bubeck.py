"""Upper bounds of Bubeck's monograph, and the lower bounds that no method of gradients beats."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..problem import AbstractObjective
from ..problems import (
    first_order_lower_bound,
    huber_chain,
    logistic_synthetic,
    nesterov_worst,
    quadratic,
)
from ..smooth import GradientDescent, Nesterov
from . import Budget, Paper, Verdict, claim
from ._history import history

PAPER = Paper(
    slug="convex-optimization-bubeck",
    title="Convex Optimization: Algorithms and Complexity",
    authors="Bubeck",
    year=2015,
    implements=(
        "raphson.smooth.GradientDescent",
        "raphson.smooth.Nesterov",
        "raphson.problems.nesterov_worst",
    ),
    note=(
        "In what the claims say, D is the distance from the start to the minimizer and t counts "
        "gradients, while in the monograph it counts points, the start being the first. The "
        "strongly convex lower bound is for infinitely many unknowns and is checked for n of them."
    ),
)


@claim(
    PAPER,
    "Gradient descent with step size 2 / (L + mu) on an L-smooth, mu-strongly convex f keeps "
    "f - f* <= L/2 exp(-4 t / (L/mu + 1)) D^2.",
)
def gradient_descent_at_its_best_step(budget: Budget) -> Verdict:
    steps = budget.pick(100, 120)
    problems = [
        quadratic(np.geomspace(0.05, 1, 5)),
        nesterov_worst(strong_convexity=0.05),
        logistic_synthetic(),
    ]

    def excess(factor: float) -> float:
        def ratio(problem: AbstractObjective) -> Any:
            L, mu = problem.facts.lipschitz, problem.facts.strong_convexity
            gap = history(problem, GradientDescent(factor * 2 / (L + mu)), steps)["gap"]
            rate = np.exp(-4 * np.arange(steps + 1) / (L / mu + 1))
            return gap / (L / 2 * rate * _square_distance(problem))

        return float(np.max([ratio(problem) for problem in problems]))

    case = f"greatest (f - f*) / bound over {steps} steps and 3 problems; control: half such steps"
    return Verdict(excess(1.0), 1.0, excess(0.5), case)


@claim(PAPER, "Nesterov's method on an L-smooth convex f keeps f - f* <= 2 L D^2 / (t + 1)^2.")
def nesterov_convex(budget: Budget) -> Verdict:
    steps = budget.pick(200, 2000)
    problems = [nesterov_worst(), huber_chain(), logistic_synthetic()]

    def excess(method: Callable[[Any], Any]) -> float:
        def ratio(problem: AbstractObjective) -> Any:
            L = problem.facts.lipschitz
            gap = _gaps(problem, method(1 / L), steps)
            return gap * np.arange(2, steps + 2) ** 2 / (2 * L * _square_distance(problem))

        return float(np.max([ratio(problem) for problem in problems]))

    case = f"greatest (f - f*) / bound over {steps} steps and 3 problems; control: gradient descent"
    return Verdict(excess(Nesterov), 1.0, excess(GradientDescent), case)


@claim(
    PAPER,
    "Nesterov's method with constant momentum on an L-smooth, mu-strongly convex f keeps "
    "f - f* <= (L + mu)/2 exp(-t / sqrt(L/mu)) D^2.",
)
def nesterov_strongly_convex(_: Budget) -> Verdict:
    steps = 200
    problems = [quadratic(), nesterov_worst(strong_convexity=0.01), logistic_synthetic()]

    def excess(momentum: bool) -> float:
        def ratio(problem: AbstractObjective) -> Any:
            L, mu = problem.facts.lipschitz, problem.facts.strong_convexity
            method = Nesterov(1 / L, mu) if momentum else GradientDescent(2 / (L + mu))
            gap = _gaps(problem, method, steps)
            rate = np.exp(-np.arange(1, steps + 1) / (L / mu) ** 0.5)
            return gap / ((L + mu) / 2 * rate * _square_distance(problem))

        return float(np.max([ratio(problem) for problem in problems]))

    case = (
        f"greatest (f - f*) / bound over {steps} gradients and 3 problems; control: gradient "
        "descent with step size 2 / (L + mu)"
    )
    return Verdict(excess(True), 1.0, excess(False), case)


@claim(
    PAPER,
    "On a smooth convex chain of 2t + 1 unknowns no method that moves by combinations of the t "
    "gradients it saw gets below f - f* = 3/32 L D^2 / (t + 1)^2.",
)
def smooth_lower_bound(budget: Budget) -> Verdict:
    gradients = budget.pick(50, 500)
    problem = nesterov_worst(2 * gradients + 1)
    bound = float(first_order_lower_bound(gradients, 1.0, _square_distance(problem) ** 0.5))

    runs = [_gaps(problem, method(1.0), gradients) for method in (GradientDescent, Nesterov)]
    best, newton = _least_gaps(problem, [gradients, 2 * gradients + 1])
    case = (
        "least (f - f*) / bound of gradient descent, Nesterov's method and the best combination of "
        f"{gradients} gradients; control: one step of Newton's method, which is no such method"
    )
    lowest = float(min(np.min(runs), best))
    return Verdict(lowest / bound, 1.0, float(newton) / bound, case, at_most=False)


@claim(
    PAPER,
    "Nesterov's method is optimal up to a constant: after t gradients on the worst chain of 2t + 1 "
    "unknowns its gap is at most 64/3 times the lower bound.",
)
def nesterov_is_optimal(budget: Budget) -> Verdict:
    gradients = budget.pick(500, 2000)
    problem = nesterov_worst(2 * gradients + 1)
    bound = float(first_order_lower_bound(gradients, 1.0, _square_distance(problem) ** 0.5))

    nesterov, descent = (
        _gaps(problem, method(1.0), gradients)[-1] / bound for method in (Nesterov, GradientDescent)
    )
    case = f"(f - f*) / lower bound after {gradients} gradients; control: gradient descent"
    return Verdict(float(nesterov), 64 / 3, float(descent), case)


@claim(
    PAPER,
    "On a mu-strongly convex chain of n unknowns no method that moves by combinations of the t "
    "gradients it saw gets below f - f* = mu/2 (q^(2t) - q^(2n)) / (1 - q^(2n)) D^2, "
    "q = (sqrt(L/mu) - 1) / (sqrt(L/mu) + 1).",
)
def strongly_convex_lower_bound(_: Budget) -> Verdict:
    n, mu = 60, 0.01
    problem = nesterov_worst(n, strong_convexity=mu)
    q = (mu**-0.5 - 1) / (mu**-0.5 + 1)

    gradients = np.arange(1, 51)
    share = (q ** (2 * gradients) - q ** (2 * n)) / (1 - q ** (2 * n))
    bound = mu / 2 * share * _square_distance(problem)

    runs = [_gaps(problem, method, 50) for method in (GradientDescent(1.0), Nesterov(1.0, mu))]
    *best, newton = _least_gaps(problem, [*gradients, n])
    case = (
        "least (f - f*) / bound of gradient descent, Nesterov's method and the best combination of "
        "1 to 50 gradients, n = 60, L/mu = 100; control: one step of Newton's method, which is no "
        "such method"
    )
    lowest = float(np.min(np.array([*runs, best]) / bound))
    return Verdict(lowest, 1.0, float(newton / bound[0]), case, at_most=False)


def _gaps(problem: AbstractObjective, method: Any, gradients: int) -> np.ndarray:
    """f - f* after 1, 2, ... gradients, shape (gradients,)."""
    # The answer of Nesterov's method before its first step has already used one gradient.
    if isinstance(method, Nesterov):
        return history(problem, method, gradients - 1)["gap"]
    return history(problem, method, gradients)["gap"][1:]


def _least_gaps(problem: AbstractObjective, counts: Iterable[Any]) -> np.ndarray:
    """The least f - f* over the span of so many gradients of a chain, its first unknowns.

    With all unknowns it is what a step of Newton's method from 0 reaches.
    """
    # A chain is a quadratic, least at y*. NumPy does not compile anew for each count.
    hessian = np.asarray(problem.hessian(problem.y0).as_matrix())
    minimizer = np.asarray(problem.facts.minimizer)

    def least_gap(count: Any) -> Any:
        y = np.zeros_like(minimizer)
        y[:count] = np.linalg.solve(hessian[:count, :count], (hessian @ minimizer)[:count])
        return (y - minimizer) @ hessian @ (y - minimizer) / 2

    return np.array([least_gap(count) for count in counts])


def _square_distance(problem: AbstractObjective) -> float:
    return float(jnp.sum((problem.y0 - problem.facts.minimizer) ** 2))
