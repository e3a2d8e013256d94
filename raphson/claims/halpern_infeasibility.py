"""Halpern's iteration finds a fixed point, or that there is none, in fewer steps than averaging."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..compiled import compiled
from ..engine import solve
from ..method import AbstractMethod
from ..probes import infimal_displacement
from ..roots import FixedPoint, Halpern, KrasnoselskiiMann
from ..solution import status_name
from . import Budget, Paper, Verdict, claim
from ._history import history

PAPER = Paper(
    slug="halpern-infeasibility",
    title="Accelerated Infeasibility Detection of Constrained Optimization and Fixed-Point "
    "Iterations",
    authors="Park, Ryu",
    year=2023,
    implements=(
        "raphson.roots.Halpern",
        "raphson.roots.KrasnoselskiiMann",
        "raphson.probes.infimal_displacement",
        "raphson.probes.expansion",
    ),
    note="The claims on rates switch the restart of Halpern off. The bound for maps that have a "
    "fixed point is Lieder's. That Halpern is faster holds for the worst map: on the disc and the "
    "half-plane Picard tells the gap to rounding in 100 steps, Halpern to 7 %. Where the speed of "
    "the drift is exact, the whole vector is not: after 5000 steps it is within 1.7 % of v by "
    "Halpern, 1.1 % by Picard. When a run gives up is ours.",
)

HALPERN, PICARD = Halpern(restart=0.0), KrasnoselskiiMann()
GAP = 0.3


def _turned(y: Float[Array, "401"], angles: Float[Array, "200"]) -> Float[Array, "401"]:
    """Half way to the image under rotations, one in each plane, and a step along the last axis."""
    planes = y[:-1].reshape(-1, 2)
    turned = (planes + jax.vmap(_rotated)(planes, angles)) / 2
    return jnp.append(turned.ravel(), y[-1] - GAP)


def _rotated(y: Float[Array, "2"], angle: Array) -> Float[Array, "2"]:
    c, s = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([c * y[0] - s * y[1], s * y[0] + c * y[1]])


def _drifting() -> FixedPoint:
    """200 planes, turned by angles from 1e-4 to 1, in each of which the start has length 1."""
    angles = jnp.array(np.geomspace(1e-4, 1, 200))
    start = jnp.append(jnp.tile(jnp.array([1.0, 0.0]), 200), 0.0)
    return FixedPoint(_turned, start, angles)


@claim(
    PAPER,
    "Where there is no fixed point the square of the error of y - T(y) falls like 1 / k^2 along "
    "Halpern's iteration: its slope in log-log scale is at most -1.75.",
)
def halpern_finds_the_displacement_faster(budget: Budget) -> Verdict:
    case = "slope from k = 50 to 5000 in 401 variables, v = 0.3; control: Picard"
    return Verdict(_slope(HALPERN), -1.75, _slope(PICARD), case)


@claim(
    PAPER,
    "Along Picard's iteration the square of the error of y - T(y) falls like 1 / k only: its slope "
    "in log-log scale is -1 to within 0.2.",
)
def picard_finds_the_displacement_slowly(budget: Budget) -> Verdict:
    case = "|slope + 1|, k = 50 to 5000 in 401 variables, v = 0.3; control: Halpern"
    return Verdict(abs(_slope(PICARD) + 1), 0.2, abs(_slope(HALPERN) + 1), case)


@claim(
    PAPER,
    "Halpern's iterates drift at half the speed of Picard's: along v both 2 (y_0 - y_k) / k of the "
    "one and (y_0 - y_k) / k of the other are within 0.1 % of it after 5000 steps.",
)
def halpern_drifts_at_half_speed(budget: Budget) -> Verdict:
    problem, steps = _drifting(), 5000

    def error(method: AbstractMethod, speed: float) -> float:
        y = solve(problem, method, max_steps=steps, throw=False).value
        difference = infimal_displacement(problem, y, steps, speed=speed).difference
        return abs(float(difference[-1]) - GAP) / GAP

    measured = max(error(HALPERN, 0.5), error(PICARD, 1.0))
    case = "greater relative error of both, v = 0.3; control: Halpern's taken for Picard's speed"
    return Verdict(measured, 1e-3, error(HALPERN, 1.0), case)


@claim(
    PAPER,
    "Where there is a fixed point y*, |y - T(y)| <= 2 |y_0 - y*| / (k + 1) at every step of "
    "Halpern's iteration.",
)
def halpern_keeps_the_bound_of_lieder(budget: Budget) -> Verdict:
    start, angles = jnp.array([1.0, 0.0]), (0.01, 0.3, 1.0, 3.0)
    rotations = [FixedPoint(_rotated, start, jnp.array(angle)) for angle in angles]

    def share(problem: FixedPoint, method: AbstractMethod) -> float:
        residual = history(problem, method, budget.pick(2000, 20_000))["residual"]
        return float(np.max(residual * (np.arange(len(residual)) + 1) / 2))

    def greatest(method: AbstractMethod) -> float:
        return max(share(problem, method) for problem in rotations)

    case = "greatest |y - T(y)| / bound on rotations; control: the average with weight 1 / 2"
    return Verdict(greatest(HALPERN), 1 + 1e-9, greatest(KrasnoselskiiMann(0.5)), case)


@claim(
    PAPER,
    "Of a disc and a half-plane that do not meet, y - T(y) along Halpern's iteration of the "
    "Douglas-Rachford map tells the gap vector, to 1 % of it after 2000 steps.",
)
def douglas_rachford_tells_the_gap(budget: Budget) -> Verdict:
    steps = 2000

    def error(gap: float) -> float:
        problem = FixedPoint(_douglas_rachford, jnp.array([0.3, 2.0]), jnp.array(gap))
        y = solve(problem, HALPERN, rtol=0.0, atol=0.0, max_steps=steps, throw=False).value
        residual = infimal_displacement(problem, y, steps, speed=0.5).residual
        return float(jnp.linalg.norm(residual - jnp.array([-GAP, 0.0])) / GAP)

    return Verdict(
        error(GAP), 0.01, error(0.0), "relative error, gap 0.3; control: sets that touch"
    )


@claim(
    PAPER,
    "Of a disc and a half-plane that do not meet, both iterations of the Douglas-Rachford map "
    "report within 10,000 steps that it has no fixed point; not so where they touch.",
)
def infeasibility_is_reported(budget: Budget) -> Verdict:
    limit = budget.pick(20_000, 100_000)

    def reported(gap: float) -> float:
        """After how many steps by the slower method; infinite where one does not report it."""
        problem = FixedPoint(_douglas_rachford, jnp.array([0.3, 2.0]), jnp.array(gap))

        def steps(method: AbstractMethod) -> float:
            run = solve(problem, method, rtol=0.0, atol=0.0, max_steps=limit, throw=False)
            infeasible = status_name(run.status) == "infeasible"
            return float(run.stats.steps) if infeasible else float("inf")

        return max(steps(method) for method in (HALPERN, Halpern(), PICARD, KrasnoselskiiMann(0.5)))

    case = f"most steps until it is reported, of 4 methods, gap {GAP}; control: sets that touch"
    return Verdict(reported(GAP), 10_000.0, reported(0.0), case)


def _displacement() -> Float[Array, "401"]:
    """v of `_drifting`."""
    return jnp.zeros(401).at[-1].set(GAP)


def _douglas_rachford(z: Float[Array, "2"], gap: Array) -> Float[Array, "2"]:
    """z + P_H(2 P_D(z) - z) - P_D(z), for the unit disc D and the half-plane H y_1 >= 1 + gap."""
    in_disc = z / jnp.maximum(1, jnp.linalg.norm(z))
    reflected = 2 * in_disc - z
    in_half_plane = reflected.at[0].max(1 + gap)
    return z + in_half_plane - in_disc


def _slope(method: AbstractMethod) -> float:
    errors = np.asarray(compiled(_errors, _drifting(), method, 5000))
    k = np.arange(50, 5001)
    return float(np.polyfit(np.log(k), np.log(errors[k]), 1)[0])


def _errors(problem: FixedPoint, method: AbstractMethod, steps: int) -> Float[Array, " steps+1"]:
    """|y - T(y) - v|^2 after 0 to `steps` steps."""

    def step(carry: Any, _: None) -> tuple[Any, Array]:
        y, state = carry
        error = y - state.image - _displacement()
        return method.step(problem, y, state), jnp.sum(error**2)

    start = problem.y0, method.init(problem, problem.y0, None)
    return jax.lax.scan(step, start, length=steps + 1)[1]
