"""ReinMax: gradients through a drawn category, exact to second order.

Liu, Dong, Liu, Yu, Gao (2023), Bridging Discrete and Backpropagation: Straight-Through and Beyond.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..validate import require_number


def reinmax(
    key: Array, logits: Float[Array, "*batch k"], temperature: float = 1.0
) -> tuple[Float[Array, "*batch k"], Float[Array, "*batch k"]]:
    """A category drawn by `logits`, one-hot, through which gradients pass by ReinMax.

    With p = softmax(logits), D the category drawn, q = (softmax(logits / temperature) + D) / 2, and
    J_p a = p a - p <p, a>, a gradient a in D becomes 2 J_q a - J_p a / 2 in the logits. For a loss
    that is quadratic in D its mean over the draws is, at temperature 1, the gradient of the mean
    loss: where straight-through takes Euler's step from the category drawn to another, this takes
    Heun's. With several categories in one loss that holds for each alone.

    Args:
        key: a random key.
        logits: of the categories along the last axis; each row draws for itself.
        temperature: at least 1; the theory takes 1, and above it errors trade with variance.

    Returns:
        The category drawn, one-hot, and the probabilities softmax(logits), which pass gradients as
        ever.

    Raises:
        ValueError: if `temperature` is below 1.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> drawn, probabilities = rp.train.reinmax(jax.random.key(0), jnp.array([0.0, 9.0]))
        >>> drawn.tolist(), probabilities.round(2).tolist()
        ([0.0, 1.0], [0.0, 1.0])
    """
    require_number(temperature, "`temperature` of reinmax", 1, closed="left")
    drawn, p = _draw(key, logits)
    q = (jax.nn.softmax(logits / temperature) + drawn) / 2
    return _passing(drawn, logits, [(2.0, q), (-0.5, p)]), p


def straight_through(
    key: Array, logits: Float[Array, "*batch k"]
) -> tuple[Float[Array, "*batch k"], Float[Array, "*batch k"]]:
    """A category drawn by `logits`, one-hot, through which gradients pass as through softmax.

    A gradient a in the category becomes p a - p <p, a> in the logits, with p = softmax(logits): on
    the mean the gradient of the mean loss where the loss is linear.

    Args:
        key: a random key.
        logits: of the categories along the last axis; each row draws for itself.

    Returns:
        The category drawn, one-hot, and the probabilities p, which pass gradients as ever.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> loss = lambda logits: rp.train.straight_through(jax.random.key(0), logits)[0][0]
        >>> jax.grad(loss)(jnp.zeros(2)).tolist()
        [0.25, -0.25]
    """
    drawn, p = _draw(key, logits)
    return _passing(drawn, logits, [(1.0, p)]), p


def _draw(key: Array, logits: Array) -> tuple[Array, Array]:
    """A category, one-hot, and the probabilities."""
    p = jax.nn.softmax(logits)
    return jax.nn.one_hot(jax.random.categorical(key, logits), p.shape[-1], dtype=p.dtype), p


@jax.custom_vjp
def _passing(drawn: Array, logits: Array, terms: list[tuple[Any, Array]]) -> Array:
    """`drawn`; its gradient a becomes in the logits the sum of c (p a - p <p, a>) over (c, p)."""
    return drawn


def _forward(drawn: Array, logits: Array, terms: Any) -> tuple[Array, Any]:
    return drawn, terms


def _backward(terms: Any, a: Array) -> tuple[None, Any, None]:
    slopes = [c * (p * a - p * jnp.sum(p * a, axis=-1, keepdims=True)) for c, p in terms]
    return None, sum(slopes), None


_passing.defvjp(_forward, _backward)
