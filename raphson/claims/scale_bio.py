"""ScaleBiO: weights of data sources, learned by a penalty with the optimizers of training."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from ..bilevel import ImplicitGradient, MinimaxPenalty
from ..compiled import compiled
from ..engine import solve
from ..method import AbstractMethod, iterate
from ..problems import data_reweighting, quartic_levels
from ..wrappers import Counted
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="scale-bio",
    title="ScaleBiO: Scalable Bilevel Optimization for LLM Data Reweighting",
    authors="Pan, Zhang, Zhang, Pan, Xu, Zhang, Pi, Wang, Zhang",
    year=2024,
    implements=(
        "raphson.bilevel.MinimaxPenalty",
        "raphson.problems.data_reweighting",
        "raphson.train.layer_sampling",
    ),
    note=(
        "Checked on digits and softmax regression, not on language models, where the sampling of "
        "layers saves memory. The weights collapse on the one clean source: their entropy ends "
        "near 0."
    ),
)

_STEPS = 500
_INNER = optax.adam(0.02)
_LEARNED = MinimaxPenalty(optax.adam(0.05), _INNER)
_EVEN = MinimaxPenalty(optax.set_to_zero(), _INNER)


@claim(
    PAPER,
    "Of four sources of digits, one clean, one with 40 % of wrong labels, one with random and one "
    "with permuted labels, the clean one has after 500 steps a weight above 0.6 and each other one "
    "below 0.15, for every seed.",
)
def the_clean_source_is_found(budget: Budget) -> Verdict:
    def room(found: list[dict[str, float]]) -> float:
        return min(min(each["clean"] - 0.6, 0.15 - each["harmful"]) for each in found)

    learned, even = _ended(budget)
    entropy = np.median([each["entropy"] for each in learned])
    case = (
        f"least room to both limits over {len(learned)} seeds, median entropy of the weights "
        f"{entropy:.3f}; control: even weights"
    )
    return Verdict(room(learned), 0.0, room(even), case, at_most=False)


@claim(
    PAPER,
    "With the learned weights held-out digits are told right more often than with even ones, by at "
    "least 3 points in the median of the seeds.",
)
def held_out_accuracy_gains(budget: Budget) -> Verdict:
    learned, even = (float(np.median([each["accuracy"] for each in m])) for m in _ended(budget))
    case = f"median accuracy after {_STEPS} steps; control: even weights"
    return Verdict(learned, even + 0.03, even, case, at_most=False)


@claim(
    PAPER,
    "One batch for both copies cancels the noise of the gradient of the weights: its standard "
    "deviation is at most 5 % of what two batches leave.",
)
def shared_batches_cancel_noise(budget: Budget) -> Verdict:
    problem, draws = data_reweighting(), budget.pick(300, 3000)
    shared, apart = compiled(_noises, problem, _LEARNED, draws)
    case = f"noise relative to that of two batches, {draws} draws, after 100 steps; control: two"
    return Verdict(float(shared / apart), 0.05, 1.0, case)


@claim(PAPER, "Not one product with a Hessian is asked.")
def scale_bio_asks_no_hessian_product(budget: Budget) -> Verdict:
    def products(method: AbstractMethod) -> float:
        run = solve(Counted(quartic_levels()), method, rtol=0, atol=0, max_steps=100, throw=False)
        return float(run.stats.counts["product"])

    case = "products asked in 100 steps; control: implicit differentiation"
    return Verdict(products(MinimaxPenalty()), 0, products(ImplicitGradient()), case)


@functools.cache
def _ended(budget: Budget) -> tuple[list[dict[str, float]], ...]:
    """The measures at the end for each seed, with learned and with even weights."""
    found: tuple[list[dict[str, float]], ...] = [], []
    for seed in range(budget.pick(2, 8)):
        problem = data_reweighting(seed=seed)
        for method, into in zip((_LEARNED, _EVEN), found, strict=True):
            z = compiled(_end, problem, method, jax.random.key(seed), _STEPS)[0]
            into.append({n: float(of(z, problem.args)) for n, of in problem.metrics.items()})
    return found


def _end(problem: Any, method: AbstractMethod, key: Array, steps: int) -> tuple[Any, Any]:
    run = iterate(problem, method, problem.y0, key, rtol=0.0, atol=0.0, max_steps=steps)
    return run.y, run.state.z


def _noises(problem: Any, method: AbstractMethod, draws: int) -> tuple[Array, Array]:
    """The standard deviation of the difference of f_x of both copies, on one batch and on two."""
    (x, y), z = _end(problem, method, jax.random.key(0), 100)

    def f_x(copy: Array, key: Array) -> Array:
        return problem.lower_gradient(x, copy, problem.sample(key)[1])[0]

    def deviation(of: Any) -> Array:
        drawn = jax.vmap(of)(jax.random.split(jax.random.key(1), draws))
        return jnp.sqrt(jnp.sum(jnp.var(drawn, axis=0)))

    shared = deviation(lambda key: f_x(y, key) - f_x(z, key))
    return shared, deviation(lambda key: f_x(y, key) - f_x(z, jax.random.fold_in(key, 1)))
