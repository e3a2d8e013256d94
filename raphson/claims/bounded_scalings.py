"""Scalings of a trust region within bounds, and whether their mean is as good as the best."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import raphson as rp

from ..problems import (
    brown_almost_linear,
    cutest,
    himmelblau_box,
    powell_singular,
    propane_combustion,
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
    "region's problem is solved exactly, and of several ways into the box the best is taken. On "
    "eight classical systems the combination is as good as the best, 213 steps in all to 204, not "
    "superior; on some of CUTEst's it is slow.",
)

SINGLE = ("coleman_li", "heinkenschloss", "kanzow_klug", "hager_mair_zhang")
MAX_STEPS = 500


def _powell_wall() -> BoundedRootFind:
    """A singular root, on two lower bounds and between the others."""
    system = powell_singular()
    return BoundedRootFind(system.fn, system.y0, jnp.array([0.0, -2.0, -1.0, 0.0]), 4.0)


def _bullard_biegler() -> BoundedRootFind:
    """Two equations whose unknowns at the root differ by a factor of 5e5."""

    def fn(y: Array, _: None) -> Array:
        product, powers = 1e4 * y[0] * y[1] - 1, jnp.exp(-y[0]) + jnp.exp(-y[1]) - 1.001
        return jnp.stack([product, powers])

    lower, upper = jnp.array([5.49e-6, 2.196e-3]), jnp.array([4.553, 18.21])
    return BoundedRootFind(fn, jnp.ones(2), lower, upper)


def _ferraris_tronconi() -> BoundedRootFind:
    """Two transcendental equations with two roots in the box."""

    def fn(y: Array, _: None) -> Array:
        a, b = y
        first = jnp.sin(a * b) / 2 - b / (4 * jnp.pi) - a / 2
        rest = jnp.e * (b / jnp.pi - 2 * a)
        return jnp.stack([first, (1 - 0.25 / jnp.pi) * (jnp.exp(2 * a) - jnp.e) + rest])

    lower, upper = jnp.array([0.25, 1.5]), jnp.array([1.0, 2 * jnp.pi])
    return BoundedRootFind(fn, jnp.array([0.3, 2.0]), lower, upper)


def _chandrasekhar() -> BoundedRootFind:
    """The H-equation of radiative transfer, H >= 1, by the midpoint rule in 20 points."""
    points = (jnp.arange(20) + 0.5) / 20
    kernel = 0.9 / 40 * points[:, None] / (points[:, None] + points)
    return BoundedRootFind(lambda y, K: y - 1 / (1 - K @ y), jnp.full(20, 2.0), 1.0, 5.0, kernel)


QUICK: tuple[Callable[[], BoundedRootFind], ...] = (himmelblau_box, rosenbrock_wall)
FULL = (
    *QUICK,
    brown_almost_linear,
    propane_combustion,
    _powell_wall,
    _bullard_biegler,
    _ferraris_tronconi,
    _chandrasekhar,
)


def _steps(problem: Any, scaling: str) -> float:
    """Steps to |F| <= 1e-8; the whole budget where that is not reached."""
    options = {"rtol": 0.0, "atol": 1e-8, "max_steps": MAX_STEPS, "throw": False}
    solution = rp.solve(problem, BoundedTrustRegion(scaling), **options)
    return float(solution.stats.steps) if solution.converged else MAX_STEPS


@claim(
    PAPER,
    "Eight classical systems within bounds, with roots inside, on lower and on upper bounds, are "
    "all solved by the combination of the scalings, in at most 1.1 times as many steps as the best "
    "single one takes in all.",
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
    "and Zhang's comes to rest with |F| = 26 at the wall y_1 = 1, where |F| is least nearby; the "
    "others find the root.",
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
    "Not reproduced: that the combination is superior in general. On CUTEst's PFIT1 it needs 122 "
    "steps where Coleman and Li's needs 9, at least 5 times as many.",
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
