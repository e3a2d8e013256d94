"""Gradient steps preconditioned by the best polynomial of a matrix, anew at each step.

Doikov, Rodomanov (2023), Polynomial Preconditioning for Gradient Methods.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PyTree

from ..method import AbstractMethod, finite
from ..problem import AbstractObjective, AbstractProblem, Known
from ..solution import Status
from ..validate import as_operator, require_operator_on, whole_number
from ._shared import descent, eased


class KrylovGradientState(eqx.Module):
    value: Float[Array, ""]
    gradient: PyTree[Array]
    smoothness: Float[Array, ""]
    at_rest: Bool[Array, ""]


class KrylovGradient(AbstractMethod[KrylovGradientState]):
    """Gradient descent with the polynomial preconditioner of degree tau that suits g best.

    The step is y+ = y - p(B) g / M, where of all polynomials p that of the greatest <g, d> -
    <B d, d> / 2 with d = p(B) g is taken: no fixed preconditioner of degree tau promises a greater
    fall. It costs tau + 1 products with B, for d is what as many steps of conjugate gradients find
    on B d = g. Where mu B <= H <= L B for the Hessians H, M = L will do; it is found by
    backtracking, at the price of function values.

    Args:
        B: a symmetric positive semidefinite Lineax operator on the entries of y as one vector, or a
            matrix, such as A^T A / n for a loss of A y; by default the Hessian at y, by products
            with it.
        tau: the degree, at least 0, with which the method is gradient descent.

    Raises:
        ValueError: if `tau` is not a whole number of at least 0, or `B` does not fit the start.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> H = jnp.array([100.0, 2.0, 1.0])
        >>> problem = rp.Minimize(lambda y, H: jnp.vdot(H, (y - 1) ** 2) / 2, jnp.zeros(3), H)
        >>> method = rp.smooth.KrylovGradient(jnp.diag(H), tau=2)
        >>> int(rp.solve(problem, method, rtol=1e-3).stats.steps)
        2
    """

    B: lx.AbstractLinearOperator | None = eqx.field(
        default=None, converter=lambda B: None if B is None else as_operator(B, "B")
    )
    tau: int = eqx.field(default=3, static=True)

    question: ClassVar[type[AbstractProblem]] = AbstractObjective

    def __check_init__(self):
        whole_number(self.tau, "tau")

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> KrylovGradientState:
        if self.B is not None:
            require_operator_on(self, "B", y)
        value, gradient = problem.value_and_gradient(y)
        # The first step, the longest, is half of what its model asks for.
        return KrylovGradientState(value, gradient, jnp.full_like(value, 4.0), jnp.array(False))

    def step(
        self, problem: Any, y: PyTree[Array], state: KrylovGradientState
    ) -> tuple[PyTree[Array], KrylovGradientState]:
        g, unravel = ravel_pytree(state.gradient)
        d = self._direction(problem, y, g, unravel)
        smoothness = eased(state.value, jnp.vdot(g, d), state.smoothness)
        # On a quadratic with B = H the M that is just right is 1.
        descended, smoothness = descent(
            problem, y, state.value, state.gradient, smoothness, unravel(d), share=0.45
        )
        at_rest = jnp.all(ravel_pytree(descended)[0] == ravel_pytree(y)[0])
        value, gradient = problem.value_and_gradient(descended)
        return descended, KrylovGradientState(value, gradient, smoothness, at_rest)

    def terminate(self, problem: Any, y: PyTree[Array], state: KrylovGradientState) -> Any:
        return Status.where(state.at_rest, Status.stalled, Status.running)

    def known(self, problem: Any, y: PyTree[Array], state: KrylovGradientState) -> Known:
        return Known(state.value, state.gradient)

    def _direction(
        self, problem: Any, y: PyTree[Array], g: Float[Array, " n"], unravel: Any
    ) -> Float[Array, " n"]:
        """The d to which tau + 1 steps of conjugate gradients on B d = g come."""

        def product(p: Array) -> Array:
            if self.B is not None:
                return self.B.mv(p)
            Bp = ravel_pytree(problem.hvp(y, unravel(p)))[0]
            # Where there is no Hessian its part is left to the gradient.
            return jnp.where(finite(Bp), Bp, 0)

        def deeper(_: int, carry: Any) -> Any:
            d, residual, p, square = carry
            Bp = product(p)
            curvature = jnp.vdot(p, Bp)
            # The space is used up at a residual of 0, and no more is to be had from a curvature
            # that is not positive, but that first of all d must be something: the gradient.
            on = (curvature > 0) & (square > 0)
            alpha = jnp.where(on, square / jnp.where(on, curvature, 1), 0)
            d, residual = d + alpha * p, residual - alpha * Bp
            last, square = square, jnp.vdot(residual, residual)
            p = residual + jnp.where(on, square / jnp.where(on, last, 1), 0) * p
            return d, residual, jnp.where(on, p, 0), square

        start = (jnp.zeros_like(g), g, g, jnp.vdot(g, g))
        d, *_ = jax.lax.fori_loop(0, min(self.tau + 1, g.size), deeper, start)
        return jnp.where(jnp.any(d != 0), d, g)
