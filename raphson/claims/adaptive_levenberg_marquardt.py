"""Bent steps through curved valleys, and the second model where residuals stay large."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from ..engine import solve
from ..problems import cutest
from ..roots import AdaptiveLevenbergMarquardt, LeastSquares
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="adaptive-levenberg-marquardt",
    title="Improvements to the Levenberg-Marquardt Algorithm for Nonlinear Least-Squares "
    "Minimization",
    authors="Transtrum, Sethna",
    year=2012,
    implements=("raphson.roots.AdaptiveLevenbergMarquardt",),
    note="The second model is that of Dennis, Gay, Welsch (1981), An Adaptive Nonlinear "
    "Least-Squares Algorithm.",
)

VALLEYS = ("MGH09", "BENNETT5", "MISRA1A")


def _fit(name: str) -> LeastSquares:
    problem: Any = cutest(name)
    return LeastSquares(problem.fn, problem.y0, problem.args)


def _steps(problem: LeastSquares, method: AdaptiveLevenbergMarquardt, atol: float) -> float:
    options = {"rtol": 0.0, "atol": atol, "max_steps": 3000, "throw": False}
    return float(solve(problem, method, **options).stats.steps)


@claim(
    PAPER,
    "Bent by the geodesic acceleration, steps through the curved valleys of fits are fewer: at "
    "most 0.6 times as many, in the geometric mean.",
)
def bent_steps_are_fewer(budget: Budget) -> Verdict:
    def mean(bend: float) -> float:
        fits = map(_fit, VALLEYS[: budget.pick(2, 3)])
        steps = [
            [_steps(fit, AdaptiveLevenbergMarquardt(b, 0.0, 1.0), 1e-6) for b in (bend, 0.0)]
            for fit in fits
        ]
        return float(np.exp(np.mean([np.log(bent / straight) for bent, straight in steps])))

    case = "steps over those of straight steps, NIST's fits; control: bent by 1e-6 at most"
    return Verdict(mean(0.75), 0.6, mean(1e-6), case)


@claim(
    PAPER,
    "Where residuals stay large the learned curvature takes over: on Brown and Dennis's fit |g| is "
    "down to 1e-10 of the start's after at most 40 steps.",
)
def large_residuals_do_not_slow_it(budget: Budget) -> Verdict:
    t = jnp.arange(1, 21) / 5

    def residual(y, _):
        decay, wave = y[0] + t * y[1] - jnp.exp(t), y[2] + y[3] * jnp.sin(t) - jnp.cos(t)
        return decay**2 + wave**2

    problem = LeastSquares(residual, jnp.array([25.0, 5.0, -5.0, -1.0]))
    slope = float(jnp.linalg.norm(problem.gradient(problem.y0)))
    measured, control = (
        _steps(problem, AdaptiveLevenbergMarquardt(switch=switch), 1e-10 * slope)
        for switch in (0.1, 0.0)
    )
    return Verdict(measured, 40, control, "steps; control: Gauss and Newton's model alone")
