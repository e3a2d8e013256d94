"""Gauss-Newton steps inside of bounds, in a trust region that is narrow towards a near bound.

Ayanzadeh, Yazdanian, Shahamatnia (2019), A New Class of Scaling Matrices for Scaled Trust Region
Algorithms; after Bellavia, Macconi, Pieraccini (2012), Constrained Dogleg Methods for Nonlinear
Systems with Simple Bounds, and Coleman, Li (1996), An Interior Trust Region Approach for Nonlinear
Minimization Subject to Bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ..solution import Status
from ._shared import Region, boxed, moved, region, steepest
from .problem import AbstractBounded, BoundedLeastSquares
from .scalings import as_scaling, check_scaling


class BoundedTrustRegionState(eqx.Module):
    region: Region
    jacobian: Float[Array, "m n"]


class BoundedTrustRegion(AbstractMethod[BoundedTrustRegionState]):
    """An interior trust region for F(y) = 0, or least |F|, within bounds.

    The gradient g = J^T F vanishes at an answer wherever the bounds leave room: D g = 0, with D a
    diagonal matrix that is 0 only at a bound against which -g pushes. A step p is the best of

    - argmin |F + J p| where |D^-1/2 p| <= radius;
    - argmin |F + J p|^2 + <p, D^-1 C p>, likewise, with C = max(0, g dD/dy): Newton's step for
      D g = 0, which is fast where |F| is least at a bound;
    - the steepest descent -t D g;

    by the least |F + J p| after each was brought inside the bounds: by truncation, the first two
    also by projection, and never quite to a bound.

    The paper steps along a dogleg. Here the trust region's problem is solved by the singular values
    of J D^1/2, which is exact and serves a J of deficient rank, too. A start on a bound counts as
    one a rounding off it.

    Args:
        scaling: the rule for D: `ColemanLi`, `Heinkenschloss`, `KanzowKlug`, `HagerMairZhang`, a
            `ConvexCombination`, or any function of the distances to the bounds and the gradient;
            or a name for one with its defaults, `"coleman_li"`, `"heinkenschloss"`,
            `"kanzow_klug"`, `"hager_mair_zhang"`, or `"combination"` for the mean of these four.

    Raises:
        ValueError: if `scaling` is none of these.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> fn = lambda y, _: jnp.stack([y[0] ** 2 - 4, y[0] * y[1] - 2])
        >>> problem = rp.BoundedRootFind(fn, jnp.array([0.5, 0.5]), lower=0.0, upper=3.0)
        >>> method = rp.roots.BoundedTrustRegion(rp.roots.KanzowKlug(gamma=0.5))
        >>> rp.solve(problem, method).value.round(3).tolist()
        [2.0, 1.0]
    """

    scaling: str | Callable[[Array, Array, Array], Array] = "coleman_li"

    question: ClassVar[type[AbstractProblem]] = AbstractBounded

    def __check_init__(self):
        check_scaling(self.scaling, "`scaling` of BoundedTrustRegion")

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> BoundedTrustRegionState:
        start = region(problem.residual(y), 1)
        return BoundedTrustRegionState(start, problem.jacobian(y).as_matrix())

    def step(
        self, problem: Any, y: PyTree[Array], state: BoundedTrustRegionState
    ) -> tuple[PyTree[Array], BoundedTrustRegionState]:
        F, J, radius = state.region.residual, state.jacobian, state.region.radius
        g = J.T @ F
        d, curvature = boxed(problem, y).scaled(as_scaling(self.scaling), g)
        root, zeros = jnp.sqrt(d), jnp.zeros_like(g)

        def damped(curvature: Array) -> Array:
            stacked = jnp.concatenate([J * root[None], jnp.diag(jnp.sqrt(curvature))])
            target = jnp.concatenate([F, zeros])
            return root * _within_radius(stacked, target, radius)

        newton = jax.vmap(damped)(jnp.stack([zeros, curvature]))
        descent = steepest(d, g, J @ (d * g), radius)
        models = lambda steps: steps @ g + jnp.sum((steps @ J.T) ** 2, axis=1) / 2
        y, after, accepted = moved(problem, y, state.region, d, newton, descent, models)
        jacobian = jax.lax.cond(accepted, lambda: problem.jacobian(y).as_matrix(), lambda: J)
        return y, BoundedTrustRegionState(after, jacobian)

    def terminate(self, problem: Any, y: PyTree[Array], state: BoundedTrustRegionState) -> Any:
        status = Status.where(state.region.at_rest, Status.stalled, Status.running)
        return Status.where(jnp.all(jnp.isfinite(state.jacobian)), status, Status.nonfinite)

    def known(self, problem: Any, y: PyTree[Array], state: BoundedTrustRegionState) -> Known:
        F = state.region.residual
        if isinstance(problem, BoundedLeastSquares):
            gradient = ravel_pytree(y)[1](state.jacobian.T @ F)
            return Known(jnp.sum(F**2) / 2, problem.projected_gradient(y, gradient))
        return Known(residual=F)


def _within_radius(
    A: Float[Array, "m n"], b: Float[Array, " m"], radius: Float[Array, ""]
) -> Float[Array, " n"]:
    """argmin |A p + b| where |p| <= radius, the shortest where there are several.

    It is p = -(A^T A + mu I)^-1 A^T b with the least mu >= 0 that makes it so short. Newton's
    method for 1 / |p| = 1 / radius, which is concave in mu, comes to it from below.
    """
    U, s, Vt = jnp.linalg.svd(A, full_matrices=False)
    kept = s > max(A.shape) * jnp.finfo(A.dtype).eps * jnp.max(s, initial=0)
    s, c = jnp.where(kept, s, 1), jnp.where(kept, U.T @ b, 0)

    def long(carry: Any) -> Array:
        mu, count = carry
        return (jnp.linalg.norm(s * c / (s**2 + mu)) > 1.01 * radius) & (count < 30)

    def raised(carry: Any) -> Any:
        mu, count = carry
        p = s * c / (s**2 + mu)
        size = jnp.linalg.norm(p)
        return mu + (size / radius - 1) * size**2 / jnp.sum(p**2 / (s**2 + mu)), count + 1

    # |p| is at least each of its entries.
    least = jnp.max(jnp.abs(s * c) / radius - s**2, initial=0)
    mu, _ = jax.lax.while_loop(long, raised, (least, 0))
    return -Vt.T @ (s * c / (s**2 + mu))
