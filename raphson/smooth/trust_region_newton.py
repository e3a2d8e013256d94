"""Newton's method with dense Hessians inside a trust region that knows the scales of the unknowns.

Steihaug (1983), The Conjugate Gradient Method and Trust Regions in Large Scale Optimization; the
scaling after More (1978), The Levenberg-Marquardt Algorithm: Implementation and Theory.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PyTree

from ..method import AbstractMethod
from ..problem import AbstractObjective, AbstractProblem, Known
from ..solution import Status
from ..validate import in_range
from ._trust_region import TrustRegion, moved, steihaug, trust_region


class TrustRegionNewtonState(eqx.Module):
    region: TrustRegion
    hessian: Float[Array, "n n"]  # of the iterate before, where `moved` says so
    scale: Float[Array, " n"]
    slope: Float[Array, ""]  # that of the start, in D y; 0 before the first step
    moved: Bool[Array, ""]


class TrustRegionNewton(AbstractMethod[TrustRegionNewtonState]):
    """Newton's method for up to some hundred unknowns, of whatever units.

    In the variables D y, where D_j is the root of the greatest |H_jj| so far, the step goes down
    the quadratic model <g, h> + <H h, h> / 2 by conjugate gradients from h = 0. They end where
    |g + H h| <= eta |g|, with eta = min(1/2, sqrt(|g| / |g_0|)), or on the border of the trust
    region |h| <= r, which they follow p to where p has no positive curvature. A step that does not
    fall as its model promised is taken back and r shrunk; one that falls over 1.5 times as far is
    doubled as long as f falls. Other units of the unknowns change nothing.

    Args:
        radius: r of the first step, positive, in D y; by default the length of the start, or where
            that is 0, of the gradient.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> rosenbrock = lambda y, _: (1 - y[0]) ** 2 + 100 * (y[1] - y[0] ** 2) ** 2
        >>> problem = rp.Minimize(rosenbrock, jnp.array([-1.2, 1.0]))
        >>> rp.solve(problem, rp.smooth.TrustRegionNewton()).value.round(3).tolist()
        [1.0, 1.0]
    """

    radius: float | None = None

    question: ClassVar[type[AbstractProblem]] = AbstractObjective

    def __check_init__(self):
        if self.radius is not None:
            in_range(self, "radius", 0)

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> TrustRegionNewtonState:
        flat = ravel_pytree(y)[0]
        region = trust_region(problem, y, 0.0)
        # The first step fills in the rest: an oracle asked in one place is compiled once.
        hessian, scale = jnp.zeros((flat.size, flat.size), flat.dtype), jnp.zeros_like(flat)
        slope = jnp.zeros_like(region.value)
        return TrustRegionNewtonState(region, hessian, scale, slope, jnp.array(True))

    def step(
        self, problem: Any, y: PyTree[Array], state: TrustRegionNewtonState
    ) -> tuple[PyTree[Array], TrustRegionNewtonState]:
        hessian = jax.lax.cond(state.moved, lambda: _hessian(problem, y), lambda: state.hessian)
        scale = jnp.maximum(state.scale, jnp.sqrt(jnp.abs(jnp.diag(hessian))))
        D = jnp.where(scale > 0, scale, 1)
        gradient, unravel = ravel_pytree(state.region.gradient)
        H, g = hessian / jnp.outer(D, D), gradient / D
        slope, length = jnp.linalg.norm(g), lambda h: jnp.linalg.norm(D * ravel_pytree(h)[0])

        first, radius = state.slope == 0, self.radius
        if radius is None:
            radius = jnp.where(length(y) > 0, length(y), slope)
        radius = jnp.where(first, radius, state.region.radius)
        first_slope = jnp.where(first, slope, state.slope)
        region = eqx.tree_at(lambda region: region.radius, state.region, radius)

        forcing = jnp.minimum(0.5, jnp.sqrt(slope / first_slope))
        h, promised = steihaug(lambda v: H @ v, g, radius, forcing * slope, 10 * g.size)
        trial, region = moved(problem, y, region, unravel(h / D), promised, length)
        still = jnp.all(ravel_pytree(trial)[0] == ravel_pytree(y)[0])
        return trial, TrustRegionNewtonState(region, hessian, scale, first_slope, ~still)

    def terminate(self, problem: Any, y: PyTree[Array], state: TrustRegionNewtonState) -> Any:
        return Status.where(state.region.at_rest, Status.stalled, Status.running)

    def known(self, problem: Any, y: PyTree[Array], state: TrustRegionNewtonState) -> Known:
        return Known(state.region.value, state.region.gradient)


def _hessian(problem: Any, y: PyTree[Array]) -> Float[Array, "n n"]:
    hessian = problem.hessian(y).as_matrix()
    # Without a Hessian the step still goes down the gradient, to the border.
    return jnp.where(jnp.all(jnp.isfinite(hessian)), hessian, 0)
