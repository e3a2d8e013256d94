"""Optimistix solvers as Raphson methods, and Raphson methods as Optimistix solvers."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as otu
import optimistix as optx
from jaxtyping import Array, PyTree, Scalar

from ..method import AbstractMethod
from ..problem import AbstractObjective, AbstractProblem, AbstractResidual, Known
from ..roots.problem import FixedPoint, LeastSquares
from ..smooth.problem import Minimize
from ..solution import Status
from ._shared import as_residual, as_value


class _OptimistixState(eqx.Module):
    inner: PyTree[Array]
    status: Any


class _AbstractOptimistix(AbstractMethod[_OptimistixState]):
    solver: eqx.AbstractVar[Any]

    @abc.abstractmethod
    def function(self, problem: Any) -> Callable[[PyTree[Array]], PyTree[Array]]:
        """What the solver iterates on."""

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> _OptimistixState:
        state = self._init(problem, y)
        return _OptimistixState(eqx.filter(state, eqx.is_array), Status.running)

    def step(
        self, problem: Any, y: PyTree[Array], state: _OptimistixState
    ) -> tuple[PyTree[Array], _OptimistixState]:
        function = self._paired(problem)
        rest = (None, {}, self._whole(problem, y, state), frozenset())
        y, inner, _ = self.solver.step(function, y, *rest)
        done, result = self.solver.terminate(function, y, None, {}, inner, frozenset())
        status = Status.where(done, Status.stalled, Status.running)
        status = Status.where(result == optx.RESULTS.successful, status, Status.breakdown)
        # Optimistix rejects a NaN for ever, also that of the start.
        value = getattr(getattr(inner, "f_info", None), "f", 0.0)
        status = Status.where(jnp.isnan(value), Status.nonfinite, status)
        return y, _OptimistixState(eqx.filter(inner, eqx.is_array), status)

    def terminate(self, problem: Any, y: PyTree[Array], state: _OptimistixState) -> Any:
        return state.status

    def known(self, problem: Any, y: PyTree[Array], state: _OptimistixState) -> Known:
        return Known()

    def answer(self, problem: Any, y: PyTree[Array], state: _OptimistixState) -> PyTree[Array]:
        whole = self._whole(problem, y, state)
        rest = (None, None, {}, whole, frozenset(), optx.RESULTS.successful)
        return self.solver.postprocess(self._paired(problem), y, *rest)[0]

    @property
    def name(self) -> str:
        return f"optimistix.{type(self.solver).__name__}"

    def _paired(self, problem: Any) -> Callable[..., Any]:
        function = self.function(problem)
        return lambda y, _: (function(y), None)

    def _init(self, problem: Any, y: PyTree[Array]) -> Any:
        # Shapes do not depend on what stands in the door.
        out = jax.eval_shape(self.function(problem.bare), y)
        return self.solver.init(self._paired(problem), y, None, {}, out, None, frozenset())

    def _whole(self, problem: Any, y: PyTree[Array], state: _OptimistixState) -> Any:
        """The solver's own state: our arrays with its functions and structure put back."""
        whole = eqx.filter_eval_shape(self._init, problem.bare, y)
        return eqx.combine(state.inner, eqx.filter(whole, _is_shape, inverse=True))


class OptimistixMinimizer(_AbstractOptimistix):
    """An Optimistix minimizer as a method for objectives."""

    solver: optx.AbstractMinimiser
    question: ClassVar[type[AbstractProblem]] = AbstractObjective

    def function(self, problem: Any) -> Callable[[PyTree[Array]], PyTree[Array]]:
        return as_value(problem)


class OptimistixLeastSquares(_AbstractOptimistix):
    """An Optimistix least-squares solver as a method for residuals."""

    solver: optx.AbstractLeastSquaresSolver
    question: ClassVar[type[AbstractProblem]] = AbstractResidual

    def function(self, problem: Any) -> Callable[[PyTree[Array]], PyTree[Array]]:
        return as_residual(problem)


class OptimistixRootFinder(_AbstractOptimistix):
    """An Optimistix root finder as a method for residuals."""

    solver: optx.AbstractRootFinder
    question: ClassVar[type[AbstractProblem]] = AbstractResidual

    def function(self, problem: Any) -> Callable[[PyTree[Array]], PyTree[Array]]:
        return as_residual(problem)


class OptimistixFixedPoint(_AbstractOptimistix):
    """An Optimistix fixed-point solver as a method."""

    solver: optx.AbstractFixedPointSolver
    question: ClassVar[type[AbstractProblem]] = FixedPoint

    def function(self, problem: Any) -> Callable[[PyTree[Array]], PyTree[Array]]:
        return problem.apply


def _is_shape(leaf: Any) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct)


# --- Outbound --------------------------------------------------------------------------------


def as_optimistix(method: AbstractMethod, rtol: float, atol: float) -> Any:
    """A Raphson method as an Optimistix solver.

    Args:
        method: a method for objectives, residuals or fixed points.
        rtol: tolerance on the norm of the gradient or residual, relative to that at the start.
        atol: absolute tolerance on the same norm; the larger of the two counts.

    Returns:
        An `optimistix.AbstractMinimiser` for a method that answers objectives, an
        `optimistix.AbstractFixedPointSolver` for one that answers only fixed points, and for one
        that answers residuals a solver that is root finder and least-squares solver at once.

    Raises:
        TypeError: if the method answers none of these.

    Example:
        >>> import jax.numpy as jnp
        >>> import optimistix as optx
        >>> import raphson as rp
        >>> solver = rp.as_optimistix(rp.smooth.GradientDescent(0.25), rtol=1e-8, atol=1e-8)
        >>> found = optx.minimise(lambda y, a: jnp.sum((y - a) ** 2), solver, jnp.zeros(2), 3.0)
        >>> found.value.round(3).tolist()
        [3.0, 3.0]
    """
    for question, lifted in _OUTBOUND.items():
        if issubclass(question, method.question):
            return lifted(method, rtol, atol)
    raise TypeError(f"{method.name} answers {method.question.__name__}, which Optimistix has not.")


class _OutState(eqx.Module):
    inner: Any
    scale: Array
    norm: Array
    status: Any


class _AbstractOut(optx.AbstractIterativeSolver):
    """What the outbound solvers share: the problem is stated anew around Optimistix's function."""

    method: eqx.AbstractVar[AbstractMethod]
    rtol: eqx.AbstractVar[float]
    atol: eqx.AbstractVar[float]
    norm: eqx.AbstractVar[Callable[[PyTree], Scalar]]

    @abc.abstractmethod
    def stated(self, fn: Callable[[PyTree, Any], PyTree], y: PyTree) -> AbstractProblem:
        """The problem whose function is `fn`."""

    def _problem(self, fn: Any, y: PyTree, args: PyTree) -> AbstractProblem:
        return self.stated(lambda y, _: fn(y, args)[0], y)

    def init(
        self,
        fn: Any,
        y: PyTree,
        args: PyTree,
        options: dict[str, Any],
        f_struct: PyTree,
        aux_struct: PyTree,
        tags: frozenset[object],
    ) -> _OutState:
        problem = self._problem(fn, y, args)
        inner = self.method.init(problem, y, options.get("key"))
        norm = self._norm(problem, y, inner)
        return _OutState(inner, norm, norm, Status.running)

    def step(
        self,
        fn: Any,
        y: PyTree,
        args: PyTree,
        options: dict[str, Any],
        state: _OutState,
        tags: frozenset[object],
    ) -> tuple[PyTree, _OutState, Any]:
        problem = self._problem(fn, y, args)
        y, inner = self.method.step(problem, y, state.inner)
        status = self.method.terminate(problem, y, inner)
        aux = fn(y, args)[1]
        return y, _OutState(inner, state.scale, self._norm(problem, y, inner), status), aux

    def terminate(
        self,
        fn: Any,
        y: PyTree,
        args: PyTree,
        options: dict[str, Any],
        state: _OutState,
        tags: frozenset[object],
    ) -> tuple[Array, Any]:
        done = state.norm <= jnp.maximum(self.atol, self.rtol * state.scale)
        stopped = state.status != Status.running
        finite = jnp.isfinite(state.norm)
        result = optx.RESULTS.where(
            stopped & ~done, optx.RESULTS.nonlinear_divergence, optx.RESULTS.successful
        )
        return done | stopped, optx.RESULTS.where(finite, result, optx.RESULTS.nonfinite)

    def postprocess(
        self,
        fn: Any,
        y: PyTree,
        aux: Any,
        args: PyTree,
        options: dict[str, Any],
        state: _OutState,
        tags: frozenset[object],
        result: Any,
    ) -> tuple[PyTree, Any, dict[str, Any]]:
        return self.method.answer(self._problem(fn, y, args), y, state.inner), aux, {}

    def _norm(self, problem: AbstractProblem, y: PyTree, inner: Any) -> Array:
        residual = self.method.known(problem, y, inner).residual
        return otu.norm(problem.optimality(y) if residual is None else residual)


class _OutMinimizer(_AbstractOut, optx.AbstractMinimiser):
    method: AbstractMethod
    rtol: float
    atol: float
    norm: Callable[[PyTree], Scalar] = optx.two_norm

    def stated(self, fn: Callable[[PyTree, Any], PyTree], y: PyTree) -> AbstractProblem:
        return Minimize(fn, y)


class _OutLeastSquares(_AbstractOut, optx.AbstractLeastSquaresSolver):
    method: AbstractMethod
    rtol: float
    atol: float
    norm: Callable[[PyTree], Scalar] = optx.two_norm

    def stated(self, fn: Callable[[PyTree, Any], PyTree], y: PyTree) -> AbstractProblem:
        return LeastSquares(fn, y)


class _OutFixedPoint(_AbstractOut, optx.AbstractFixedPointSolver):
    method: AbstractMethod
    rtol: float
    atol: float
    norm: Callable[[PyTree], Scalar] = optx.two_norm

    def stated(self, fn: Callable[[PyTree, Any], PyTree], y: PyTree) -> AbstractProblem:
        return FixedPoint(fn, y)


_OUTBOUND = {
    Minimize: _OutMinimizer,
    LeastSquares: _OutLeastSquares,
    FixedPoint: _OutFixedPoint,
}
