"""Subgradient descent: steps of given lengths for functions with kinks, and their average.

Shor (1985), Minimization Methods for Non-Differentiable Functions; Garrigos, Gower (2023), Handbook
of Convergence Theorems for (Stochastic) Gradient Methods; Bubeck (2015), Convex Optimization:
Algorithms and Complexity.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, Float, Int, PyTree

from ..method import AbstractMethod
from ..problem import AbstractObjective, AbstractProblem, Known
from ..validate import in_range, one_of
from ._shared import sampled_gradient


class SubgradientDescentState(eqx.Module):
    value: Float[Array, ""]
    subgradient: PyTree[Array]
    average: PyTree[Array] | None
    total: Float[Array, ""]  # of the weights in the average
    step: Int[Array, ""]
    key: Array | None


class SubgradientDescent(AbstractMethod[SubgradientDescentState]):
    """The subgradient method, y+ = y - s_t g(y) with s_t = c / (t + 1)^p for t = 0, 1, ...

    The gradient oracle is taken for a subgradient. A step may raise f, and at a minimum with a kink
    no residual tells of it: such a run ends at `max_steps`. With D the distance from the start to a
    minimizer, and no subgradient longer than G, the average of the iterates weighted by s_t keeps

        f - f* <= (D^2 + G^2 sum s_t^2) / (2 sum s_t)

    on every convex f. On a sampled problem it is stochastic gradient descent.

    Args:
        step_size: c, positive; for T steps in all c = D / (G sqrt T) and p = 0 are the best.
        decay: p, in [0, 1]; 0 is constant steps.
        strong_convexity: mu, where f is known to be mu-strongly convex: s_t = 2 / (mu (t + 2))
            instead, and an average with weights t + 1, whose f - f* <= 2 G^2 / (mu (T + 1)).
        average: whether to answer the average of the iterates so far, the last not among them.
            There f is not known: such a run ends at `max_steps`.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.Minimize(lambda y, _: jnp.sum(jnp.abs(y - 1.0)), jnp.zeros(2))
        >>> method = rp.smooth.SubgradientDescent(average=True)
        >>> rp.solve(problem, method, max_steps=5000, throw=False).value.round(1).tolist()
        [1.0, 1.0]
    """

    step_size: float = 0.1
    decay: float = 0.5
    strong_convexity: float | None = None
    average: bool = eqx.field(static=True, default=False)

    question: ClassVar[type[AbstractProblem]] = AbstractObjective
    samples: ClassVar[bool] = True

    def __check_init__(self):
        one_of(self, "average", (False, True))
        in_range(self, "step_size", 0)
        in_range(self, "decay", 0, 1, closed="both")
        if self.strong_convexity is not None:
            in_range(self, "strong_convexity", 0)

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> SubgradientDescentState:
        value, subgradient, key = sampled_gradient(problem, y, key)
        average = y if self.average else None
        zero = jnp.zeros_like(value)
        return SubgradientDescentState(
            value, subgradient, average, zero, jnp.array(0, jnp.int32), key
        )

    def step(
        self, problem: Any, y: PyTree[Array], state: SubgradientDescentState
    ) -> tuple[PyTree[Array], SubgradientDescentState]:
        t = state.step.astype(state.value.dtype)
        if self.strong_convexity is None:
            step_size = weight = self.step_size / (t + 1) ** self.decay
        else:
            step_size, weight = 2 / (self.strong_convexity * (t + 2)), t + 1
        average, total = state.average, state.total + weight
        if self.average:
            average = otu.add_scale(average, weight / total, otu.sub(y, average))
        y = otu.add_scale(y, -step_size, state.subgradient)
        value, subgradient, key = sampled_gradient(problem, y, state.key)
        return y, SubgradientDescentState(value, subgradient, average, total, state.step + 1, key)

    def known(self, problem: Any, y: PyTree[Array], state: SubgradientDescentState) -> Known:
        if self.average or problem.stochastic:
            return Known()
        return Known(state.value, state.subgradient)

    def answer(
        self, problem: Any, y: PyTree[Array], state: SubgradientDescentState
    ) -> PyTree[Array]:
        return state.average if self.average else y
