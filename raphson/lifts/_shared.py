"""The functions that other libraries differentiate themselves, tied to the problem's oracles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, PyTree

from ..problem import AbstractObjective, AbstractResidual


def as_value(problem: AbstractObjective) -> Callable[[PyTree[Array]], Array]:
    """The objective as a function to differentiate, whose derivative asks the gradient oracle."""
    if not problem.wrappers and not problem.oracles:
        return problem.value

    @jax.custom_jvp
    def tied(y: PyTree[Array], value: Array) -> Array:
        return value

    @tied.defjvp
    def _(primals: Any, tangents: Any) -> tuple[Array, Array]:
        y, value = primals
        return value, jnp.asarray(otu.vdot(problem.gradient(y), tangents[0]))

    return lambda y: tied(y, problem.value(jax.lax.stop_gradient(y)))


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
