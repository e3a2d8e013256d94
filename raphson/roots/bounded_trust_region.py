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
from jaxtyping import Array, Float, Int, PyTree

from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ..solution import Status
from ..validate import one_of
from .problem import AbstractBounded, BoundedLeastSquares

# A step goes at most this share of the way to a bound.
INTERIOR = 0.99995
# Where |F|^2 no longer falls by more than its rounding the gradient may still do so, for a while.
PATIENCE = 30


class BoundedTrustRegionState(eqx.Module):
    residual: Float[Array, " m"]
    jacobian: Float[Array, "m n"]
    radius: Float[Array, ""]
    idle: Int[Array, ""]


class BoundedTrustRegion(AbstractMethod[BoundedTrustRegionState]):
    """An interior trust region for F(y) = 0, or least |F|, within bounds.

    The gradient g = J^T F vanishes at an answer wherever the bounds leave room: D g = 0, with D a
    diagonal matrix that is 0 only at a bound against which -g pushes. A step p is the best of

    - argmin |F + J p| where |D^-1/2 p| <= radius;
    - argmin |F + J p|^2 + <p, D^-1 C p>, likewise, with C = max(0, g dD/dy): Newton's step for
      D g = 0, which is fast where |F| is least at a bound;
    - the steepest descent -t D g;

    by the least |F + J p| after each was brought inside the bounds: by truncation, the first two
    also by projection, and never quite to a bound. For the distances a = y - l and b = u - y, d_i
    is by `scaling`

    - `"coleman_li"`: a if g > 0, b if g < 0; 1 where that is infinite;
    - `"heinkenschloss"`: Coleman and Li's, but 1 where |g| and min(a, b) are alike, neither being
      less than the square of the other;
    - `"kanzow_klug"`: min(a + max(0, -g), b + max(0, g)); 1 where that is infinite;
    - `"hager_mair_zhang"`: x / (x + |g|), where x = a if g > 0, b if g < 0;
    - `"combination"`: the mean of the four.

    The paper steps along a dogleg. Here the trust region's problem is solved by the singular values
    of J D^1/2, which is exact and serves a J of deficient rank, too. A start on a bound counts as
    one a rounding off it.

    Args:
        scaling: the rule for D.

    Raises:
        ValueError: if `scaling` is none of these.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> fn = lambda y, _: jnp.stack([y[0] ** 2 - 4, y[0] * y[1] - 2])
        >>> problem = rp.BoundedRootFind(fn, jnp.array([0.5, 0.5]), lower=0.0, upper=3.0)
        >>> rp.solve(problem, rp.roots.BoundedTrustRegion()).value.round(3).tolist()
        [2.0, 1.0]
    """

    scaling: str = "coleman_li"

    question: ClassVar[type[AbstractProblem]] = AbstractBounded

    def __check_init__(self):
        one_of(self, "scaling", (*SCALINGS, "combination"))

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> BoundedTrustRegionState:
        residual = ravel_pytree(problem.residual(y))[0]
        jacobian = problem.jacobian(y).as_matrix()
        one = jnp.ones((), residual.dtype)
        return BoundedTrustRegionState(residual, jacobian, one, jnp.array(0, jnp.int32))

    def step(
        self, problem: Any, y: PyTree[Array], state: BoundedTrustRegionState
    ) -> tuple[PyTree[Array], BoundedTrustRegionState]:
        flat, unravel = ravel_pytree(y)
        lower, upper = ravel_pytree(problem.lower)[0], ravel_pytree(problem.upper)[0]
        F, J, radius = state.residual, state.jacobian, state.radius
        g = J.T @ F
        eps, tiny = jnp.finfo(F.dtype).eps, jnp.finfo(F.dtype).tiny
        # A start on a bound may leave it.
        nearest = eps * (1 + jnp.abs(flat))
        below, above = (jnp.maximum(room, nearest) for room in (flat - lower, upper - flat))

        def scaled(move: Array) -> Array:
            chosen = [SCALINGS[name] for name in SCALINGS if self.scaling in (name, "combination")]
            rules = [rule(below + move, above - move, g) for rule in chosen]
            return jnp.mean(jnp.stack(rules), axis=0)

        zeros = jnp.zeros_like(flat)
        d, slope = jax.jvp(scaled, (zeros,), (jnp.ones_like(flat),))
        root, curvature = jnp.sqrt(d), jnp.maximum(slope * g, 0)

        def damped(curvature: Array) -> Array:
            stacked = jnp.concatenate([J * root[None], jnp.diag(jnp.sqrt(curvature))])
            target = jnp.concatenate([F, zeros])
            return root * _within_radius(stacked, target, radius)

        newton = jax.vmap(damped)(jnp.stack([zeros, curvature]))
        along = J @ (d * g)
        t = jnp.minimum(
            jnp.vdot(d * g, g) / jnp.maximum(jnp.vdot(along, along), tiny),
            radius / jnp.maximum(jnp.linalg.norm(root * g), tiny),
        )

        def truncated(p: Array) -> Array:
            room = jnp.where(p > 0, upper - flat, flat - lower) / jnp.where(p == 0, 1, jnp.abs(p))
            share = jnp.min(jnp.where(p == 0, jnp.inf, room), initial=jnp.inf)
            return jnp.where(share > 1, 1, share * _interior(p)) * p

        def projected(p: Array) -> Array:
            p = jnp.clip(flat + p, lower, upper) - flat
            return _interior(p) * p

        steps = jnp.concatenate(
            [
                jax.vmap(projected)(newton),
                jax.vmap(truncated)(jnp.concatenate([newton, (-t * d * g)[None]])),
            ]
        )
        models = steps @ g + jnp.sum((steps @ J.T) ** 2, axis=1) / 2
        best = jnp.nanargmin(models)
        p, promised = steps[best], -models[best]

        trial = jnp.clip(flat + p, lower, upper)
        residual = ravel_pytree(problem.residual(unravel(trial)))[0]
        # Near an answer the fall drowns in the rounding of |F|^2, which must not reject a step.
        rounding = 5 * eps * jnp.sum(F**2)
        fallen = (jnp.sum(F**2) - jnp.sum(residual**2)) / 2
        ratio = (fallen + rounding) / (promised + rounding)
        accepted = ratio >= 1e-4
        jacobian = jax.lax.cond(
            accepted, lambda: problem.jacobian(unravel(trial)).as_matrix(), lambda: J
        )

        length = jnp.linalg.norm(jnp.where(root > 0, p / root, 0))
        at_edge = jnp.linalg.norm(newton[0] / root) > 0.9 * radius
        shorter = jnp.minimum(radius, length) / 4
        radius = jnp.where(
            ratio >= 0.25, jnp.where((ratio >= 0.75) & at_edge, 2, 1) * radius, shorter
        )
        idle = jnp.where(fallen > rounding, 0, state.idle + 1)
        idle = jnp.where(jnp.all(trial == flat), PATIENCE, idle)
        y = unravel(jnp.where(accepted, trial, flat))
        residual = jnp.where(accepted, residual, F)
        return y, BoundedTrustRegionState(residual, jacobian, radius, idle)

    def terminate(self, problem: Any, y: PyTree[Array], state: BoundedTrustRegionState) -> Any:
        status = Status.where(state.idle >= PATIENCE, Status.stalled, Status.running)
        return Status.where(jnp.all(jnp.isfinite(state.jacobian)), status, Status.nonfinite)

    def known(self, problem: Any, y: PyTree[Array], state: BoundedTrustRegionState) -> Known:
        if isinstance(problem, BoundedLeastSquares):
            gradient = ravel_pytree(y)[1](state.jacobian.T @ state.residual)
            value = jnp.sum(state.residual**2) / 2
            return Known(value, problem.projected_gradient(y, gradient))
        return Known(residual=state.residual)


def _interior(p: Float[Array, " n"]) -> Float[Array, ""]:
    """How much of a step that ends on a bound is taken: all in the limit, so that it is fast."""
    return jnp.maximum(INTERIOR, 1 - jnp.linalg.norm(p))


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


def _coleman_li(below: Array, above: Array, g: Array) -> Array:
    near = _ahead(below, above, g)
    return jnp.where(jnp.isfinite(near), near, 1)


def _heinkenschloss(below: Array, above: Array, g: Array) -> Array:
    near, size = jnp.minimum(below, above), jnp.abs(g)
    apart = (size < near**2) | (near < size**2)
    return jnp.where(apart, _coleman_li(below, above, g), 1)


def _kanzow_klug(below: Array, above: Array, g: Array) -> Array:
    near = jnp.minimum(below + jnp.maximum(0, -g), above + jnp.maximum(0, g))
    return jnp.where(jnp.isfinite(near), near, 1)


def _hager_mair_zhang(below: Array, above: Array, g: Array) -> Array:
    return 1 / (1 + jnp.abs(g) / _ahead(below, above, g))


def _ahead(below: Array, above: Array, g: Array) -> Array:
    """The room in the direction of descent; where there is none, the lesser."""
    return jnp.where(g > 0, below, jnp.where(g < 0, above, jnp.minimum(below, above)))


SCALINGS: dict[str, Callable[[Array, Array, Array], Array]] = {
    "coleman_li": _coleman_li,
    "heinkenschloss": _heinkenschloss,
    "kanzow_klug": _kanzow_klug,
    "hager_mair_zhang": _hager_mair_zhang,
}
