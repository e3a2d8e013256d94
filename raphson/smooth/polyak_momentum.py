"""Momentum whose step size comes from how far f is above its least value, as Polyak's does.

Wang, Johansson, Zhang (2023), Generalized Polyak Step Size for First Order Optimization with
Momentum; Polyak (1969), Minimization of Unsmooth Functionals.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import optax.tree as otu
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PyTree

from ..method import AbstractMethod
from ..problem import AbstractObjective, AbstractProblem, Known
from ..solution import Status
from ..validate import in_range, one_of


class PolyakMomentumState(eqx.Module):
    value: Float[Array, ""]
    gradient: PyTree[Array]
    memory: PyTree[Array]
    step_size: Float[Array, ""]
    idle: Int[Array, ""]


class PolyakMomentum(AbstractMethod[PolyakMomentumState]):
    """Gradient descent with momentum m and the step size that a known least value f* gives.

    With g the gradient of f at y, the step is, by `kind`,

    - `"moving_average"`: y+ = y - s d with d = g + m d- and s = (f - f*) / |d|^2;
    - `"heavy_ball"`: y+ = y - s g + m p with p the last move and
      s = max(f - f* + m <g, p>, 0) / |g|^2.

    Each s is best for a bound that convexity sets on the distance to the minimizers; m = 0 is
    Polyak's own step size. On a convex f the first never moves away from a minimizer. The second is
    often faster, but its bound starts from y + m p: with much momentum it may diverge.

    Args:
        optimum: f*, the least value of f; 0 for a model that can fit its data. Where f is not above
            it, beyond rounding, the step size before is kept, at first 1.
        momentum: m, in [0, 1).
        kind: `"moving_average"` or `"heavy_ball"`.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.Minimize(lambda y, _: jnp.sum((y - 1.0) ** 2), jnp.zeros(2))
        >>> rp.solve(problem, rp.smooth.PolyakMomentum(0.0)).value.round(3).tolist()
        [1.0, 1.0]
    """

    optimum: float = 0.0
    momentum: float = 0.9
    kind: str = "moving_average"

    question: ClassVar[type[AbstractProblem]] = AbstractObjective

    def __check_init__(self):
        in_range(self, "optimum")
        in_range(self, "momentum", 0, 1, closed="left")
        one_of(self, "kind", ("moving_average", "heavy_ball"))

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> PolyakMomentumState:
        value, gradient = problem.value_and_gradient(y)
        zeros, one = otu.zeros_like(y), jnp.ones_like(value)
        return PolyakMomentumState(value, gradient, zeros, one, jnp.array(0, jnp.int32))

    def step(
        self, problem: Any, y: PyTree[Array], state: PolyakMomentumState
    ) -> tuple[PyTree[Array], PolyakMomentumState]:
        g, m, gap = state.gradient, self.momentum, state.value - self.optimum
        if self.kind == "heavy_ball":
            direction, kept = g, otu.scale(m, state.memory)
            bound = jnp.maximum(gap + otu.vdot(g, kept), 0)
        else:
            direction, kept = otu.add_scale(g, m, state.memory), otu.zeros_like(y)
            bound = gap
        square = otu.norm(direction, squared=True)
        usable = (gap > 8 * jnp.finfo(gap.dtype).eps * jnp.abs(state.value)) & (square > 0)
        # Both arms of `where` are evaluated, hence a divisor that is never 0.
        step_size = jnp.where(usable, bound / jnp.where(usable, square, 1), state.step_size)

        move = otu.add_scale(kept, -step_size, direction)
        after = otu.add(y, move)
        value, gradient = problem.value_and_gradient(after)
        memory = move if self.kind == "heavy_ball" else direction
        still = jnp.array_equal(ravel_pytree(after)[0], ravel_pytree(y)[0])
        idle = jnp.where(still, state.idle + 1, 0)
        return after, PolyakMomentumState(value, gradient, memory, step_size, idle)

    def terminate(self, problem: Any, y: PyTree[Array], state: PolyakMomentumState) -> Any:
        # One such step may be momentum that the gradient has just used up.
        return Status.where(state.idle > 1, Status.stalled, Status.running)

    def known(self, problem: Any, y: PyTree[Array], state: PolyakMomentumState) -> Known:
        return Known(state.value, state.gradient)
