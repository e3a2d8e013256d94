"""Newton's method by products with the Hessian alone: conjugate gradients inside a trust region.

Steihaug (1983), The Conjugate Gradient Method and Trust Regions in Large Scale Optimization; Dembo,
Steihaug (1983), Truncated-Newton Algorithms for Large-Scale Unconstrained Optimization.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, Bool, Float, PyTree

from ..method import AbstractMethod, finite
from ..problem import AbstractObjective, AbstractProblem, Known
from ..solution import Status
from ..validate import in_range, whole_number


class TruncatedNewtonState(eqx.Module):
    value: Float[Array, ""]
    gradient: PyTree[Array]
    radius: Float[Array, ""]
    slope: Float[Array, ""]
    at_rest: Bool[Array, ""]


class TruncatedNewton(AbstractMethod[TruncatedNewtonState]):
    """Newton's method for many unknowns: a handful of vectors, and no matrix.

    The step goes down the quadratic model <g, h> + <H h, h> / 2 by conjugate gradients from h = 0.
    They end where |g + H h| <= eta |g|, with eta = min(1/2, sqrt(|g| / |g_0|)), or on the border of
    the trust region |h| <= r, which they follow p to where p has no positive curvature. A step that
    does not fall as its model promised is taken back and r shrunk.

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
        value, gradient = problem.value_and_gradient(y)
        radius = jnp.maximum(1, otu.norm(y)) if self.radius is None else self.radius
        radius = jnp.asarray(radius, value.dtype)
        return TruncatedNewtonState(value, gradient, radius, otu.norm(gradient), jnp.array(False))

    def step(
        self, problem: Any, y: PyTree[Array], state: TruncatedNewtonState
    ) -> tuple[PyTree[Array], TruncatedNewtonState]:
        slope = otu.norm(state.gradient)
        forcing = jnp.minimum(0.5, jnp.sqrt(slope / state.slope))
        h, promised = self._step(problem, y, state, forcing * slope)
        trial = otu.add(y, h)
        value, gradient = problem.value_and_gradient(trial)

        # Near a solution the decrease drowns in the rounding of f, which must not reject a step.
        rounding = 10 * jnp.finfo(value.dtype).eps * jnp.abs(state.value)
        ratio = (state.value - value + rounding) / (promised + rounding)
        accepted = (ratio >= 0.1) & finite(gradient)
        length = otu.norm(h)
        at_border = length >= 0.99 * state.radius
        grown = jnp.where((ratio >= 0.75) & at_border, 2 * state.radius, state.radius)
        radius = jnp.where(ratio >= 0.25, grown, length / 2)

        at_rest = jnp.all(jnp.array([jnp.all(a == b) for a, b in _pairs(trial, y)]))
        y, value, gradient = jax.tree.map(
            lambda new, old: jnp.where(accepted, new, old),
            (trial, value, gradient),
            (y, state.value, state.gradient),
        )
        return y, TruncatedNewtonState(value, gradient, radius, state.slope, at_rest)

    def terminate(self, problem: Any, y: PyTree[Array], state: TruncatedNewtonState) -> Any:
        return Status.where(state.at_rest, Status.stalled, Status.running)

    def known(self, problem: Any, y: PyTree[Array], state: TruncatedNewtonState) -> Known:
        return Known(state.value, state.gradient)

    def _step(
        self, problem: Any, y: PyTree[Array], state: TruncatedNewtonState, tolerance: Array
    ) -> tuple[PyTree[Array], Float[Array, ""]]:
        """The step h, and how much its model falls."""
        g = state.gradient

        def going(carry: Any) -> Array:
            *_, ended, count = carry
            return ~ended & (count < self.max_products)

        def body(carry: Any) -> Any:
            h, residual, p, square, _, count = carry
            Hp = problem.hvp(y, p)
            # Where there is no Hessian the model is linear along p.
            Hp = otu.where(finite(Hp), Hp, otu.zeros_like(Hp))
            curvature = otu.vdot(p, Hp)
            pp, hp, hh = otu.vdot(p, p), otu.vdot(h, p), otu.vdot(h, h)
            room = jnp.maximum(state.radius**2 - hh, 0)
            to_border = (jnp.sqrt(hp**2 + pp * room) - hp) / pp
            alpha = square / curvature
            leaves = ~jnp.greater(curvature, 0) | (alpha >= to_border)
            alpha = jnp.where(leaves, to_border, alpha)
            h, residual = otu.add_scale(h, alpha, p), otu.add_scale(residual, alpha, Hp)
            last, square = square, otu.vdot(residual, residual)
            p = otu.add_scale(otu.scale(-1, residual), square / last, p)
            return h, residual, p, square, leaves | (jnp.sqrt(square) <= tolerance), count + 1

        start = (otu.zeros_like(g), g, otu.scale(-1, g), otu.vdot(g, g), jnp.array(False), 0)
        h, residual, *_ = jax.lax.while_loop(going, body, start)
        # The residual is g + H h, so that this is -<g, h> - <H h, h> / 2.
        return h, jnp.asarray(otu.vdot(otu.add(g, residual), otu.scale(-0.5, h)))


def _pairs(a: PyTree[Array], b: PyTree[Array]) -> list[tuple[Array, Array]]:
    return list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
