"""The questions of smooth minimization: find y where f(y) is least."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..problem import (
    AbstractFunctionProblem,
    AbstractObjective,
    AbstractSampled,
    Facts,
    Rescaled,
    as_data,
    oracle,
    trace_function,
)
from ..validate import as_batch_size, as_function, as_start, require_scalar


class Minimize(AbstractFunctionProblem, AbstractObjective):
    """Minimize a scalar function f of arrays.

    Args:
        fn: `fn(y, args)`, returning a real scalar.
        y0: the start, a PyTree of floating-point arrays.
        args: any data for `fn`; the answer can be differentiated by it.
        facts: what is known of the problem.
        **oracles: hand-written `gradient(y, args)`, `value_and_gradient(y, args)`,
            `hvp(y, v, args)` or `hessian(y, args)` (a Lineax operator) instead of autodiff's.

    Raises:
        ValueError: if the start is not made of real floating-point arrays, or `fn` is no function.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.Minimize(lambda y, a: jnp.sum((y - a) ** 2), jnp.zeros(2), jnp.ones(2))
        >>> rp.solve(problem).value.round(3).tolist()
        [1.0, 1.0]
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

    def objective(self, y: PyTree[Array]) -> Float[Array, ""]:
        return self.fn(y, self.args)

    def check_output(self, out: PyTree, y: PyTree[Array]) -> None:
        require_scalar(out)


class FiniteSum(AbstractSampled, AbstractObjective):
    """Minimize the mean over a data set of a loss of one sample.

    Args:
        fn: `fn(y, sample, args)`, the loss of one sample, a real scalar.
        y0: the start, a PyTree of floating-point arrays.
        data: a PyTree of arrays whose leading axis counts the n samples.
        args: any further data for `fn`; the answer can be differentiated by it.
        batch_size: how many samples a stochastic method draws at each step, with replacement;
            None (the default) stands for all of them, drawn without chance.
        held_out: samples as in `data`, on which the measure `held_out` is the mean loss.
        facts: what is known of the problem.
        **oracles: hand-written oracles instead of autodiff's, as in `Minimize`.

    Raises:
        ValueError: if the leaves of `data` differ in their leading axis, or an argument is unfit.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> data = jnp.array([1.0, 2.0, 3.0])
        >>> problem = rp.FiniteSum(lambda y, a, _: (y - a) ** 2, jnp.array(0.0), data)
        >>> round(float(rp.solve(problem).value), 3)
        2.0
    """

    fn: Callable[..., Any]
    y0: PyTree[Array]
    data: PyTree[Array]
    args: PyTree
    batch_size: int | None = eqx.field(static=True)
    held_out: PyTree[Array] | None
    oracles: dict[str, Callable[..., Any]]
    facts: Facts
    wrappers: tuple[Any, ...]

    def __init__(
        self,
        fn: Callable[[Any, Any, Any], Any],
        y0: PyTree[ArrayLike],
        data: PyTree[ArrayLike],
        args: PyTree = None,
        *,
        batch_size: int | None = None,
        held_out: PyTree[ArrayLike] | None = None,
        facts: Facts | None = None,
        **oracles: Callable[..., Any],
    ):
        self.fn, self.y0, self.args = as_function(fn), as_start(y0), args
        self.data = as_data(data)
        self.held_out = jax.tree.map(jnp.asarray, held_out)
        self.batch_size = as_batch_size(batch_size)
        self.oracles, self.facts, self.wrappers = oracles, facts or Facts(), ()

    def objective(self, y: PyTree[Array]) -> Float[Array, ""]:
        return self._mean_loss(y, self.data)

    @oracle
    def batch_value(self, y: PyTree[Array], batch: PyTree[Array] | None) -> Float[Array, ""]:
        """The mean loss of a batch."""
        return self._mean_loss(y, self.data if batch is None else batch)

    @oracle
    def batch_value_and_gradient(
        self, y: PyTree[Array], batch: PyTree[Array] | None
    ) -> tuple[Float[Array, ""], PyTree[Array]]:
        """The mean loss of a batch and its gradient."""
        return jax.value_and_grad(self.batch_value)(y, batch)

    @oracle
    def batch_hessian(
        self, y: PyTree[Array], batch: PyTree[Array] | None
    ) -> lx.AbstractLinearOperator:
        """The Hessian of the mean loss of a batch, a symmetric Lineax operator."""
        gradient = lambda y, _: self.batch_value_and_gradient(y, batch)[1]
        return lx.JacobianLinearOperator(gradient, y, tags=lx.symmetric_tag)

    @oracle
    def batch_hvp(
        self, y: PyTree[Array], v: PyTree[Array], batch: PyTree[Array] | None
    ) -> PyTree[Array]:
        """The product of the Hessian of the mean loss of a batch with v."""
        return jax.jvp(lambda y: self.batch_value_and_gradient(y, batch)[1], (y,), (v,))[1]

    def measures(self, y: PyTree[Array]) -> dict[str, Float[Array, ""]]:
        measures = super().measures(y)
        if self.held_out is not None:
            measures["held_out"] = self._mean_loss(y, self.held_out)
        return measures

    def traced(self, y: PyTree[Array]) -> Self:
        sample = jax.tree.map(lambda leaf: leaf[0], self.data)
        fn, out = trace_function(self.fn, y, sample, self.args)
        require_scalar(out)
        return eqx.tree_at(lambda p: p.fn, self, fn)

    def rescaled(self, y_scale: PyTree[Array], value_scale: ArrayLike) -> Self:
        return type(self)(
            Rescaled(self.fn, y_scale, value_scale),
            self.y0,
            self.data,
            self.args,
            batch_size=self.batch_size,
            held_out=self.held_out,
        )

    def _mean_loss(self, y: PyTree[Array], samples: PyTree[Array]) -> Float[Array, ""]:
        losses = jax.vmap(lambda sample: self.fn(y, sample, self.args))(samples)
        return jnp.mean(losses)
