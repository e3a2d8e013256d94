"""Accelerated primal-dual: the best rate in f and in the coupling, where h is strongly convex."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..problems import least_squares_saddle
from ..saddle import AcceleratedPrimalDual, CompositeSaddle, Extragradient
from . import Budget, Paper, Verdict, claim
from ._history import history

PAPER = Paper(
    slug="accelerated-primal-dual",
    title="Accelerated Primal-Dual Methods for Convex-Strongly-Concave Saddle Point Problems",
    authors="Khalafi, Boob",
    year=2023,
    implements=("raphson.saddle.AcceleratedPrimalDual", "raphson.CompositeSaddle"),
    note=(
        "The constants of the steps are derived here, not quoted. The first proximal step in y is "
        "taken from the start with the step size 1 / mu, which adds mu |y0 - y|^2 to the bound. "
        "The method restarts every 1000 steps by default, which the paper does not: the claims "
        "switch that off."
    ),
)

# The gradient of f is L-Lipschitz, A has the norm 1, and h the modulus 1.
LIPSCHITZ = 100.0


@claim(
    PAPER,
    "On f with curvatures from 1e-6 to 100 the primal suboptimality falls at least like 1 / N^2: "
    "with a slope of at most -1.9 in log-log scale from N = 100 to 3000.",
)
def accelerated_rate(budget: Budget) -> Verdict:
    def worst_slope(method: Any) -> float:
        t = np.arange(100, 3001)
        runs = [history(p, method, 3000)["suboptimality"][t] for p in _cases(budget)]
        return max(float(np.polyfit(np.log(t), np.log(run), 1)[0]) for run in runs)

    case = f"greatest slope over {len(_cases(budget))} problems; control: f linearized at x"
    return Verdict(worst_slope(_method()), -1.9, worst_slope(_method(accelerated=False)), case)


@claim(
    PAPER,
    "After each of N steps the primal suboptimality is at most "
    "(2 (L + |A|^2 / mu) |x0 - x*|^2 + mu |y0 - y|^2) / (N (N + 1)).",
)
def bound_at_every_step(budget: Budget) -> Verdict:
    steps = budget.pick(3000, 10_000)

    def excess(mu: float) -> float:
        method = AcceleratedPrimalDual(LIPSCHITZ, 1.0, mu, restart_every=None)
        return max(_over_bound(problem, method, steps, 1.0) for problem in _cases(budget))

    case = (
        f"greatest suboptimality / bound without its second term, over {steps} steps and "
        f"{len(_cases(budget))} problems; control: told a modulus that is ten times mu"
    )
    return Verdict(excess(1.0), 1.0, excess(10.0), case)


@claim(
    PAPER,
    "With both proximal steps taken at once by 50 inner steps, the coupling leaves the bound: for "
    "|A| = 30 L, too, it is 2 L |x0 - x*|^2 / (N (N + 1)) after N gradients of f.",
)
def inner_steps_spare_gradients(budget: Budget) -> Verdict:
    A, steps = 30.0, budget.pick(300, 3000)
    problems = [
        least_squares_saddle(np.geomspace(1e-4, 1, 60), coupling=A, seed=seed)
        for seed in range(budget.pick(2, 10))
    ]

    def excess(**inner: Any) -> float:
        method = AcceleratedPrimalDual(1.0, A, 1.0, restart_every=None, **inner)
        return max(_over_bound(problem, method, steps, 0.0, 1.0) for problem in problems)

    # In the units of the inner problem the coupling has the norm A sqrt(s / p) <= sqrt(2) A.
    inner = Extragradient.from_lipschitz(1 + 2**0.5 * A)
    case = (
        f"greatest suboptimality / bound over {steps} steps and {len(problems)} problems; "
        "control: the steps linearized, with as many gradients of f"
    )
    return Verdict(excess(inner=inner, inner_steps=50), 1.0, excess(), case)


def _cases(budget: Budget) -> list[CompositeSaddle]:
    return [least_squares_saddle(seed=seed) for seed in range(budget.pick(2, 10))]


def _method(**options: Any) -> AcceleratedPrimalDual:
    return AcceleratedPrimalDual(LIPSCHITZ, 1.0, 1.0, restart_every=None, **options)


def _over_bound(
    problem: CompositeSaddle, method: Any, steps: int, coupling: float, smooth: float = LIPSCHITZ
) -> float:
    """The greatest suboptimality times N (N + 1) / (2 (L + |A|^2) |x0 - x*|^2)."""
    gap = history(problem, method, steps)["suboptimality"][1:]
    n = np.arange(1, steps + 1)
    far = float(np.sum((problem.y0[0] - problem.facts.minimizer[0]) ** 2))
    return float(np.max(gap * n * (n + 1) / (2 * (smooth + coupling**2) * far)))
