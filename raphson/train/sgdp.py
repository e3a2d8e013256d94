"""SGDP: momentum that does not lengthen weights whose length does not matter.

Heo, Chun, Oh, Han, Yun, Kim, Uh, Ha (2020), AdamP: Slowing Down the Slowdown for Momentum
Optimizers on Scale-invariant Weights.
"""

from __future__ import annotations

from typing import NamedTuple

import optax
import optax.tree as otu
from jaxtyping import Array, Int, PyTree

from ._core import Mask, require, scale_by
from .remove_radial import remove_radial


class SGDPState(NamedTuple):
    """Momentum, in at least single precision whatever the gradients are in."""

    count: Int[Array, ""]
    m: PyTree[Array]


def sgdp(
    learning_rate: float | optax.Schedule,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    delta: float = 0.1,
    wd_ratio: float = 0.1,
    output_first: bool = True,
    mask: Mask = None,
) -> optax.GradientTransformationExtraArgs:
    """Momentum along the sphere for weights that the loss sees the direction of only (SGDP).

    With the gradient g, and r = wd_ratio where `remove_radial` changes directions, else 1:

        m = momentum m + g
        u = m, or g + momentum m with `nesterov`
        x = x - learning_rate (remove_radial(u) + r weight_decay / (1 - momentum) x)

    Args:
        learning_rate: at least 0, or a schedule of the step count.
        momentum: in [0, 1).
        nesterov: whether u is Nesterov's.
        weight_decay: strength of the decay of weights, at least 0.
        delta: how near to orthogonal to the weights gradients must be, as in `remove_radial`.
        wd_ratio: the share of the decay where directions are changed, at least 0.
        output_first: whether leaves are stored as (outputs, inputs, ...), as by Equinox, or as
            (..., inputs, outputs), as by Flax.
        mask: which parameters decay: a prefix of their tree with True for those that do, or a
            function of the parameters that gives one; all by default.

    Returns:
        An Optax transformation; its `update` needs the parameters.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import raphson as rp
        >>> loss = lambda x: jnp.sum((x / jnp.linalg.norm(x) - jnp.array([[0.6, 0.8]])) ** 2)
        >>> optimizer = rp.train.sgdp(0.1)
        >>> x = jnp.array([[3.0, -2.0]])
        >>> state = optimizer.init(x)
        >>> for _ in range(100):
        ...     updates, state = optimizer.update(jax.grad(loss)(x), state, x)
        ...     x = optax.apply_updates(x, updates)
        >>> bool(loss(x) < 1e-4)
        True
    """
    require("sgdp", learning_rate=learning_rate, momentum=momentum, weight_decay=weight_decay)
    require("sgdp", delta=delta, wd_ratio=wd_ratio)

    def direction(
        g: PyTree[Array], state: SGDPState, t: Int[Array, ""]
    ) -> tuple[PyTree[Array], SGDPState]:
        m = otu.add_scale(g, momentum, state.m)
        return otu.add_scale(g, momentum, m) if nesterov else m, SGDPState(t, m)

    inner, decay = scale_by(SGDPState, direction), weight_decay / (1 - momentum)
    return optax.chain(
        remove_radial(inner, decay, delta, wd_ratio, output_first, mask),
        optax.scale_by_learning_rate(learning_rate),
    )
