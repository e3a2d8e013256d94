"""Gauss-Newton steps inside of bounds by products with the Jacobian alone.

Coleman, Li (1996), An Interior Trust Region Approach for Nonlinear Minimization Subject to Bounds;
with conjugate gradients inside a trust region, as by Steihaug (1983), The Conjugate Gradient Method
and Trust Regions in Large Scale Optimization.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as otu
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ..smooth._trust_region import steihaug
from ..solution import Status
from ..validate import in_range, whole_number
from ._shared import Region, boxed, moved, region, steepest
from .problem import AbstractBounded, BoundedLeastSquares
from .scalings import ColemanLi


class BoundedTruncatedGaussNewtonState(eqx.Module):
    region: Region
    gradient: Float[Array, " n"]
    slope: Float[Array, ""]  # |D^1/2 g| at the start


class BoundedTruncatedGaussNewton(AbstractMethod[BoundedTruncatedGaussNewtonState]):
    """`BoundedTrustRegion` for many unknowns: a handful of vectors, and no matrix.

    With D the scaling of Coleman and Li, p = D^1/2 s and C = max(0, g dD/dy), a step is the better
    of

    - argmin |F + J p|^2 + <s, C s> where |s| <= radius;
    - the steepest descent -t D g;

    each brought inside of the bounds as there. The first is found by conjugate gradients on
    (D^1/2 J'J D^1/2 + C) s = -D^1/2 g, which end at a part of |D^1/2 g| that shrinks, or on the
    border of the trust region. Without C their matrix would be singular at a bound; with it the
    convergence is fast where |F| is least at a bound, and only linear, with the rate 1/2, to a root
    there.

    Args:
        radius: of the first trust region, positive; by default the length of the start, at least 1.
        max_products: how many products with J'J a step may take, at least 1.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> fn = lambda y, _: y - jnp.array([-1.0, 0.5, 3.0])
        >>> problem = rp.BoundedLeastSquares(fn, jnp.full(3, 0.5), lower=0.0, upper=1.0)
        >>> rp.solve(problem, rp.roots.BoundedTruncatedGaussNewton()).value.round(3).tolist()
        [0.0, 0.5, 1.0]
    """

    radius: float | None = None
    max_products: int = 5000

    question: ClassVar[type[AbstractProblem]] = AbstractBounded

    def __check_init__(self):
        whole_number(self.max_products, "max_products", 1)
        if self.radius is not None:
            in_range(self, "radius", 0)

    def init(
        self, problem: Any, y: PyTree[Array], key: Array | None
    ) -> BoundedTruncatedGaussNewtonState:
        radius = jnp.maximum(1, otu.norm(y)) if self.radius is None else self.radius
        F = problem.residual(y)
        g = ravel_pytree(problem.vjp(y, F))[0]
        d, _ = boxed(problem, y).scaled(ColemanLi(), g)
        slope = jnp.linalg.norm(jnp.sqrt(d) * g)
        return BoundedTruncatedGaussNewtonState(region(F, radius), g, slope)

    def step(
        self, problem: Any, y: PyTree[Array], state: BoundedTruncatedGaussNewtonState
    ) -> tuple[PyTree[Array], BoundedTruncatedGaussNewtonState]:
        g, radius, unravel = state.gradient, state.region.radius, ravel_pytree(y)[1]
        d, curvature = boxed(problem, y).scaled(ColemanLi(), g)
        root = jnp.sqrt(d)
        slope = jnp.linalg.norm(root * g)
        tolerance = jnp.minimum(0.1, jnp.sqrt(slope / state.slope)) * slope

        jvp = lambda p: problem.jvp(y, unravel(p))
        normal = lambda p: ravel_pytree(problem.vjp(y, jvp(p)))[0]

        product = lambda s: root * normal(root * s) + curvature * s
        s, _ = steihaug(product, root * g, radius, tolerance, self.max_products)
        descent = steepest(d, g, ravel_pytree(jvp(d * g))[0], radius)
        model = lambda p: jnp.vdot(p, g) + otu.norm(jvp(p), squared=True) / 2
        models = lambda steps: jax.lax.map(model, steps)
        y, after, accepted = moved(problem, y, state.region, d, (root * s)[None], descent, models)
        # F once more, in its own tree: it is little beside many products.
        gradient = lambda: ravel_pytree(problem.vjp(y, problem.residual(y)))[0]
        g = jax.lax.cond(accepted, gradient, lambda: g)
        return y, BoundedTruncatedGaussNewtonState(after, g, state.slope)

    def terminate(
        self, problem: Any, y: PyTree[Array], state: BoundedTruncatedGaussNewtonState
    ) -> Any:
        status = Status.where(state.region.at_rest, Status.stalled, Status.running)
        return Status.where(jnp.all(jnp.isfinite(state.gradient)), status, Status.nonfinite)

    def known(
        self, problem: Any, y: PyTree[Array], state: BoundedTruncatedGaussNewtonState
    ) -> Known:
        F = state.region.residual
        if isinstance(problem, BoundedLeastSquares):
            gradient = ravel_pytree(y)[1](state.gradient)
            return Known(jnp.sum(F**2) / 2, problem.projected_gradient(y, gradient))
        return Known(residual=F)
