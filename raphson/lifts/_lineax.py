"""Lineax solvers as Raphson methods, and Raphson methods as Lineax solvers."""

from __future__ import annotations

from typing import Any, ClassVar

import lineax as lx
from jaxtyping import Array, PyTree

from ..linear.problem import LinearSystem
from ..method import AbstractMethod, iterate
from ..problem import AbstractProblem
from ..solution import Status


class LineaxMethod(AbstractMethod[Any]):
    """A Lineax solver as a method for linear systems: one step is the whole solve."""

    solver: lx.AbstractLinearSolver
    question: ClassVar[type[AbstractProblem]] = LinearSystem

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> Any:
        return Status.running

    def step(self, problem: Any, y: PyTree[Array], state: Any) -> tuple[PyTree[Array], Any]:
        solution = lx.linear_solve(problem.operator(), problem.vector, self.solver, throw=False)
        singular = (solution.result == lx.RESULTS.singular) | (
            solution.result == lx.RESULTS.breakdown
        )
        return solution.value, Status.where(singular, Status.breakdown, Status.stalled)

    def terminate(self, problem: Any, y: PyTree[Array], state: Any) -> Any:
        return state

    @property
    def name(self) -> str:
        return f"lineax.{type(self.solver).__name__}"


def as_lineax(
    method: AbstractMethod, rtol: float, atol: float, max_steps: int = 10_000
) -> lx.AbstractLinearSolver:
    """A Raphson method for linear systems as a Lineax solver.

    Args:
        method: a method that answers `LinearSystem`.
        rtol: tolerance on the norm of the residual, relative to the right-hand side.
        atol: absolute tolerance on the same norm; the larger of the two counts.
        max_steps: how many steps at most.

    Returns:
        A solver for `lineax.linear_solve` of square systems.

    Raises:
        TypeError: if the method does not answer linear systems.

    Example:
        >>> import jax.numpy as jnp
        >>> import lineax as lx
        >>> import raphson as rp
        >>> A = lx.MatrixLinearOperator(jnp.array([[4.0, 1.0], [1.0, 3.0]]))
        >>> solver = rp.as_lineax(rp.linear.SOR(), rtol=1e-6, atol=0.0)
        >>> lx.linear_solve(A, jnp.array([5.0, 4.0]), solver).value.round(3).tolist()
        [1.0, 1.0]
    """
    if not issubclass(LinearSystem, method.question):
        raise TypeError(f"{method.name} answers {method.question.__name__}, not linear systems.")
    return _Out(method, rtol, atol, max_steps)


class _Out(lx.AbstractLinearSolver):
    method: AbstractMethod
    rtol: float
    atol: float
    max_steps: int

    def init(self, operator: lx.AbstractLinearOperator, options: dict[str, Any]) -> Any:
        if operator.in_structure() != operator.out_structure():
            raise ValueError("`operator` must be square for a stationary or Krylov method.")
        return operator

    def compute(
        self, state: Any, vector: PyTree[Array], options: dict[str, Any]
    ) -> tuple[PyTree[Array], Any, dict[str, Any]]:
        problem = LinearSystem(state, vector)
        start = options.get("y0", problem.y0)
        tolerances = {"rtol": self.rtol, "atol": self.atol, "max_steps": self.max_steps}
        run = iterate(problem, self.method, start, options.get("key"), **tolerances)
        result = lx.RESULTS.where(
            run.status == Status.converged, lx.RESULTS.successful, lx.RESULTS.breakdown
        )
        result = lx.RESULTS.where(
            run.status == Status.running, lx.RESULTS.max_steps_reached, result
        )
        return run.y, result, {"num_steps": run.step, "max_steps": self.max_steps}

    def transpose(self, state: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return state.transpose(), {}

    def conj(self, state: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return lx.conj(state), {}

    def assume_full_rank(self) -> bool:
        return True
