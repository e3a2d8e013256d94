"""Levenberg-Marquardt that bends its steps, and turns to Newton's where residuals stay large.

Transtrum, Sethna (2012), Improvements to the Levenberg-Marquardt Algorithm for Nonlinear
Least-Squares Minimization; the choice between two models after Dennis, Gay, Welsch (1981), An
Adaptive Nonlinear Least-Squares Algorithm.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ..solution import Status
from ..validate import in_range
from .levenberg_marquardt import PATIENCE, damped_step
from .problem import LeastSquares


class AdaptiveLevenbergMarquardtState(eqx.Module):
    residual: Float[Array, " m"]
    jacobian: Float[Array, "m n"]
    hessian: Float[Array, "n n"]
    factor: Float[Array, ""]
    scale: Float[Array, " n"]
    newton: Bool[Array, ""]
    idle: Int[Array, ""]


class AdaptiveLevenbergMarquardt(AbstractMethod[AdaptiveLevenbergMarquardtState]):
    """Levenberg-Marquardt with geodesic acceleration and a second model.

    In the unknowns D y, where D_j is the length of the longest column j that the Jacobians J had so
    far, the velocity v and the acceleration a solve

        (J^T J + mu I) v = -J^T h,    (J^T J + mu I) a = -J^T h''[v, v],

    with the residual h, its second derivative along v, and mu = c |h|. The step is v + a / 2, which
    follows curved valleys; v alone where 2 |a| > bend |v|. One that does not fall is taken back and
    c doubled; one that falls as promised divides c by 3; one that falls short and ends on a steeper
    slope multiplies it by 100, so that the next returns to the valley's floor.

    Where residuals stay large J^T J is a poor curvature. So where the Hessian H of |h|^2 / 2
    foretold the gradient after a step ten times as well, it takes over, with c raised until
    H + mu I is positive definite, for as long as it stays the better prophet.

    Args:
        bend: the greatest 2 |a| / |v| of a bent step, at least 0; 0 bends none.
        switch: H takes over below this ratio of the errors of both foretold gradients, at least 0
            and at most 1; 0 never lets it.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> t = jnp.array([0.0, 1.0, 2.0, 3.0])
        >>> fit = lambda k, _: jnp.exp(-k[0] * t) - k[1] / (1 + t)
        >>> problem = rp.LeastSquares(fit, jnp.array([3.0, 2.0]))
        >>> rp.solve(problem, rp.roots.AdaptiveLevenbergMarquardt()).value.round(3).tolist()
        [0.55, 1.017]
    """

    bend: float = 0.75
    switch: float = 0.1

    question: ClassVar[type[AbstractProblem]] = LeastSquares

    def __check_init__(self):
        in_range(self, "bend", 0, closed="left")
        in_range(self, "switch", 0, 1, closed="both")

    def init(
        self, problem: Any, y: PyTree[Array], key: Array | None
    ) -> AdaptiveLevenbergMarquardtState:
        residual = ravel_pytree(problem.residual(y))[0]
        jacobian, hessian = _derivatives(problem, y)
        one, zero = jnp.ones((), residual.dtype), jnp.array(0, jnp.int32)
        return AdaptiveLevenbergMarquardtState(
            residual, jacobian, hessian, one, _lengths(jacobian), jnp.array(False), zero
        )

    def step(
        self, problem: Any, y: PyTree[Array], state: AdaptiveLevenbergMarquardtState
    ) -> tuple[PyTree[Array], AdaptiveLevenbergMarquardtState]:
        flat, unravel = ravel_pytree(y)
        D, h = state.scale, state.residual
        J, H = state.jacobian / D[None], state.hessian / jnp.outer(D, D)
        g, size = J.T @ h, jnp.linalg.norm(h)
        mu = state.factor * size

        v = damped_step(J, h, mu)
        a = damped_step(J, ravel_pytree(problem.curvature(y, unravel(v / D)))[0], mu)
        bent = 2 * jnp.linalg.norm(a) <= self.bend * jnp.linalg.norm(v)
        # Where H + mu I is not positive definite its factor is NaN, and so are step and residual.
        factor_of_H = jnp.linalg.cholesky(H + mu * jnp.eye(g.size, dtype=g.dtype))
        newton = -jax.scipy.linalg.cho_solve((factor_of_H, True), g)
        v = jnp.where(state.newton, newton, v)
        d = jnp.where(bent & ~state.newton, v + a / 2, v)
        trial = flat + d / D
        residual = ravel_pytree(problem.residual(unravel(trial)))[0]

        along = jnp.where(state.newton, v @ H @ v, jnp.sum((J @ v) ** 2))
        promised = along + 2 * mu * jnp.sum(v**2)
        rounding = 10 * jnp.finfo(h.dtype).eps * jnp.sum(h**2)
        fallen = jnp.sum(h**2) - jnp.sum(residual**2)
        ratio = (fallen + rounding) / (promised + rounding)
        jacobian, hessian = jax.lax.cond(
            ratio >= 1e-3,
            lambda: _derivatives(problem, unravel(trial)),
            lambda: (state.jacobian, state.hessian),
        )
        slope = (jacobian / D[None]).T @ residual
        # Where the fall drowns in the rounding of |h|^2, gradients tell of it.
        by_gradients = -jnp.vdot(g + slope, v) / promised
        ratio = jnp.where((ratio >= 1e-3) & (promised <= rounding), by_gradients, ratio)
        accepted = ratio >= 1e-3
        # In a curved valley falls are seldom as promised: only near failures damp more. A step that
        # ends on a steeper slope has left its floor, to which a short one leads back.
        grown = jnp.where(ratio < 0.01, 2.0, jnp.where(ratio >= 0.75, 1 / 3, 1.0))
        steeper = jnp.linalg.norm(slope) > jnp.linalg.norm(g)
        grown = jnp.where(accepted & (ratio < 0.25) & steeper, 100.0, grown)
        c = state.factor * jnp.where(jnp.isfinite(ratio), grown, 16.0).astype(mu.dtype)

        error, gauss_error = (
            jnp.linalg.norm(g + product - slope) for product in (H @ v, J.T @ (J @ v))
        )
        better = error < jnp.where(state.newton, 1.0, self.switch) * gauss_error

        # The gradient is down to its rounding where the promise is down to this. That the step is
        # short for its damping alone is no rest.
        spent = promised <= (jnp.finfo(h.dtype).eps * size) ** 2
        damped = mu * jnp.linalg.norm(v) > jnp.linalg.norm(g) / 2
        rest = (jnp.all(trial == flat) | spent) & ~damped
        idle = jnp.where(rest, PATIENCE, jnp.where(fallen > rounding, 0, state.idle + 1))
        y, residual, jacobian, hessian, newton = jax.tree.map(
            lambda new, old: jnp.where(accepted, new, old),
            (unravel(trial), residual, jacobian, hessian, better),
            (y, h, state.jacobian, state.hessian, state.newton),
        )
        scale = jnp.maximum(D, _lengths(jacobian))
        return y, AdaptiveLevenbergMarquardtState(
            residual, jacobian, hessian, c, scale, newton, idle
        )

    def terminate(
        self, problem: Any, y: PyTree[Array], state: AdaptiveLevenbergMarquardtState
    ) -> Any:
        status = Status.where(state.idle >= PATIENCE, Status.stalled, Status.running)
        return Status.where(jnp.all(jnp.isfinite(state.jacobian)), status, Status.nonfinite)

    def known(
        self, problem: Any, y: PyTree[Array], state: AdaptiveLevenbergMarquardtState
    ) -> Known:
        value = jnp.sum(state.residual**2) / 2
        return Known(value, state.jacobian.T @ state.residual)


def _derivatives(problem: Any, y: PyTree[Array]) -> tuple[Array, Array]:
    """The Jacobian of h and the Hessian of |h|^2 / 2."""
    return problem.jacobian(y).as_matrix(), problem.hessian(y).as_matrix()


def _lengths(jacobian: Float[Array, "m n"]) -> Float[Array, " n"]:
    """D of one Jacobian."""
    lengths = jnp.linalg.norm(jacobian, axis=0)
    return jnp.where((lengths > 0) & jnp.isfinite(lengths), lengths, 1)
