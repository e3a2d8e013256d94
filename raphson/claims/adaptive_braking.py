"""Adaptive braking: larger learning rates where gradients come late, and only there."""

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
from ..train import adaptive_braking
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="adaptive-braking",
    title="Adaptive Braking for Mitigating Gradient Delay",
    authors="Venigalla, Kosson, Chiley, Köster",
    year=2020,
    implements=("raphson.train.adaptive_braking",),
    note=(
        "The paper trains networks for images with delays of 32 steps and more. Here a learning "
        "rate counts as stable on a quadratic of the curvatures 1, 30 and 1000 if it lowers the "
        "loss from 515 by a tenth in 4000 steps; the angle is taken over all three unknowns."
    ),
)
CURVATURE = np.array([1.0, 30.0, 1000.0])


@claim(
    PAPER,
    "With gradients 4 to 32 steps late, braking (rho = 2) is stable at 4 times the learning rates "
    "of momentum.",
)
def braking_stands_delay(budget: Budget) -> Verdict:
    delays = budget.pick((4, 16, 32), (4, 8, 16, 32, 64, 128))

    def least_gain(make: Callable[[Any], Any]) -> float:
        return min(_largest_rate(make, delay) / _largest_rate(_sgd, delay) for delay in delays)

    case = (
        f"least ratio of the largest stable rates, powers of 2, delays of {delays}; control: "
        "Nesterov's momentum"
    )
    nesterov = least_gain(partial(optax.sgd, momentum=0.9, nesterov=True))
    return Verdict(least_gain(adaptive_braking), 4.0, nesterov, case, at_most=False)


@claim(
    PAPER,
    "Without delay, braking (rho = 2) allows no larger learning rates than momentum.",
)
def braking_gains_nothing_on_time(budget: Budget) -> Verdict:
    def gain(delay: int) -> float:
        return _largest_rate(adaptive_braking, delay) / _largest_rate(_sgd, delay)

    case = "ratio of the largest stable rates, powers of 2; control: with a delay of 4"
    return Verdict(gain(0), 1.0, gain(4), case)


_sgd = partial(optax.sgd, momentum=0.9)


def _largest_rate(make: Callable[[Any], Any], delay: int) -> float:
    rates = 2.0 ** np.arange(-22, -4)
    losses = np.asarray(compiled(_losses, make, delay, rates))
    return float(np.max(rates[losses < 0.9 * np.sum(CURVATURE) / 2]))


def _losses(
    make: Callable[[Any], Any], delay: int, rates: Float[Array, " n"]
) -> Float[Array, " n"]:
    def loss(rate: Array) -> Array:
        optimizer = make(rate)

        def step(carry: tuple[Array, Any], _: None) -> tuple[tuple[Array, Any], None]:
            past, state = carry
            updates, state = optimizer.update(CURVATURE * past[0], state, past[-1])
            return (jnp.append(past[1:], past[-1:] + updates, axis=0), state), None

        start = jnp.ones((delay + 1, 3)), optimizer.init(jnp.ones(3))
        (past, _), _ = jax.lax.scan(step, start, length=4000)
        return jnp.sum(CURVATURE * past[-1] ** 2) / 2

    return jax.vmap(loss)(rates)
