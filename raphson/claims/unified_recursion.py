"""The descent inequality that Tran-Dinh and van Dijk build on, for any direction, and its sum."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..compiled import compiled
from ..problems import huber_chain, logistic_synthetic, polyak_lojasiewicz
from ..smooth import GradientDescent
from . import Budget, Paper, Verdict, claim
from ._history import history

PAPER = Paper(
    slug="unified-recursion",
    title="Gradient Descent-Type Methods: Background and Simple Unified Convergence Analysis",
    authors="Tran-Dinh, van Dijk",
    year=2022,
    implements=("raphson.smooth.GradientDescent",),
    note=(
        "Checked are the descent inequality, which holds for every estimator of the gradient, and "
        "its sum for exact gradients; the variance-reduced estimators are not implemented yet."
    ),
)


@claim(
    PAPER,
    "A step y+ = y - s v along any v keeps f(y+) <= f(y) - s/2 |g|^2 - (1/(2s) - L/2) |y+ - y|^2 "
    "+ s/2 |v - g|^2, g being the gradient at y.",
)
def descent_inequality(budget: Budget) -> Verdict:
    steps = budget.pick(200, 5000)
    problems = [polyak_lojasiewicz(20), huber_chain(), logistic_synthetic()]

    def excess(length: float) -> float:
        return float(np.max([compiled(_greatest_excess, p, length, steps) for p in problems]))

    case = (
        f"greatest (left - right) / (|left| + |right|) over {steps} steps on 3 problems, "
        "s = 1/(2L), v the gradient plus noise of 0.1 to 10 times its size; control: y+ = y - 2 s v"
    )
    # What rounding may add.
    return Verdict(excess(1.0), 1e-12, excess(2.0), case)


@claim(
    PAPER,
    "Gradient descent with s <= 1/L keeps the mean over its first t gradients of |g|^2, and so the "
    "least, at most 2 (f(y0) - f*) / (s t), without convexity.",
)
def gradient_descent_nonconvex(budget: Budget) -> Verdict:
    steps = budget.pick(100, 1000)
    starts = np.linspace(-10, 10, budget.pick(20, 200))

    def excess(factor: float) -> float:
        def ratio(start: float) -> float:
            problem = eqx.tree_at(lambda p: p.y0, polyak_lojasiewicz(), jnp.array([start]))
            size = factor / problem.facts.lipschitz
            run = history(problem, GradientDescent(size), steps)
            return float(np.max(np.cumsum(run["residual"] ** 2) * size / (2 * run["gap"][0])))

        return float(np.max([ratio(start) for start in starts]))

    case = (
        f"greatest mean |g|^2 / bound over {steps} steps from {len(starts)} starts in [-10, 10], "
        "f = y^2 + 3 sin(y)^2, s = 1 / L; control: s = 2.5 / L"
    )
    return Verdict(excess(1.0), 1.0, excess(2.5), case)


def _greatest_excess(problem: Any, length: Any, steps: int) -> Any:
    """How far steps of `length` times s break the inequality for s, relative to its sides."""
    L = problem.facts.lipschitz
    s = 1 / (2 * L)
    method = GradientDescent(length * s)

    def step(carry: tuple[Any, Any], key: Any) -> tuple[tuple[Any, Any], Any]:
        y, state = carry
        size_key, noise_key = jax.random.split(key)
        g = problem.gradient(y)
        noise = jax.random.normal(noise_key, g.shape, g.dtype)
        relative = 10 ** jax.random.uniform(size_key, minval=-1, maxval=1)
        v = g + relative * jnp.linalg.norm(g) / jnp.linalg.norm(noise) * noise

        after, state = method.step(problem, y, eqx.tree_at(lambda s: s.gradient, state, v))
        move, error = jnp.sum((after - y) ** 2), jnp.sum((v - g) ** 2)
        left = problem.value(after)
        right = problem.value(y) - s / 2 * jnp.sum(g**2) - (1 / (2 * s) - L / 2) * move
        right += s / 2 * error
        return (after, state), (left - right) / (jnp.abs(left) + jnp.abs(right))

    start = problem.y0, method.init(problem, problem.y0, None)
    keys = jax.random.split(jax.random.key(0), steps)
    return jnp.max(jax.lax.scan(step, start, keys)[1])
