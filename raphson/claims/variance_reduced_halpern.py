"""Variance-reduced Halpern: the iterations of Halpern's for a share of the calls, and when."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..engine import solve
from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ..problems import cocoercive_sum
from ..saddle import VarianceReducedHalpern, VariationalSum
from ..wrappers import Counted
from . import Budget, Paper, Verdict, claim
from ._history import history

PAPER = Paper(
    slug="variance-reduced-halpern",
    title="Variance Reduced Halpern Iteration for Finite-Sum Monotone Inclusions",
    authors="Cai, Alacaoglu, Diakonikolas",
    year=2024,
    implements=("raphson.saddle.VarianceReducedHalpern",),
    note=(
        "Against Halpern's iteration at the same step size, and without restarts, which are ours. "
        "That step is for the constant L of the samples. Where they differ much it is far above "
        "that of their mean, and Halpern's iteration at its own step needs fewer calls."
    ),
)
SAMPLES, BATCH = 400, 20  # n and sqrt n
METHOD = VarianceReducedHalpern(0.25, restart=0.0)  # 1 / (4 L), where L = 1


class AnchoredBatches(AbstractMethod[tuple[PyTree[Array], Array, Array | None]]):
    """Halpern's iteration with F on a fresh batch at each step, the control."""

    question = VariationalSum
    samples = True

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> Any:
        return y, jnp.array(1.0), key

    def step(self, problem: Any, y: PyTree[Array], state: Any) -> tuple[PyTree[Array], Any]:
        anchor, k, key = state
        key, now = jax.random.split(key)
        V = problem.batch_operator(y, problem.sample(now))
        share = 2 / (k + 4)
        return share * anchor + (1 - share) * y - 0.25 * V, (anchor, k + 1, key)

    def known(self, problem: Any, y: PyTree[Array], state: Any) -> Known:
        return Known()


@claim(
    PAPER,
    "The residual of the last iterate is that of Halpern's iteration with all samples at each "
    "step, to 5 % at every step.",
)
def iterates_are_as_good_as_with_all_samples(budget: Budget) -> Verdict:
    steps, seeds = budget.pick((2000, 3), (7000, 20))
    keys = jax.random.split(jax.random.key(0), seeds)
    whole = history(cocoercive_sum(SAMPLES), METHOD, steps)["residual"]

    def deviation(method: AbstractMethod) -> float:
        runs = history(_sampled(), method, steps, keys)["residual"]
        return float(np.max(np.abs(runs / whole - 1)))

    case = (
        f"greatest |ratio - 1| over {steps} steps and {seeds} runs, n = {SAMPLES}, batches of "
        f"{BATCH}; control: anchored steps on batches, not variance-reduced"
    )
    return Verdict(deviation(METHOD), 0.05, deviation(AnchoredBatches()), case)


@claim(
    PAPER,
    "With batches of sqrt n samples, a step asks for less than 7 / sqrt n times the operators of "
    "single samples that it asks for with all of them.",
)
def calls_are_a_fraction_of_all(budget: Budget) -> Verdict:
    steps = budget.pick(2000, 7000)

    def share(batch_size: int) -> float:
        return _calls(_sampled(batch_size), steps) / (SAMPLES * (steps + 1))

    case = f"calls over those with all {SAMPLES} samples, {steps} steps; control: batches of n / 4"
    return Verdict(share(BATCH), 7 / SAMPLES**0.5, share(SAMPLES // 4), case)


@claim(
    PAPER,
    "The residual of the last iterate falls like 1 / k: with a slope of at most -0.95 in log-log "
    "scale.",
)
def last_iterate_residual_falls_like_one_over_k(budget: Budget) -> Verdict:
    steps, seeds = budget.pick((4000, 3), (30_000, 10))
    keys, k = jax.random.split(jax.random.key(1), seeds), np.arange(steps // 4, steps + 1)
    problem = cocoercive_sum(SAMPLES, 10, batch_size=BATCH)

    def slope(method: AbstractMethod) -> float:
        runs = np.log(history(problem, method, steps, keys)["residual"][:, k])
        return max(float(np.polyfit(np.log(k), run, 1)[0]) for run in runs)

    case = (
        f"greatest slope of {seeds} runs from k = {k[0]} to {steps}; control: anchored steps on "
        "batches, not variance-reduced"
    )
    return Verdict(slope(METHOD), -0.95, slope(AnchoredBatches()), case)


@claim(
    PAPER,
    "Where the samples are alike, fewer calls lead to a tenth of the residual than Halpern's "
    "iteration with all samples needs at the step for its own constant; where not, more.",
)
def pays_where_samples_are_alike(budget: Budget) -> Verdict:
    def share(columns: int) -> float:
        """Calls over those with all samples, each at the step for its own constant."""
        whole = cocoercive_sum(SAMPLES, columns=columns)
        own = VarianceReducedHalpern(0.25 / _cocoercivity(whole), restart=0.0)
        needed = SAMPLES * (1 + _steps(whole, own))
        sampled = cocoercive_sum(SAMPLES, columns=columns, batch_size=BATCH)
        return _calls(sampled, _steps(sampled, METHOD, jax.random.key(0))) / needed

    alike, apart = budget.pick((100, 3), (200, 1))
    case = f"A_i made of {alike} columns; control: of {apart}, L of the samples far above F's"
    return Verdict(share(alike), 0.5, share(apart), case)


def _sampled(batch_size: int = BATCH) -> VariationalSum:
    return cocoercive_sum(SAMPLES, batch_size=batch_size)


def _calls(problem: VariationalSum, steps: int) -> int:
    """Operators of single samples that so many steps ask for."""
    solution = solve(
        Counted(problem),
        METHOD,
        key=jax.random.key(0),
        rtol=0.0,
        atol=0.0,
        max_steps=steps,
        throw=False,
    )
    # After the start each step asks once for all samples or twice for a batch.
    whole = 2 * steps + 1 - int(solution.stats.counts["operator"])
    assert problem.batch_size is not None
    return SAMPLES * (1 + whole) + 2 * problem.batch_size * (steps - whole)


def _steps(problem: AbstractProblem, method: AbstractMethod, key: Array | None = None) -> int:
    """Steps to a tenth of the residual at the start."""
    residual = history(problem, method, 2000, key)["residual"]
    return int(np.argmax(residual < residual[0] / 10))


def _cocoercivity(problem: VariationalSum) -> float:
    """The least l of |A z|^2 <= l <A z, z>, A the mean of the matrices."""
    from scipy.linalg import eigh

    A = np.asarray(problem.data[0]).mean(axis=0)
    return float(eigh(A.T @ A, (A + A.T) / 2, eigvals_only=True)[-1])
