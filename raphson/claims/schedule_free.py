"""Schedule-Free: averages in place of a schedule that must know when training ends."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float

from ..compiled import compiled
from ..problems import ridge
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="schedule-free",
    title="The Road Less Scheduled",
    authors="Defazio, Yang, Mehta, Mishchenko, Khaled, Cutkosky",
    year=2024,
    implements=(
        "optax.contrib.schedule_free",
        "optax.contrib.schedule_free_sgd",
        "optax.contrib.schedule_free_adamw",
        "optax.contrib.schedule_free_eval_params",
    ),
    note=(
        "With a constant learning rate optax.contrib.schedule_free_sgd is the paper's algorithm. "
        "It departs from it in warmup, where the steps use the learning rate of a count from 0, so "
        "that the first is 0, and the weights that of a count from 1; and "
        "optax.contrib.schedule_free_adamw corrects the bias of v alone, where the paper counts "
        "the correction sqrt(1 - b2^t) to the learning rate, and so into the decay of weights and "
        "the weights of the average, which the first 1 / (1 - b2) steps hardly enter. Both can be "
        "had from Optax's parts, as the first claim does. Its b1 must not be 0, the weights t^r "
        "are missing, and the sum of the weights is held in the parameters' precision: in bfloat16 "
        "it stops growing at some 256 of them, and what should be an average of all forgets. On "
        "the small problem of the third claim the default b1 of 0.9 follows less closely than 0.5."
    ),
)


@claim(
    PAPER,
    "Optax's schedule_free makes the updates of the paper's SGD, and of its AdamW over a base "
    "whose learning rate carries the warmup and the correction of the bias.",
)
def optax_follows_schedule_free(budget: Budget) -> Verdict:
    steps, warmup, b1, b2, decay = budget.pick(100, 1000), 20, 0.9, 0.99, 0.1
    gradients = np.random.default_rng(0).normal(size=(steps, 10))

    def sgd_rate(count: Any) -> Any:
        return 0.1 * jnp.minimum(count * (1 / warmup), 1)

    def adamw_rate(count: Any) -> Any:
        return sgd_rate(count) * jnp.sqrt(1 - b2**count)

    def transcription(adam: bool) -> np.ndarray:
        x = z = y = np.ones(10)
        v, total, path = np.zeros(10), 0.0, []
        for t, g in enumerate(gradients, 1):
            v = b2 * v + (1 - b2) * g**2
            rate = 0.1 * min(t / warmup, 1) * (np.sqrt(1 - b2**t) if adam else 1)
            z = z - rate * (g / (np.sqrt(v) + 1e-8) + decay * y if adam else g)
            total += rate**2
            x = x + rate**2 / total * (z - x)
            y = (1 - b1) * z + b1 * x
            path.append(y)
        return np.array(path)

    def deviation(optimizer: Any, adam: bool) -> float:
        found = compiled(_path, optimizer, gradients)
        return float(np.max(np.abs(found - transcription(adam))))

    # Optax asks the schedules of the base from 0 on, and that of the average from 1.
    sgd = optax.sgd(lambda count: sgd_rate(count + 1))
    adamw = optax.chain(
        optax.scale_by_rms(b2, eps=1e-8, eps_in_sqrt=False),
        optax.add_decayed_weights(decay),
        optax.scale_by_learning_rate(lambda count: adamw_rate(count + 1)),
    )
    measured = max(
        deviation(optax.contrib.schedule_free(sgd, sgd_rate, b1), False),
        deviation(optax.contrib.schedule_free(adamw, adamw_rate, b1), True),
    )
    ready = optax.contrib.schedule_free_adamw(0.1, warmup, b1, b2, weight_decay=decay)
    case = (
        f"greatest deviation over {steps} random gradients, the first {warmup} of warmup; "
        "control: schedule_free_adamw of Optax as it is"
    )
    return Verdict(measured, 1e-10, deviation(ready, True), case)


@claim(
    PAPER,
    "On convex losses with gradients up to G, at learning rate D / (G sqrt(T)) from a distance of "
    "D, the mean loss of the average after T steps is within D G / sqrt(T) of the least, whatever "
    "b1.",
)
def average_is_within_the_bound(budget: Budget) -> Verdict:
    lengths, seeds = budget.pick((10, 100, 1000), (10, 100, 1000, 10_000)), budget.pick(20, 200)
    factors = (0.1, 0.5, 0.9, 1.0)

    def worst(make: Callable[..., Any], averaged: bool) -> float:
        return max(
            float(compiled(_excess, make, averaged, float(steps), seeds, np.array(factors)))
            for steps in lengths
        )

    case = (
        f"greatest mean loss of {seeds} runs over the bound, absolute deviations of one sample "
        f"each, T = {lengths}, b1 = {factors}; control: the last point of momentum 0.99 b1"
    )
    momentum = worst(lambda rate, b1: optax.sgd(rate, momentum=0.99 * b1), False)
    return Verdict(worst(_schedule_free, True), 1.0, momentum, case)


@claim(
    PAPER,
    "One run at one learning rate, with b1 = 0.5, is all along within 1.5 of what SGD with linear "
    "decay leaves of the loss that is tuned for just so many steps.",
)
def follows_all_schedules_at_once(budget: Budget) -> Verdict:
    marks, seeds = np.array([100, 200, 400, 800, 1600]), budget.pick(16, 200)
    rates = np.geomspace(2e-3, 0.05, budget.pick(6, 16))

    def excesses(make: Any, averaged: bool, marks: np.ndarray) -> np.ndarray:
        found = np.asarray(compiled(_excesses, make, averaged, marks, seeds, rates))
        return np.where(np.isfinite(found), found, np.inf)

    least = [np.min(excesses(Partial(_decayed, 1 / m), False, m[None])) for m in marks]

    def departure(make: Any, averaged: bool) -> float:
        return float(np.min(np.max(excesses(make, averaged, marks) / least, axis=1)))

    case = (
        f"greatest ratio of what is left after {', '.join(map(str, marks))} steps, mean of {seeds} "
        "runs, ridge regression on diabetes by one sample a step; control: SGD"
    )
    ours = departure(partial(_schedule_free, b1=0.5), True)
    return Verdict(ours, 1.5, departure(optax.sgd, False), case)


def _schedule_free(rate: Any, b1: Any) -> Any:
    return optax.contrib.schedule_free(optax.sgd(rate), rate, b1)


def _decayed(per_step: Any, rate: Any) -> Any:
    return optax.sgd(lambda count: rate * (1 - count * per_step))


def _path(optimizer: Any, gradients: Float[Array, "t n"]) -> Float[Array, "t n"]:
    def step(carry: tuple[Array, Any], gradient: Array) -> tuple[tuple[Array, Any], Array]:
        y, state = carry
        update, state = optimizer.update(gradient, state, y)
        return (y + update, state), y + update

    start = jnp.ones_like(gradients[0])
    return jax.lax.scan(step, (start, optimizer.init(start)), gradients)[1]


def _excess(
    make: Any, averaged: bool, steps: Any, seeds: int, factors: Float[Array, " b"]
) -> Float[Array, ""]:
    """The greatest over b1 of the mean final loss, over D G / sqrt(T); G = 1, the least loss 0."""
    rows = jax.random.normal(jax.random.key(0), (40, 10))
    rows = rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
    rate = 1 / jnp.sqrt(steps)

    def final(b1: Array, key: Array) -> Array:
        optimizer = make(rate, b1)

        def step(index: Array, carry: tuple[Array, Any]) -> tuple[Array, Any]:
            y, state = carry
            row = jax.random.choice(jax.random.fold_in(key, index), rows)
            update, state = optimizer.update(row * jnp.sign(row @ y), state, y)
            return y + update, state

        start = jnp.full(10, 0.1**0.5)
        y, state = jax.lax.fori_loop(
            0, jnp.asarray(steps, int), step, (start, optimizer.init(start))
        )
        x = optax.contrib.schedule_free_eval_params(state, y) if averaged else y
        return jnp.mean(jnp.abs(rows @ x))

    keys = jax.random.split(jax.random.key(1), seeds)
    losses = jax.vmap(jax.vmap(final, (None, 0)), (0, None))(factors, keys)
    return jnp.max(jnp.mean(losses, axis=1)) / rate


def _excesses(
    make: Any, averaged: bool, marks: Array, seeds: int, rates: Float[Array, " r"]
) -> Float[Array, "r marks"]:
    """The mean loss, less the least, of runs at each learning rate after so many steps."""
    problem = ridge("diabetes", batch_size=1)

    def run(rate: Array, key: Array) -> Array:
        optimizer = make(rate)

        def step(index: Array, carry: tuple[Array, Any]) -> tuple[Array, Any]:
            y, state = carry
            sample = problem.sample(jax.random.fold_in(key, index))
            _, gradient = problem.batch_value_and_gradient(y, sample)
            update, state = optimizer.update(gradient, state, y)
            return y + update, state

        def leg(carry: tuple[Array, Any], ends: Array) -> tuple[tuple[Array, Any], Array]:
            y, state = carry = jax.lax.fori_loop(ends[0], ends[1], step, carry)
            x = optax.contrib.schedule_free_eval_params(state, y) if averaged else y
            return carry, problem.value(x) - problem.facts.optimum

        start = problem.y0, optimizer.init(problem.y0)
        return jax.lax.scan(leg, start, jnp.stack([jnp.append(0, marks[:-1]), marks], 1))[1]

    keys = jax.random.split(jax.random.key(0), seeds)
    losses = jax.vmap(jax.vmap(run, (None, 0)), (0, None))(rates, keys)
    return jnp.mean(losses, axis=1)
