"""Descent aggregation: lower levels with many minima."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from ..bilevel import Bilevel, DescentAggregation
from ..engine import solve
from ..problems import non_singleton
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="descent-aggregation",
    title=(
        "A Generic First-Order Algorithmic Framework for Bi-Level Programming Beyond Lower-Level "
        "Singleton"
    ),
    authors="Liu, Mu, Yuan, Zeng, Zhang",
    year=2020,
    implements=("raphson.bilevel.DescentAggregation",),
    note=(
        "The counter-example does not tell weights that fall from constant ones, for F_y is 0 at "
        "its solution; with x^2 / 2 added to F it does."
    ),
)


@claim(
    PAPER,
    "On the counter-example, a lower level with many minima, 64 aggregated lower steps find x = 1 "
    "to 1e-3.",
)
def aggregation_finds_the_optimistic_solution(budget: Budget) -> Verdict:
    def distance(weight: Any) -> float:
        method = DescentAggregation(0.2, 0.7, 0.7, 64, weight)
        x, _ = solve(non_singleton(), method, max_steps=3000, throw=False).value
        return abs(float(x) - 1)

    case = "|x - 1| after 3000 steps at most; control: 64 steps down f alone, which find x = 1/2"
    return Verdict(distance(1.0), 1e-3, distance(lambda k: 0.0), case)


@claim(
    PAPER,
    "With weights that fall, what is wrong of x falls with the number T of lower steps: by at "
    "least 4 from T = 8 to 64.",
)
def converges_as_the_lower_steps_grow(budget: Budget) -> Verdict:
    # y = (x, x) is best for F, so that x = 1/2 is.
    problem = Bilevel(_pulled, non_singleton().lower_fn, jnp.array(0.0), jnp.zeros(2))

    def gain(weight: Any) -> float:
        def distance(T: int) -> float:
            method = DescentAggregation(0.2, 0.7, 0.7, T, weight)
            x, _ = solve(problem, method, max_steps=3000, throw=False).value
            return abs(float(x) - 0.5)

        return distance(8) / distance(64)

    case = "|x - 1/2| of T = 8 / that of T = 64, x^2 / 2 added to F; control: constant weights 0.4"
    return Verdict(gain(1.0), 4.0, gain(lambda k: 0.4), case, at_most=False)


def _pulled(x: Array, y: Array, args: None) -> Array:
    return ((x - y[1]) ** 2 + (y[0] - 1) ** 2 + x**2) / 2
