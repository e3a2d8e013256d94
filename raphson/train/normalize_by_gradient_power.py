"""Gradients over a power of their norm, for functions whose curvature grows with their gradient.

Chen, Zhou, Liang, Lu (2023), Generalized-Smooth Nonconvex Optimization is As Efficient As Smooth
Nonconvex Optimization.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import optax
import optax.tree as otu
from jaxtyping import Array, PyTree

from ..validate import require_number
from ._core import like, single


def normalize_by_gradient_power(power: float = 1.0) -> optax.GradientTransformation:
    """Turn a gradient g to g / |g|^p, the norm being that over all leaves, and 0 to 0.

    Where the curvature of the loss is at most of the order 1 + |g|^a, a in (0, 1], one learning
    rate is then right both far away and near, with any p from a to 1: a = 1 for exponentials,
    (d - 2) / (d - 1) for polynomials of degree d. Followed by `optax.sgd` it is
    `raphson.smooth.NormalizedGradient`. With p < 1 updates get shorter as the gradient does; with
    p = 1, as `optax.normalize_by_update_norm` has it, only as the learning rate does.

    Args:
        power: p, in [0, 1]; 0 leaves the gradient as it is.

    Returns:
        An Optax transformation.

    Raises:
        ValueError: if `power` is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import raphson as rp
        >>> optimizer = optax.chain(rp.train.normalize_by_gradient_power(2 / 3), optax.sgd(0.3))
        >>> x = jnp.array([3000.0, -4000.0])
        >>> state = optimizer.init(x)
        >>> for _ in range(60):  # on |x|^4 / 4, where each update takes 0.3 of x
        ...     updates, state = optimizer.update(jnp.sum(x**2) * x, state)
        ...     x = optax.apply_updates(x, updates)
        >>> bool(jnp.all(jnp.abs(x) < 1e-5))
        True
    """
    require_number(power, "`power` of normalize_by_gradient_power", 0, 1, closed="both")

    def update(updates: Any, params: PyTree[Array] | None) -> Any:
        g = single(updates)
        # By the square, for at 0 the norm has no derivative.
        square = otu.norm(g, squared=True)
        scale = jnp.where(square > 0, square, 1) ** (-power / 2)
        return like(otu.scale(scale, g), updates)

    return optax.stateless(update)
