"""What claims on optimizers measure: their updates, and where they bring a loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..compiled import compiled
from ..lifts import as_method
from ..smooth import FiniteSum


def updates(
    optimizer: optax.GradientTransformation, gradients: Float[np.ndarray, "t n"]
) -> Float[np.ndarray, "t n"]:
    """What the optimizer makes of gradients that come whatever the parameters are."""
    return np.asarray(compiled(_updates, optimizer, gradients))


def best_losses(
    problem: FiniteSum,
    make: Callable[[Any], optax.GradientTransformation],
    rates: np.ndarray,
    seeds: int,
    marks: list[int],
    held_out: bool = False,
) -> list[float]:
    """The loss after so many steps, its median over seeds, least over the learning rates."""
    keys = jax.random.split(jax.random.key(0), seeds)
    losses = compiled(_losses, problem, make, rates, keys, np.array(marks), held_out)
    return [float(np.min(np.median(at_mark, axis=1))) for at_mark in losses]


def _losses(
    problem: FiniteSum, make: Any, rates: Array, keys: Array, marks: Array, held_out: bool
) -> Float[Array, "marks rates seeds"]:
    def losses(rate: Array, key: Array) -> Array:
        method = as_method(make(rate))

        def leg(carry: Any, steps: Array) -> tuple[Any, Array]:
            carry = jax.lax.fori_loop(0, steps, lambda _, c: method.step(problem, *c), carry)
            y = carry[0]
            return carry, problem.measures(y)["held_out"] if held_out else problem.value(y)

        start = problem.y0, method.init(problem, problem.y0, key)
        return jax.lax.scan(leg, start, jnp.diff(marks, prepend=0))[1]

    return jnp.moveaxis(jax.vmap(jax.vmap(losses, (None, 0)), (0, None))(rates, keys), -1, 0)


def _updates(
    optimizer: optax.GradientTransformation, gradients: Float[Array, "t n"]
) -> Float[Array, "t n"]:
    params = jnp.zeros_like(gradients[0])

    def step(state: Any, gradient: Array) -> tuple[Any, Any]:
        updates, state = optimizer.update(gradient, state, params)
        return state, updates

    return jax.lax.scan(step, optimizer.init(params), gradients)[1]
