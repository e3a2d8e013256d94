"""Adaptive braking: momentum for gradients that come late.

Venigalla, Kosson, Chiley, Köster (2020), Adaptive Braking for Mitigating Gradient Delay.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from ._core import require, scale_by
from ._polar import unit


class AdaptiveBrakingState(NamedTuple):
    """The velocity, in at least single precision whatever the gradients are in."""

    count: Int[Array, ""]
    v: PyTree[Array]


def adaptive_braking(
    learning_rate: float | optax.Schedule, momentum: float = 0.9, rho: float = 2.0
) -> optax.GradientTransformationExtraArgs:
    """Momentum that brakes where gradients oppose it, and heeds them less where they agree.

    With the gradient g and the velocity v (0 at first), leaf by leaf:

        a = 1 - rho cos(g, v)
        v = momentum v + a g
        x = x - learning_rate v

    Where gradients are late, momentum overshoots and oscillates; braking damps that, and allows
    larger learning rates. Where they are on time it gains nothing. With a rho above 1, gradients
    that agree much with the velocity count with the opposite sign.

    Args:
        learning_rate: at least 0, or a schedule of the step count.
        momentum: in [0, 1).
        rho: strength of braking, at least 0, where 0 is plain momentum.

    Returns:
        An Optax transformation.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import raphson as rp
        >>> optimizer = rp.train.adaptive_braking(0.05)
        >>> x = jnp.array([3.0, -2.0])
        >>> state = optimizer.init(x)
        >>> for _ in range(100):
        ...     updates, state = optimizer.update(2 * x, state)
        ...     x = optax.apply_updates(x, updates)
        >>> bool(jnp.all(jnp.abs(x) < 0.1))
        True
    """
    require("adaptive_braking", learning_rate=learning_rate, momentum=momentum, rho=rho)

    def braked(g: Array, v: Array) -> Array:
        a = 1 - rho * jnp.sum(unit(g) * unit(v))
        return momentum * v + a * g

    def direction(
        g: PyTree[Array], state: AdaptiveBrakingState, t: Int[Array, ""]
    ) -> tuple[PyTree[Array], AdaptiveBrakingState]:
        v = jax.tree.map(braked, g, state.v)
        return v, AdaptiveBrakingState(t, v)

    return optax.chain(
        scale_by(AdaptiveBrakingState, direction), optax.scale_by_learning_rate(learning_rate)
    )
