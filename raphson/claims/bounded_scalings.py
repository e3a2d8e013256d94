"""Scalings of a trust region within bounds, and whether their mean is as good as the best."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

import raphson as rp

from ..problems import (
    brown_almost_linear,
    cutest,
    himmelblau_box,
    powell_singular,
    propane_combustion,
    rosenbrock_system,
    rosenbrock_wall,
)
from ..roots import BoundedRootFind, BoundedTrustRegion
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="bounded-scalings",
    title="A New Class of Scaling Matrices for Scaled Trust Region Algorithms",
    authors="Ayanzadeh, Yazdanian, Shahamatnia",
    year=2019,
    implements=("raphson.roots.BoundedTrustRegion",),
    note="The weights of the combination are equal. The step is not the paper's dogleg: the trust "
    "region's problem is solved exactly, and of several ways into the box the best is taken. That "
    "the combination is superior holds on the classical systems; on some of CUTEst's it is not.",
)

SINGLE = ("coleman_li", "heinkenschloss", "kanzow_klug", "hager_mair_zhang")
MAX_STEPS = 500


def _powell_wall() -> BoundedRootFind:
    system = powell_singular()
    return BoundedRootFind(system.fn, system.y0, jnp.array([0.0, -2.0, -1.0, 0.0]), 4.0)


def _rosenbrock_chain() -> BoundedRootFind:
    system, upper = rosenbrock_system(6), jnp.array([1.0, 1.0, 1.0, 2.0, 2.0, 2.0])
    return BoundedRootFind(system.fn, system.y0, -1.5, upper)


QUICK: tuple[Callable[[], BoundedRootFind], ...] = (
    himmelblau_box,
    brown_almost_linear,
    rosenbrock_wall,
)
FULL = (
    *QUICK,
    propane_combustion,
    lambda: brown_almost_linear(20),
    _rosenbrock_chain,
    lambda: BoundedRootFind(powell_singular().fn, powell_singular().y0, -2.0, 4.0),
    _powell_wall,
)


def _steps(problem: Any, scaling: str) -> float:
    """Steps to |F| <= 1e-8; the whole budget where that is not reached."""
    options = {"rtol": 0.0, "atol": 1e-8, "max_steps": MAX_STEPS, "throw": False}
    solution = rp.solve(problem, BoundedTrustRegion(scaling), **options)
    return float(solution.stats.steps) if solution.converged else MAX_STEPS


@claim(
    PAPER,
    "On classical systems within bounds, with roots inside and on the bounds, the combination of "
    "the scalings needs at most 1.1 times the steps of the best single one in all.",
)
def combination_is_as_fast_as_the_best(budget: Budget) -> Verdict:
    problems = [state() for state in budget.pick(QUICK, FULL)]
    total = {s: sum(_steps(p, s) for p in problems) for s in (*SINGLE, "combination")}
    best = min(total[scaling] for scaling in SINGLE)
    case = (
        f"total steps over those of the best single scaling ({best:.0f}) on {len(problems)} "
        "systems, a failure counting as 500; control: Hager, Mair and Zhang's alone"
    )
    return Verdict(total["combination"] / best, 1.1, total["hager_mair_zhang"] / best, case)


@claim(
    PAPER,
    "Not reproduced: that every scaling solves the classical systems. On Himmelblau's, Hager, Mair "
    "and Zhang's comes to rest at a wall of the box where |F| is least nearby, the others do not.",
    reproduces=False,
)
def one_scaling_rests_at_a_wall(budget: Budget) -> Verdict:
    def reached(scaling: str) -> float:
        solution = rp.solve(himmelblau_box(), BoundedTrustRegion(scaling), throw=False)
        return float(solution.certificate.residual)

    others = max(reached(s) for s in (*SINGLE[:3], "combination"))
    case = "|F| where Hager, Mair and Zhang's ends; control: the greatest of the other four"
    return Verdict(reached("hager_mair_zhang"), 1.0, others, case, at_most=False)


@claim(
    PAPER,
    "Not reproduced: that the combination is superior in general. On CUTEst's PFIT1 it needs at "
    "least 5 times the steps of Coleman and Li's.",
    reproduces=False,
)
def combination_is_slow_on_a_fit_with_a_pole(budget: Budget) -> Verdict:
    problem = cutest("PFIT1")
    best = _steps(problem, "coleman_li")
    case = f"steps over those of Coleman and Li's ({best:.0f}); control: Heinkenschloss's"
    slow, alike = (_steps(problem, scaling) for scaling in ("combination", "heinkenschloss"))
    return Verdict(slow / best, 5.0, alike / best, case, at_most=False)


@claim(
    PAPER,
    "To a root in a corner of the box the convergence is superlinear: a step shrinks |F| by 1e-3.",
)
def converges_superlinearly_to_a_corner(budget: Budget) -> Verdict:
    problem = brown_almost_linear(budget.pick(5, 20))

    def best_factor(method: Any) -> float:
        norm = rp.trace(problem, method, rtol=0.0, atol=1e-13, every=1).measures["residual"]
        factors = (norm[1:] / norm[:-1])[norm[1:] > 1e-15]
        return float(np.min(factors))

    # SciPy's adds a curvature of the bounds also where F vanishes, and converges at the rate 1/2.
    case = "least |F+| / |F| of a step on Brown's system; control: scipy.trf"
    return Verdict(
        best_factor(BoundedTrustRegion()), 1e-3, best_factor(rp.SciPyLeastSquares("trf")), case
    )
