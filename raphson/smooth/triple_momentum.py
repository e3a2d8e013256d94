"""The triple momentum method: the fastest of fixed step sizes on strongly convex functions.

Van Scoy, Freeman, Lynch (2018), The Fastest Known Globally Convergent First-Order Method for
Minimizing Strongly Convex Functions.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import equinox as eqx
import optax.tree as otu
from jax.core import Tracer
from jaxtyping import Array, Float, PyTree

from ..method import AbstractMethod
from ..problem import AbstractObjective, AbstractProblem, Known
from ..validate import in_range


class TripleMomentumState(eqx.Module):
    value: Float[Array, ""]
    gradient: PyTree[Array]
    current: PyTree[Array]
    previous: PyTree[Array]


class TripleMomentum(AbstractMethod[TripleMomentumState]):
    """The triple momentum method for an L-smooth and mu-strongly convex f.

    With r = 1 - sqrt(mu / L), u+ = (1 + b) u - b u- - a g(y) and y = (1 + c) u - c u-, where

        a = (1 + r) / L,  b = r^2 / (2 - r),  c = r^2 / ((1 + r) (2 - r)).

    The distance to the minimizer falls as r^t; the bound for Nesterov's method, which knows as
    much, is r^(t/2). The answer is y, where the gradient is taken; that of the paper,
    u + (u - u-) r^2 / (1 - r^2), has the same rate.

    Args:
        smoothness: L, positive; an L too small may diverge.
        strong_convexity: mu, positive and less than L; a mu too large may be slow.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.Minimize(lambda y, _: jnp.sum((y - 1.0) ** 2), jnp.zeros(2))
        >>> rp.solve(problem, rp.smooth.TripleMomentum(4.0, 2.0)).value.round(3).tolist()
        [1.0, 1.0]
    """

    smoothness: float = 100.0
    strong_convexity: float = 1.0

    question: ClassVar[type[AbstractProblem]] = AbstractObjective

    def __check_init__(self):
        in_range(self, "smoothness", 0)
        traced = isinstance(self.smoothness, Tracer)
        in_range(self, "strong_convexity", 0, math.inf if traced else float(self.smoothness))

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> TripleMomentumState:
        value, gradient = problem.value_and_gradient(y)
        return TripleMomentumState(value, gradient, y, y)

    def step(
        self, problem: Any, y: PyTree[Array], state: TripleMomentumState
    ) -> tuple[PyTree[Array], TripleMomentumState]:
        r, u = 1 - (self.strong_convexity / self.smoothness) ** 0.5, state.current
        a, b, c = (1 + r) / self.smoothness, r**2 / (2 - r), r**2 / ((1 + r) * (2 - r))
        following = otu.add_scale(u, b, otu.sub(u, state.previous))
        following = otu.add_scale(following, -a, state.gradient)
        y = otu.add_scale(following, c, otu.sub(following, u))
        value, gradient = problem.value_and_gradient(y)
        return y, TripleMomentumState(value, gradient, following, u)

    def known(self, problem: Any, y: PyTree[Array], state: TripleMomentumState) -> Known:
        return Known(state.value, state.gradient)
