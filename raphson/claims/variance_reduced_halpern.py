"""Variance-reduced Halpern: the iterations of Halpern's for a share of the calls, and when."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..engine import solve
from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ..problems import cocoercive_sum, monotone_sum
from ..saddle import (
    Extragradient,
    HalpernProximalPoint,
    VarianceReducedExtragradient,
    VarianceReducedHalpern,
    VariationalSum,
)
from ..solution import Solution
from ..wrappers import Counted
from . import Budget, Paper, Verdict, claim
from ._history import history

PAPER = Paper(
    slug="variance-reduced-halpern",
    title="Variance Reduced Halpern Iteration for Finite-Sum Monotone Inclusions",
    authors="Cai, Alacaoglu, Diakonikolas",
    year=2024,
    implements=("raphson.saddle.VarianceReducedHalpern", "raphson.saddle.HalpernProximalPoint"),
    note=(
        "Against Halpern's iteration at the same step size, and without restarts, which are ours. "
        "That step is for the constant L of the samples. Where they differ much it is far above "
        "that of their mean, and Halpern's iteration at its own step needs fewer calls. How "
        "closely to find the resolvent is a guess, and by what: variance-reduced extragradient."
    ),
)
SAMPLES, UNKNOWNS, BATCH = 400, 10, 20  # a batch of sqrt n
STEPS, KEYS = 2000, jax.random.split(jax.random.key(0), 3)
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
    steps = budget.pick(STEPS, 10 * STEPS)
    whole = history(cocoercive_sum(SAMPLES, UNKNOWNS), METHOD, steps)["residual"]

    def deviation(method: AbstractMethod) -> float:
        runs = history(_sampled(), method, steps, KEYS)["residual"]
        return float(np.max(np.abs(runs / whole - 1)))

    case = (
        f"greatest |ratio - 1| over {steps} steps and {len(KEYS)} runs, n = {SAMPLES}, batches of "
        f"{BATCH}; control: anchored steps on batches, not variance-reduced"
    )
    return Verdict(deviation(METHOD), 0.05, deviation(AnchoredBatches()), case)


@claim(
    PAPER,
    "With batches of sqrt n samples, a step asks for less than 7 / sqrt n times the operators of "
    "single samples that it asks for with all of them.",
)
def calls_are_a_fraction_of_all(budget: Budget) -> Verdict:
    steps = budget.pick(STEPS, 10 * STEPS)

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
    steps = budget.pick(STEPS, 10 * STEPS)
    k = np.arange(steps // 2, steps + 1)

    def slope(method: AbstractMethod) -> float:
        runs = np.log(history(_sampled(), method, steps, KEYS)["residual"][:, k])
        return max(float(np.polyfit(np.log(k), run, 1)[0]) for run in runs)

    case = (
        f"greatest slope of {len(KEYS)} runs from k = {k[0]} to {steps}; control: anchored "
        "steps on batches, not variance-reduced"
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
        whole = cocoercive_sum(SAMPLES, UNKNOWNS, columns=columns)
        own = VarianceReducedHalpern(0.25 / _cocoercivity(whole), restart=0.0)
        needed = SAMPLES * (1 + _steps(whole, own))
        sampled = cocoercive_sum(SAMPLES, UNKNOWNS, columns=columns, batch_size=BATCH)
        return _calls(sampled, _steps(sampled, METHOD, KEYS)) / needed

    alike, apart = budget.pick(100, 200), 1
    case = f"A_i made of {alike} columns; control: of {apart}, L of the samples far above F's"
    return Verdict(share(alike), 0.5, share(apart), case)


@claim(
    PAPER,
    "Where F is monotone but not cocoercive, Halpern's iteration of the resolvent, found by a "
    "variance-reduced inner method, has a last iterate whose residual falls like 1 / k: with a "
    "slope of at most -0.9.",
)
def resolvents_do_without_cocoercivity(budget: Budget) -> Verdict:
    problem, count = monotone_sum(SAMPLES, batch_size=BATCH), budget.pick(40, 150)

    def slope(method: AbstractMethod, steps: int) -> float:
        residual = history(problem, method, steps, jax.random.key(0))["residual"]
        k = np.arange(5, steps + 1)
        return float(np.polyfit(np.log(k), np.log(residual[k]), 1)[0])

    case = (
        f"slope from k = 5 to {count}; control: 1000 steps of the method for cocoercive operators"
    )
    return Verdict(slope(_by_resolvents(), count), -0.9, slope(METHOD, 1000), case)


@claim(
    PAPER,
    "With the variance-reduced inner method it takes at most a third of the operators of single "
    "samples that it takes with extragradient, for the same residual.",
)
def resolvents_by_samples_take_fewer_calls(budget: Budget) -> Verdict:
    steps = budget.pick(20, 100)

    def price(method: HalpernProximalPoint, batch_size: int | None) -> float:
        """Calls times the residual that they lead to, which falls like 1 / k."""
        solution = _solved(monotone_sum(SAMPLES, batch_size=batch_size), method, steps)
        calls = SAMPLES * int(solution.stats.counts["operator"])
        if batch_size is not None:
            # Each inner step asks twice for a batch, all else is asked of all samples.
            inner = sum(math.ceil(method.inner_steps * math.log2(k + 2)) for k in range(steps))
            calls -= 2 * inner * (SAMPLES - batch_size)
        return calls * float(solution.certificate.residual)

    extragradient = Extragradient(0.9 / float(monotone_sum(SAMPLES).facts.lipschitz))  # pyright: ignore
    whole = price(HalpernProximalPoint(20.0, extragradient, 1000, restart=0.0), None)
    case = (
        f"calls times residual over those of extragradient, {steps} steps; control: n / 2 a batch"
    )
    found, control = (price(_by_resolvents(b), b) / whole for b in (BATCH, SAMPLES // 2))
    return Verdict(found, 1 / 3, control, case)


def _by_resolvents(batch_size: int = BATCH) -> HalpernProximalPoint:
    """s = sqrt n / L, and the inner step 0.9 sqrt(p) / L, where L = 1."""
    inner = VarianceReducedExtragradient(0.9 * min(1.0, 2 * batch_size / SAMPLES) ** 0.5)
    return HalpernProximalPoint(SAMPLES**0.5, inner, 30, restart=0.0)


def _sampled(batch_size: int = BATCH) -> VariationalSum:
    return cocoercive_sum(SAMPLES, UNKNOWNS, batch_size=batch_size)


def _calls(problem: VariationalSum, steps: int) -> int:
    """Operators of single samples that so many steps ask for."""
    # After the start each step asks once for all samples or twice for a batch.
    solution = _solved(problem, METHOD, steps)
    whole = 2 * steps + 1 - int(solution.stats.counts["operator"])
    assert problem.batch_size is not None
    return SAMPLES * (1 + whole) + 2 * problem.batch_size * (steps - whole)


def _solved(problem: VariationalSum, method: AbstractMethod, steps: int) -> Solution:
    """A counted run of so many steps."""
    options = {"rtol": 0.0, "atol": 0.0, "max_steps": steps, "throw": False}
    return solve(Counted(problem), method, key=KEYS[0], **options)


def _steps(problem: AbstractProblem, method: AbstractMethod, keys: Array | None = None) -> int:
    """Steps to a tenth of the residual at the start, of the first run where there are several."""
    residual = np.atleast_2d(history(problem, method, STEPS, keys)["residual"])[0]
    return int(np.argmax(residual < residual[0] / 10))


def _cocoercivity(problem: VariationalSum) -> float:
    """The least l of |A z|^2 <= l <A z, z>, A the mean of the matrices."""
    from scipy.linalg import eigh

    A = np.asarray(problem.data[0]).mean(axis=0)
    return float(eigh(A.T @ A, (A + A.T) / 2, eigvals_only=True)[-1])
