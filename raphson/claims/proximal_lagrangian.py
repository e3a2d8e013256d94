"""The proximal Lagrangian value function: constraints that couple two levels, no Hessians."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..bilevel import ImplicitGradient, ProximalLagrangian
from ..composite import Box
from ..engine import solve
from ..method import AbstractMethod
from ..problem import AbstractProblem
from ..problems import coupled_levels, quartic_levels
from ..saddle import Saddle
from ..wrappers import Counted
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="proximal-lagrangian",
    title=(
        "Constrained Bi-Level Optimization: Proximal Lagrangian Value Function Approach and "
        "Hessian-free Algorithm"
    ),
    authors="Yao, Yu, Zeng, Zhang",
    year=2024,
    implements=("raphson.bilevel.ProximalLagrangian", "raphson.bilevel.ConstrainedBilevel"),
    note=(
        "The multipliers are updated at the new inner point, where the paper takes both at once. "
        "The bias is that of the penalty and falls no faster; a first penalty well below 1, as in "
        "the authors' script for the same problem, leaves it above 0.1 for tens of thousands of "
        "steps."
    ),
)


@claim(
    PAPER,
    "The method solves a problem whose lower level is linear in part, has many answers and an "
    "equation with the upper unknown: to 0.01 in 20,000 steps, the first penalty being 1.",
)
def coupled_levels_are_solved(budget: Budget) -> Verdict:
    steps = budget.pick(20_000, 60_000)
    case = f"greatest error after {steps} steps in 15 variables; control: the first penalty 1/40"
    return Verdict(_error(1.0, 0.3, steps), 0.01, _error(0.025, 0.3, steps), case)


@claim(
    PAPER,
    "The bias falls with the penalty, which grows like k^0.3: at ten times the steps the error is "
    "at most 1.05 times 10^-0.3 of what it was.",
)
def error_falls_with_the_penalty(budget: Budget) -> Verdict:
    steps = budget.pick(20_000, 100_000)
    found, control = (
        _error(1.0, power, steps) / _error(1.0, power, steps // 10) for power in (0.3, 1e-6)
    )
    case = f"error after {steps} / {steps // 10} steps; control: a constant penalty"
    return Verdict(found, 1.05 * 10**-0.3, control, case)


@claim(
    PAPER,
    "The value function is differentiable, with the gradient f_x + g_x'a, (y - t) / r and "
    "(a - z) / q at its saddle (t, a), be the constraint active or not: to 1e-6.",
)
def gradient_of_the_value_function(budget: Budget) -> Verdict:
    r, q, h = 2.0, 1.5, 1e-3
    points = np.random.default_rng(0).normal(size=(budget.pick(3, 20), 3))

    def inner(t: Array, a: Array, at: Array) -> Array:
        x, y, z = at
        f, g = (t - 2) ** 2 / 2 + x * t, t - jnp.sin(x)
        return f + a * g + (t - y) ** 2 / (2 * r) - (a - z) ** 2 / (2 * q)

    def saddle(at: Any) -> tuple[Array, Array]:
        start, parts = jnp.array(0.0), (None, Box(0.0, jnp.inf))
        problem = Saddle(inner, start, start, jnp.asarray(at), nonsmooth=parts)
        return solve(problem, rtol=0.0, atol=1e-12, max_steps=100_000).value

    def value(at: Any) -> float:
        return float(inner(*saddle(at), jnp.asarray(at)))

    errors = []
    for at in points:
        (x, y, z), (t, a) = at, saddle(at)
        slopes = [(value(at + h * e) - value(at - h * e)) / (2 * h) for e in np.eye(3)]
        by_x = [t - multiplier * np.cos(x) for multiplier in (a, 0.0)]
        rest = (y - t) / r, (a - z) / q
        errors.append([np.max(np.abs(np.array([each, *rest]) - slopes)) for each in by_x])
    found, control = np.max(errors, axis=0)
    case = f"greatest error at {len(points)} points; control: without the constraint's part"
    return Verdict(float(found), 1e-6, float(control), case)


@claim(PAPER, "Not one product with a Hessian is asked.")
def proximal_lagrangian_asks_no_hessian_product(budget: Budget) -> Verdict:
    def products(problem: AbstractProblem, method: AbstractMethod) -> float:
        counted = Counted(problem)
        run = solve(counted, method, rtol=0.0, atol=0.0, max_steps=100, throw=False)
        return float(run.stats.counts["product"])

    found = products(coupled_levels(), ProximalLagrangian())
    control = products(quartic_levels(), ImplicitGradient())
    case = "in 100 steps; control: implicit differentiation, of levels without constraints"
    return Verdict(found, 0, control, case)


def _error(penalty: float, power: float, steps: int) -> float:
    method = ProximalLagrangian(0.008, 0.01, 0.02, penalty=penalty, power=power)
    problem = coupled_levels()
    answer = solve(problem, method, rtol=0.0, atol=0.0, max_steps=steps, throw=False).value
    apart = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), answer, problem.facts.minimizer)
    return float(max(jax.tree.leaves(apart)))
