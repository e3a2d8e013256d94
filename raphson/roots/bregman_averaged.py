"""Bregman averaging: the iterate and its image under the map are averaged as a mirror shows them.

Fein-Ashley (2025), Iterate to Accelerate: A Unified Framework for Iterative Reasoning and Feedback
Convergence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, Bool, Int, PyTree

from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ..solution import Status
from ..validate import in_range
from .problem import FixedPoint


def _itself(y: PyTree[Array]) -> PyTree[Array]:
    return y


class BregmanAveragedState(eqx.Module):
    image: PyTree[Array]  # T(y)
    count: Int[Array, ""]
    at_rest: Bool[Array, ""]


class BregmanAveraged(AbstractMethod[BregmanAveragedState]):
    """Averages in the dual of a convex function p, grad p(y+) = (1 - a) grad p(y) + a grad p(T(y)).

    The iterates stay where p is defined, with p = sum y log y on positive numbers: what is averaged
    are logarithms. With half the square of the norm it is the Krasnoselskii-Mann iteration. A map
    that contracts needs no average: weight 1, which is Picard's iteration, is the fastest.

    Args:
        mirror: the gradient of p and its inverse, that of the conjugate of p, two functions of the
            iterate: `(jnp.log, jnp.exp)` for positive numbers, `(jnp.log, jax.nn.softmax)` for
            probabilities; by default y itself.
        weight: a, in (0, 1], or a function of the step count from 0. The paper's 2 / (t + 2) makes
            the rate of a contraction a power of t.

    Raises:
        ValueError: if `mirror` is no pair of functions, or `weight` not in (0, 1].

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> root = lambda y, target: target * jnp.sqrt(y / target)
        >>> problem = rp.FixedPoint(root, jnp.array([0.5, 0.5]), jnp.array([0.9, 0.1]))
        >>> method = rp.roots.BregmanAveraged((jnp.log, jax.nn.softmax))
        >>> rp.solve(problem, method).value.round(3).tolist()
        [0.9, 0.1]
    """

    mirror: tuple[Callable[[Any], Any], Callable[[Any], Any]] = (_itself, _itself)
    weight: float | Callable[[Array], Any] = 0.5

    question: ClassVar[type[AbstractProblem]] = FixedPoint

    def __check_init__(self):
        two = isinstance(self.mirror, tuple) and len(self.mirror) == 2
        if not (two and all(map(callable, self.mirror))):
            raise ValueError(
                f"`mirror` of BregmanAveraged must be a pair of functions, got {self.mirror!r}."
            )
        if not callable(self.weight):
            in_range(self, "weight", 0, 1, closed="right")

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> BregmanAveragedState:
        return BregmanAveragedState(problem.apply(y), jnp.array(0, jnp.int32), jnp.array(False))

    def step(
        self, problem: Any, y: PyTree[Array], state: BregmanAveragedState
    ) -> tuple[PyTree[Array], BregmanAveragedState]:
        to_dual, from_dual = self.mirror
        # 2 / (t + 2) of an int32 would come in single precision.
        t = state.count.astype(jnp.result_type(*jax.tree.leaves(y)))
        a = jnp.asarray(self.weight(t) if callable(self.weight) else self.weight, t.dtype)
        average = lambda one, other: (1 - a) * one + a * other
        after = from_dual(jax.tree.map(average, to_dual(y), to_dual(state.image)))
        at_rest = otu.norm(otu.sub(after, y)) == 0
        return after, BregmanAveragedState(problem.apply(after), state.count + 1, at_rest)

    def terminate(self, problem: Any, y: PyTree[Array], state: BregmanAveragedState) -> Any:
        return Status.where(state.at_rest, Status.stalled, Status.running)

    def known(self, problem: Any, y: PyTree[Array], state: BregmanAveragedState) -> Known:
        return Known(residual=otu.sub(state.image, y))
