"""AdaGrad-Norm: one learning rate for all parameters, by the sum of the gradients' squares.

Lau, Liu, Kolar (2024), AdAdaGrad: Adaptive Batch Size Schemes for Adaptive Gradient Methods.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
import optax.tree as otu
from jaxtyping import Array, Float, PyTree

from ._core import like, require, single


class AdagradNormState(NamedTuple):
    """A number, in at least single precision."""

    total: Float[Array, ""]  # of the squares of gradients


def adagrad_norm(learning_rate: float | optax.Schedule) -> optax.GradientTransformationExtraArgs:
    """AdaGrad-Norm, gradient descent at a learning rate that the gradients so far bring down.

    With the gradient g and the norm over all leaves:

        s = s + |g|^2
        x = x - learning_rate g / sqrt(s)

    s begins at 0, so that the first step is `learning_rate` long. On batches of the sizes that
    `norm_test` tells, this is AdAdaGrad-Norm.

    Args:
        learning_rate: at least 0, or a schedule of the step count.

    Returns:
        An Optax transformation.

    Raises:
        ValueError: if `learning_rate` is below 0.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> optimizer = rp.train.adagrad_norm(1.0)
        >>> x = jnp.array([3.0, -4.0])
        >>> state = optimizer.init(x)
        >>> for _ in range(100):
        ...     updates, state = optimizer.update(x, state)
        ...     x = x + updates
        >>> bool(jnp.all(jnp.abs(x) < 1e-3))
        True
    """
    require("adagrad_norm", learning_rate=learning_rate)

    def init(params: PyTree[Array]) -> AdagradNormState:
        return AdagradNormState(jnp.zeros_like(otu.sum(single(params))))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, AdagradNormState]:
        g = single(updates)
        total = state.total + otu.norm(g, squared=True)
        # Until there was a gradient, there is no step.
        scale = jnp.where(total > 0, 1 / jnp.sqrt(jnp.where(total > 0, total, 1)), 0)
        return like(otu.scale(scale, g), updates), AdagradNormState(total)

    return optax.chain(
        optax.GradientTransformation(init, update), optax.scale_by_learning_rate(learning_rate)
    )
