"""Refined schedules: why learning rates decay linearly, and whether gradients tell a better way."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float

from ..compiled import compiled
from ..problems import logistic, perceptron, ridge, robust
from ..smooth import FiniteSum
from ..train import refined_schedule
from . import Budget, Paper, Verdict, claim
from ._training import best_losses

PAPER = Paper(
    slug="refined-schedules",
    title="When, Why and How Much? Adaptive Learning Rate Scheduling by Refinement",
    authors="Defazio, Cutkosky, Mehta, Mishchenko",
    year=2023,
    implements=("raphson.train.refined_schedule", "optax.linear_schedule"),
    note=(
        "Linear decay is optax.linear_schedule over one step less than the run has, for Optax "
        "counts from 0. It is the best of the usual schedules on every problem tried here. What "
        "the refinement gains depends on the run that it learns from: from the best run of a "
        "perceptron with linear decay, as the paper does, nothing, and from one at an eighth of "
        "its learning rate a fifth of the loss. On models linear in their parameters it gained "
        "nothing that counts."
    ),
)
STEPS = 400
COUNT = np.arange(STEPS)
LINEAR = 1 - COUNT / (STEPS - 1)


@claim(
    PAPER,
    "Whatever weights w_t > 0 are given beforehand, after steps of w_t (w_t+1 + ... + w_T) / "
    "(w_1 + ... + w_T) the last point has a convex loss of at most "
    "(D^2 + sum w_t^2 |g_t|^2) / (2 sum w_t) above the least.",
)
def last_point_is_within_the_bound(budget: Budget) -> Verdict:
    rng, cases = np.random.default_rng(0), budget.pick(1000, 100_000)
    t, scale = np.arange(50), 10 ** rng.uniform(-2, 1, (cases, 1))
    weights = scale * np.exp(np.outer(rng.normal(size=cases), t / 25))
    weights[::2] *= rng.exponential(size=weights[::2].shape)
    starts = 10 ** rng.uniform(-2, 1, (cases, 4)) * rng.choice([-1, 1], (cases, 4))

    def worst(tail: np.ndarray) -> float:
        x, squares = starts, 0.0
        for w, rate in zip(weights.T, (weights * tail).T, strict=True):
            g = _slopes(x)
            squares = squares + w**2 * np.sum(g**2, axis=1)
            last, x = x, x - rate[:, None] * g
        bound = (np.sum(starts**2, axis=1) + squares) / (2 * np.sum(weights, axis=1))
        return float(np.max(_loss(last) / bound))

    tails = 1 - np.cumsum(weights, axis=1) / np.sum(weights, axis=1, keepdims=True)
    case = (
        f"greatest loss over the bound, {cases} random weights and starts, T = 50, the sum of "
        "|x_i| / i over four unknowns; control: steps of w_t"
    )
    return Verdict(worst(tails), 1.0, worst(np.ones_like(tails)), case)


@claim(
    PAPER,
    "Linear decay comes at least as low as cosine decay, as falls to a tenth at one half and at "
    "three quarters of the run, and as a constant learning rate, each at its best learning rate.",
)
def linear_decay_is_best(budget: Budget) -> Verdict:
    schedules = {
        "linear": LINEAR,
        "cosine": (1 + np.cos(np.pi * COUNT / (STEPS - 1))) / 2,
        "steps": 0.1 ** np.searchsorted([STEPS / 2, 0.75 * STEPS], COUNT, side="right"),
        "constant": np.ones(STEPS),
    }
    problems = [
        (ridge("diabetes", batch_size=1), (2e-3, 0.1)),
        (robust("diabetes", batch_size=1), (0.02, 0.5)),
        (logistic("breast_cancer", batch_size=1), (0.05, 1.0)),
    ]
    seeds = budget.pick(16, 200)
    ratios = []
    for problem, ends in problems:
        rates = np.geomspace(*ends, budget.pick(6, 18))
        left = {
            name: _best(problem, values, rates, seeds) - problem.facts.optimum
            for name, values in schedules.items()
        }
        others = {name: min(left[o] for o in left if o != name) for name in left}
        ratios.append([left[name] / others[name] for name in ("linear", "cosine")])
    linear, cosine = np.max(ratios, axis=0)
    case = (
        f"greatest ratio of what is left after {STEPS} steps to the best of the others, median of "
        f"{seeds} runs by one sample a step on three problems; control: cosine"
    )
    return Verdict(linear, 1.02, cosine, case)


@claim(
    PAPER,
    "On the perceptron on digits, the schedule refined from the best run with linear decay does "
    "not come lower than linear decay; that from a run at an eighth of its learning rate does.",
    reproduces=False,
)
def best_run_refines_nothing(budget: Budget) -> Verdict:
    problem, best = perceptron("digits", batch_size=16), 1.0
    rates, seeds = np.geomspace(0.25, 2.0, budget.pick(4, 10)), budget.pick(3, 15)
    linear = _best(problem, LINEAR, rates, seeds)

    def gain(rate: float) -> float:
        norms = compiled(_norms, problem, rate * LINEAR)
        return _best(problem, refined_schedule(1.0, norms)(COUNT), rates, seeds) / linear

    case = (
        f"loss after {STEPS} steps over that of linear decay, each at its best learning rate, "
        f"median of {seeds} seeds; control: refined from the run at an eighth"
    )
    return Verdict(gain(best), 1.0, gain(best / 8), case, at_most=False)


def _best(problem: FiniteSum, values: Any, rates: np.ndarray, seeds: int) -> float:
    (loss,) = best_losses(problem, Partial(_scheduled, np.asarray(values)), rates, seeds, [STEPS])
    return loss


def _scheduled(values: Array, rate: Any) -> optax.GradientTransformation:
    return optax.sgd(lambda count: rate * jnp.asarray(values)[count])


def _norms(problem: FiniteSum, rates: Float[Array, " t"]) -> Float[Array, " t"]:
    def step(y: Any, rate_and_key: tuple[Array, Array]) -> tuple[Any, Array]:
        rate, key = rate_and_key
        _, gradient = problem.batch_value_and_gradient(y, problem.sample(key))
        y = jax.tree.map(lambda y, g: y - rate * g, y, gradient)
        return y, optax.tree.norm(gradient)

    keys = jax.random.split(jax.random.key(5), len(rates))
    return jax.lax.scan(step, problem.y0, (rates, keys))[1]


_SCALE = 1 / np.arange(1, 5)


def _loss(x: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, " n"]:
    return np.abs(x) @ _SCALE


def _slopes(x: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
    return np.sign(x) * _SCALE
