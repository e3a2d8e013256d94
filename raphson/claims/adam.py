"""Adam and AdaMax: what the sizes of their steps are, and where Adam's theorem fails."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..compiled import compiled
from . import Budget, Paper, Verdict, claim
from ._training import updates

PAPER = Paper(
    slug="adam",
    title="Adam: A Method for Stochastic Optimization",
    authors="Kingma, Ba",
    year=2014,
    implements=("optax.adam", "optax.adamax", "optax.amsgrad"),
    note=(
        "Optax has the paper's Adam; its AdaMax adds to |g| an eps that the paper's has not. Two "
        "statements of the paper do not hold. Steps are at most (1 - b1) / sqrt(1 - b2) learning "
        "rates long after a silence that one gradient breaks, but gradients that then grow by "
        "b2 / b1 a step take Adam to 1 / sqrt(1 - b1^2 / b2) times that, which is the true bound; "
        "AdaMax's steps likewise exceed the learning rate, by at most 0.9 %. And the theorem of "
        "vanishing regret has the counterexample of Reddi, Kale and Kumar (2018)."
    ),
)
B1, B2 = 0.9, 0.999
STATED = (1 - B1) / np.sqrt(1 - B2)


@claim(
    PAPER,
    "Optax's Adam and AdaMax make the updates of the paper's algorithms.",
)
def optax_follows_the_algorithms(budget: Budget) -> Verdict:
    gradients = np.random.default_rng(0).normal(size=(budget.pick(20, 1000), 10))
    m, v, u = np.zeros((3, 10))
    adam, adamax = [], []
    for t, g in enumerate(gradients, 1):
        m = B1 * m + (1 - B1) * g
        v = B2 * v + (1 - B2) * g**2
        u = np.maximum(B2 * u, np.abs(g))
        adam.append(m / (1 - B1**t) / (np.sqrt(v / (1 - B2**t)) + 1e-8))
        adamax.append(m / (1 - B1**t) / u)

    def deviation(optimizer: Any, directions: list[np.ndarray]) -> float:
        return float(np.max(np.abs(updates(optimizer, gradients) + directions)))

    measured = max(deviation(optax.adam(1.0), adam), deviation(optax.adamax(1.0, eps=0), adamax))
    case = f"greatest deviation over {len(gradients)} random gradients; control: Nadam"
    return Verdict(measured, 1e-10, deviation(optax.nadam(1.0), adam), case)


@claim(
    PAPER,
    "Updates do not change when all gradients are multiplied by a constant, if eps is 0.",
)
def scale_of_gradients_does_not_matter(budget: Budget) -> Verdict:
    gradients = np.random.default_rng(0).normal(size=(budget.pick(100, 1000), 10))

    def change(optimizer: Any) -> float:
        plain = updates(optimizer, gradients)
        others = (updates(optimizer, c * gradients) for c in (1e-4, 1e4))
        return max(float(np.max(np.abs(other - plain)) / np.max(np.abs(plain))) for other in others)

    case = "greatest relative change for factors of 1e-4 and 1e4; control: the default eps of 1e-8"
    return Verdict(change(optax.adam(1.0, eps=0.0)), 1e-10, change(optax.adam(1.0)), case)


@claim(
    PAPER,
    "After a silence, gradients that grow by b2 / b1 a step make Adam step 2 times the bound that "
    "the paper states, (1 - b1) / sqrt(1 - b2) learning rates.",
    reproduces=False,
)
def steps_exceed_the_stated_bound(budget: Budget) -> Verdict:
    silence = np.zeros(budget.pick(5000, 20_000))
    case = "longest step over the stated bound; control: a single gradient after the silence"
    growing = _longest_step(optax.adam(1.0), np.append(silence, (B2 / B1) ** np.arange(60)))
    single = _longest_step(optax.adam(1.0), np.append(silence, np.ones(60) * np.eye(60)[0]))
    return Verdict(growing / STATED, 2.0, single / STATED, case, at_most=False)


@claim(
    PAPER,
    "Whatever the gradients, Adam's steps are at most (1 - b1) / sqrt((1 - b2) (1 - b1^2 / b2)) "
    "learning rates long, which is the paper's bound by the Cauchy-Schwarz inequality.",
)
def steps_are_bounded(budget: Budget) -> Verdict:
    bound = STATED / np.sqrt(1 - B1**2 / B2)
    streams = _sparse_streams(budget)
    case = (
        f"longest step over the bound on {streams.shape[1]} streams of rare, growing and "
        "heavy-tailed gradients; control: Nadam"
    )
    longest, nadam = (
        _longest_step(optimizer, streams) for optimizer in (optax.adam(1.0), optax.nadam(1.0))
    )
    return Verdict(longest / bound, 1 + 1e-12, nadam / bound, case)


@claim(
    PAPER,
    "Whatever the gradients, AdaMax's steps are at most (1 - b1) / (1 - b1 / b2) = 1.009 learning "
    "rates long.",
)
def adamax_steps_are_bounded(budget: Budget) -> Verdict:
    bound = (1 - B1) / (1 - B1 / B2)
    streams = _sparse_streams(budget)
    longest = _longest_step(optax.adamax(1.0, eps=1e-300), streams)
    case = "longest step over the bound on the streams of the claim before; control: Adam"
    adam = _longest_step(optax.adam(1.0), streams)
    return Verdict(longest / bound, 1 + 1e-12, adam / bound, case)


@claim(
    PAPER,
    "Adam's average regret does not vanish on the convex losses 3 x, -x, -x in turn on [-1, 1], "
    "with learning rates that fall like 1 / sqrt(t); AMSGrad's does.",
    reproduces=False,
)
def average_regret_does_not_vanish(budget: Budget) -> Verdict:
    # Reddi, Kale, Kumar (2018), with C = 3 and its b1 and b2.
    steps = budget.pick(10_000, 1_000_000)

    def rate(count: Any) -> Array:
        return 0.5 / jnp.sqrt(1 + count)

    adam = compiled(_average_regret, optax.adam(rate, b1=0.0, b2=0.1), steps)
    amsgrad = compiled(_average_regret, optax.amsgrad(rate, b1=0.0, b2=0.1), steps)
    case = f"average regret of {steps} steps, 2/3 at worst; control: AMSGrad"
    return Verdict(float(adam), 0.5, float(amsgrad), case, at_most=False)


def _average_regret(optimizer: Any, steps: int) -> Float[Array, ""]:
    def step(carry: tuple[Array, Any], t: Array) -> tuple[tuple[Array, Any], Array]:
        x, state = carry
        slope = jnp.where(t % 3 == 0, 3.0, -1.0)
        update, state = optimizer.update(slope, state, x)
        return (jnp.clip(x + update, -1, 1), state), slope * (x + 1)  # -1 is the best point

    start = jnp.array(0.0)
    return jnp.mean(jax.lax.scan(step, (start, optimizer.init(start)), jnp.arange(steps))[1])


def _longest_step(optimizer: optax.GradientTransformation, streams: np.ndarray) -> float:
    return float(np.max(np.abs(updates(optimizer, streams))))


def _sparse_streams(budget: Budget) -> Float[np.ndarray, "t streams"]:
    rng = np.random.default_rng(0)
    shape = budget.pick(2000, 10_000), 500
    rare = rng.normal(size=shape) * (rng.random(shape) < rng.choice([1e-3, 1e-2, 0.1], shape[1]))
    heavy = rng.standard_t(1, shape)
    t = np.arange(shape[0])[:, None]
    growing = np.where(t >= shape[0] - 60, (B2 / B1) ** (t - shape[0]), 0.0)
    return np.concatenate([rare, heavy, growing, B2**t], axis=1)
