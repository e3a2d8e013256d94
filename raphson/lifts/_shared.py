"""The functions that other libraries differentiate themselves, tied to the problem's oracles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, PyTree

from ..problem import AbstractObjective, AbstractResidual


def as_value(
    problem: AbstractObjective, batch: PyTree[Array] | None = None
) -> Callable[[PyTree[Array]], Array]:
    """The objective, or its estimate on a batch, as a function to differentiate up to twice.

    Its derivatives ask the oracles of gradients and Hessian products.
    """
    value: Any = problem.value
    gradient: Any = problem.gradient
    hvp: Any = problem.hvp
    if batch is not None:
        value = lambda y: problem.batch_value(y, batch)
        gradient = lambda y: problem.batch_value_and_gradient(y, batch)[1]
        hvp = lambda y, v: problem.batch_hvp(y, v, batch)
    if not problem.wrappers and not problem.oracles:
        return value
    first = _tied(gradient, hvp)
    return _tied(value, lambda y, v: jnp.asarray(otu.vdot(first(y), v)))


def _tied(
    fn: Callable[[PyTree[Array]], Any], derivative: Callable[[PyTree[Array], PyTree[Array]], Any]
) -> Callable[[PyTree[Array]], Any]:
    """A function whose derivative at y along v is asked for by `derivative(y, v)`."""

    @jax.custom_jvp
    def tied(y: PyTree[Array], out: Any) -> Any:
        return out

    @tied.defjvp
    def _(primals: Any, tangents: Any) -> tuple[Any, Any]:
        y, out = primals
        return out, derivative(y, tangents[0])

    return lambda y: tied(y, fn(jax.lax.stop_gradient(y)))


def as_residual(problem: AbstractResidual) -> Callable[[PyTree[Array]], PyTree[Array]]:
    """The residual as a function to differentiate, whose derivative asks the Jacobian oracle."""
    if not problem.wrappers and not problem.oracles:
        return problem.residual

    @jax.custom_jvp
    def tied(y: PyTree[Array], residual: PyTree[Array]) -> PyTree[Array]:
        return residual

    @tied.defjvp
    def _(primals: Any, tangents: Any) -> tuple[PyTree[Array], PyTree[Array]]:
        y, residual = primals
        return residual, problem.jacobian(y).mv(tangents[0])

    return lambda y: tied(y, problem.residual(jax.lax.stop_gradient(y)))
