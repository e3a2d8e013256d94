"""The questions of root finding, least squares and fixed points: F(y) = 0, or nearly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp
import optax.tree as otu
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..problem import (
    AbstractFunctionProblem,
    AbstractObjective,
    AbstractResidual,
    Facts,
    oracle,
)
from ..solution import Status
from ..validate import require_like, require_square, require_vector

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
        self._stated(fn, y0, args, facts, oracles)

    def mapping(self, y: PyTree[Array]) -> PyTree[Array]:
        return self.fn(y, self.args)

    def optimality(self, y: PyTree[Array]) -> PyTree[Array]:
        return self.residual(y)

    def diagnosed(self, y: PyTree[Array], status: Any) -> Any:
        # At rest where a move by the size of y promises no descent of |F|^2, yet F is not 0. By
        # forward mode, which every function that has a Jacobian bears.
        flat, residual = ravel_pytree(y)[0], ravel_pytree(self.residual(y))[0]
        if flat.size > DIAGNOSIS_LIMIT:
            return status
        slope = jnp.linalg.norm(self.jacobian(y).as_matrix().T @ residual)
        promised = slope * (1 + jnp.linalg.norm(flat))
        eps = jnp.finfo(residual.dtype).eps
        at_rest = (status == Status.stalled) | (status == Status.max_steps)
        square = jnp.sum(residual**2)
        flat_there = (promised <= eps**0.25 * square) & jnp.isfinite(square)
        return Status.where(at_rest & flat_there, Status.not_a_root, status)

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
        self._stated(fn, y0, args, facts, oracles)

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
        self._stated(fn, y0, args, facts, oracles)

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
