"""The question of two players: find (x, y) with f least in x and greatest in y."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, Self

import equinox as eqx
import jax
import optax.tree as otu
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..problem import AbstractProblem, Facts, oracle, trace_function
from ..validate import as_function, as_start, require_scalar


class AbstractVariational(AbstractProblem):
    """Find z in a convex set with <F(z), w - z> >= 0 for every w of the set."""

    @abc.abstractmethod
    def field(self, z: PyTree[Array]) -> PyTree[Array]:
        """The operator itself; methods call the oracles, never this."""

    @abc.abstractmethod
    def nearest(self, z: PyTree[Array]) -> PyTree[Array]:
        """The projection itself; methods call the oracles, never this."""

    @oracle
    def operator(self, z: PyTree[Array]) -> PyTree[Array]:
        """F(z), shaped as z."""
        return self.field(z)

    @oracle
    def project(self, z: PyTree[Array]) -> PyTree[Array]:
        """The nearest point of the set."""
        return self.nearest(z)

    def optimality(self, y: PyTree[Array]) -> PyTree[Array]:
        """The natural residual z - project(z - F(z)): F(z) itself where there is no set."""
        return self.natural_residual(y, self.operator(y))

    def natural_residual(self, z: PyTree[Array], operator: PyTree[Array]) -> PyTree[Array]:
        """The natural residual at z from F(z)."""
        return otu.sub(z, self.project(otu.sub(z, operator)))


class Saddle(AbstractVariational):
    """Find min over x, max over y, of f(x, y).

    The unknown is the pair (x, y), and the operator F(x, y) = (df/dx, -df/dy).

    Args:
        fn: `fn(x, y, args)`, returning a real scalar.
        x: where the minimizing player starts, a PyTree of floating-point arrays.
        y: where the maximizing player starts, likewise.
        args: any data for `fn`; the answer can be differentiated by it.
        projection: `projection((x, y))`, the nearest point of a convex set; everywhere by default.
        facts: what is known of the problem.
        **oracles: hand-written `operator(z, args)` instead of autodiff's.

    Raises:
        ValueError: if a start is not made of real floating-point arrays, or `fn` is no function.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.Saddle(lambda x, y, _: x * y, jnp.array(1.0), jnp.array(1.0))
        >>> x, y = rp.solve(problem, rp.saddle.Extragradient(0.5)).value
        >>> abs(float(x)) < 1e-3 and abs(float(y)) < 1e-3
        True
    """

    fn: Callable[..., Any]
    y0: tuple[PyTree[Array], PyTree[Array]]
    args: PyTree
    projection: Callable[..., Any] | None
    oracles: dict[str, Callable[..., Any]]
    facts: Facts
    wrappers: tuple[Any, ...]

    def __init__(
        self,
        fn: Callable[[Any, Any, Any], Any],
        x: PyTree[ArrayLike],
        y: PyTree[ArrayLike],
        args: PyTree = None,
        *,
        projection: Callable[[Any], Any] | None = None,
        facts: Facts | None = None,
        **oracles: Callable[..., Any],
    ):
        self.fn, self.args = as_function(fn), args
        self.y0 = (as_start(x, "x"), as_start(y, "y"))
        self.projection = None if projection is None else as_function(projection, "projection")
        self.oracles, self.facts, self.wrappers = oracles, facts or Facts(), ()

    @oracle
    def value(self, z: tuple[PyTree[Array], PyTree[Array]]) -> Float[Array, ""]:
        """f(x, y)."""
        return self.fn(*z, self.args)

    def field(self, z: tuple[PyTree[Array], PyTree[Array]]) -> PyTree[Array]:
        by_x, by_y = jax.grad(self.value)(z)
        return by_x, otu.scale(-1, by_y)

    def nearest(self, z: PyTree[Array]) -> PyTree[Array]:
        return z if self.projection is None else self.projection(z)

    def natural_residual(self, z: PyTree[Array], operator: PyTree[Array]) -> PyTree[Array]:
        # Without a set it is F(z), which z - (z - F(z)) would lose to rounding.
        return operator if self.projection is None else super().natural_residual(z, operator)

    def measures(self, y: PyTree[Array]) -> dict[str, Float[Array, ""]]:
        return super().measures(y) | {"value": self.value(y)}

    def traced(self, y: tuple[PyTree[Array], PyTree[Array]]) -> Self:
        fn, out = trace_function(self.fn, *y, self.args)
        require_scalar(out)
        return eqx.tree_at(lambda p: p.fn, self, fn)

    def rescaled(self, y_scale: PyTree[Array], value_scale: ArrayLike) -> Self:
        if self.projection is not None:
            raise ValueError("a `Saddle` with a `projection` cannot be scaled: its set would move.")
        x_scale, y_scale = y_scale

        def scaled(x: Any, y: Any, args: Any) -> Any:
            return value_scale * self.fn(otu.mul(x_scale, x), otu.mul(y_scale, y), args)

        return type(self)(scaled, *self.y0, self.args)
