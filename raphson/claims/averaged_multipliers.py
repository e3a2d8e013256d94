"""Averaged multipliers: a lower level with many minima by a single loop."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax.tree as otu
from jaxtyping import Array

from ..bilevel import AveragedMultipliers, DescentAggregation
from ..compiled import compiled
from ..engine import solve
from ..problems import non_singleton
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="averaged-multipliers",
    title=(
        "Averaged Method of Multipliers for Bi-Level Optimization without Lower-Level Strong "
        "Convexity"
    ),
    authors="Liu, Liu, Yao, Zeng, Zhang",
    year=2023,
    implements=("raphson.bilevel.AveragedMultipliers",),
    note=(
        "The counter-example is kind: F_y is 0 at its solution. With x^2 / 2 added to F it is not, "
        "and x is off by 0.27, 0.21 and 0.16 after 1e3, 1e4 and 1e5 steps: by as much as the "
        "weight (k + 1)^(-1/10) allows."
    ),
)


@claim(
    PAPER,
    "On the counter-example, a lower level with many minima, 10,000 steps find x and y to 1e-6.",
)
def multipliers_find_the_optimistic_solution(budget: Budget) -> Verdict:
    def distance(method: Any, steps: int) -> float:
        problem = non_singleton()
        z = solve(problem, method, max_steps=steps, throw=False).value
        return float(otu.norm(otu.sub(z, problem.facts.minimizer), ord=np.inf))

    case = "greatest error of x and y; control: descent aggregation, 3000 times 16 lower steps"
    control = distance(DescentAggregation(0.2, 0.7, 0.7, 16), 3000)
    return Verdict(distance(AveragedMultipliers(), 10_000), 1e-6, control, case)


@claim(
    PAPER,
    "The weight must fall slowly: with the power 1/10 the multiplier stays bounded, which it does "
    "not with the power 1.",
)
def multiplier_stays_bounded(budget: Budget) -> Verdict:
    # y_2 starts where F_y has a part that f_yy does not see.
    problem = eqx.tree_at(lambda p: p.y0[1], non_singleton(), jnp.array([0.0, 2.0]))
    steps = budget.pick(10_000, 100_000)

    def greatest(power: float) -> float:
        return float(compiled(_greatest, problem, AveragedMultipliers(weight_power=power), steps))

    case = f"greatest |v| of {steps} steps from y = (0, 2); control: mu = 0.9 / (k + 1)"
    return Verdict(greatest(0.1), 2.0, greatest(1.0), case)


def _greatest(problem: Any, method: AveragedMultipliers, steps: int) -> Array:
    def step(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], Array]:
        y, state = method.step(problem, *carry)
        return (y, state), otu.norm(state.v)

    start = problem.y0, method.init(problem, problem.y0, None)
    return jnp.max(jax.lax.scan(step, start, length=steps)[1])
