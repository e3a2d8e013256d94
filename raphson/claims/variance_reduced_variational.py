"""Variance-reduced extragradient: constant steps on samples, and calls that grow like sqrt n."""

from __future__ import annotations

import jax
import numpy as np

from ..engine import solve
from ..method import AbstractMethod
from ..problems import monotone_sum
from ..saddle import Extragradient, VarianceReducedExtragradient
from ..wrappers import Counted
from . import Budget, Paper, Verdict, claim
from ._history import history

PAPER = Paper(
    slug="variance-reduced-variational",
    title="Stochastic Variance Reduction for Variational Inequality Methods",
    authors="Alacaoglu, Malitsky",
    year=2022,
    implements=("raphson.saddle.VarianceReducedExtragradient",),
    note=(
        "Of the paper's methods the extragradient with a snapshot that is renewed at random, with "
        "batches. Extragradient is held against it at the step for the constant of F alone."
    ),
)


@claim(
    PAPER,
    "A constant step leads to the solution of a monotone sum, where extragradient on batches of "
    "the same size at the same step comes to no rest.",
)
def constant_steps_lead_to_the_solution(budget: Budget) -> Verdict:
    problem = monotone_sum(400, 4, batch_size=20)
    keys, steps = jax.random.split(jax.random.key(0), budget.pick(3, 20)), 2500

    def left(method: AbstractMethod) -> np.ndarray:
        runs = history(problem, method, steps, keys)["distance"]
        return runs[:, -1] / runs[:, 0]

    s = _step_size(400, 20)
    case = f"greatest distance after {steps} steps over its start, {len(keys)} runs, step {s:.2f}"
    found, control = left(VarianceReducedExtragradient(s)), left(Extragradient(s))
    return Verdict(float(found.max()), 1e-10, float(control.min()), case)


@claim(
    PAPER,
    "On a bilinear sum of n = 2500 samples it needs at most half of the operators of single "
    "samples that extragradient asks for with all of them.",
)
def fewer_calls_than_with_all_samples(budget: Budget) -> Verdict:
    n, steps = 2500, budget.pick(500, 1000)

    def price(method: AbstractMethod, batch_size: int | None) -> float:
        """Calls for each factor e by which the distance shrinks."""
        problem = monotone_sum(n, 4, batch_size=batch_size)
        key, options = jax.random.key(0), {"rtol": 0.0, "atol": 0.0, "throw": False}
        # In fewer steps all samples lead to where rounding begins.
        taken = steps if batch_size else steps // 5
        solution = solve(Counted(problem), method, key=key, max_steps=taken, **options)
        ends = (np.asarray(z) - problem.facts.minimizer for z in (problem.y0, solution.value))
        start, end = map(np.linalg.norm, ends)
        calls = n * int(solution.stats.counts["operator"])
        if batch_size:
            # The start and each renewal ask once for all samples, each step twice for a batch.
            calls -= 2 * steps * (n - batch_size)
        return float(calls / np.log(start / end))

    def share(batch_size: int) -> float:
        return price(VarianceReducedExtragradient(_step_size(n, batch_size)), batch_size) / whole

    lipschitz = float(monotone_sum(n, 4).facts.lipschitz)  # pyright: ignore[reportArgumentType]
    whole = price(Extragradient(0.9 / lipschitz), None)
    case = f"calls for each factor e of the distance over those of extragradient, {steps} steps; "
    return Verdict(share(50), 0.5, share(n // 2), case + "control: batches of n / 2")


def _step_size(n: int, batch_size: int) -> float:
    """0.9 sqrt(p) / L, where L = 1."""
    return 0.9 * min(1.0, 2 * batch_size / n) ** 0.5
