"""Newton's method by products with the Hessian alone: conjugate gradients inside a trust region.

Steihaug (1983), The Conjugate Gradient Method and Trust Regions in Large Scale Optimization; Dembo,
Steihaug (1983), Truncated-Newton Algorithms for Large-Scale Unconstrained Optimization.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, Float, PyTree

from ..method import AbstractMethod
from ..problem import AbstractObjective, AbstractProblem, Known
from ..solution import Status
from ..validate import in_range, whole_number
from ._trust_region import TrustRegion, moved, steihaug, trust_region


class TruncatedNewtonState(eqx.Module):
    region: TrustRegion
    slope: Float[Array, ""]


class TruncatedNewton(AbstractMethod[TruncatedNewtonState]):
    """Newton's method for many unknowns: a handful of vectors, and no matrix.

    The step goes down the quadratic model <g, h> + <H h, h> / 2 by conjugate gradients from h = 0.
    They end where |g + H h| <= eta |g|, with eta = min(1/10, sqrt(|g| / |g_0|)), or on the border
    of the trust region |h| <= r, which they follow p to where p has no positive curvature. A step
    that does not fall as its model promised is taken back and r shrunk; one that falls over 1.5
    times as far is doubled as long as f falls.

    Args:
        radius: r of the first step, positive; by default the length of the start, at least 1.
        max_products: how many products with the Hessian a step may take, at least 1.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> chain = lambda y, _: jnp.sum(100 * (y[1:] - y[:-1] ** 2) ** 2 + (1 - y[:-1]) ** 2)
        >>> problem = rp.Minimize(chain, jnp.zeros(10))
        >>> rp.solve(problem, rp.smooth.TruncatedNewton()).value[:3].round(2).tolist()
        [1.0, 1.0, 1.0]
    """

    radius: float | None = None
    max_products: int = 5000

    question: ClassVar[type[AbstractProblem]] = AbstractObjective

    def __check_init__(self):
        whole_number(self.max_products, "max_products", 1)
        if self.radius is not None:
            in_range(self, "radius", 0)

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> TruncatedNewtonState:
        radius = jnp.maximum(1, otu.norm(y)) if self.radius is None else self.radius
        region = trust_region(problem, y, radius)
        return TruncatedNewtonState(region, otu.norm(region.gradient))

    def step(
        self, problem: Any, y: PyTree[Array], state: TruncatedNewtonState
    ) -> tuple[PyTree[Array], TruncatedNewtonState]:
        slope = otu.norm(state.region.gradient)
        forcing = jnp.minimum(0.1, jnp.sqrt(slope / state.slope))
        h, promised = steihaug(
            lambda v: problem.hvp(y, v),
            state.region.gradient,
            state.region.radius,
            forcing * slope,
            self.max_products,
        )
        y, region = moved(problem, y, state.region, h, promised)
        return y, TruncatedNewtonState(region, state.slope)

    def terminate(self, problem: Any, y: PyTree[Array], state: TruncatedNewtonState) -> Any:
        return Status.where(state.region.at_rest, Status.stalled, Status.running)

    def known(self, problem: Any, y: PyTree[Array], state: TruncatedNewtonState) -> Known:
        return Known(state.region.value, state.region.gradient)
