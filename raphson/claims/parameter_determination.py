"""Evaluations to accuracy: what a fit costs where the model is slow."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..compiled import compiled
from ..smooth import BrentLine, GradientDescent, price_search
from . import Budget, Paper, Verdict, claim
from ._light_curves import HIGH, LOW, evaluations, fitted

PAPER = Paper(
    slug="parameter-determination",
    title="Comparative Analysis of Numerical Methods for Parameter Determination",
    authors="Andronov, Tkachenko",
    year=2013,
    implements=(
        "raphson.problems.eclipsing_binary",
        "raphson.smooth.BrentLine",
        "raphson.smooth.price_search",
    ),
    note=(
        "On the synthetic light curve of an eclipsing binary, noise 0.01 mag, in a box of its four "
        "parameters; a gradient is counted as 4 evaluations. Price's search is not the only one "
        "that finds the best fit: there steepest descent does as often, and conjugate gradients "
        "from 9 starts in 10, for a seventh of its evaluations. Steepest descent is slower still "
        "where its lines are minimized by Brent's method, as exact lines make it zigzag."
    ),
)

NOISE = 0.01


@claim(
    PAPER,
    "Conjugate gradients along Brent's lines fit the light curve with at most half the evaluations "
    "of steepest descent, in the median over random starts.",
)
def conjugate_gradients_need_fewer_evaluations(budget: Budget) -> Verdict:
    count = budget.pick(6, 30)
    methods = GradientDescent(), BrentLine(), BrentLine(conjugate=False)
    descent, conjugate, steepest = (
        float(np.median(evaluations(NOISE, method, count))) for method in methods
    )
    case = (
        f"{conjugate:.0f} over {descent:.0f}, {count} starts; control: steepest descent along "
        "Brent's lines"
    )
    return Verdict(conjugate / descent, 0.5, steepest / descent, case)


@claim(
    PAPER,
    "Price's search fits the light curve to within its error bar, and neither a regular grid nor "
    "points at random do with ten times as many evaluations.",
)
def price_needs_fewer_evaluations_than_grid_and_chance(budget: Budget) -> Verdict:
    problem, least = fitted(NOISE)
    excess, spent = _price_searches(budget.pick(10, 30))
    many = 10 * int(np.median(spent))
    side = int(np.ceil(many**0.25))
    axes = [np.linspace(low, high, side) for low, high in zip(LOW, HIGH)]
    grid = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 4)
    chance = np.random.default_rng(0).uniform(LOW, HIGH, (budget.pick(3, 10), many, 4))

    def missed(points: np.ndarray) -> float:
        return 2 * float(np.nanmin(compiled(_values, problem, points))) - least

    by_grid, by_chance = missed(grid), float(np.median([missed(points) for points in chance]))
    case = (
        f"median excess of the sum of squares over the least, {len(spent)} searches of "
        f"{np.median(spent):.0f} evaluations; control: {many} points, at random {by_chance:.0f}, "
        f"on a grid {by_grid:.0f}"
    )
    return Verdict(float(np.median(excess)), 1.0, min(by_grid, by_chance), case)


@claim(PAPER, "Price's search finds the best fit at least 9 times in 10.")
def price_finds_the_global_basin(budget: Budget) -> Verdict:
    count = budget.pick(20, 100)

    def share(population: int | None) -> float:
        excess, _ = _price_searches(count, population)
        return float(np.mean(excess < 1))

    case = (
        f"share of {count} searches that end with a sum of squares within 1 of the least, "
        "population 50; control: a population of 10"
    )
    return Verdict(share(None), 0.9, share(10), case, at_most=False)


def _price_searches(count: int, population: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The sums of squares above the least where searches end, and their evaluations.

    A search ends where the sums of squares in its population are within 1.
    """
    problem, least = fitted(NOISE)
    found = [
        price_search(problem, LOW, HIGH, key=key, population=population, atol=0.5)
        for key in jax.random.split(jax.random.key(0), count)
    ]
    excess = [2 * float(one.value) - least for one in found]
    return np.array(excess), np.array([int(one.evaluations) for one in found])


def _values(problem: Any, points: Any) -> Any:
    return jax.lax.map(problem.value, jnp.asarray(points), batch_size=500)
