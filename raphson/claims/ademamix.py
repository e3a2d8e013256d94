"""AdEMAMix: a slow average of gradients beside the fast one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..compiled import compiled
from ..train import half_life_schedule
from . import Budget, Paper, Verdict, claim
from ._training import updates

PAPER = Paper(
    slug="ademamix",
    title="The AdEMAMix Optimizer: Better, Faster, Older",
    authors="Pagliardini, Ablin, Grangier",
    year=2024,
    implements=("optax.contrib.ademamix", "raphson.train.half_life_schedule"),
    note=(
        "Optax has the update; the schedule of the slow average's half-life is ours. Optax counts "
        "steps from 0, the paper from 1, so that its schedules run one step ahead of these. That "
        "language models need half the tokens is beyond this library. The paper's example, "
        "Rosenbrock's function, shows the lead at one learning rate; but Adam with the step that "
        "both averages make together, 1 + alpha times as long, comes nearer still."
    ),
)


@claim(
    PAPER,
    "Optax's AdEMAMix, with its schedules of alpha and of the half-life, makes the updates of the "
    "paper's algorithm.",
)
def optax_follows_ademamix(budget: Budget) -> Verdict:
    b1, b2, b3, alpha, eps, warmup = 0.9, 0.999, 0.9999, 8.0, 1e-8, 50
    gradients = np.random.default_rng(0).normal(size=(budget.pick(100, 1000), 10))
    m1, m2, v = np.zeros((3, 10))
    directions = []
    for t, g in enumerate(gradients, 1):
        share = t / warmup
        mixed = (1 - share) * np.log(b3) + share * np.log(b1)
        slow = np.exp(np.log(b1) * np.log(b3) / mixed) if t < warmup else b3
        m1 = b1 * m1 + (1 - b1) * g
        m2 = slow * m2 + (1 - slow) * g
        v = b2 * v + (1 - b2) * g**2
        numerator = m1 / (1 - b1**t) + min(share, 1.0) * alpha * m2
        directions.append(numerator / (np.sqrt(v / (1 - b2**t)) + eps))

    growing = half_life_schedule(b1, b3, warmup)

    def deviation(schedule: Callable[[Any], Any]) -> float:
        optimizer = optax.contrib.ademamix(
            1.0,
            b3=lambda count: schedule(count + 1),
            alpha=lambda count: alpha / warmup * jnp.minimum(count + 1, warmup),
        )
        return float(np.max(np.abs(updates(optimizer, gradients) + directions)))

    case = (
        f"greatest deviation over {len(gradients)} random gradients, the first {warmup} of them of "
        "warmup; control: decay rates that grow linearly"
    )
    linear = optax.linear_schedule(b1, b3, warmup)
    return Verdict(deviation(growing), 1e-10, deviation(linear), case)


@claim(
    PAPER,
    "The half-life of the slow average grows linearly.",
)
def half_life_grows_linearly(budget: Budget) -> Verdict:
    total = budget.pick(1000, 100_000)
    count = np.arange(total + 1)
    ends = np.log(0.5) / np.log([0.9, 0.9999])

    def departure(schedule: Callable[[Any], Any]) -> float:
        found = np.log(0.5) / np.log(np.asarray(schedule(count)))
        return float(np.max(np.abs(found - np.interp(count, [0, total], ends))) / ends[1])

    case = "greatest departure from the line over the last half-life; control: a linear schedule"
    linear = departure(optax.linear_schedule(0.9, 0.9999, total))
    return Verdict(departure(half_life_schedule(0.9, 0.9999, total)), 1e-6, linear, case)


@claim(
    PAPER,
    "On Rosenbrock's function AdEMAMix (alpha = 8, b3 = 0.999) comes nearer to the minimum in 2000 "
    "steps than Adam at the same learning rate, whatever its b1, but not nearer than Adam at "
    "1 + alpha times that.",
    reproduces=False,
)
def lead_is_one_of_the_learning_rate(budget: Budget) -> Verdict:
    rates = np.geomspace(5e-3, 0.02, budget.pick(3, 30))
    ours = compiled(_distances, _ademamix, rates)
    adams = [partial(optax.adam, b1=b1) for b1 in (0.9, 0.99, 0.999)]

    def least_ratio(factor: float) -> float:
        theirs = [compiled(_distances, make, factor * rates) for make in adams]
        return float(np.min(ours / np.min(theirs, axis=0)))

    case = (
        f"least ratio of the distances left, {len(rates)} learning rates, to Adam's at nine times "
        "the rate; control: at the same"
    )
    return Verdict(least_ratio(9.0), 1.0, least_ratio(1.0), case, at_most=False)


def _ademamix(rate: Array) -> optax.GradientTransformation:
    return optax.contrib.ademamix(rate, b3=0.999, alpha=8.0)


def _distances(make: Any, rates: Float[Array, " n"]) -> Float[Array, " n"]:
    def rosenbrock(x: Array) -> Array:
        return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2

    def distance(rate: Array) -> Array:
        optimizer = make(rate)

        def step(carry: tuple[Array, Any], _: None) -> tuple[tuple[Array, Any], None]:
            x, state = carry
            update, state = optimizer.update(jax.grad(rosenbrock)(x), state, x)
            return (x + update, state), None

        start = jnp.array([-3.0, 5.0])
        (x, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), length=2000)
        return jnp.linalg.norm(x - 1)

    return jax.vmap(distance)(rates)
