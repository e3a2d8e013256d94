"""Newton's method with infinitely short steps: a flow along which F shrinks but does not turn.

Davidenko (1953), On a New Method of Numerical Solution of Systems of Nonlinear Equations; Ding,
Cui, Wang, Shi (2023), Two Sides of The Same Coin: Bridging Deep Equilibrium Models and Neural ODEs
via Homotopy Continuation.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optax.tree as otu
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PyTree

from ..method import AbstractMethod
from ..problem import AbstractProblem, AbstractResidual, Known
from ..solution import Status
from ..validate import Refusal, in_range
from .problem import LeastSquares


class NewtonFlowState(eqx.Module):
    residual: PyTree[Array]
    time: Float[Array, ""]
    arrived: Bool[Array, ""]  # whether the integration went well
    at_rest: Bool[Array, ""]


class NewtonFlow(AbstractMethod[NewtonFlowState]):
    """The flow dy/dt = -J(y)^-1 F(y), along which F(y(t)) = e^-t F(y_0), then Newton's steps.

    A step of the method follows the flow by 1 in t, or what is left, with Diffrax; once `time` has
    passed the steps are Newton's, as long as they lower |F|. Of the Jacobian only products are
    asked. Where it is singular the flow ends, and with it the run, as `breakdown`: `HomotopyNewton`
    follows the same path by its length, and passes there.

    Args:
        solver: of the flow, a Diffrax solver for ordinary differential equations; Tsit5 by default.
        linear_solver: of J w = -F / |F|, a Lineax solver; GMRES by default, to half of the digits.
        tolerance: of the adaptive integration, relative and absolute, positive.
        time: how long to follow the flow, positive.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.RootFind(lambda y, _: jnp.arctan(y - 1), jnp.array(9.0))
        >>> round(float(rp.solve(problem, rp.roots.NewtonFlow()).value), 2)
        1.0
    """

    solver: Any = None
    linear_solver: Any = None
    tolerance: float = 1e-6
    time: float = 5.0

    question: ClassVar[type[AbstractProblem]] = AbstractResidual

    def __check_init__(self):
        in_range(self, "tolerance", 0)
        in_range(self, "time", 0)

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> NewtonFlowState:
        residual = problem.residual(y)
        flat, F = ravel_pytree(y)[0], ravel_pytree(residual)[0]
        if F.size != flat.size:
            raise Refusal(
                f"`fn` must return as many equations as there are unknowns for {self.name}, got "
                f"{F.size} for {flat.size}."
            )
        return NewtonFlowState(residual, jnp.zeros((), F.dtype), jnp.array(True), jnp.array(False))

    def step(
        self, problem: Any, y: PyTree[Array], state: NewtonFlowState
    ) -> tuple[PyTree[Array], NewtonFlowState]:
        import diffrax as dfx  # a third of the time that `import raphson` would take

        def flow() -> tuple[PyTree[Array], Bool[Array, ""]]:
            solution = dfx.diffeqsolve(
                dfx.ODETerm(lambda t, y, _: self._newton(problem, y, problem.residual(y))),
                dfx.Tsit5() if self.solver is None else self.solver,
                state.time,
                jnp.minimum(state.time + 1, self.time),
                None,
                y,
                stepsize_controller=dfx.PIDController(self.tolerance, self.tolerance),
                # There is nothing to differentiate, and the oracles may count.
                adjoint=dfx.ForwardMode(),
                max_steps=1000,
                throw=False,
            )
            assert solution.ys is not None  # the end is saved
            return jax.tree.map(lambda leaf: leaf[-1], solution.ys), (
                solution.result == dfx.RESULTS.successful
            )

        def newton() -> tuple[PyTree[Array], Bool[Array, ""]]:
            return otu.add(y, self._newton(problem, y, state.residual)), jnp.array(True)

        flowing = state.time < self.time
        trial, arrived = jax.lax.cond(flowing, flow, newton)
        residual = problem.residual(trial)
        lower = otu.norm(residual) < otu.norm(state.residual)
        taken = jnp.where(flowing, arrived, lower)
        y, residual = otu.where(taken, (trial, residual), (y, state.residual))
        time = jnp.where(arrived, jnp.minimum(state.time + 1, self.time), state.time)
        return y, NewtonFlowState(residual, time, arrived, ~flowing & ~lower)

    def terminate(self, problem: Any, y: PyTree[Array], state: NewtonFlowState) -> Any:
        status = Status.where(state.at_rest, Status.stalled, Status.running)
        return Status.where(state.arrived, status, Status.breakdown)

    def known(self, problem: Any, y: PyTree[Array], state: NewtonFlowState) -> Known:
        if isinstance(problem, LeastSquares):
            value = otu.norm(state.residual, squared=True) / 2
            return Known(value, problem.vjp(y, state.residual))
        return Known(residual=state.residual)

    def _newton(self, problem: Any, y: PyTree[Array], residual: PyTree[Array]) -> PyTree[Array]:
        """-J(y)^-1 F(y)."""
        flat, unravel = ravel_pytree(y)
        F, J = ravel_pytree(residual)[0], problem.jacobian(y)
        product = lambda v: ravel_pytree(J.mv(unravel(v)))[0]
        operator = lx.FunctionLinearOperator(product, jax.eval_shape(lambda: flat))
        half = float(jnp.finfo(F.dtype).eps) ** 0.5
        solver = lx.GMRES(half, half) if self.linear_solver is None else self.linear_solver
        size = jnp.linalg.norm(F)
        scaled = -F / jnp.where(size > 0, size, 1)
        return unravel(size * lx.linear_solve(operator, scaled, solver, throw=False).value)
