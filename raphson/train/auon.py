"""AuON: a momentum divided by one number for each leaf, the root mean square of a cosh.

Maity (2025), AuON: A Linear-time Alternative to Semi-Orthogonal Momentum Updates.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.tree as otu
from jaxtyping import Array, Int, PyTree

from ._core import Mask, descend, require, scale_by
from ._polar import matrix_view, unit


class AuonState(NamedTuple):
    """A moving average, in at least single precision whatever the gradients are in."""

    count: Int[Array, ""]
    m: PyTree[Array]  # of gradients


def auon(
    learning_rate: float | optax.Schedule,
    momentum: float = 0.95,
    gamma: float = 1.0,
    output_first: bool = True,
    weight_decay: float = 0.0,
    mask: Mask = None,
) -> optax.GradientTransformationExtraArgs:
    """AuON, Nesterov's momentum on a sphere of its own for each leaf.

    With the gradient g of a leaf x:

        m = momentum m + (1 - momentum) g
        G = (1 - momentum) g + momentum m, divided by its length |G|
        u = sqrt(max(1, outputs / inputs)) G / sqrt(mean(cosh(gamma G)^2))
        x = x - learning_rate (u + weight_decay x)

    Of N numbers of length 1 the mean is between 1 + gamma^2 / N and 1 + sinh(gamma)^2 / N, so that
    the direction is G itself but for a factor near 1: nothing is made more orthogonal. The code of
    the authors leaves out the division by |G|.

    Args:
        learning_rate: at least 0, or a schedule of the step count; how far a square leaf moves.
        momentum: decay rate of the mean of gradients, in [0, 1).
        gamma: how sharply the cosh rises, at least 0.
        output_first: whether leaves are stored as (outputs, inputs, ...), as by Equinox, or as
            (..., inputs, outputs), as by Flax; one with fewer than two axes counts as square.
        weight_decay: strength of the decay of weights, at least 0.
        mask: which parameters decay: a prefix of their tree with True for those that do, or a
            function of the parameters that gives one; all by default.

    Returns:
        An Optax transformation; its `update` needs the parameters.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import raphson as rp
        >>> optimizer = rp.train.auon(optax.cosine_decay_schedule(0.1, 200))
        >>> x = jnp.array([3.0, -2.0])
        >>> state = optimizer.init(x)
        >>> for _ in range(200):
        ...     updates, state = optimizer.update(2 * x, state, x)
        ...     x = optax.apply_updates(x, updates)
        >>> bool(jnp.all(jnp.abs(x) < 0.1))
        True
    """
    require(
        "auon",
        learning_rate=learning_rate,
        momentum=momentum,
        gamma=gamma,
        weight_decay=weight_decay,
    )

    def scaled(g: Array) -> Array:
        g = unit(g)
        outputs, inputs = matrix_view(g, output_first).shape if g.ndim > 1 else (1, 1)
        return max(1, outputs / inputs) ** 0.5 * g / jnp.sqrt(jnp.mean(jnp.cosh(gamma * g) ** 2))

    def direction(
        g: PyTree[Array], state: AuonState, t: Int[Array, ""]
    ) -> tuple[PyTree[Array], AuonState]:
        m = otu.update_moment(g, state.m, momentum, 1)
        return jax.tree.map(scaled, otu.update_moment(g, m, momentum, 1)), AuonState(t, m)

    return optax.chain(scale_by(AuonState, direction), descend(learning_rate, weight_decay, mask))
