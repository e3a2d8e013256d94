"""A saddle whose parts are known apart: min over x, max over y, of f(x) + phi(x, y) - h(y)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import equinox as eqx
import jax
import optax.tree as otu
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..composite import AbstractNonsmooth
from ..problem import Facts, oracle, trace_function
from ..validate import as_function, as_metrics, as_start, require_scalar
from .problem import Saddle, as_parts

Pair = tuple[PyTree[Array], PyTree[Array]]


class CompositeSaddle(Saddle):
    """Find min over x, max over y, of f(x) + phi(x, y) + g(x) - h(y), with f known apart from phi.

    It is a `Saddle` that any of its methods solves, and more: the gradients of f and of the
    coupling phi are asked, and counted, apart. To ask for the operator is to ask for the gradient
    of f once and for the coupling twice, by x and by y.

    Args:
        fn: f as `fn(x, args)`, returning a real scalar.
        coupling: phi as `coupling(x, y, args)`, likewise.
        x: where the minimizing player starts, a PyTree of floating-point arrays.
        y: where the maximizing player starts, likewise.
        args: any data for both; the answer can be differentiated by it.
        nonsmooth: the pair (g, h) as in `Saddle`; strong concavity belongs into h.
        metrics: as in `Saddle`.
        facts: what is known of the problem.
        **oracles: hand-written `gradient(z, args)` of f, shaped as x, and `coupling_x(z, args)` and
            `coupling_y(z, args)`, the gradients of phi by x and by y, instead of autodiff's.

    Raises:
        ValueError: if a start is not made of real floating-point arrays, or an argument is unfit.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> coupling, one = lambda x, y, _: x * y, jnp.array(1.0)
        >>> h = rp.composite.SquaredNorm(1.0)
        >>> problem = rp.CompositeSaddle(
        ...     lambda x, _: (x - 2.0) ** 2 / 2, coupling, one, one, nonsmooth=(None, h)
        ... )
        >>> x, y = rp.solve(problem).value
        >>> round(float(x), 3), round(float(y), 3)
        (1.0, 1.0)
    """

    coupling: Callable[..., Any]

    def __init__(
        self,
        fn: Callable[[Any, Any], Any],
        coupling: Callable[[Any, Any, Any], Any],
        x: PyTree[ArrayLike],
        y: PyTree[ArrayLike],
        args: PyTree = None,
        *,
        nonsmooth: tuple[AbstractNonsmooth | None, AbstractNonsmooth | None] = (None, None),
        metrics: dict[str, Callable[[Any, Any], Any]] | None = None,
        facts: Facts | None = None,
        **oracles: Callable[..., Any],
    ):
        self.fn, self.coupling = as_function(fn), as_function(coupling, "coupling")
        self.y0, self.args = (as_start(x, "x"), as_start(y, "y")), args
        self.nonsmooth, self.metrics = as_parts(nonsmooth, self.y0), as_metrics(metrics)
        self.oracles, self.facts, self.wrappers = oracles, facts or Facts(), ()

    @oracle
    def value(self, z: Pair) -> Float[Array, ""]:
        """f(x) + phi(x, y)."""
        return self.fn(z[0], self.args) + self.coupling(*z, self.args)

    @oracle
    def gradient(self, z: Pair) -> PyTree[Array]:
        """The gradient of f at x, shaped as x."""
        return jax.grad(self.fn)(z[0], self.args)

    @oracle
    def coupling_x(self, z: Pair) -> PyTree[Array]:
        """The gradient of phi by x, shaped as x."""
        return jax.grad(self.coupling)(*z, self.args)

    @oracle
    def coupling_y(self, z: Pair) -> PyTree[Array]:
        """The gradient of phi by y, shaped as y."""
        return jax.grad(self.coupling, 1)(*z, self.args)

    # No oracles of their own: what they ask for is counted, and may be spoilt, part by part.
    def operator(self, z: Pair) -> Pair:
        """F(z), shaped as z."""
        return otu.add(self.gradient(z), self.coupling_x(z)), otu.scale(-1, self.coupling_y(z))

    def batch_operator(self, z: Pair, batch: PyTree[Array] | None) -> Pair:
        """F(z), for it is exact."""
        return self.operator(z)

    def traced(self, y: Pair) -> Self:
        fn, out = trace_function(self.fn, y[0], self.args)
        require_scalar(out)
        coupling, out = trace_function(self.coupling, *y, self.args, name="coupling")
        require_scalar(out, "coupling")
        return eqx.tree_at(lambda p: (p.fn, p.coupling), self, (fn, coupling))

    def rescaled(self, y_scale: PyTree[Array], value_scale: ArrayLike) -> Self:
        parts = self._scaled_parts(y_scale, value_scale)

        def scaled(x: Any, args: Any) -> Any:
            return value_scale * self.fn(otu.mul(y_scale[0], x), args)

        def coupled(x: Any, y: Any, args: Any) -> Any:
            return value_scale * self.coupling(*otu.mul(y_scale, (x, y)), args)

        return type(self)(scaled, coupled, *self.y0, self.args, nonsmooth=parts)
