"""Whether iterates drift off, as they do where a nonexpansive map has no fixed point.

Park, Ryu (2023), Accelerated Infeasibility Detection of Constrained Optimization and Fixed-Point
Iterations.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, Float, PyTree

from ..solution import Status

# How far a fixed point is looked for: so many steps, and so many times the length of the start.
STEPS, LENGTHS = 1000, 10


def drift(
    start: PyTree[Array],
    y: PyTree[Array],
    residual: PyTree[Array],
    change: Float[Array, ""],
    steps: Float[Array, ""],
) -> Any:
    """`Status.infeasible` where T(y) - y has settled on what is not 0, else `Status.running`.

    The limit of r = T(y) - y is -v, with v the infimal displacement vector. A fixed point y* of a
    nonexpansive T has |y_0 - y*| >= <-r, y_0 - y> / |r|, so that a run which went straight along r
    has none within that way of its start. A slow contraction goes straight for a while, too: with
    the factor g it changes r by 1 - g of the way. It is told from a drift as long as that is more
    than 1e-6 in double precision, and 2e-5 in single.

    Args:
        start: y_0.
        y: the iterate.
        residual: T(y) - y.
        change: `residual_change` of the last step.
        steps: how many times r the way to y is long, if r has always been the same.
    """
    way, size = otu.sub(y, start), otu.norm(residual)
    distance = otu.norm(way)
    settled = change <= jnp.finfo(size.dtype).eps ** 0.4
    straight = otu.norm(otu.sub(way, otu.scale(steps, residual))) <= 0.01 * distance
    far = (distance >= STEPS * size) & (distance >= LENGTHS * otu.norm(start))
    return Status.where(settled & straight & far, Status.infeasible, Status.running)


def residual_change(
    y: PyTree[Array], image: PyTree[Array], after: PyTree[Array], image_after: PyTree[Array]
) -> Float[Array, ""]:
    """How far T(y) - y comes in a step, for the length of the step."""
    move = otu.sub(after, y)
    length = otu.norm(move)
    change = otu.norm(otu.sub(otu.sub(image_after, image), move))
    return change / jnp.where(length > 0, length, 1)
