"""Gradient steps in a metric that fits the problem, plain or accelerated.

Doikov, Rodomanov (2023), Polynomial Preconditioning for Gradient Methods.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import lineax as lx
import optax.tree as otu
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PyTree

from ..method import AbstractMethod
from ..problem import AbstractObjective, AbstractProblem, Known
from ..solution import Status
from ..validate import as_operator, in_range, one_of, require_operator_on
from ._shared import descent, eased


class PreconditionedGradientState(eqx.Module):
    value: Float[Array, ""]
    gradient: PyTree[Array]
    descended: PyTree[Array]
    smoothness: Float[Array, ""]
    weight: Float[Array, ""]
    at_rest: Bool[Array, ""]


class PreconditionedGradient(AbstractMethod[PreconditionedGradientState]):
    """Gradient descent with a preconditioner, x+ = y - s P g(y).

    Plain, y+ is x+; accelerated, y+ goes on by Nesterov's momentum, y+ = x+ + c (x+ - x), for which
    P^-1, the metric, is not needed. The answer is y, where the gradient is taken.

    Args:
        preconditioner: P, a positive definite Lineax operator on the entries of y as one vector, or
            a matrix, such as `raphson.linear.symmetric_polynomial` of a B with mu B <= H <= L B
            for all Hessians H; by default I.
        accelerated: whether there is momentum.
        step_size: s, positive; 1 / (L b) where b is the greatest eigenvalue of P B; by default
            found at each step by backtracking, at the price of function values.
        strong_convexity: that of f in the metric P^-1, positive; mu a where a is the least
            eigenvalue of P B. The momentum is then constant and the accelerated rate linear.

    Raises:
        ValueError: if `step_size` or `strong_convexity` is not positive, `accelerated` is neither
            True nor False, or `preconditioner` does not fit the start.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> H = jnp.array([100.0, 2.0, 1.0])
        >>> problem = rp.Minimize(lambda y, H: jnp.vdot(H, (y - 1) ** 2) / 2, jnp.zeros(3), H)
        >>> P = rp.linear.symmetric_polynomial(jnp.diag(H), 2)
        >>> int(rp.solve(problem, rp.smooth.PreconditionedGradient(P), rtol=1e-3).stats.steps) < 10
        True
    """

    preconditioner: lx.AbstractLinearOperator | None = eqx.field(
        default=None, converter=lambda P: None if P is None else as_operator(P, "preconditioner")
    )
    accelerated: bool = eqx.field(default=False, static=True)
    step_size: float | None = None
    strong_convexity: float | None = None

    question: ClassVar[type[AbstractProblem]] = AbstractObjective

    def __check_init__(self):
        one_of(self, "accelerated", (False, True))
        for name in ("step_size", "strong_convexity"):
            if getattr(self, name) is not None:
                in_range(self, name, 0)

    def init(
        self, problem: Any, y: PyTree[Array], key: Array | None
    ) -> PreconditionedGradientState:
        if self.preconditioner is not None:
            require_operator_on(self, "preconditioner", y)
        value, gradient = problem.value_and_gradient(y)
        one = smoothness = jnp.ones_like(value)
        if self.accelerated and self.step_size is None:
            # L never falls then, and it has the units of P: the curvature along the first step.
            direction = self._preconditioned(gradient)
            curvature = jnp.asarray(otu.vdot(direction, problem.hvp(y, direction)))
            slope = jnp.asarray(otu.vdot(gradient, direction))
            fit = (curvature > 0) & (slope > 0) & jnp.isfinite(curvature)
            smoothness = jnp.where(fit, curvature / jnp.where(fit, slope, 1), one)
        return PreconditionedGradientState(value, gradient, y, smoothness, one, jnp.array(False))

    def step(
        self, problem: Any, y: PyTree[Array], state: PreconditionedGradientState
    ) -> tuple[PyTree[Array], PreconditionedGradientState]:
        gradient, smoothness = state.gradient, state.smoothness
        direction = self._preconditioned(gradient)
        if self.step_size is not None:
            smoothness = jnp.ones_like(smoothness) / self.step_size
            descended = otu.add_scale(y, -self.step_size, direction)
        else:
            if not self.accelerated:  # whose rate rests on step sizes that do not grow
                slope = jnp.asarray(otu.vdot(gradient, direction))
                smoothness = eased(state.value, slope, smoothness)
            descended, smoothness = descent(
                problem, y, state.value, gradient, smoothness, direction
            )
        at_rest = jnp.all(ravel_pytree(descended)[0] == ravel_pytree(y)[0])

        y, weight = descended, state.weight
        if self.accelerated:
            weight = (1 + jnp.sqrt(1 + 4 * state.weight**2)) / 2
            momentum = (state.weight - 1) / weight
            if self.strong_convexity is not None:
                root = jnp.sqrt(smoothness / self.strong_convexity)
                momentum = (root - 1) / (root + 1)
            move = otu.sub(descended, state.descended)
            y = otu.add_scale(descended, momentum, move)
        value, gradient = problem.value_and_gradient(y)
        return y, PreconditionedGradientState(
            value, gradient, descended, smoothness, weight, at_rest
        )

    def terminate(self, problem: Any, y: PyTree[Array], state: PreconditionedGradientState) -> Any:
        return Status.where(state.at_rest, Status.stalled, Status.running)

    def known(self, problem: Any, y: PyTree[Array], state: PreconditionedGradientState) -> Known:
        return Known(state.value, state.gradient)

    def _preconditioned(self, gradient: PyTree[Array]) -> PyTree[Array]:
        if self.preconditioner is None:
            return gradient
        flat, unravel = ravel_pytree(gradient)
        return unravel(self.preconditioner.mv(flat))
