"""BO-REP where the curvature of the upper level grows with its gradient."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..bilevel import Bilevel, BORep
from ..engine import solve
from ..wrappers import Noisy
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="bo-rep",
    title=(
        "Bilevel Optimization under Unbounded Smoothness: A New Algorithm and Convergence Analysis"
    ),
    authors="Hao, Gong, Liu",
    year=2024,
    implements=("raphson.bilevel.BORep",),
    note=(
        "F = sum cosh(y_i), f = |y - A x|^2 / 2 in 5 variables, with noise of 0.1 in every entry "
        "of gradients and products. Steps of one length do not settle: at r = 0.1 the gradient "
        "stays at 1.5."
    ),
)

SIZE = 5


@claim(
    PAPER,
    "Steps of one length reach a gradient below 1 from starts where it is 60, 2000 and 1e6.",
)
def one_length_fits_all_starts(budget: Budget) -> Verdict:
    steps, distances = budget.pick(2500, 10_000), (4.0, 7.5, 14.0)
    lengths = budget.pick((0.02, 0.04), (0.01, 0.02, 0.04))

    def greatest(upper_step_size: float, length: float) -> float:
        method = _method(upper_step_size, length)
        return max(_end(method, distance, steps)[0] for distance in distances)

    free = [greatest(float(s), math.inf) for s in np.geomspace(1e-6, 1e-1, budget.pick(6, 16))]
    case = (
        f"greatest |gradient of Phi| after {steps} steps, r in {lengths}; control: steps without "
        "a limit, the best of step sizes 1e-6 to 0.1"
    )
    return Verdict(max(greatest(math.inf, r) for r in lengths), 1.0, min(free), case)


@claim(
    PAPER,
    "To follow the lower answer at every second step only saves half of the lower gradients, and "
    "the loss is within 5 %.",
)
def periodic_updates_suffice(budget: Budget) -> Verdict:
    steps = budget.pick(2500, 10_000)

    def loss(period: int) -> float:
        return _end(_method(math.inf, 0.02, period), 7.5, steps)[1]

    every, second, never = loss(1), loss(2), loss(2 * steps)
    case = f"loss / that of I = 1, less 1, after {steps} steps; control: no round after step 0"
    return Verdict(second / every - 1, 0.05, never / every - 1, case)


def _method(upper_step_size: float, length: float, period: int = 2) -> BORep:
    return BORep(upper_step_size, length, 0.2, period=period, tracking=0.3)


def _matrix() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.eye(SIZE) + 0.3 * rng.normal(size=(SIZE, SIZE)) / SIZE**0.5


def _end(method: BORep, distance: float, steps: int) -> tuple[float, float]:
    """|gradient of Phi| and Phi after so many noisy steps; every y_i starts as far from 0."""
    A = _matrix()
    start = np.linalg.solve(A, np.full(SIZE, distance))
    problem = Bilevel(_cosh, _followed, jnp.asarray(start), jnp.zeros(SIZE), jnp.asarray(A))
    noisy = Noisy(problem, jax.random.key(0), noise=0.1)
    solution = solve(noisy, method, max_steps=steps, throw=False)
    y = A @ np.asarray(solution.value[0], float)
    if int(solution.stats.steps) < steps or np.max(np.abs(y)) > 500:
        return math.inf, math.inf  # it ran away: to where cosh overflows, or nearly so
    return float(np.linalg.norm(A.T @ np.sinh(y))), float(np.sum(np.cosh(y)))


def _cosh(x: Array, y: Array, A: Any) -> Array:
    return jnp.sum(jnp.cosh(y))


def _followed(x: Array, y: Array, A: Any) -> Array:
    return jnp.sum((y - A @ x) ** 2) / 2
