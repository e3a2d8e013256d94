"""Weight centralization: a penalty that holds the weights near the mean of earlier ones.

Zhao, Zhang, Kong, Yin (2023), Fast Adversarial Training with Smooth Convergence.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from ..validate import require_number, whole_number
from ._core import like, require_given, single


class WeightCentralizationState(NamedTuple):
    """One copy of the parameters, in at least single precision whatever these are in."""

    count: Int[Array, ""]
    center: PyTree[Array]  # the mean of the weights with which epochs ended


def weight_centralization(weight: float, epoch: int) -> optax.GradientTransformation:
    """The gradient of a penalty on the distance to the mean of earlier weights, added to the given.

    With the parameters x and the mean c of those with which each epoch before ended:

        g + weight (x - c)

    that of weight / 2 |x - c|^2. In the first epoch there is none. It goes before the optimizer, as
    in `optax.chain(weight_centralization(0.01, 100), optax.sgd(0.1))`.

    Args:
        weight: of the penalty, at least 0.
        epoch: how many steps one has, at least 1. A static argument of `optax.inject_hyperparams`.

    Returns:
        An Optax transformation; its `update` needs the parameters.

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> centralize = rp.train.weight_centralization(0.5, epoch=1)
        >>> g, state = jnp.zeros(()), centralize.init(jnp.zeros(()))
        >>> for x in (7.0, 1.0, 3.0, 5.0):
        ...     pulled, state = centralize.update(g, state, jnp.array(x))
        ...     print(float(pulled))
        0.0
        0.0
        0.5
        1.0
    """
    require_number(weight, "`weight` of weight_centralization", 0, closed="left")
    whole_number(epoch, "epoch", 1)

    def init(params: PyTree[Array]) -> WeightCentralizationState:
        center = jax.tree.map(jnp.zeros_like, single(params))
        return WeightCentralizationState(jnp.zeros((), jnp.int32), center)

    def update(
        updates: Any, state: Any, params: Any = None
    ) -> tuple[PyTree[Array], WeightCentralizationState]:
        require_given("weight_centralization", params=params)
        x, epochs = single(params), state.count // epoch
        # These parameters are those with which an epoch ended where the next begins with them.
        ended = (epochs > 0) & (state.count % epoch == 0)

        def centered(c: Array, x: Array) -> Array:
            return jnp.where(ended, c + (x - c) / jnp.maximum(epochs, 1), c)

        center = jax.tree.map(centered, state.center, x)
        pull = jnp.where(epochs > 0, weight, 0)
        pulled = jax.tree.map(lambda g, x, c: g + pull * (x - c), single(updates), x, center)
        count = jnp.asarray(optax.safe_increment(state.count))
        return like(pulled, updates), WeightCentralizationState(count, center)

    return optax.GradientTransformation(init, update)
