"""Whether a nonexpansive map has a fixed point at all, from how far a run of it went.

Park, Ryu (2023), Accelerated Infeasibility Detection of Constrained Optimization and Fixed-Point
Iterations.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, ArrayLike, Bool, Float, PyTree

from ..compiled import compiled
from ..roots.problem import FixedPoint
from ..validate import require_number


class InfimalDisplacement(eqx.Module):
    """What a run says of v, the least displacement y - T(y), which is 0 where T has fixed points.

    Attributes:
        residual: y - T(y), which tends to v and is never shorter than v.
        difference: the way from y to the start, for each step, which tends to v too.
        disagreement: the distance of the two estimates over the length of `residual`.
        distance: no fixed point is nearer to the start than this, if T is nonexpansive.
        rtol: what `disagreement` is held against.
    """

    residual: PyTree[Array]
    difference: PyTree[Array]
    disagreement: Float[Array, ""]
    distance: Float[Array, ""]
    rtol: Float[Array, ""]

    @property
    def infeasible(self) -> Bool[Array, ""]:
        """Whether the estimates agree on a v that is not 0.

        Slow convergence looks so for a while; `distance`, which grows without bound where there is
        no fixed point, is certain.
        """
        return self.disagreement <= self.rtol


def infimal_displacement(
    problem: FixedPoint,
    y: PyTree[Array],
    steps: ArrayLike,
    *,
    speed: ArrayLike = 1.0,
    rtol: float = 0.01,
) -> InfimalDisplacement:
    """Probe where a run drifts: the infimal displacement vector of a nonexpansive map.

    v is the shortest vector in the closure of the range of I - T. After k steps of Picard's
    iteration both (y_0 - y) / k and r = y - T(y) tend to v. Where v is 0 they do so at different
    rates; where it is not they come to agree.

    The bound: |T(y) - y*| <= |y - y*| for a fixed point y* says <r, y*> <= <r, y> - |r|^2 / 2, so
    that y* is at least as far from the start as this half-space. T is asked once; whether it is
    nonexpansive `expansion` may refute.

    Args:
        problem: a fixed-point problem, whose start is that of the run.
        y: where the run came to, shaped as the start.
        steps: how many steps it took, at least 1.
        speed: how much of y - T(y) a step goes where that is constant: 1 for Picard's iteration,
            the weight for Krasnoselskii and Mann's, 1/2 for Halpern's.
        rtol: how near the two estimates must come to each other, relative to their length.

    Returns:
        The estimates and the bound; safe under `jit` and `vmap`.

    Raises:
        ValueError: if `problem` is no FixedPoint, or a number is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> drift = lambda y, _: jnp.stack([y[0] / 2, y[1] - 0.25])
        >>> problem = rp.FixedPoint(drift, jnp.ones(2))
        >>> run = rp.solve(problem, rp.roots.Halpern(), max_steps=1000, throw=False)
        >>> probe = rp.probes.infimal_displacement(problem, run.value, 1000, speed=0.5)
        >>> bool(probe.infeasible), probe.residual.round(2).tolist(), int(probe.distance)
        (True, [0.0, 0.25], 125)
    """
    if not isinstance(problem, FixedPoint):
        raise ValueError(f"`problem` must be a FixedPoint, got a {type(problem).__name__}.")
    require_number(steps, "`steps`", 1, closed="left")
    require_number(speed, "`speed`", 0)
    require_number(rtol, "`rtol`", 0)
    return compiled(_probed, problem, y, jnp.asarray(steps), speed, rtol)


def _probed(problem: Any, y: Any, steps: Any, speed: Any, rtol: Any) -> InfimalDisplacement:
    residual = otu.sub(y, problem.apply(y))
    way = otu.sub(problem.y0, y)
    size = otu.norm(residual)
    difference = otu.scale(1 / (speed * jnp.asarray(steps, size.dtype)), way)
    disagreement = otu.norm(otu.sub(residual, difference)) / size
    # At a fixed point there is no half-space, and no bound.
    there = size > 0
    distance = otu.vdot(residual, way) / jnp.where(there, size, 1) + size / 2
    return InfimalDisplacement(
        residual=residual,
        difference=difference,
        disagreement=jnp.where(there, disagreement, jnp.inf),
        distance=jnp.where(there, jnp.maximum(distance, 0), 0),
        rtol=jnp.asarray(rtol, size.dtype),
    )
