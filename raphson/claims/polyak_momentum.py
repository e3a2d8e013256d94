"""Polyak's step size with momentum: what it guarantees, and what it is worth."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..problem import AbstractObjective
from ..problems import huber_chain, logistic_synthetic, nesterov_worst, quadratic
from ..smooth import HeavyBall, PolyakMomentum
from . import Budget, Paper, Verdict, claim
from ._history import history

PAPER = Paper(
    slug="polyak-momentum",
    title="Generalized Polyak Step Size for First Order Optimization with Momentum",
    authors="Wang, Johansson, Zhang",
    year=2023,
    implements=("raphson.smooth.PolyakMomentum",),
    note=(
        "The heavy-ball form is not safe on every convex f: on `huber_chain()` with momentum 0.9 "
        "it diverges. On ill-conditioned quadratics Polyak's step size alone does better than "
        "the moving average with any of the momenta tried, as the last claim says; that is a "
        "finding of ours. The stochastic forms are not implemented yet."
    ),
)
MOMENTA = (0.5, 0.9, 0.99)


@claim(
    PAPER,
    "On a convex f the moving-average form never moves away from a minimizer, whatever the "
    "momentum.",
)
def moving_average_never_moves_away(budget: Budget) -> Verdict:
    steps = budget.pick(300, 3000)
    problems = [quadratic(), huber_chain(), nesterov_worst(), logistic_synthetic()]

    def greatest_rise(kind: str) -> float:
        def rise(problem: AbstractObjective, momentum: float) -> Any:
            method = PolyakMomentum(float(problem.facts.optimum), momentum, kind)
            run = history(problem, method, steps)
            ahead = run["gap"][:-1] > 1e-12 * run["gap"][0]  # below, f - f* is rounding
            return np.max((np.diff(run["distance"]) / run["distance"][:-1])[ahead])

        return float(np.max([rise(problem, m) for problem in problems for m in MOMENTA]))

    case = (
        f"greatest relative rise of |y - y*| in {steps} steps on 4 problems with momenta "
        f"{MOMENTA}; control: the heavy-ball form"
    )
    return Verdict(greatest_rise("moving_average"), 1e-10, greatest_rise("heavy_ball"), case)


@claim(
    PAPER,
    "On quadratics with condition number 1e4 the heavy-ball form is better after 2000 steps than "
    "the heavy ball with step size 1/L, whichever momentum both take.",
)
def better_than_a_fixed_step_size(budget: Budget) -> Verdict:
    heavy_ball, moving_average = (
        max(_gap(budget, kind, m) / _gap(budget, "fixed", m) for m in MOMENTA)
        for kind in ("heavy_ball", "moving_average")
    )
    case = (
        f"greatest f - f* over that with the fixed step size, momenta {MOMENTA}, medians of seeds; "
        "control: the moving-average form"
    )
    return Verdict(heavy_ball, 1.0, moving_average, case)


@claim(
    PAPER,
    "On the same quadratics momentum is no help to Polyak's step size: the moving-average form is "
    "worse by a factor of 100 at least than without momentum.",
)
def momentum_does_not_help_polyaks_step(budget: Budget) -> Verdict:
    polyak, fixed = (
        min(_gap(budget, kind, m) for m in MOMENTA) / _gap(budget, kind, 0.0)
        for kind in ("moving_average", "fixed")
    )
    case = (
        f"least f - f* over that without momentum, momenta {MOMENTA}, medians of seeds; control: "
        "the fixed step size 1/L"
    )
    return Verdict(polyak, 100.0, fixed, case, at_most=False)


def _gap(budget: Budget, kind: str, momentum: float) -> float:
    """f - f* after 2000 steps on an ill-conditioned quadratic, its median over seeds."""
    L = 1e4
    fixed = HeavyBall(1 / L, momentum)
    method = fixed if kind == "fixed" else PolyakMomentum(0.0, momentum, kind)
    problems = [quadratic(np.geomspace(1, L, 20), seed=s) for s in range(budget.pick(5, 25))]
    return float(np.median([history(problem, method, 2000)["gap"][-1] for problem in problems]))
