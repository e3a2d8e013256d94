"""Guided forward gradients: derivatives along a guess of the gradient, not a random direction.

Fournier, Rivaud, Belilovsky, Eickenberg, Oyallon (2023), Can Forward Gradient Match
Backpropagation?
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, Float

from ..validate import as_function, require_like
from ._core import like, single


def guided_value_and_grad(
    fn: Callable[..., Any], guess: Callable[..., Any], has_aux: bool = False
) -> Callable[..., tuple[Any, Any]]:
    """`jax.value_and_grad` without a backward pass: the gradient's projection onto a guess of it.

    The parameters are made of blocks, the entries of a list, tuple or dictionary (or one array).
    With the gradient g and the guess v of a block, its estimate is <g, v> v / |v|^2, by one forward
    derivative for each block. It is biased, but never points uphill: <estimate, g> is |estimate|^2,
    and that over |g|^2 the squared cosine of the guess and the gradient.

    Args:
        fn: of the parameters and any further arguments, to a real scalar (and to what else is
            returned with it, where `has_aux`).
        guess: of the same arguments, to the direction for each parameter, such as the gradient of a
            loss that a block has of its own; where it is 0, the estimate is.
        has_aux: whether `fn` returns a pair of the scalar and anything else.

    Returns:
        A function of the arguments of `fn` that gives the value, or the pair, and the estimate of
        the gradient in the first of these arguments.

    Raises:
        ValueError: if `fn` or `guess` is no function, or the guess is not shaped as the parameters.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> along = lambda x: jnp.array([1.0, 0.0])
        >>> estimate = rp.train.guided_value_and_grad(lambda x: jnp.sum(x**2), along)
        >>> value, gradient = estimate(jnp.array([1.0, -2.0]))
        >>> value.tolist(), gradient.tolist()
        (5.0, [2.0, 0.0])
    """
    as_function(fn)
    as_function(guess, "guess")

    def value_and_grad(params: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        v = guess(params, *args, **kwargs)
        require_like(v, params, "guess")
        v = single(v)
        blocks, treedef = jax.tree.flatten(v, is_leaf=lambda node: node is not v)
        lengths = [otu.norm(block) for block in blocks]
        blocks = [
            otu.scale(1 / jnp.where(length > 0, length, 1), block)
            for block, length in zip(blocks, lengths, strict=True)
        ]

        def along(weights: Float[Array, " blocks"]) -> tuple[Any, Array]:
            tangent = like(treedef.unflatten(map(otu.scale, weights, blocks)), params)
            value, slope, *aux = jax.jvp(
                lambda params: fn(params, *args, **kwargs), (params,), (tangent,), has_aux=has_aux
            )
            return (value, *aux) if has_aux else value, slope

        value, slopes = jax.vmap(along, out_axes=(None, 0))(jnp.eye(len(blocks)))
        return value, like(treedef.unflatten(map(otu.scale, slopes, blocks)), params)

    return value_and_grad
