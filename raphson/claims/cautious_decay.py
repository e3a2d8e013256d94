"""Cautious weight decay: it moves no minimum, yet shrinks what the loss leaves free."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..compiled import compiled
from ..train import cautious_decay
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="cautious-decay",
    title="Cautious Weight Decay",
    authors="Chen, Li, Liang, Su, Xie, Pierse, Liang, Lao, Liu",
    year=2025,
    implements=("raphson.train.cautious_decay",),
    note=(
        "The gains that the paper reports on language models are beyond this library; its reasons "
        "are checked where the minima are known, by gradient descent and by Adam, with a decay of "
        "0.3 and learning rates that fall linearly to 0. Adam with decay everywhere comes to the "
        "minimum too, only later: it divides by gradients that vanish."
    ),
)
CURVATURE, MINIMUM = np.array([1.0, 5.0, 20.0]), np.array([3.0, -2.0, 0.2])


@claim(
    PAPER,
    "Decay in the entries that the step shrinks anyway leaves the limit where the loss is least.",
)
def limit_is_the_minimum(budget: Budget) -> Verdict:
    def distance(decay: optax.GradientTransformation) -> float:
        def gradient(x: Any) -> Any:
            return CURVATURE * (x - MINIMUM)

        x = _limit(optax.identity(), decay, gradient, np.full(3, 5.0), budget)
        return float(np.max(np.abs(x - MINIMUM)))

    case = "distance of gradient descent to the minimum of a quadratic; control: decay everywhere"
    return Verdict(
        distance(cautious_decay(0.3)), 1e-3, distance(optax.add_decayed_weights(0.3)), case
    )


@claim(
    PAPER,
    "In a valley of minima the limit is one of smaller norm than without decay, at most 1/2 of it.",
)
def slides_to_small_minima(budget: Budget) -> Verdict:
    def norm(decay: optax.GradientTransformation) -> float:
        x = _limit(optax.scale_by_adam(), decay, _slope, np.array([5.0, -1.0]), budget)
        in_valley = (np.sum(x) - 2) ** 2 / 2 < 1e-12
        return float(np.linalg.norm(x)) if in_valley else np.inf

    without = norm(optax.identity())
    case = (
        "norm of the limit over that without decay, in the valley x1 + x2 = 2 from (5, -1), where "
        "the loss is below 1e-12; control: no decay"
    )
    return Verdict(norm(cautious_decay(0.3)) / without, 0.5, without / without, case)


def _limit(
    inner: optax.GradientTransformation,
    decay: optax.GradientTransformation,
    gradient: Any,
    start: Float[np.ndarray, " n"],
    budget: Budget,
) -> Float[np.ndarray, " n"]:
    steps = budget.pick(40_000, 400_000)
    return np.asarray(compiled(_descended, inner, decay, gradient, start, steps))


def _slope(x: Array) -> Array:
    return jnp.full(2, jnp.sum(x) - 2)


def _descended(inner: Any, decay: Any, gradient: Any, x: Array, steps: int) -> Array:
    optimizer: Any = optax.chain(
        inner,
        decay,
        optax.scale_by_learning_rate(optax.linear_schedule(1e-3, 0.0, steps)),
    )

    def step(_: Array, carry: tuple[Array, Any]) -> tuple[Array, Any]:
        x, state = carry
        updates, state = optimizer.update(gradient(x), state, x)
        return x + updates, state

    return jax.lax.fori_loop(0, steps, step, (x, optimizer.init(x)))[0]
