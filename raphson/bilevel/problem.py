"""The question of two levels: find x where F(x, y) is least, with y least for f(x, y)."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optax.tree as otu
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..composite import AbstractConvexSet, Composite
from ..problem import (
    AbstractObjective,
    AbstractProblem,
    Facts,
    as_data,
    drawn,
    oracle,
    trace_function,
)
from ..validate import as_batch_size, as_function, as_metrics, as_start, require_scalar

# Up to this many lower unknowns the Hessian by which answers are judged is dense.
DENSE_LIMIT = 500

Pair = tuple[PyTree[Array], PyTree[Array]]


class AbstractLevels(AbstractProblem):
    """Find x where F(x, y) is least, where y is a least point of f(x, .), constrained or not.

    The iterate is the pair (x, y). Every oracle takes the batch on which it is estimated, None for
    the function itself.
    """

    metrics: eqx.AbstractVar[dict[str, Callable[..., Any]]]
    sets: eqx.AbstractVar[tuple[AbstractConvexSet | None, AbstractConvexSet | None]]

    @abc.abstractmethod
    def upper_objective(self, x: Any, y: Any, batch: Any) -> Float[Array, ""]:
        """F itself; methods call the oracles, never this."""

    @abc.abstractmethod
    def lower_objective(self, x: Any, y: Any, batch: Any) -> Float[Array, ""]:
        """f itself; methods call the oracles, never this."""

    @property
    def stochastic(self) -> bool:
        """Whether `sample` draws at random."""
        return False

    @oracle
    def upper_value(self, x: Any, y: Any, batch: Any) -> Float[Array, ""]:
        """F(x, y)."""
        return self.upper_objective(x, y, batch)

    @oracle
    def lower_value(self, x: Any, y: Any, batch: Any) -> Float[Array, ""]:
        """f(x, y)."""
        return self.lower_objective(x, y, batch)

    @oracle
    def upper_gradient(self, x: Any, y: Any, batch: Any) -> Pair:
        """The gradients (F_x, F_y) at (x, y)."""
        return jax.grad(self.upper_value, (0, 1))(x, y, batch)

    @oracle
    def lower_gradient(self, x: Any, y: Any, batch: Any) -> Pair:
        """The gradients (f_x, f_y) at (x, y)."""
        return jax.grad(self.lower_value, (0, 1))(x, y, batch)

    @oracle
    def upper_product(self, x: Any, y: Any, v: Any, batch: Any) -> Pair:
        """The products (F_xy v, F_yy v) of the second derivatives of F with v, shaped as y."""
        return jax.vjp(lambda x, y: self.upper_gradient(x, y, batch)[1], x, y)[1](v)

    @oracle
    def lower_product(self, x: Any, y: Any, v: Any, batch: Any) -> Pair:
        """The products (f_xy v, f_yy v) of the second derivatives of f with v, shaped as y."""
        return jax.vjp(lambda x, y: self.lower_gradient(x, y, batch)[1], x, y)[1](v)

    @oracle
    def sample(self, key: Array | None) -> tuple[PyTree[Array] | None, PyTree[Array] | None]:
        """What a stochastic method draws at each step: a batch for each level, or None."""
        return None, None

    @oracle
    def project(self, z: Pair) -> Pair:
        """The pair of nearest points, of x in its set and of y in its own."""
        nearest = [
            each if a is None else a.project(each) for a, each in zip(self.sets, z, strict=True)
        ]
        return jax.tree.map(lambda a, b: jnp.asarray(a, b.dtype), tuple(nearest), z)

    def measures(self, y: Pair) -> dict[str, Float[Array, ""]]:
        hypergradient, f_y, unexplained = self.optimality(y)
        measures = {"residual": otu.norm((hypergradient, f_y, unexplained))}
        if self.facts.minimizer is not None:
            measures["distance"] = otu.norm(otu.sub(y, self.facts.minimizer))
        measures |= {"hypergradient": otu.norm(hypergradient), "lower": otu.norm(f_y)}
        measures["value"] = self.upper_value(*y, None)
        return measures | {n: jnp.asarray(of(y, self.args)) for n, of in self.metrics.items()}


class AbstractBilevel(AbstractLevels):
    """Find x where F(x, y) is least, where y is where f(x, .) is least, in a set or anywhere."""

    def lower(
        self, x: PyTree[Array], y: PyTree[Array], batch: Any = None
    ) -> AbstractObjective | Composite:
        """The problem to minimize f(x, .) from y, in its set, on one batch where one is given."""
        level = LowerLevel(self, x, y, batch)
        return level if self.sets[1] is None else Composite(level, self.sets[1])

    def optimality(self, y: Pair) -> PyTree[Array]:
        """The hypergradient, f_y, and what of F_y no multiplier v explains: F_y - f_yy v.

        Where f(x, .) has one minimum the third is 0. Where it has many, y is that of them at which
        F is least when the third is 0 too. On sets, each gradient is the natural residual.
        """
        x, y = y
        F_x, F_y = self.upper_gradient(x, y, None)
        _, f_y = self.lower_gradient(x, y, None)
        tangent = self.tangent(y, f_y)
        product = self.reduced(x, y, tangent)
        w = symmetric_least_squares(product, tangent(F_y))
        hypergradient = otu.sub(F_x, self.lower_product(x, y, tangent(w), None)[0])
        left = otu.sub(tangent(F_y), product(w))
        return *self.natural_residual(x, y, hypergradient, f_y), left

    def natural_residual(self, x: Any, y: Any, hypergradient: Any, f_y: Any) -> Pair:
        """The two gradients, on sets (x, y) - project((x, y) - gradients)."""
        if all(a is None for a in self.sets):
            return hypergradient, f_y
        z = x, y
        return otu.sub(z, self.project(otu.sub(z, (hypergradient, f_y))))

    def tangent(self, y: PyTree[Array], f_y: PyTree[Array]) -> Callable[[Any], Any]:
        """D v for the derivative D of the projection of y at y - f_y; v itself where y has no set.

        It takes away the directions in which y is held by its set, along which it follows no x.
        """
        held = self.sets[1]
        return (lambda v: v) if held is None else jax.linearize(held.project, otu.sub(y, f_y))[1]

    def reduced(
        self, x: Any, y: Any, tangent: Callable[[Any], Any], batch: Any = None
    ) -> Callable[[Any], Any]:
        """The symmetric product with f_yy where y may move, D f_yy D + D - D^2 for D `tangent`.

        From y = P(y - f_y) follows how y moves: with this times w equal to D F_y, the hypergradient
        is F_x - f_xy D w. D - D^2 is the curvature of the set, 0 for a box.
        """
        if self.sets[1] is None:
            return lambda w: self.lower_product(x, y, w, batch)[1]

        def product(w: PyTree[Array]) -> PyTree[Array]:
            along = tangent(w)
            bent = otu.sub(along, tangent(along))
            return otu.add(tangent(self.lower_product(x, y, along, batch)[1]), bent)

        return product


class Bilevel(AbstractBilevel):
    """Minimize F(x, y) over x, where y minimizes f(x, y).

    Where f(x, .) has many minima, y is the one at which F is least: the optimistic question.

    Args:
        upper: F as `upper(x, y, args)`, returning a real scalar.
        lower: f as `lower(x, y, args)`, likewise.
        x: where the upper unknown starts, a PyTree of floating-point arrays.
        y: where the lower unknown starts, likewise.
        args: any data for both; the answer can be differentiated by it.
        sets: a convex set of `raphson.composite` for x and one for y, or None for either.
        metrics: further measures by name, each `metric((x, y), args)`, a real scalar, such as a
            loss on held-out data.
        facts: what is known of the problem.
        **oracles: hand-written oracles such as `lower_product(x, y, v, batch, args)` instead of
            autodiff's; the batch is None.

    Raises:
        ValueError: if a start is not made of real floating-point arrays, or an argument is unfit.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> upper = lambda x, y, _: (y - 1.0) ** 2 + x**2
        >>> lower = lambda x, y, _: (y - 2.0 * x) ** 2
        >>> x, y = rp.solve(rp.Bilevel(upper, lower, 0.0, 0.0)).value
        >>> round(float(x), 3), round(float(y), 3)
        (0.4, 0.8)
    """

    upper: Callable[..., Any]
    lower_fn: Callable[..., Any]
    y0: Pair
    args: PyTree
    sets: tuple[AbstractConvexSet | None, AbstractConvexSet | None]
    metrics: dict[str, Callable[..., Any]]
    oracles: dict[str, Callable[..., Any]]
    facts: Facts
    wrappers: tuple[Any, ...]

    def __init__(
        self,
        upper: Callable[[Any, Any, Any], Any],
        lower: Callable[[Any, Any, Any], Any],
        x: PyTree[ArrayLike],
        y: PyTree[ArrayLike],
        args: PyTree = None,
        *,
        sets: tuple[AbstractConvexSet | None, AbstractConvexSet | None] = (None, None),
        metrics: dict[str, Callable[[Any, Any], Any]] | None = None,
        facts: Facts | None = None,
        **oracles: Callable[..., Any],
    ):
        self.upper, self.lower_fn = as_function(upper, "upper"), as_function(lower, "lower")
        self.y0, self.args = (as_start(x, "x"), as_start(y, "y")), args
        self.sets, self.metrics = as_sets(sets), as_metrics(metrics)
        self.oracles, self.facts, self.wrappers = oracles, facts or Facts(), ()

    def upper_objective(self, x: Any, y: Any, batch: Any) -> Float[Array, ""]:
        return self.upper(x, y, self.args)

    def lower_objective(self, x: Any, y: Any, batch: Any) -> Float[Array, ""]:
        return self.lower_fn(x, y, self.args)

    def traced(self, y: Pair) -> Self:
        fns = []
        for name, fn in (("upper", self.upper), ("lower", self.lower_fn)):
            traced, out = trace_function(fn, *y, self.args, name=name)
            require_scalar(out, name)
            fns.append(traced)
        return eqx.tree_at(lambda p: (p.upper, p.lower_fn), self, tuple(fns))

    def rescaled(self, y_scale: Pair, value_scale: ArrayLike) -> Self:
        if any(a is not None for a in self.sets):
            raise ValueError("a `Bilevel` with `sets` cannot be scaled: they would move.")

        def scaled(fn: Callable[..., Any]) -> Callable[..., Any]:
            def of(x: Any, y: Any, args: Any) -> Any:
                return value_scale * fn(*otu.mul(y_scale, (x, y)), args)

            return of

        return type(self)(scaled(self.upper), scaled(self.lower_fn), *self.y0, self.args)


class BilevelSum(Bilevel):
    """Minimize over x the mean loss F of validation samples, where y minimizes that of training.

    Args:
        upper: `upper(x, y, sample, args)`, F of one sample of `upper_data`, a real scalar.
        lower: `lower(x, y, sample, args)`, f of one sample of `lower_data`, a real scalar.
        x: where the upper unknown starts, a PyTree of floating-point arrays.
        y: where the lower unknown starts, likewise.
        upper_data: a PyTree of arrays whose leading axis counts the samples of the upper level.
        lower_data: likewise for the lower level; put the numbers of samples in it where each
            sample has a part of x.
        args: any further data for both; the answer can be differentiated by it.
        batch_size: how many samples of each level a stochastic method draws at each step, with
            replacement; None (the default) stands for all of them, drawn without chance.
        sets: as in `Bilevel`.
        metrics: as in `Bilevel`.
        facts: what is known of the problem.
        **oracles: as in `Bilevel`, with a batch.

    Raises:
        ValueError: if the leaves of data differ in their leading axis, or an argument is unfit.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> loss = lambda x, y, a, _: (y - a) ** 2
        >>> decayed = lambda x, y, a, _: (y - a) ** 2 + jnp.exp(x) * y**2
        >>> data = jnp.array([1.0]), jnp.array([1.5, 2.5])
        >>> x, y = rp.solve(rp.BilevelSum(loss, decayed, 0.5, 0.0, *data)).value
        >>> round(float(x), 2), round(float(y), 2)
        (0.0, 1.0)
    """

    upper_data: PyTree[Array]
    lower_data: PyTree[Array]
    batch_size: int | None = eqx.field(static=True)

    def __init__(
        self,
        upper: Callable[[Any, Any, Any, Any], Any],
        lower: Callable[[Any, Any, Any, Any], Any],
        x: PyTree[ArrayLike],
        y: PyTree[ArrayLike],
        upper_data: PyTree[ArrayLike],
        lower_data: PyTree[ArrayLike],
        args: PyTree = None,
        *,
        batch_size: int | None = None,
        sets: tuple[AbstractConvexSet | None, AbstractConvexSet | None] = (None, None),
        metrics: dict[str, Callable[[Any, Any], Any]] | None = None,
        facts: Facts | None = None,
        **oracles: Callable[..., Any],
    ):
        # Functions of a sample besides.
        above: Any = upper
        below: Any = lower
        super().__init__(
            above, below, x, y, args, sets=sets, metrics=metrics, facts=facts, **oracles
        )
        self.upper_data = as_data(upper_data, "upper_data")
        self.lower_data = as_data(lower_data, "lower_data")
        self.batch_size = as_batch_size(batch_size)

    @property
    def stochastic(self) -> bool:
        return self.batch_size is not None

    @oracle
    def sample(self, key: Array | None) -> tuple[PyTree[Array] | None, PyTree[Array] | None]:
        """A batch of `batch_size` samples for each level, or None for all of them."""
        keys = (None, None) if key is None else jax.random.split(key)
        of = (self.upper_data, keys[0]), (self.lower_data, keys[1])
        upper, lower = (drawn(data, self.batch_size, each) for data, each in of)
        return upper, lower

    def upper_objective(self, x: Any, y: Any, batch: Any) -> Float[Array, ""]:
        return self._mean(self.upper, x, y, self.upper_data if batch is None else batch)

    def lower_objective(self, x: Any, y: Any, batch: Any) -> Float[Array, ""]:
        return self._mean(self.lower_fn, x, y, self.lower_data if batch is None else batch)

    def traced(self, y: Pair) -> Self:
        fns = []
        levels = ("upper", self.upper, self.upper_data), ("lower", self.lower_fn, self.lower_data)
        for name, fn, data in levels:
            sample = jax.tree.map(lambda leaf: leaf[0], data)
            traced, out = trace_function(fn, *y, sample, self.args, name=name)
            require_scalar(out, name)
            fns.append(traced)
        return eqx.tree_at(lambda p: (p.upper, p.lower_fn), self, tuple(fns))

    def rescaled(self, y_scale: Pair, value_scale: ArrayLike) -> Self:
        raise ValueError("a `BilevelSum` cannot be scaled: scale its functions.")

    def _mean(self, fn: Any, x: Any, y: Any, samples: PyTree[Array]) -> Float[Array, ""]:
        return jnp.mean(jax.vmap(lambda sample: fn(x, y, sample, self.args))(samples))


class LowerLevel(AbstractObjective):
    """Minimize f(x, .) with x held: what an inner method is run on, through the same door."""

    bilevel: AbstractBilevel
    x: PyTree[Array]
    y0: PyTree[Array]
    batch: PyTree[Array] | None
    args: PyTree
    oracles: dict[str, Callable[..., Any]]
    facts: Facts
    wrappers: tuple[Any, ...]

    def __init__(self, bilevel: AbstractBilevel, x: Any, y: Any, batch: Any = None):
        self.bilevel, self.x, self.y0, self.batch = bilevel, x, y, batch
        self.args, self.oracles, self.facts, self.wrappers = None, {}, Facts(), ()

    @property
    def stochastic(self) -> bool:
        return self.batch is None and self.bilevel.stochastic

    def objective(self, y: PyTree[Array]) -> Float[Array, ""]:
        return self.bilevel.lower_value(self.x, y, self.batch)

    @oracle
    def sample(self, key: Array | None) -> PyTree[Array] | None:
        """A batch of the lower level."""
        return self.bilevel.sample(key)[1]

    @oracle
    def batch_value(self, y: PyTree[Array], batch: PyTree[Array] | None) -> Float[Array, ""]:
        """f estimated on a batch."""
        return self.bilevel.lower_value(self.x, y, batch)

    @oracle
    def batch_value_and_gradient(
        self, y: PyTree[Array], batch: PyTree[Array] | None
    ) -> tuple[Float[Array, ""], PyTree[Array]]:
        """f and f_y estimated on a batch."""
        return self.batch_value(y, batch), self.bilevel.lower_gradient(self.x, y, batch)[1]

    @oracle
    def gradient(self, y: PyTree[Array]) -> PyTree[Array]:
        """The gradient f_y at (x, y)."""
        return self.bilevel.lower_gradient(self.x, y, self.batch)[1]

    @oracle
    def value_and_gradient(self, y: PyTree[Array]) -> tuple[Float[Array, ""], PyTree[Array]]:
        """f(x, y) and f_y."""
        return self.value(y), self.gradient(y)

    @oracle
    def hvp(self, y: PyTree[Array], v: PyTree[Array]) -> PyTree[Array]:
        """The product f_yy v."""
        return self.bilevel.lower_product(self.x, y, v, self.batch)[1]

    @oracle
    def hessian(self, y: PyTree[Array]) -> lx.AbstractLinearOperator:
        """f_yy, a symmetric Lineax operator."""
        of, like = lambda v: self.hvp(y, v), jax.eval_shape(lambda: y)
        return lx.FunctionLinearOperator(of, like, tags=lx.symmetric_tag)

    def traced(self, y: PyTree[Array]) -> Self:
        return self

    def rescaled(self, y_scale: PyTree[Array], value_scale: ArrayLike) -> Self:
        raise ValueError("a lower level cannot be scaled: scale the bilevel problem.")


def as_sets(sets: Any) -> tuple[AbstractConvexSet | None, AbstractConvexSet | None]:
    """A pair of convex sets or None, refused in a sentence."""
    fits = isinstance(sets, tuple) and len(sets) == 2
    if not fits or any(not isinstance(a, AbstractConvexSet | None) for a in sets):
        raise ValueError(
            "`sets` must be a pair, for x and for y, each a convex set of `raphson.composite` or "
            f"None, got {sets!r}."
        )
    return sets


def symmetric_least_squares(product: Callable[[Any], Any], vector: PyTree[Array]) -> PyTree[Array]:
    """The shortest v for which product(v), by a symmetric matrix, is nearest to the vector."""
    flat, unravel = ravel_pytree(vector)
    of = lambda v: ravel_pytree(product(unravel(v)))[0]

    def solve(of: Callable[[Array], Array], b: Array) -> Array:
        if b.size <= DENSE_LIMIT:
            return jnp.linalg.lstsq(jax.vmap(of)(jnp.eye(b.size, dtype=b.dtype)), b)[0]
        operator = lx.FunctionLinearOperator(of, jax.eval_shape(lambda: b), lx.symmetric_tag)
        tolerance = float(jnp.finfo(b.dtype).eps) ** 0.75
        solver = lx.LSMR(tolerance, tolerance)
        return lx.linear_solve(operator, b, solver, throw=False).value

    # Differentiated as a solution, not through the solver, which has no derivative of a matrix of
    # less than full rank.
    return unravel(jax.lax.custom_linear_solve(of, flat, solve, symmetric=True))
