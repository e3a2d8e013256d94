"""Competitive gradients: what the interaction of the players is good for, and when it vanishes."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..engine import solve
from ..problem import Facts
from ..problems import bilinear
from ..saddle import CompetitiveGradient, GradientDescentAscent, Saddle
from . import Budget, Paper, Verdict, claim
from ._history import history

PAPER = Paper(
    slug="competitive-gradient",
    title="Competitive Gradient Optimization",
    authors="Vyas, Azizzadenesheli",
    year=2023,
    implements=("raphson.saddle.CompetitiveGradient",),
    note=(
        "The optimistic form and the notion of coherence are reconstructed: steps by the direction "
        "at a point ahead, and <g(z), z - z*> >= 0 everywhere."
    ),
)


@claim(
    PAPER,
    "With a fixed weight of the interaction competitive gradients converge to the saddle points of "
    "x y and of x^2 y + x y, which descent ascent with the same steps leaves or never reaches.",
)
def interaction_leads_to_the_saddle_point(budget: Budget) -> Verdict:
    cases = [
        (_scalar(_product, 1.0), 0.1, 2000),
        (_scalar(_bent, 0.5), 0.01, budget.pick(5000, 20_000)),
    ]

    def ends(method: Any) -> list[float]:
        runs = [history(problem, method(s), steps)["distance"] for problem, s, steps in cases]
        return [float(run[-1]) for run in runs]

    found = max(ends(lambda s: CompetitiveGradient(s, 1.0)))
    control = min(ends(GradientDescentAscent))
    case = "greater distance of the two at the end, a = 1; control: lesser of descent ascent"
    return Verdict(found, 1e-8, control, case)


@claim(
    PAPER,
    "As its step s goes to 0, competitive gradient descent, whose weight is s, degenerates to "
    "descent ascent: their paths come together like s. With a fixed weight they do not.",
)
def competitive_gradient_descent_degenerates(budget: Budget) -> Verdict:
    problem, time = bilinear(np.geomspace(0.3, 1, 5)), 4.0
    steps = time / np.array(budget.pick((100, 200, 400, 800), (200, 800, 3200, 12_800)))

    def order(weight: Any) -> float:
        """The slope of log |z - z of descent ascent| at the end against log s."""
        apart = [
            float(np.linalg.norm(_end(problem, CompetitiveGradient(s, weight(s)), time) - plain))
            for s in map(float, steps)
            for plain in [_end(problem, GradientDescentAscent(s), time)]
        ]
        return float(np.polyfit(np.log(steps), np.log(apart), 1)[0])

    case = f"slope over s = {steps[0]:g} to {steps[-1]:g} at time {time:g}; control: weight 1"
    return Verdict(order(lambda s: s), 0.9, order(lambda s: 1.0), case, at_most=False)


@claim(
    PAPER,
    "The optimistic form converges wherever f is coherent, also with weights a far below the step "
    "s, where the plain form diverges on bilinear saddles as soon as s exceeds 2 a.",
)
def optimism_allows_any_weight(budget: Budget) -> Verdict:
    problems = [bilinear(np.geomspace(0.3, 1, 5), seed=s) for s in range(budget.pick(3, 10))]

    def shrunk(weight: float, optimistic: bool) -> list[float]:
        method = CompetitiveGradient(0.5, weight, optimistic)
        runs = [history(problem, method, 2000)["distance"] for problem in problems]
        return [float(run[-1] / run[0]) for run in runs]

    found = max(max(shrunk(weight, True)) for weight in (0.0, 0.01, 0.1))
    control = min(min(shrunk(weight, False)) for weight in (0.0, 0.01, 0.1))
    case = (
        "greatest |z - z*| after 2000 steps over its start, s = 0.5, a = 0 to 0.1; control: plain"
    )
    return Verdict(found, 1e-6, control, case)


def _end(problem: Saddle, method: Any, time: float) -> np.ndarray:
    """The iterate after so much time, of which each step takes its step size."""
    steps = round(time / method.step_size)
    solution = solve(problem, method, rtol=0.0, atol=0.0, max_steps=steps, throw=False)
    return np.concatenate(solution.value)


def _scalar(fn: Any, start: float) -> Saddle:
    origin = jnp.array(0.0), jnp.array(0.0)
    return Saddle(fn, jnp.array(start), jnp.array(start), facts=Facts(minimizer=origin))


def _product(x: Array, y: Array, args: None) -> Array:
    return x * y


def _bent(x: Array, y: Array, args: None) -> Array:
    return x**2 * y + x * y
