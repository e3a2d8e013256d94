"""Gradient descent: step against the gradient.

Garrigos, Gower (2023), Handbook of Convergence Theorems for (Stochastic) Gradient Methods;
Bubeck (2015), Convex Optimization: Algorithms and Complexity.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, Float, PyTree

from ..method import AbstractMethod
from ..problem import AbstractObjective, AbstractProblem, Known
from ..validate import in_range
from ._shared import descent


class GradientDescentState(eqx.Module):
    value: Float[Array, ""]
    gradient: PyTree[Array]
    smoothness: Float[Array, ""]


class GradientDescent(AbstractMethod[GradientDescentState]):
    """Gradient descent, y+ = y - s g(y).

    For an L-smooth f take `step_size=1 / L`; if f is also mu-strongly convex, 2 / (L + mu).

    Args:
        step_size: s, positive; by default found at each step by backtracking on the descent lemma,
            at the price of function values.

    Raises:
        ValueError: if `step_size` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.Minimize(lambda y, _: jnp.sum((y - 1.0) ** 2), jnp.zeros(2))
        >>> rp.solve(problem, rp.smooth.GradientDescent(0.25)).value.round(3).tolist()
        [1.0, 1.0]
    """

    step_size: float | None = None

    question: ClassVar[type[AbstractProblem]] = AbstractObjective

    def __check_init__(self):
        if self.step_size is not None:
            in_range(self, "step_size", 0)

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> GradientDescentState:
        value, gradient = problem.value_and_gradient(y)
        return GradientDescentState(value, gradient, jnp.ones_like(value))

    def step(
        self, problem: Any, y: PyTree[Array], state: GradientDescentState
    ) -> tuple[PyTree[Array], GradientDescentState]:
        smoothness = state.smoothness
        if self.step_size is None:
            # Where the decrease drowns in the rounding of f, a longer step would go untested.
            decrease = otu.norm(state.gradient, squared=True) / smoothness
            resolved = decrease > 8 * jnp.finfo(state.value.dtype).eps * jnp.abs(state.value)
            smoothness = jnp.where(resolved, smoothness / 2, smoothness)
            y, smoothness = descent(problem, y, state.value, state.gradient, smoothness)
        else:
            y = otu.add_scale(y, -self.step_size, state.gradient)
        value, gradient = problem.value_and_gradient(y)
        return y, GradientDescentState(value, gradient, smoothness)

    def known(self, problem: Any, y: PyTree[Array], state: GradientDescentState) -> Known:
        return Known(state.value, state.gradient)
