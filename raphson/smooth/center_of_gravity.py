"""The method of centers of gravity: each subgradient cuts off the half that is uphill.

Levin (1965), On an Algorithm for the Minimization of Convex Functions; Newman (1965), Location of
the Maximum on Unimodal Surfaces; Bubeck (2015), Convex Optimization: Algorithms and Complexity,
section 2.1.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import optax.tree as otu
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PyTree

from ..method import AbstractMethod
from ..problem import AbstractObjective, AbstractProblem, Known
from ..solution import Status
from ..validate import in_range

# A cut takes about half of the corners and adds two: ten are rare.
CAPACITY = 64


class CenterOfGravityState(eqx.Module):
    value: Float[Array, ""]
    gradient: PyTree[Array]
    corners: Float[Array, "k 2"]  # in their order, then the first again and again
    center: Float[Array, " 2"]
    subgradient: Float[Array, " 2"]  # at the center
    at_rest: Bool[Array, ""]


class CenterOfGravity(AbstractMethod[CenterOfGravityState]):
    """The method of centers of gravity, for a convex f of one or two unknowns, with kinks or not.

    Of a polygon that holds the minimizer only {y: <g, y - c> <= 0} is kept, with its center of
    gravity c and a subgradient g of f there. No more than 1 - 1/e of the area remains, in however
    many dimensions, so that after t centers f - f* is at most (1 - 1/e)^(t / n) of how much f
    varies in the first polygon. No method of subgradients does better but for a constant; yet in
    more than two dimensions a center of gravity is too hard to find. With one unknown it bisects.

    The iterate is the best center so far.

    Args:
        radius: R, positive: the polygon at first is the square y0 - R <= y <= y0 + R. It must hold
            a minimizer, else the run ends at its border.

    Raises:
        ValueError: if `radius` is not positive, or there are more than two unknowns.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.Minimize(lambda y, _: jnp.sum(jnp.abs(y - 1.0)), jnp.zeros(2))
        >>> solution = rp.solve(problem, rp.smooth.CenterOfGravity(10.0), throw=False)
        >>> solution.value.round(3).tolist()
        [1.0, 1.0]
    """

    radius: float = 100.0

    question: ClassVar[type[AbstractProblem]] = AbstractObjective

    def __check_init__(self):
        in_range(self, "radius", 0)

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> CenterOfGravityState:
        flat = ravel_pytree(y)[0]
        if flat.size > 2:
            raise ValueError(
                f"CenterOfGravity is for one or two unknowns, got {flat.size}: take Ellipsoid."
            )
        center = _planar(flat)
        square = jnp.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], flat.dtype)
        corners = center[None] + self.radius * square[jnp.minimum(jnp.arange(CAPACITY), 4) % 4]
        value, gradient = problem.value_and_gradient(y)
        subgradient = _planar(ravel_pytree(gradient)[0])
        return CenterOfGravityState(value, gradient, corners, center, subgradient, jnp.array(False))

    def step(
        self, problem: Any, y: PyTree[Array], state: CenterOfGravityState
    ) -> tuple[PyTree[Array], CenterOfGravityState]:
        flat, unravel = ravel_pytree(y)
        corners = _cut(state.corners, state.center, state.subgradient)
        center = _center_of_gravity(corners)
        at = unravel(center[: flat.size])
        value, gradient = problem.value_and_gradient(at)
        subgradient = _planar(ravel_pytree(gradient)[0])
        # Without room for another corner, or where a cut changes nothing, no step follows.
        full = jnp.any(corners[-1] != corners[0])
        at_rest = full | jnp.all(center == state.center)
        worse = value > state.value  # NaN is not, and is heard
        y, best, slope = otu.where(worse, (y, state.value, state.gradient), (at, value, gradient))
        return y, CenterOfGravityState(best, slope, corners, center, subgradient, at_rest)

    def terminate(self, problem: Any, y: PyTree[Array], state: CenterOfGravityState) -> Any:
        return Status.where(state.at_rest, Status.stalled, Status.running)

    def known(self, problem: Any, y: PyTree[Array], state: CenterOfGravityState) -> Known:
        return Known(state.value, state.gradient)


def _planar(flat: Float[Array, " n"]) -> Float[Array, " 2"]:
    """Of one unknown a point in the plane: its interval is a rectangle that is cut upright."""
    return jnp.pad(flat, (0, 2 - flat.size))


def _cut(
    corners: Float[Array, "k 2"], center: Float[Array, " 2"], g: Float[Array, " 2"]
) -> Float[Array, "k 2"]:
    """What a half plane leaves of a convex polygon, by the algorithm of Sutherland and Hodgman."""
    after = jnp.roll(corners, -1, axis=0)
    here, there = ((points - center[None]) @ g for points in (corners, after))
    crosses = (here <= 0) != (there <= 0)
    share = here / jnp.where(crosses, here - there, 1)
    crossing = corners + share[:, None] * (after - corners)
    kept = (here <= 0) & jnp.any(corners != after, axis=1)
    points = jnp.stack([corners, crossing], axis=1).reshape(-1, 2)
    order = jnp.argsort(~jnp.stack([kept, crosses], axis=1).ravel())[: len(corners)]
    held = jnp.arange(len(corners)) < jnp.sum(kept) + jnp.sum(crosses)
    return jnp.where(held[:, None], points[order], points[order[:1]])


def _center_of_gravity(corners: Float[Array, "k 2"]) -> Float[Array, " 2"]:
    """That of a polygon, as the mean of triangles which have the first corner in common."""
    here = corners - corners[:1]
    after = jnp.roll(here, -1, axis=0)
    areas = here[:, 0] * after[:, 1] - here[:, 1] * after[:, 0]
    total = jnp.sum(areas)
    # Of no area but rounding, one corner is as good as any.
    share = areas / jnp.where(total > 0, total, 1)
    return corners[0] + share @ (here + after) / 3
