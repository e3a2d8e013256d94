"""Krasnoselskii-Mann: average the iterate with its image under the map; Picard with weight 1.

Mann (1953), Mean Value Methods in Iteration; Krasnoselskii (1955), Two Remarks on the Method of
Successive Approximations; Fein-Ashley (2025), Iterate to Accelerate: A Unified Framework for
Iterative Reasoning and Feedback Convergence, for weights that fall.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ..solution import Status
from ..validate import in_range
from ._drift import drift, residual_change
from .problem import FixedPoint


class KrasnoselskiiMannState(eqx.Module):
    image: PyTree[Array]  # T(y)
    start: PyTree[Array]
    count: Int[Array, ""]
    weights: Float[Array, ""]  # the sum of those so far
    change: Float[Array, ""]  # of T(y) - y in the last step, for its length
    at_rest: Bool[Array, ""]


class KrasnoselskiiMann(AbstractMethod[KrasnoselskiiMannState]):
    """The Krasnoselskii-Mann iteration, y+ = (1 - a) y + a T(y).

    Weight 1 is Picard's iteration, which suits contractions. A weight below 1 converges for every
    nonexpansive T that has a fixed point, the residual like 1 / sqrt(k) at worst.

    Where there is none the iterates drift off, and y - T(y) tends to the least displacement v. The
    run ends with `Status.infeasible` when that has settled, over 1000 / a steps at least and ten
    times the length of y_0: a fixed point beyond is not looked for.
    `raphson.probes.infimal_displacement` tells more of it.

    Args:
        weight: a, in (0, 1] for a nonexpansive T; up to 2 where T is an average itself, as a
            projection or a proximal map is. A function of the step count from 0 gives a weight for
            each step.

    Raises:
        ValueError: if `weight` is not in (0, 2).

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.FixedPoint(lambda y, _: jnp.cos(y), jnp.array(0.5))
        >>> round(float(rp.solve(problem, rp.roots.KrasnoselskiiMann()).value), 2)
        0.74
    """

    weight: float | Callable[[Array], Any] = 1.0

    question: ClassVar[type[AbstractProblem]] = FixedPoint

    def __check_init__(self):
        if not callable(self.weight):
            in_range(self, "weight", 0, 2)

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> KrasnoselskiiMannState:
        zero = jnp.zeros((), jnp.result_type(*jax.tree.leaves(y)))
        return KrasnoselskiiMannState(
            image=problem.apply(y),
            start=y,
            count=jnp.array(0, jnp.int32),
            weights=zero,
            change=zero + jnp.inf,
            at_rest=jnp.array(False),
        )

    def step(
        self, problem: Any, y: PyTree[Array], state: KrasnoselskiiMannState
    ) -> tuple[PyTree[Array], KrasnoselskiiMannState]:
        dtype = state.weights.dtype
        # 2 / (t + 2) of an int32 would come in single precision.
        t = state.count.astype(dtype)
        a = jnp.asarray(self.weight(t) if callable(self.weight) else self.weight, dtype)
        # Not y + a (T(y) - y), which for a = 1 would round.
        after = jax.tree.map(lambda y, image: (1 - a) * y + a * image, y, state.image)
        image = problem.apply(after)
        return after, KrasnoselskiiMannState(
            image=image,
            start=state.start,
            count=state.count + 1,
            weights=state.weights + a,
            change=residual_change(y, state.image, after, image).astype(dtype),
            at_rest=otu.norm(otu.sub(after, y)) == 0,
        )

    def terminate(self, problem: Any, y: PyTree[Array], state: KrasnoselskiiMannState) -> Any:
        residual = otu.sub(state.image, y)
        drifting = drift(state.start, y, residual, state.change, state.weights)
        return Status.where(state.at_rest, Status.stalled, drifting)

    def known(self, problem: Any, y: PyTree[Array], state: KrasnoselskiiMannState) -> Known:
        return Known(residual=otu.sub(state.image, y))
