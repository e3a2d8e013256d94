"""Filtered stochastic Newton steps: momentum helps where steps are short."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..compiled import compiled
from ..problem import Facts
from ..smooth import FilteredNewton, FiniteSum
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="filtered-newton",
    title="Discriminative Bayesian Filtering Lends Momentum to the Stochastic Newton Method for "
    "Minimizing Log-Convex Functions",
    authors="Burkhart",
    year=2021,
    implements=("raphson.smooth.FilteredNewton",),
    note=(
        "What is claimed holds for steps of 1/16, which is what the line search of the author's "
        "code comes to on a quadratic: the fall that it asks for cannot be had. With full Newton "
        "steps, of which each lands at the minimizer of its batch, the filter is no help, and that "
        "is the control of both claims."
    ),
)


@claim(
    PAPER,
    "On linear regression with batches of 20 and after 30 steps, f is lower with the filter than "
    "with the stochastic Newton method in at least 60 % of the runs.",
)
def filtered_steps_are_better(budget: Budget) -> Verdict:
    seeds = budget.pick(50, 500)

    def won(step_size: float) -> float:
        (_, filtered), (_, plain) = _both(10, 20, seeds, step_size)
        return float(np.mean(filtered[:, -1] < plain[:, -1]))

    case = f"share of {seeds} runs, 10 unknowns, t = 1/16; control: t = 1"
    return Verdict(won(1 / 16), 0.6, won(1.0), case, at_most=False)


@claim(
    PAPER,
    "On linear regression with batches of 10 the filtered direction points better: its median "
    "angle to the minimizer is at most 0.95 of the unfiltered one.",
)
def filtered_directions_are_better(budget: Budget) -> Verdict:
    seeds = budget.pick(50, 500)

    def ratio(step_size: float) -> float:
        (filtered, _), (plain, _) = _both(10, 10, seeds, step_size)
        return float(np.median(filtered) / np.median(plain))

    case = f"ratio of medians over 30 steps of {seeds} runs, 10 unknowns, t = 1/16; control: t = 1"
    return Verdict(ratio(1 / 16), 0.95, ratio(1.0), case)


def _both(n: int, batch: int, seeds: int, step_size: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Angles of directions and values of f, with the filter and without, by seed and step."""
    problem, keys = _regression(n, batch), jax.random.split(jax.random.key(0), seeds)
    # Without memory, and with a prior that says nothing, the filter is Newton's method.
    methods = FilteredNewton(0.9, 1.0, step_size), FilteredNewton(0.0, 1e9, step_size)
    return [tuple(map(np.asarray, compiled(_watched, problem, m, keys))) for m in methods]  # pyright: ignore


def _watched(problem: Any, method: FilteredNewton, keys: Array) -> tuple[Array, Array]:
    def run(key: Array) -> tuple[Array, Array]:
        def step(carry: Any, _: None) -> tuple[Any, tuple[Array, Array]]:
            y, state = method.step(problem, *carry)
            wanted, d = problem.facts.minimizer - carry[0], state.direction
            cosine = jnp.vdot(wanted, d) / (jnp.linalg.norm(wanted) * jnp.linalg.norm(d))
            return (y, state), (jnp.arccos(cosine), problem.value(y))

        start = problem.y0, method.init(problem, problem.y0, key)
        return jax.lax.scan(step, start, length=30)[1]

    return jax.vmap(run)(keys)


def _regression(n: int, batch: int) -> FiniteSum:
    """Linear regression on 1000 samples whose n features have the covariance 0.9 I + 0.1."""
    rng = np.random.default_rng(0)
    X = rng.multivariate_normal(np.zeros(n), 0.9 * np.eye(n) + 0.1, size=1000)
    b = X @ rng.normal(size=n) + rng.normal(size=1000)
    facts = Facts(minimizer=jnp.asarray(np.linalg.lstsq(X, b)[0]))
    return FiniteSum(_square, jnp.zeros(n), (X, b), batch_size=batch, facts=facts)


def _square(
    y: Float[Array, " n"], sample: tuple[Float[Array, " n"], Float[Array, ""]], _: None
) -> Float[Array, ""]:
    x, b = sample
    return (jnp.vdot(x, y) - b) ** 2 / 2
