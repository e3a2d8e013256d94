"""Optax transformations as Raphson methods; `raphson.train` makes Optax transformations itself."""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import optax
from jaxtyping import Array, PyTree

from ..method import AbstractMethod
from ..problem import AbstractObjective, AbstractProblem, Known
from ._shared import as_value


class _OptaxState(eqx.Module):
    inner: PyTree[Array]
    batch: PyTree[Array] | None
    value: Array
    gradient: PyTree[Array]
    key: Array | None


class OptaxMethod(AbstractMethod[_OptaxState]):
    """An Optax transformation as a method for objectives.

    On a `FiniteSum` with a `batch_size` each step draws a batch; else the gradient is exact. What
    transformations with extra arguments ask for (`value`, `grad`, `value_fn`) is passed, of the
    same batch.
    """

    transformation: optax.GradientTransformation
    question: ClassVar[type[AbstractProblem]] = AbstractObjective
    samples: ClassVar[bool] = True

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> _OptaxState:
        return _asked(problem, y, self.transformation.init(y), key)

    def step(
        self, problem: Any, y: PyTree[Array], state: _OptaxState
    ) -> tuple[PyTree[Array], _OptaxState]:
        updates, inner = optax.with_extra_args_support(self.transformation).update(
            state.gradient,
            state.inner,
            y,
            value=state.value,
            grad=state.gradient,
            value_fn=as_value(problem, state.batch),
        )
        y = optax.apply_updates(y, updates)
        return y, _asked(problem, y, inner, state.key)

    def known(self, problem: Any, y: PyTree[Array], state: _OptaxState) -> Known:
        return Known() if problem.stochastic else Known(state.value, state.gradient)

    @property
    def name(self) -> str:
        made_by = getattr(self.transformation.update, "__qualname__", "").split(".")[0]
        return "optax" if made_by == "chain" else f"optax.{made_by}"


def _asked(
    problem: AbstractObjective, y: PyTree[Array], inner: PyTree[Array], key: Array | None
) -> _OptaxState:
    now, key = jax.random.split(key) if problem.stochastic else (None, None)  # pyright: ignore
    batch = problem.sample(now)
    value, gradient = problem.batch_value_and_gradient(y, batch)
    return _OptaxState(inner, batch, value, gradient, key)
