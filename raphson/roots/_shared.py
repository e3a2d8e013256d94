"""What the methods share that step inside of bounds, in a region in which they trust a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree

# A step goes at most this share of the way to a bound.
INTERIOR = 0.99995
# Where |F|^2 no longer falls by more than its rounding the gradient may still do so, for a while.
PATIENCE = 30


class Region(eqx.Module):
    """F at the iterate, the radius of the next step, and how many have passed without a fall."""

    residual: Float[Array, " m"]
    radius: Float[Array, ""]
    idle: Int[Array, ""]

    @property
    def at_rest(self) -> Bool[Array, ""]:
        return self.idle >= PATIENCE


def region(residual: PyTree[Array], radius: ArrayLike) -> Region:
    """The region at the start, from F there."""
    F = ravel_pytree(residual)[0]
    return Region(F, jnp.asarray(radius, F.dtype), jnp.array(0, jnp.int32))


class Box(eqx.Module):
    """An iterate and its bounds, each as one vector."""

    y: Float[Array, " n"]
    lower: Float[Array, " n"]
    upper: Float[Array, " n"]

    def scaled(
        self, scaling: Callable[[Array, Array, Array], Array], g: Float[Array, " n"]
    ) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """The diagonals of D and of C = max(0, g dD/dy)."""
        # A start on a bound may leave it.
        nearest = jnp.finfo(g.dtype).eps * (1 + jnp.abs(self.y))
        below, above = (
            jnp.maximum(room, nearest) for room in (self.y - self.lower, self.upper - self.y)
        )
        at = lambda move: scaling(below + move, above - move, g)
        d, slope = jax.jvp(at, (jnp.zeros_like(g),), (jnp.ones_like(g),))
        return d, jnp.maximum(slope * g, 0)

    def truncated(self, p: Float[Array, " n"]) -> Float[Array, " n"]:
        """The step, shortened where it leaves the bounds."""
        room = jnp.where(p > 0, self.upper - self.y, self.y - self.lower)
        room = room / jnp.where(p == 0, 1, jnp.abs(p))
        share = jnp.min(jnp.where(p == 0, jnp.inf, room), initial=jnp.inf)
        return jnp.where(share > 1, 1, share * _interior(p)) * p

    def projected(self, p: Float[Array, " n"]) -> Float[Array, " n"]:
        """The step, each entry of which ends at its bound if it would leave it, and shortened."""
        p = jnp.clip(self.y + p, self.lower, self.upper) - self.y
        return _interior(p) * p


def boxed(problem: Any, y: PyTree[Array]) -> Box:
    """The iterate within the bounds of its problem."""
    return Box(*(ravel_pytree(tree)[0] for tree in (y, problem.lower, problem.upper)))


def steepest(
    d: Float[Array, " n"], g: Float[Array, " n"], along: Float[Array, " m"], radius: Array
) -> Float[Array, " n"]:
    """The best step -t D g inside of the region, where `along` is J D g."""
    tiny = jnp.finfo(g.dtype).tiny
    t = jnp.minimum(
        jnp.vdot(d * g, g) / jnp.maximum(jnp.vdot(along, along), tiny),
        radius / jnp.maximum(jnp.linalg.norm(jnp.sqrt(d) * g), tiny),
    )
    return -t * d * g


def moved(
    problem: Any,
    y: PyTree[Array],
    region: Region,
    d: Float[Array, " n"],
    newton: Float[Array, "k n"],
    descent: Float[Array, " n"],
    models: Callable[[Float[Array, "steps n"]], Float[Array, " steps"]],
) -> tuple[PyTree[Array], Region, Bool[Array, ""]]:
    """The best of several steps, if |F| bears it out, the next region, and whether it was taken.

    Args:
        problem: the problem.
        y: the iterate.
        region: the region there.
        d: the diagonal of D, in whose norm |D^-1/2 p| the region is a ball.
        newton: steps that are brought inside the bounds by projection and by truncation, the first
            of them that of the model.
        descent: a step that is truncated.
        models: how much |F|^2 / 2 rises by each of several steps, as the model has it.
    """
    box, unravel, F, radius = boxed(problem, y), ravel_pytree(y)[1], region.residual, region.radius
    steps = jnp.concatenate(
        [
            jax.vmap(box.projected)(newton),
            jax.vmap(box.truncated)(jnp.concatenate([newton, descent[None]])),
        ]
    )
    values = models(steps)
    best = jnp.nanargmin(values)
    p, promised = steps[best], -values[best]

    trial = jnp.clip(box.y + p, box.lower, box.upper)
    residual = ravel_pytree(problem.residual(unravel(trial)))[0]
    # Near an answer the fall drowns in the rounding of |F|^2, which must not reject a step.
    rounding = 5 * jnp.finfo(F.dtype).eps * jnp.sum(F**2)
    fallen = (jnp.sum(F**2) - jnp.sum(residual**2)) / 2
    ratio = (fallen + rounding) / (promised + rounding)
    accepted = ratio >= 1e-4

    root = jnp.sqrt(d)
    length = jnp.linalg.norm(jnp.where(root > 0, p / root, 0))
    at_edge = jnp.linalg.norm(newton[0] / root) > 0.9 * radius
    grown = jnp.where((ratio >= 0.75) & at_edge, 2, 1) * radius
    radius = jnp.where(ratio >= 0.25, grown, jnp.minimum(radius, length) / 4)
    idle = jnp.where(fallen > rounding, 0, region.idle + 1)
    idle = jnp.where(jnp.all(trial == box.y), PATIENCE, idle)
    y = unravel(jnp.where(accepted, trial, box.y))
    return y, Region(jnp.where(accepted, residual, F), radius, idle), accepted


def _interior(p: Float[Array, " n"]) -> Float[Array, ""]:
    """How much of a step that ends on a bound is taken: all in the limit, so that it is fast."""
    return jnp.maximum(INTERIOR, 1 - jnp.linalg.norm(p))
