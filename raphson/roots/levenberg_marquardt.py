"""Levenberg-Marquardt: Gauss-Newton steps damped by powers of the residual.

Ahookhosh, Aragon Artacho, Fleming, Vuong (2019), Local Convergence of the Levenberg-Marquardt
Method under Hoelder Metric Subregularity.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..method import AbstractMethod
from ..problem import AbstractObjective, AbstractProblem, AbstractResidual, Known
from ..solution import Status
from ..validate import in_range, one_of

# Where |h|^2 no longer falls by more than its rounding the gradient may still do so, for a while.
PATIENCE = 100


class LevenbergMarquardtState(eqx.Module):
    residual: Float[Array, " m"]
    jacobian: Float[Array, "m n"]
    factor: Float[Array, ""]
    idle: Int[Array, ""]


class LevenbergMarquardt(AbstractMethod[LevenbergMarquardtState]):
    """Levenberg-Marquardt with the adaptive parameter of Hoelder subregularity.

    The step d solves (J^T J + mu I) d = -J^T h, where h is the residual, J its Jacobian and

        mu = c (xi |h|^eta + omega |J^T h|^eta).

    Near a zero set to which |h|^delta bounds the distance the convergence is fast for eta fit to
    delta: quadratic for delta = 1 and eta in [1, 2]; eta above 4/3 fails to slow h = x^3 (delta =
    1/3) below Newton's rate 2/3. That is the paper's local method, with c = 1, which takes every
    step. With `globalized`, c adapts: a step that does not fall is taken back and c doubled, one
    that falls as its model promised divides c by 3. |h|^eta carries the units of h: scale the
    residuals to order 1, or set xi.

    Args:
        eta: the power, positive.
        xi: weight of the residual, at least 0.
        omega: weight of the gradient, at least 0; not both weights may be 0.
        globalized: whether to guard each step by the decrease of |h|.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.RootFind(lambda y, _: jnp.stack([y[0] ** 2 - 2, y[1] - y[0]]), jnp.ones(2))
        >>> rp.solve(problem, rp.roots.LevenbergMarquardt()).value.round(3).tolist()
        [1.414, 1.414]
    """

    eta: float = 1.0
    xi: float = 1.0
    omega: float = 0.0
    globalized: bool = True

    question: ClassVar[type[AbstractProblem]] = AbstractResidual

    def __check_init__(self):
        one_of(self, "globalized", (False, True))
        in_range(self, "eta", 0)
        in_range(self, "xi", 0, closed="left")
        in_range(self, "omega", 0, closed="left")
        if not isinstance(self.xi + self.omega, Tracer) and self.xi + self.omega == 0:
            raise ValueError("`xi` and `omega` of LevenbergMarquardt must not both be 0.")

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> LevenbergMarquardtState:
        residual = ravel_pytree(problem.residual(y))[0]
        jacobian = problem.jacobian(y).as_matrix()
        one = jnp.ones((), residual.dtype)
        return LevenbergMarquardtState(residual, jacobian, one, jnp.array(0, jnp.int32))

    def step(
        self, problem: Any, y: PyTree[Array], state: LevenbergMarquardtState
    ) -> tuple[PyTree[Array], LevenbergMarquardtState]:
        flat, unravel = ravel_pytree(y)
        h, J = state.residual, state.jacobian
        gradient = J.T @ h
        size, slope = jnp.linalg.norm(h), jnp.linalg.norm(gradient)
        mu = state.factor * (self.xi * size**self.eta + self.omega * slope**self.eta)
        mu = mu.astype(h.dtype)
        d = damped_steps(J, mu)(h)
        trial = flat + d
        residual = ravel_pytree(problem.residual(unravel(trial)))[0]
        promised = jnp.sum((J @ d) ** 2) + 2 * mu * jnp.sum(d**2)
        ratio, drowned, fell = fall(h, residual, promised)
        accepted = (ratio >= 1e-3) if self.globalized else jnp.array(True)
        jacobian = jax.lax.cond(
            accepted, lambda: problem.jacobian(unravel(trial)).as_matrix(), lambda: state.jacobian
        )

        factor, idle = state.factor, jnp.array(0, jnp.int32)
        if self.globalized:
            # Where the fall drowns in the rounding of |h|^2, gradients tell of it.
            by_gradients = -jnp.vdot(gradient + jacobian.T @ residual, d) / promised
            ratio = jnp.where(accepted & drowned, by_gradients, ratio)
            accepted = ratio >= 1e-3
            # In a curved valley falls are seldom as promised: only near failures damp more.
            factor = jnp.where(
                ratio >= 0.75, factor / 3, jnp.where(ratio < 0.01, factor * 2, factor)
            )
            factor = jnp.where(jnp.isfinite(ratio), factor, state.factor * 16)
            idle = jnp.where(fell, 0, state.idle + 1)

        held = mu * jnp.linalg.norm(d) > slope / 2
        rest = at_rest(jnp.any(trial != flat), promised, h, held)
        idle = jnp.where(rest, PATIENCE, idle)
        y = unravel(jnp.where(accepted, trial, flat))
        residual = jnp.where(accepted, residual, h)
        jacobian = jnp.where(accepted, jacobian, state.jacobian)
        return y, LevenbergMarquardtState(residual, jacobian, factor, idle)

    def terminate(self, problem: Any, y: PyTree[Array], state: LevenbergMarquardtState) -> Any:
        status = Status.where(state.idle >= PATIENCE, Status.stalled, Status.running)
        return Status.where(jnp.all(jnp.isfinite(state.jacobian)), status, Status.nonfinite)

    def known(self, problem: Any, y: PyTree[Array], state: LevenbergMarquardtState) -> Known:
        if isinstance(problem, AbstractObjective):
            value = jnp.sum(state.residual**2) / 2
            return Known(value, state.jacobian.T @ state.residual)
        return Known(residual=state.residual)


def damped_steps(
    J: Float[Array, "m n"], mu: Array
) -> Callable[[Float[Array, " m"]], Float[Array, " n"]]:
    """h to argmin |J d + h|^2 + mu |d|^2, by one QR: J^T J would square the condition."""
    n = J.shape[1]
    # At a solution mu underflows, and the system alone decides.
    root = jnp.sqrt(jnp.maximum(mu, jnp.finfo(J.dtype).tiny))
    stacked = lx.MatrixLinearOperator(jnp.concatenate([J, root * jnp.eye(n, dtype=J.dtype)]))
    solver = lx.QR()
    factors = solver.init(stacked, {})

    def step(h: Float[Array, " m"]) -> Float[Array, " n"]:
        target = jnp.concatenate([-h, jnp.zeros(n, h.dtype)])
        return lx.linear_solve(stacked, target, solver, state=factors, throw=False).value

    return step


def fall(
    h: Float[Array, " m"], residual: Float[Array, " m"], promised: Array
) -> tuple[Array, Bool[Array, ""], Bool[Array, ""]]:
    """What became of a promised fall of |h|^2 with the residual after the step.

    Returns:
        How much of it came; whether the promise drowns in rounding; whether a fall stands out.
    """
    rounding = 10 * jnp.finfo(h.dtype).eps * jnp.sum(h**2)
    fallen = jnp.sum(h**2) - jnp.sum(residual**2)
    return (fallen + rounding) / (promised + rounding), promised <= rounding, fallen > rounding


def at_rest(
    moved: Bool[Array, ""], promised: Array, h: Float[Array, " m"], held: Bool[Array, ""]
) -> Bool[Array, ""]:
    """Whether further steps can change nothing.

    The gradient is down to its rounding where the promised fall is down to that of h, squared. That
    a step is short since its damping held it is no rest.
    """
    spent = promised <= (jnp.finfo(h.dtype).eps * jnp.linalg.norm(h)) ** 2
    return (~moved | spent) & ~held
