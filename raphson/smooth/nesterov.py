"""Nesterov's accelerated gradient: a gradient step at a point extrapolated along the last move.

Nesterov (1983), A Method of Solving a Convex Programming Problem with Convergence Rate O(1/k^2);
Bubeck (2015), Convex Optimization: Algorithms and Complexity, section 3.7.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, Float, PyTree

from ..method import AbstractMethod
from ..problem import AbstractObjective, AbstractProblem, Known
from ..validate import in_range
from ._shared import descent


class NesterovState(eqx.Module):
    value: Float[Array, ""]
    gradient: PyTree[Array]
    descended: PyTree[Array]
    previous: PyTree[Array]
    smoothness: Float[Array, ""]
    weight: Float[Array, ""]


class Nesterov(AbstractMethod[NesterovState]):
    """Nesterov's accelerated gradient method.

    The iterate is the extrapolated point x, where the gradient is taken; the answer is the point
    that a gradient step from x reaches.

    Args:
        step_size: 1 / L for an L-smooth f, positive; by default found by backtracking on the
            descent lemma, at the price of function values.
        strong_convexity: mu, where f is known to be mu-strongly convex: the momentum is then
            constant and the rate linear; by default f is only convex.

    Raises:
        ValueError: if `step_size` or `strong_convexity` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.Minimize(lambda y, _: jnp.sum((y - 1.0) ** 2), jnp.zeros(2))
        >>> rp.solve(problem, rp.smooth.Nesterov()).value.round(3).tolist()
        [1.0, 1.0]
    """

    step_size: float | None = None
    strong_convexity: float | None = None

    question: ClassVar[type[AbstractProblem]] = AbstractObjective

    def __check_init__(self):
        for name in ("step_size", "strong_convexity"):
            if getattr(self, name) is not None:
                in_range(self, name, 0)

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> NesterovState:
        one = jnp.ones((), jnp.result_type(*jax.tree.leaves(y)))
        smoothness = one if self.step_size is None else one / self.step_size
        return self._descended(problem, y, y, smoothness, one)

    def step(
        self, problem: Any, y: PyTree[Array], state: NesterovState
    ) -> tuple[PyTree[Array], NesterovState]:
        weight = (1 + jnp.sqrt(1 + 4 * state.weight**2)) / 2
        momentum = (state.weight - 1) / weight
        if self.strong_convexity is not None:
            root = jnp.sqrt(state.smoothness / self.strong_convexity)
            momentum = (root - 1) / (root + 1)
        last_move = otu.sub(state.descended, state.previous)
        y = otu.add_scale(state.descended, momentum, last_move)
        return y, self._descended(problem, y, state.descended, state.smoothness, weight)

    def known(self, problem: Any, y: PyTree[Array], state: NesterovState) -> Known:
        return Known(state.value, state.gradient)

    def answer(self, problem: Any, y: PyTree[Array], state: NesterovState) -> PyTree[Array]:
        return state.descended

    def _descended(
        self,
        problem: Any,
        y: PyTree[Array],
        previous: PyTree[Array],
        smoothness: Float[Array, ""],
        weight: Float[Array, ""],
    ) -> NesterovState:
        value, gradient = problem.value_and_gradient(y)
        if self.step_size is None:
            # L never falls here: the rate rests on step sizes that do not grow.
            descended, smoothness = descent(problem, y, value, gradient, smoothness)
        else:
            descended = otu.add_scale(y, -self.step_size, gradient)
        return NesterovState(value, gradient, descended, previous, smoothness, weight)
