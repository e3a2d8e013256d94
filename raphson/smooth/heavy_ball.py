"""The heavy ball: gradient descent that keeps part of its last move.

Polyak (1964), Some Methods of Speeding up the Convergence of Iteration Methods; Garrigos, Gower
(2023), Handbook of Convergence Theorems for (Stochastic) Gradient Methods, on its averaging form.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, Float, Int, PyTree

from ..method import AbstractMethod
from ..problem import AbstractObjective, AbstractProblem, Known
from ..validate import in_range
from ._shared import sampled_gradient


class HeavyBallState(eqx.Module):
    value: Float[Array, ""]
    gradient: PyTree[Array]
    velocity: PyTree[Array]
    step: Int[Array, ""]
    key: Array | None


class HeavyBall(AbstractMethod[HeavyBallState]):
    """Gradient descent with momentum, v+ = m v + g(y), y+ = y - s v+.

    For an L-smooth, mu-strongly convex quadratic Polyak takes s = 4 / (sqrt L + sqrt mu)^2 and
    m = ((sqrt L - sqrt mu) / (sqrt L + sqrt mu))^2. With momentum None it is iterate averaging:
    m_t = t / (t + 2) and step 2 s / (t + 3), whose last iterate has the rate of averaged gradient
    descent with step size s on every L-smooth convex f, if s <= 1 / (4 L). On a sampled problem the
    gradients are those of batches, and L is that of the roughest one.

    Args:
        step_size: s, positive.
        momentum: m, in [0, 1); None for that of iterate averaging.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.Minimize(lambda y, _: jnp.sum((y - 1.0) ** 2), jnp.zeros(2))
        >>> rp.solve(problem, rp.smooth.HeavyBall(0.3, momentum=0.2)).value.round(3).tolist()
        [1.0, 1.0]
    """

    step_size: float = 0.01
    momentum: float | None = 0.9

    question: ClassVar[type[AbstractProblem]] = AbstractObjective
    samples: ClassVar[bool] = True

    def __check_init__(self):
        in_range(self, "step_size", 0)
        if self.momentum is not None:
            in_range(self, "momentum", 0, 1, closed="left")

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> HeavyBallState:
        value, gradient, key = sampled_gradient(problem, y, key)
        return HeavyBallState(value, gradient, otu.zeros_like(y), jnp.array(0, jnp.int32), key)

    def step(
        self, problem: Any, y: PyTree[Array], state: HeavyBallState
    ) -> tuple[PyTree[Array], HeavyBallState]:
        t = state.step.astype(state.value.dtype)
        momentum, step_size = self.momentum, self.step_size
        if momentum is None:
            momentum, step_size = t / (t + 2), 2 * step_size / (t + 3)
        velocity = otu.add_scale(state.gradient, momentum, state.velocity)
        y = otu.add_scale(y, -step_size, velocity)
        value, gradient, key = sampled_gradient(problem, y, state.key)
        return y, HeavyBallState(value, gradient, velocity, state.step + 1, key)

    def known(self, problem: Any, y: PyTree[Array], state: HeavyBallState) -> Known:
        return Known() if problem.stochastic else Known(state.value, state.gradient)
