"""The questions of root finding, least squares and fixed points: F(y) = 0, or nearly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp
import optax.tree as otu
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Bool, Float, PyTree

from ..problem import (
    AbstractEquations,
    AbstractFunctionProblem,
    AbstractObjective,
    AbstractResidual,
    Facts,
    Rescaled,
    oracle,
)
from ..solution import Status
from ..validate import as_bounds, require_like, require_square, require_vector

# Up to this many unknowns a run that failed is diagnosed with a dense Jacobian.
DIAGNOSIS_LIMIT = 500


class RootFind(AbstractFunctionProblem, AbstractResidual):
    """Find y where F(y) = 0.

    Args:
        fn: `fn(y, args)`, returning a PyTree of arrays with at least as many entries as `y`.
        y0: the start, a PyTree of floating-point arrays.
        args: any data for `fn`; the answer can be differentiated by it.
        facts: what is known of the problem.
        **oracles: hand-written `jacobian(y, args)` (a Lineax operator), `jvp(y, v, args)` or
            `vjp(y, w, args)` instead of autodiff's.

    Raises:
        ValueError: if the start is not made of real floating-point arrays, or `fn` is no function.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.RootFind(lambda y, a: y**2 - a, jnp.array(1.0), jnp.array(2.0))
        >>> round(float(rp.solve(problem).value), 4)
        1.4142
    """

    def __init__(
        self,
        fn: Callable[[Any, Any], Any],
        y0: PyTree[ArrayLike],
        args: PyTree = None,
        *,
        facts: Facts | None = None,
        **oracles: Callable[..., Any],
    ):
        super()._stated(fn, y0, args, facts, oracles)

    def mapping(self, y: PyTree[Array]) -> PyTree[Array]:
        return self.fn(y, self.args)

    def optimality(self, y: PyTree[Array]) -> PyTree[Array]:
        return self.residual(y)

    def diagnosed(self, y: PyTree[Array], status: Any) -> Any:
        return _diagnosed(self, y, status, -jnp.inf, jnp.inf)

    def check_output(self, out: PyTree, y: PyTree[Array]) -> None:
        require_vector(out)
        require_square(out, y)


class LeastSquares(AbstractFunctionProblem, AbstractObjective, AbstractResidual):
    """Minimize half the squared norm of F(y).

    Args:
        fn: `fn(y, args)`, returning the residuals, a PyTree of arrays.
        y0: the start, a PyTree of floating-point arrays.
        args: any data for `fn`; the answer can be differentiated by it.
        facts: what is known of the problem.
        **oracles: hand-written oracles instead of autodiff's, as in `RootFind` and `Minimize`.

    Raises:
        ValueError: if the start is not made of real floating-point arrays, or `fn` is no function.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> t = jnp.array([0.0, 1.0, 2.0])
        >>> problem = rp.LeastSquares(lambda y, t: y * t - 3 * t, jnp.array(0.0), t)
        >>> round(float(rp.solve(problem).value), 4)
        3.0
    """

    def __init__(
        self,
        fn: Callable[[Any, Any], Any],
        y0: PyTree[ArrayLike],
        args: PyTree = None,
        *,
        facts: Facts | None = None,
        **oracles: Callable[..., Any],
    ):
        super()._stated(fn, y0, args, facts, oracles)

    def mapping(self, y: PyTree[Array]) -> PyTree[Array]:
        return self.fn(y, self.args)

    def objective(self, y: PyTree[Array]) -> Float[Array, ""]:
        residual = self.residual(y)
        return 0.5 * otu.norm(residual, squared=True)

    def check_output(self, out: PyTree, y: PyTree[Array]) -> None:
        require_vector(out)


class FixedPoint(AbstractFunctionProblem, AbstractResidual):
    """Find y where T(y) = y.

    Args:
        fn: `fn(y, args)`, returning what is shaped as `y`.
        y0: the start, a PyTree of floating-point arrays.
        args: any data for `fn`; the answer can be differentiated by it.
        facts: what is known of the problem.
        **oracles: hand-written oracles instead of autodiff's, as in `RootFind`.

    Raises:
        ValueError: if the start is not made of real floating-point arrays, or `fn` is no function.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.FixedPoint(lambda y, _: jnp.cos(y), jnp.array(0.5))
        >>> round(float(rp.solve(problem).value), 4)
        0.7391
    """

    def __init__(
        self,
        fn: Callable[[Any, Any], Any],
        y0: PyTree[ArrayLike],
        args: PyTree = None,
        *,
        facts: Facts | None = None,
        **oracles: Callable[..., Any],
    ):
        super()._stated(fn, y0, args, facts, oracles)

    @oracle
    def apply(self, y: PyTree[Array]) -> PyTree[Array]:
        """T(y)."""
        return self.fn(y, self.args)

    def mapping(self, y: PyTree[Array]) -> PyTree[Array]:
        return otu.sub(self.apply(y), y)

    def optimality(self, y: PyTree[Array]) -> PyTree[Array]:
        return self.residual(y)

    def check_output(self, out: PyTree, y: PyTree[Array]) -> None:
        require_vector(out)
        require_like(out, y)

    def rescaled(self, y_scale: PyTree[Array], value_scale: ArrayLike) -> Self:
        inverse = jax.tree.map(jnp.reciprocal, y_scale)
        return type(self)(
            lambda y, args: otu.mul(inverse, self.fn(otu.mul(y_scale, y), args)), self.y0, self.args
        )


class AbstractBounded(AbstractFunctionProblem, AbstractEquations):
    """Equations F(y) = 0, or nearly, where lower <= y <= upper: F is not asked elsewhere.

    Attributes:
        lower: the lower bounds, shaped as the start; minus infinity where there is none.
        upper: the upper bounds, likewise.
    """

    lower: PyTree[Array]
    upper: PyTree[Array]

    # Type checkers look for `__init__` in a class itself: each below hands its arguments on.
    def _bounded(
        self,
        fn: Any,
        y0: PyTree[ArrayLike],
        lower: PyTree[ArrayLike],
        upper: PyTree[ArrayLike],
        args: PyTree,
        facts: Facts | None,
        oracles: Any,
    ) -> None:
        super()._stated(fn, y0, args, facts, oracles)
        self.lower, self.upper = as_bounds(lower, upper, self.y0)

    def mapping(self, y: PyTree[Array]) -> PyTree[Array]:
        return self.fn(y, self.args)

    def rescaled(self, y_scale: PyTree[Array], value_scale: ArrayLike) -> Self:
        y0, one, other = (
            jax.tree.map(jnp.divide, tree, y_scale) for tree in (self.y0, self.lower, self.upper)
        )
        lower, upper = jax.tree.map(jnp.minimum, one, other), jax.tree.map(jnp.maximum, one, other)
        fn = Rescaled(self.fn, y_scale, value_scale)
        return type(self)(fn, y0, lower, upper, self.args)  # pyright: ignore[reportCallIssue]


class BoundedRootFind(AbstractBounded):
    """Find y where F(y) = 0 and lower <= y <= upper.

    Beyond the bounds the residual is infinite, so that no root there passes for an answer.

    Args:
        fn: `fn(y, args)`, returning a PyTree of arrays with at least as many entries as `y`.
        y0: the start, a PyTree of floating-point arrays, within the bounds.
        lower: the lower bounds, shaped as the start or one number; minus infinity is none.
        upper: the upper bounds, likewise, above the lower ones in every entry.
        args: any data for `fn`; the answer can be differentiated by it.
        facts: what is known of the problem.
        **oracles: hand-written oracles instead of autodiff's, as in `RootFind`.

    Raises:
        ValueError: if the start is not made of real floating-point arrays, `fn` is no function,
            bounds are unfit, or the start is outside of them.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.BoundedRootFind(lambda y, _: y**2 - 4, 1.0, lower=0.0, upper=jnp.inf)
        >>> round(float(rp.solve(problem).value), 4)
        2.0
    """

    def __init__(
        self,
        fn: Callable[[Any, Any], Any],
        y0: PyTree[ArrayLike],
        lower: PyTree[ArrayLike],
        upper: PyTree[ArrayLike],
        args: PyTree = None,
        *,
        facts: Facts | None = None,
        **oracles: Callable[..., Any],
    ):
        self._bounded(fn, y0, lower, upper, args, facts, oracles)

    def optimality(self, y: PyTree[Array]) -> PyTree[Array]:
        within = _within(y, self.lower, self.upper)
        return jax.tree.map(lambda leaf: jnp.where(within, leaf, jnp.inf), self.residual(y))

    def diagnosed(self, y: PyTree[Array], status: Any) -> Any:
        lower, upper = ravel_pytree(self.lower)[0], ravel_pytree(self.upper)[0]
        return _diagnosed(self, y, status, lower, upper)

    def check_output(self, out: PyTree, y: PyTree[Array]) -> None:
        require_vector(out)
        require_square(out, y)


class BoundedLeastSquares(AbstractBounded):
    """Minimize half the squared norm of F(y) where lower <= y <= upper.

    Args:
        fn: `fn(y, args)`, returning the residuals, a PyTree of arrays.
        y0: the start, a PyTree of floating-point arrays, within the bounds.
        lower: the lower bounds, shaped as the start or one number; minus infinity is none.
        upper: the upper bounds, likewise, above the lower ones in every entry.
        args: any data for `fn`; the answer can be differentiated by it.
        facts: what is known of the problem.
        **oracles: hand-written oracles instead of autodiff's, as in `RootFind`.

    Raises:
        ValueError: if the start is not made of real floating-point arrays, `fn` is no function,
            bounds are unfit, or the start is outside of them.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> fn = lambda y, _: jnp.stack([y[0] - 3, y[1] + 1])
        >>> problem = rp.BoundedLeastSquares(fn, jnp.ones(2), lower=0.0, upper=2.0)
        >>> rp.solve(problem).value.round(3).tolist()
        [2.0, 0.0]
    """

    def __init__(
        self,
        fn: Callable[[Any, Any], Any],
        y0: PyTree[ArrayLike],
        lower: PyTree[ArrayLike],
        upper: PyTree[ArrayLike],
        args: PyTree = None,
        *,
        facts: Facts | None = None,
        **oracles: Callable[..., Any],
    ):
        self._bounded(fn, y0, lower, upper, args, facts, oracles)

    def optimality(self, y: PyTree[Array]) -> PyTree[Array]:
        residual = self.residual(y)
        projected = self.projected_gradient(y, self.vjp(y, residual))
        # Autodiff finds a zero gradient also where `where` has chosen a NaN for F.
        finite = jnp.isfinite(otu.norm(residual))
        return jax.tree.map(lambda leaf: jnp.where(finite, leaf, jnp.nan), projected)

    def projected_gradient(self, y: PyTree[Array], gradient: PyTree[Array]) -> PyTree[Array]:
        """y - clip(y - g, lower, upper): zero where no move within the bounds descends."""
        # Written so that what is not at a bound loses nothing of g to rounding.
        return jax.tree.map(
            lambda y, g, low, high: jnp.clip(g, y - high, y - low),
            y,
            gradient,
            self.lower,
            self.upper,
        )

    def minimized(self, y: PyTree[Array]) -> Float[Array, ""]:
        return 0.5 * otu.norm(self.residual(y), squared=True)

    def check_output(self, out: PyTree, y: PyTree[Array]) -> None:
        require_vector(out)


def _within(y: PyTree[Array], lower: PyTree[Array], upper: PyTree[Array]) -> Bool[Array, ""]:
    """Whether y is within the bounds, but for its rounding."""

    def fits(y: Array, low: Array, high: Array) -> Bool[Array, ""]:
        rounding = 2 * jnp.finfo(y.dtype).eps * jnp.abs(y)
        return jnp.all((y >= low - rounding) & (y <= high + rounding))

    return jnp.all(jnp.stack(jax.tree.leaves(jax.tree.map(fits, y, lower, upper))))


def _diagnosed(
    problem: AbstractEquations, y: PyTree[Array], status: Any, lower: Any, upper: Any
) -> Any:
    """`not_a_root` at rest where F is not 0 and no move within the bounds promises descent."""
    # A move as long as y is, if the bounds leave room for it. By forward mode, which every function
    # that has a Jacobian bears.
    flat, residual = ravel_pytree(y)[0], ravel_pytree(problem.residual(y))[0]
    if flat.size > DIAGNOSIS_LIMIT:
        return status
    slope = problem.jacobian(y).as_matrix().T @ residual
    room = jnp.where(slope > 0, flat - lower, upper - flat)
    promised = jnp.linalg.norm(slope * jnp.clip(room, 0, 1 + jnp.linalg.norm(flat)))
    eps = jnp.finfo(residual.dtype).eps
    at_rest = (status == Status.stalled) | (status == Status.max_steps)
    square = jnp.sum(residual**2)
    flat_there = (promised <= eps**0.25 * square) & jnp.isfinite(square)
    return Status.where(at_rest & flat_there, Status.not_a_root, status)
