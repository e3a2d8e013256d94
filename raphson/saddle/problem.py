"""The questions of two players: variational inequalities, and saddles, which are a case of them."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as otu
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..composite import AbstractNonsmooth
from ..composite.nonsmooth import RescaledNonsmooth
from ..problem import AbstractProblem, AbstractSampled, Facts, as_data, oracle, trace_function
from ..validate import (
    as_batch_size,
    as_function,
    as_metrics,
    as_start,
    require_like,
    require_scalar,
)


class AbstractVariational(AbstractProblem):
    """Find z where 0 is in F(z) + G(z), with an operator F and one G that has a resolvent.

    Where G is that of a convex set, this is: <F(z), w - z> >= 0 for every w of the set.
    """

    metrics: eqx.AbstractVar[dict[str, Callable[..., Any]]]

    @abc.abstractmethod
    def field(self, z: PyTree[Array]) -> PyTree[Array]:
        """The operator itself; methods call the oracles, never this."""

    @abc.abstractmethod
    def backward(self, z: PyTree[Array], step_size: Any) -> PyTree[Array]:
        """The resolvent itself; methods call the oracles, never this."""

    @property
    @abc.abstractmethod
    def smooth(self) -> bool:
        """Whether there is no G."""

    @property
    def two_players(self) -> bool:
        """Whether the unknown is a pair (x, y), with a resolvent for each."""
        return False

    @property
    def stochastic(self) -> bool:
        """Whether `sample` draws at random."""
        return False

    @oracle
    def operator(self, z: PyTree[Array]) -> PyTree[Array]:
        """F(z), shaped as z."""
        return self.field(z)

    @oracle
    def resolvent(self, z: PyTree[Array], step_size: Any) -> PyTree[Array]:
        """The w with z - w in step_size G(w): where G is that of a set, its nearest point."""
        return self.backward(z, step_size)

    @oracle
    def sample(self, key: Array | None) -> PyTree[Array] | None:
        """What a stochastic method draws at each step: a batch, or None where F is exact."""
        return None

    @oracle
    def batch_operator(self, z: PyTree[Array], batch: PyTree[Array] | None) -> PyTree[Array]:
        """F estimated on a batch."""
        return self.operator(z)

    def optimality(self, y: PyTree[Array]) -> PyTree[Array]:
        """The natural residual z - resolvent(z - F(z), 1): F(z) itself where there is no G."""
        return self.natural_residual(y, self.operator(y))

    def natural_residual(self, z: PyTree[Array], operator: PyTree[Array]) -> PyTree[Array]:
        """The natural residual at z from F(z)."""
        # Without G it is F(z), which z - (z - F(z)) would lose to rounding.
        if self.smooth:
            return operator
        return otu.sub(z, self.resolvent(otu.sub(z, operator), 1.0))

    def measures(self, y: PyTree[Array]) -> dict[str, Float[Array, ""]]:
        own = {name: jnp.asarray(of(y, self.args)) for name, of in self.metrics.items()}
        return super().measures(y) | own


class VariationalInequality(AbstractVariational):
    """Find z where 0 is in F(z) + G(z).

    Args:
        fn: F as `fn(z, args)`, returning what is shaped as z.
        z: the start, a PyTree of floating-point arrays.
        args: any data for `fn`; the answer can be differentiated by it.
        nonsmooth: G by its proximal operator: a convex set or another of `raphson.composite`, on
            all of z; none by default.
        metrics: further measures by name, each `metric(z, args)`, a real scalar.
        facts: what is known of the problem.
        **oracles: hand-written `operator(z, args)` or `resolvent(z, step_size, args)` instead.

    Raises:
        ValueError: if the start is not made of real floating-point arrays, or an argument is unfit.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> rotated = lambda z, a: jnp.array([z[0] + z[1], z[1] - z[0]]) - a
        >>> positive = rp.composite.Box(0.0, jnp.inf)
        >>> a = jnp.array([1.0, -3.0])
        >>> problem = rp.VariationalInequality(rotated, jnp.ones(2), a, nonsmooth=positive)
        >>> rp.solve(problem).value.round(3).tolist()
        [1.0, 0.0]
    """

    fn: Callable[..., Any]
    y0: PyTree[Array]
    args: PyTree
    nonsmooth: AbstractNonsmooth | None
    metrics: dict[str, Callable[..., Any]]
    oracles: dict[str, Callable[..., Any]]
    facts: Facts
    wrappers: tuple[Any, ...]

    def __init__(
        self,
        fn: Callable[[Any, Any], Any],
        z: PyTree[ArrayLike],
        args: PyTree = None,
        *,
        nonsmooth: AbstractNonsmooth | None = None,
        metrics: dict[str, Callable[[Any, Any], Any]] | None = None,
        facts: Facts | None = None,
        **oracles: Callable[..., Any],
    ):
        self.fn, self.y0, self.args = as_function(fn), as_start(z, "z"), args
        self.nonsmooth = _as_nonsmooth(nonsmooth, self.y0)
        self.metrics = as_metrics(metrics)
        self.oracles, self.facts, self.wrappers = oracles, facts or Facts(), ()

    def field(self, z: PyTree[Array]) -> PyTree[Array]:
        return self.fn(z, self.args)

    def backward(self, z: PyTree[Array], step_size: Any) -> PyTree[Array]:
        return _prox(self.nonsmooth, z, step_size)

    @property
    def smooth(self) -> bool:
        return self.nonsmooth is None

    def traced(self, y: PyTree[Array]) -> Self:
        fn, out = trace_function(self.fn, y, self.args)
        require_like(out, y)
        return eqx.tree_at(lambda p: p.fn, self, fn)

    def rescaled(self, y_scale: PyTree[Array], value_scale: ArrayLike) -> Self:
        def scaled(z: Any, args: Any) -> Any:
            return otu.scale(value_scale, otu.mul(y_scale, self.fn(otu.mul(y_scale, z), args)))

        part = _scaled_part(self.nonsmooth, y_scale, value_scale)
        return type(self)(scaled, self.y0, self.args, nonsmooth=part)


class VariationalSum(AbstractSampled, VariationalInequality):
    """Find z where 0 is in F(z) + G(z), with F the mean over a data set of an operator.

    Args:
        fn: `fn(z, sample, args)`, the operator of one sample, returning what is shaped as z.
        z: the start, a PyTree of floating-point arrays.
        data: a PyTree of arrays whose leading axis counts the n samples.
        args: any further data for `fn`; the answer can be differentiated by it.
        batch_size: how many samples a stochastic method draws at each step, with replacement;
            None (the default) stands for all of them, drawn without chance.
        nonsmooth: as in `VariationalInequality`.
        metrics: as in `VariationalInequality`.
        facts: what is known of the problem.
        **oracles: as in `VariationalInequality`.

    Raises:
        ValueError: if the leaves of `data` differ in their leading axis, or an argument is unfit.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> data = jnp.array([1.0, 2.0, 3.0])
        >>> problem = rp.VariationalSum(lambda z, a, _: z - a, jnp.array(0.0), data)
        >>> round(float(rp.solve(problem).value), 3)
        2.0
    """

    data: PyTree[Array]
    batch_size: int | None = eqx.field(static=True)

    def __init__(
        self,
        fn: Callable[[Any, Any, Any], Any],
        z: PyTree[ArrayLike],
        data: PyTree[ArrayLike],
        args: PyTree = None,
        *,
        batch_size: int | None = None,
        nonsmooth: AbstractNonsmooth | None = None,
        metrics: dict[str, Callable[[Any, Any], Any]] | None = None,
        facts: Facts | None = None,
        **oracles: Callable[..., Any],
    ):
        # A function of a sample besides.
        of: Any = fn
        VariationalInequality.__init__(
            self, of, z, args, nonsmooth=nonsmooth, metrics=metrics, facts=facts, **oracles
        )
        self.data, self.batch_size = as_data(data), as_batch_size(batch_size)

    def field(self, z: PyTree[Array]) -> PyTree[Array]:
        return self._mean(z, self.data)

    @oracle
    def batch_operator(self, z: PyTree[Array], batch: PyTree[Array] | None) -> PyTree[Array]:
        """The mean operator of a batch."""
        return self._mean(z, self.data if batch is None else batch)

    def traced(self, y: PyTree[Array]) -> Self:
        sample = jax.tree.map(lambda leaf: leaf[0], self.data)
        fn, out = trace_function(self.fn, y, sample, self.args)
        require_like(out, y)
        return eqx.tree_at(lambda p: p.fn, self, fn)

    def rescaled(self, y_scale: PyTree[Array], value_scale: ArrayLike) -> Self:
        raise ValueError("a `VariationalSum` cannot be scaled: scale its `fn`.")

    def _mean(self, z: PyTree[Array], samples: PyTree[Array]) -> PyTree[Array]:
        each = jax.vmap(lambda sample: self.fn(z, sample, self.args))(samples)
        return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), each)


class Saddle(AbstractVariational):
    """Find min over x, max over y, of f(x, y) + g(x) - h(y).

    The unknown is the pair (x, y), and the operator F(x, y) = (df/dx, -df/dy).

    Args:
        fn: f as `fn(x, y, args)`, returning a real scalar.
        x: where the minimizing player starts, a PyTree of floating-point arrays.
        y: where the maximizing player starts, likewise.
        args: any data for `fn`; the answer can be differentiated by it.
        nonsmooth: the pair (g, h), each a convex set or another of `raphson.composite`, or None:
            by their proximal operators. By default neither.
        metrics: further measures by name, each `metric((x, y), args)`, a real scalar: a duality
            gap, a loss on held-out data.
        facts: what is known of the problem.
        **oracles: hand-written `operator(z, args)` or `resolvent(z, step_size, args)` instead.

    Raises:
        ValueError: if a start is not made of real floating-point arrays, or an argument is unfit.

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
    nonsmooth: tuple[AbstractNonsmooth | None, AbstractNonsmooth | None]
    metrics: dict[str, Callable[..., Any]]
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
        nonsmooth: tuple[AbstractNonsmooth | None, AbstractNonsmooth | None] = (None, None),
        metrics: dict[str, Callable[[Any, Any], Any]] | None = None,
        facts: Facts | None = None,
        **oracles: Callable[..., Any],
    ):
        self.fn, self.args = as_function(fn), args
        self.y0 = (as_start(x, "x"), as_start(y, "y"))
        self.nonsmooth = as_parts(nonsmooth, self.y0)
        self.metrics = as_metrics(metrics)
        self.oracles, self.facts, self.wrappers = oracles, facts or Facts(), ()

    @property
    def two_players(self) -> bool:
        return True

    @oracle
    def value(self, z: tuple[PyTree[Array], PyTree[Array]]) -> Float[Array, ""]:
        """f(x, y)."""
        return self.fn(*z, self.args)

    @oracle
    def batch_value(
        self, z: tuple[PyTree[Array], PyTree[Array]], batch: PyTree[Array] | None
    ) -> Float[Array, ""]:
        """f estimated on a batch."""
        return self.value(z)

    def field(self, z: tuple[PyTree[Array], PyTree[Array]]) -> PyTree[Array]:
        by_x, by_y = jax.grad(self.value)(z)
        return by_x, otu.scale(-1, by_y)

    @oracle
    def mixed(
        self, z: tuple[PyTree[Array], PyTree[Array]], v: tuple[PyTree[Array], PyTree[Array]]
    ) -> tuple[PyTree[Array], PyTree[Array]]:
        """The pair (f_xy v_y, f_yx v_x) of products with the mixed second derivative."""
        return _mixed(self.value, z, v)

    @oracle
    def batch_mixed(
        self,
        z: tuple[PyTree[Array], PyTree[Array]],
        v: tuple[PyTree[Array], PyTree[Array]],
        batch: PyTree[Array] | None,
    ) -> tuple[PyTree[Array], PyTree[Array]]:
        """These products estimated on a batch."""
        return self.mixed(z, v)

    def backward(self, z: PyTree[Array], step_size: Any) -> PyTree[Array]:
        steps = step_size if isinstance(step_size, tuple) else (step_size, step_size)
        return tuple(
            _prox(part, *each) for part, *each in zip(self.nonsmooth, z, steps, strict=True)
        )

    @property
    def smooth(self) -> bool:
        return all(part is None for part in self.nonsmooth)

    def measures(self, y: PyTree[Array]) -> dict[str, Float[Array, ""]]:
        return super().measures(y) | {"value": self.value(y)}

    def traced(self, y: tuple[PyTree[Array], PyTree[Array]]) -> Self:
        fn, out = trace_function(self.fn, *y, self.args)
        require_scalar(out)
        return eqx.tree_at(lambda p: p.fn, self, fn)

    def rescaled(self, y_scale: PyTree[Array], value_scale: ArrayLike) -> Self:
        parts = self._scaled_parts(y_scale, value_scale)
        x_scale, y_scale = y_scale

        def scaled(x: Any, y: Any, args: Any) -> Any:
            return value_scale * self.fn(otu.mul(x_scale, x), otu.mul(y_scale, y), args)

        return type(self)(scaled, *self.y0, self.args, nonsmooth=parts)

    def _scaled_parts(self, y_scale: PyTree[Array], value_scale: ArrayLike) -> tuple[Any, Any]:
        """The nonsmooth parts in other units, one unit for each player."""
        x, y = map(_scaled_part, self.nonsmooth, y_scale, (value_scale, value_scale))
        return x, y


class SaddleSum(AbstractSampled, Saddle):
    """Find min over x, max over y, of the mean over a data set of f, plus g(x) - h(y).

    Args:
        fn: `fn(x, y, sample, args)`, f of one sample, a real scalar.
        x: where the minimizing player starts, a PyTree of floating-point arrays.
        y: where the maximizing player starts, likewise.
        data: a PyTree of arrays whose leading axis counts the n samples.
        args: any further data for `fn`; the answer can be differentiated by it.
        batch_size: how many samples a stochastic method draws at each step, with replacement;
            None (the default) stands for all of them, drawn without chance.
        nonsmooth: as in `Saddle`.
        metrics: as in `Saddle`.
        facts: what is known of the problem.
        **oracles: as in `Saddle`.

    Raises:
        ValueError: if the leaves of `data` differ in their leading axis, or an argument is unfit.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> fn = lambda x, y, a, _: x**2 / 2 + (x - a) * y - y**2 / 2
        >>> data = jnp.array([1.0, 2.0, 3.0])
        >>> problem = rp.SaddleSum(fn, jnp.array(0.0), jnp.array(0.0), data)
        >>> x, y = rp.solve(problem).value
        >>> round(float(x), 3), round(float(y), 3)
        (1.0, -1.0)
    """

    data: PyTree[Array]
    batch_size: int | None = eqx.field(static=True)

    def __init__(
        self,
        fn: Callable[[Any, Any, Any, Any], Any],
        x: PyTree[ArrayLike],
        y: PyTree[ArrayLike],
        data: PyTree[ArrayLike],
        args: PyTree = None,
        *,
        batch_size: int | None = None,
        nonsmooth: tuple[AbstractNonsmooth | None, AbstractNonsmooth | None] = (None, None),
        metrics: dict[str, Callable[[Any, Any], Any]] | None = None,
        facts: Facts | None = None,
        **oracles: Callable[..., Any],
    ):
        # A function of a sample besides.
        of: Any = fn
        Saddle.__init__(
            self, of, x, y, args, nonsmooth=nonsmooth, metrics=metrics, facts=facts, **oracles
        )
        self.data, self.batch_size = as_data(data), as_batch_size(batch_size)

    @oracle
    def value(self, z: tuple[PyTree[Array], PyTree[Array]]) -> Float[Array, ""]:
        """The mean of f."""
        return self._mean(z, self.data)

    @oracle
    def batch_value(
        self, z: tuple[PyTree[Array], PyTree[Array]], batch: PyTree[Array] | None
    ) -> Float[Array, ""]:
        """The mean of f over a batch."""
        return self._mean(z, self.data if batch is None else batch)

    @oracle
    def batch_operator(
        self, z: tuple[PyTree[Array], PyTree[Array]], batch: PyTree[Array] | None
    ) -> PyTree[Array]:
        """F of the mean of f over a batch."""
        by_x, by_y = jax.grad(self.batch_value)(z, batch)
        return by_x, otu.scale(-1, by_y)

    @oracle
    def batch_mixed(
        self,
        z: tuple[PyTree[Array], PyTree[Array]],
        v: tuple[PyTree[Array], PyTree[Array]],
        batch: PyTree[Array] | None,
    ) -> tuple[PyTree[Array], PyTree[Array]]:
        """The products with the mixed second derivative of the mean of f over a batch."""
        return _mixed(lambda z: self.batch_value(z, batch), z, v)

    def traced(self, y: tuple[PyTree[Array], PyTree[Array]]) -> Self:
        sample = jax.tree.map(lambda leaf: leaf[0], self.data)
        fn, out = trace_function(self.fn, *y, sample, self.args)
        require_scalar(out)
        return eqx.tree_at(lambda p: p.fn, self, fn)

    def rescaled(self, y_scale: PyTree[Array], value_scale: ArrayLike) -> Self:
        raise ValueError("a `SaddleSum` cannot be scaled: scale its `fn`.")

    def _mean(self, z: tuple[PyTree[Array], PyTree[Array]], samples: Any) -> Float[Array, ""]:
        return jnp.mean(jax.vmap(lambda sample: self.fn(*z, sample, self.args))(samples))


def _mixed(value: Callable[[Any], Array], z: Any, v: Any) -> tuple[PyTree[Array], PyTree[Array]]:
    """The pair (f_xy v_y, f_yx v_x) for f the value."""
    (x, y), (v_x, v_y) = z, v
    by_x = lambda y: jax.grad(value)((x, y))[0]
    by_y = lambda x: jax.grad(value)((x, y))[1]
    return jax.jvp(by_x, (y,), (v_y,))[1], jax.jvp(by_y, (x,), (v_x,))[1]


def _prox(part: AbstractNonsmooth | None, z: PyTree[Array], step_size: Any) -> PyTree[Array]:
    if part is None:
        return z
    return jax.tree.map(lambda x, z: jnp.asarray(x, z.dtype), part.prox(z, step_size), z)


def _scaled_part(part: Any, y_scale: PyTree[Array], value_scale: ArrayLike) -> Any:
    if part is None:
        return None
    scales = ravel_pytree(y_scale)[0]
    if jnp.any(scales != scales[0]):
        raise ValueError(
            "`y_scale` of a player with a `nonsmooth` part must be one number: others change the "
            "metric of its prox."
        )
    return RescaledNonsmooth(part, scales[0], value_scale)


def _as_nonsmooth(part: Any, z: PyTree[Array]) -> AbstractNonsmooth | None:
    if part is None:
        return None
    if not isinstance(part, AbstractNonsmooth):
        raise ValueError(
            "`nonsmooth` must be of `raphson.composite` or an AbstractNonsmooth of yours, got a "
            f"{type(part).__name__}."
        )
    try:
        nearest = jax.eval_shape(part.prox, z, 1.0)
    except (TypeError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"`nonsmooth` does not take the start: {reason}") from None
    require_like(nearest, z, "prox")
    return part


def as_parts(
    parts: Any, z: tuple[PyTree[Array], PyTree[Array]]
) -> tuple[AbstractNonsmooth | None, AbstractNonsmooth | None]:
    """The pair of nonsmooth parts, refused in a sentence."""
    if not (isinstance(parts, tuple) and len(parts) == 2):
        raise ValueError(
            "`nonsmooth` of a saddle must be a pair, for x and for y, each of `raphson.composite` "
            f"or None, got {parts!r}."
        )
    return _as_nonsmooth(parts[0], z[0]), _as_nonsmooth(parts[1], z[1])
