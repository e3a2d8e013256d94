"""Halpern: each image under the map is pulled back to an anchor, ever less.

Halpern (1967), Fixed Points of Nonexpanding Maps; Lieder (2021), On the Convergence Rate of the
Halpern-Iteration; Park, Ryu (2023), Accelerated Infeasibility Detection of Constrained Optimization
and Fixed-Point Iterations; Lu, Yang (2024), Restarted Halpern PDHG for Linear Programming.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, Float, Int, PyTree

from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ..validate import in_range
from ._drift import drift, residual_change
from .problem import FixedPoint


class HalpernState(eqx.Module):
    image: PyTree[Array]  # T(y)
    anchor: PyTree[Array]
    scale: Float[Array, ""]  # |T(y) - y| at the anchor
    count: Int[Array, ""]  # of steps since the anchor
    change: Float[Array, ""]  # of T(y) - y in the last step, for its length


class Halpern(AbstractMethod[HalpernState]):
    """Halpern's iteration, y+ = y_0 / (k + 2) + (k + 1) / (k + 2) T(y), restarted.

    For a nonexpansive T with the fixed point y* it keeps |T(y) - y| <= 2 |y_0 - y*| / (k + 1), the
    best that can be promised; a Krasnoselskii-Mann iteration may need the square of the steps.
    Where there is no fixed point the iterates drift off at half the speed of those of T, and
    y - T(y) tends to the least displacement v. The run ends with `Status.infeasible` when that has
    settled, over 2000 steps at least and ten times the length of y_0: a fixed point beyond is not
    looked for. `raphson.probes.infimal_displacement` tells more of it.

    On a contraction the anchor costs the linear rate. So a restart makes the iterate the anchor y_0
    and k = 0 when the residual has fallen to a fraction of what it was at the anchor.

    Args:
        restart: the fraction, in [0, 1). 1 / e is the best by the bound wherever the residual
            bounds the distance to the fixed points; 0 never restarts, which is Halpern's
            iteration and that of the papers on infeasibility.

    Raises:
        ValueError: if `restart` is not in [0, 1).

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> turn = jnp.array([[0.0, -1.0], [1.0, 0.0]])
        >>> problem = rp.FixedPoint(lambda y, _: turn @ (y - 1) + 1, jnp.zeros(2))
        >>> rp.solve(problem, rp.roots.Halpern()).value.round(3).tolist()
        [1.0, 1.0]
    """

    restart: float = 0.37

    question: ClassVar[type[AbstractProblem]] = FixedPoint

    def __check_init__(self):
        in_range(self, "restart", 0, 1, closed="left")

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> HalpernState:
        image = problem.apply(y)
        size = otu.norm(otu.sub(image, y))
        return HalpernState(image, y, size, jnp.array(0, jnp.int32), jnp.full_like(size, jnp.inf))

    def step(
        self, problem: Any, y: PyTree[Array], state: HalpernState
    ) -> tuple[PyTree[Array], HalpernState]:
        back = 1 / (state.count.astype(state.scale.dtype) + 2)
        after = otu.add_scale(state.image, back, otu.sub(state.anchor, state.image))
        image = problem.apply(after)
        size = otu.norm(otu.sub(image, after))
        restarted = size < self.restart * state.scale
        return after, HalpernState(
            image=image,
            anchor=otu.where(restarted, after, state.anchor),
            scale=jnp.where(restarted, size, state.scale),
            count=jnp.where(restarted, 0, state.count + 1),
            change=residual_change(y, state.image, after, image),
        )

    def terminate(self, problem: Any, y: PyTree[Array], state: HalpernState) -> Any:
        steps = state.count.astype(state.scale.dtype) / 2
        return drift(state.anchor, y, otu.sub(state.image, y), state.change, steps)

    def known(self, problem: Any, y: PyTree[Array], state: HalpernState) -> Known:
        return Known(residual=otu.sub(state.image, y))
