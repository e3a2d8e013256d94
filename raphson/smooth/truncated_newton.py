"""Newton's method by products with the Hessian alone: conjugate gradients inside a trust region.

Steihaug (1983), The Conjugate Gradient Method and Trust Regions in Large Scale Optimization; Dembo,
Steihaug (1983), Truncated-Newton Algorithms for Large-Scale Unconstrained Optimization. Where these
take long the unknowns are scaled, as by More (1978), The Levenberg-Marquardt Algorithm, with sizes
found by random signs, as by Bekas, Kokiopoulou, Saad (2007), An Estimator for the Diagonal of a
Matrix.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, Float, Int, PyTree

from ..method import AbstractMethod
from ..problem import AbstractObjective, AbstractProblem, Known
from ..solution import Status
from ..validate import in_range, whole_number
from ._trust_region import TrustRegion, moved, squared, steihaug, trust_region


class TruncatedNewtonState(eqx.Module):
    region: TrustRegion
    greatest: PyTree[Array]  # |(H z)_j| so far
    slope: Float[Array, ""]  # at the start, and where the scaling began
    count: Int[Array, ""]


class TruncatedNewton(AbstractMethod[TruncatedNewtonState]):
    """Newton's method for many unknowns: a handful of vectors, and no matrix.

    The step goes down the quadratic model <g, h> + <H h, h> / 2 by conjugate gradients from h = 0.
    They end where |g + H h| <= eta |g|, with eta = min(1/10, sqrt(|g| / |g_0|)), or on the border
    of the trust region |h| <= r, which they follow p to where p has no positive curvature. A step
    that does not fall as its model promised is taken back and r shrunk; one that falls over 1.5
    times as far is doubled as long as f falls.

    A run that takes long may suffer from the units of its unknowns. From step `scaled_after` on all
    this is done in the unknowns D y, begun anew: D_j is the root of the greatest |(H z)_j| so far,
    where signs z are drawn at each step, which costs a product.

    Args:
        radius: r of the first step, positive; by default the length of the start, at least 1, and
            where the scaling begins that of D y.
        max_products: how many products with the Hessian a step may take, at least 1.
        scaled_after: after how many steps the unknowns are scaled; 0 suits units that are known to
            be bad.

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
    scaled_after: int = 1000

    question: ClassVar[type[AbstractProblem]] = AbstractObjective

    def __check_init__(self):
        whole_number(self.max_products, "max_products", 1)
        whole_number(self.scaled_after, "scaled_after")
        if self.radius is not None:
            in_range(self, "radius", 0)

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> TruncatedNewtonState:
        radius = jnp.maximum(1, otu.norm(y)) if self.radius is None else self.radius
        region = trust_region(problem, y, radius)
        slope, count = otu.norm(region.gradient), jnp.array(0, jnp.int32)
        return TruncatedNewtonState(region, otu.zeros_like(y), slope, count)

    def step(
        self, problem: Any, y: PyTree[Array], state: TruncatedNewtonState
    ) -> tuple[PyTree[Array], TruncatedNewtonState]:
        def probed() -> PyTree[Array]:
            key = jax.random.fold_in(jax.random.key(0), state.count)
            Hz = problem.hvp(y, otu.random_like(key, y, jax.random.rademacher))
            sizes = jax.tree.map(lambda leaf: jnp.where(jnp.isfinite(leaf), jnp.abs(leaf), 0), Hz)
            return jax.tree.map(jnp.maximum, state.greatest, sizes)

        scaled = state.count >= self.scaled_after
        greatest = jax.lax.cond(scaled, probed, lambda: state.greatest)
        # To step in D y is to step in y with the weights W = D^2.
        W = lambda: jax.tree.map(lambda leaf: jnp.where(leaf > 0, leaf, 1), greatest)
        inverse = jax.tree.map(lambda leaf: 1 / leaf, W())
        length = lambda h: jnp.sqrt(squared(h, W()))
        g = state.region.gradient
        slope = jnp.sqrt(squared(g, inverse))

        def anew() -> tuple[Array, Array]:
            size = length(y)
            own = jnp.where(size > 0, size, slope)
            return own if self.radius is None else jnp.full_like(own, self.radius), slope

        begins = state.count == self.scaled_after
        radius, first_slope = jax.lax.cond(begins, anew, lambda: (state.region.radius, state.slope))
        region = eqx.tree_at(lambda region: region.radius, state.region, radius)

        forcing = jnp.minimum(0.1, jnp.sqrt(slope / first_slope))
        product = lambda v: problem.hvp(y, v)
        tolerance = forcing * slope
        h, promised = steihaug(product, g, radius, tolerance, self.max_products, inverse)
        y, region = moved(problem, y, region, h, promised, length)
        return y, TruncatedNewtonState(region, greatest, first_slope, state.count + 1)

    def terminate(self, problem: Any, y: PyTree[Array], state: TruncatedNewtonState) -> Any:
        return Status.where(state.region.at_rest, Status.stalled, Status.running)

    def known(self, problem: Any, y: PyTree[Array], state: TruncatedNewtonState) -> Known:
        return Known(state.region.value, state.region.gradient)
