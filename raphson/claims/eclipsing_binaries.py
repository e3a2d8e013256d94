"""Eclipsing binaries: Newton's method and steepest descent combined, and the model NAV."""

from __future__ import annotations

from typing import Any

import numpy as np
import optimistix as optx

from ..engine import solve
from ..lifts import SciPyMinimize
from ..problems import eclipsing_binary_nav
from ..smooth import CombinedNewtonDescent, GradientDescent
from . import Budget, Paper, Verdict, claim
from ._light_curves import evaluations

PAPER = Paper(
    slug="eclipsing-binaries",
    title="Determination of Characteristics of Eclipsing Binaries with Spots: Phenomenological vs "
    "Physical Models",
    authors="Tkachenko, Andronov",
    year=2014,
    implements=(
        "raphson.smooth.CombinedNewtonDescent",
        "raphson.problems.eclipsing_binary",
        "raphson.problems.eclipsing_binary_nav",
    ),
    note=(
        "The observations are synthetic, without spots. The line searches are ours, as the paper "
        "gives none. From a start where the Hessian is indefinite the combined method may take a "
        "thousand steps of steepest descent through the valley of correlated parameters: a quarter "
        "of its runs are no faster than descent alone. One half-width w serves both eclipses."
    ),
)

NOISE = 0.005


@claim(
    PAPER,
    "From random starts the combined method fits the physical model as often as BFGS does.",
)
def combined_method_is_as_reliable_as_bfgs(budget: Budget) -> Verdict:
    count = budget.pick(10, 30)

    def share(method: object) -> float:
        return float(np.mean(np.isfinite(evaluations(NOISE, method, count))))

    bfgs = share(optx.BFGS(1e-12, 1e-12))
    case = (
        f"share of {count} starts, held against that of Optimistix's BFGS; control: SciPy's BFGS, "
        "whose line search leads it astray more often"
    )
    return Verdict(
        share(CombinedNewtonDescent()), bfgs, share(SciPyMinimize("BFGS")), case, at_most=False
    )


@claim(
    PAPER,
    "To fit the physical model the combined method needs at most 1/5 of the evaluations of "
    "steepest descent, in the median over random starts.",
)
def combined_method_needs_fewer_evaluations(budget: Budget) -> Verdict:
    count = budget.pick(10, 30)

    def median(method: object) -> float:
        return float(np.median(evaluations(NOISE, method, count)))

    descent = median(GradientDescent())
    case = f"over those of descent ({descent:.0f}), {count} starts; control: Optimistix's BFGS"
    bfgs = median(optx.BFGS(1e-12, 1e-12))
    return Verdict(median(CombinedNewtonDescent()) / descent, 0.2, bfgs / descent, case)


@claim(
    PAPER,
    "The phenomenological model leaves little more than the noise: a scatter of at most 1.5 of it.",
)
def phenomenological_model_fits_nearly_to_the_noise(budget: Budget) -> Verdict:
    problem = eclipsing_binary_nav(noise=NOISE)
    solution = solve(problem, throw=False)
    phases, magnitudes, noise = problem.args

    def scatter(residual: Any, unknowns: int) -> float:
        return float(np.sqrt(np.sum(np.square(residual)) / (len(phases) - unknowns)))

    angles = 2 * np.pi * np.outer(phases, [1, 2])
    waves = np.column_stack([np.ones(len(phases)), np.cos(angles), np.sin(angles)])
    left = magnitudes - waves @ np.linalg.lstsq(waves, magnitudes)[0]
    case = "standard deviation over that of the noise, 0.005 mag; control: its waves alone"
    measured = scatter(problem.residual(solution.value), 10)
    return Verdict(measured, 1.5, scatter(left / noise, 5), case)
