"""Proximal gradient: a gradient step on the smooth part, then the prox of the other.

Beck, Teboulle (2009), A Fast Iterative Shrinkage-Thresholding Algorithm for Linear Inverse
Problems; Garrigos, Gower (2023), Handbook of Convergence Theorems for (Stochastic) Gradient
Methods; Bubeck (2015), Convex Optimization: Algorithms and Complexity.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as otu
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PyTree

from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ..smooth._shared import eased, sampled_gradient
from ..solution import Status
from ..validate import in_range, one_of
from .problem import Composite


class ProximalGradientState(eqx.Module):
    value: Float[Array, ""]
    gradient: PyTree[Array]
    stepped: PyTree[Array]  # where the step from the iterate leads
    previous: PyTree[Array]  # where the step before led
    smoothness: Float[Array, ""]
    weight: Float[Array, ""]
    average: PyTree[Array] | None  # of the iterates before
    count: Int[Array, ""]
    key: Array | None


class ProximalGradient(AbstractMethod[ProximalGradientState]):
    """The proximal gradient method, y+ = prox(y - s g(y), s): ISTA, or FISTA with momentum.

    On a convex set it is projected gradient descent. With `momentum` the iterate is extrapolated,

        x+ = prox(y - s g(y), s),  y+ = x+ + (w - 1)/w+ (x+ - x),  w+ = (1 + sqrt(1 + 4 w^2)) / 2,

    and the answer is x+, which is where h is finite; f must be defined at y, too. On a sampled
    problem the gradient is that of a batch: the stochastic proximal gradient method.

    Args:
        step_size: s, positive, at most 1 / L where the gradient of f is L-Lipschitz, or 1 / (2 L)
            with the L of the roughest batch; by default found at each step by backtracking, at the
            price of function values, where f is exact.
        momentum: whether to extrapolate.
        average: whether to answer the mean of the iterates so far, the last not among them: where
            f has kinks, and its gradients are subgradients, the theory is about that. There f is
            not known: such a run ends at `max_steps`.

    Raises:
        ValueError: if `step_size` is not positive, or missing on a sampled problem, or an average
            is asked for with momentum.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> smooth = rp.Minimize(lambda y, _: jnp.sum((y - 2.0) ** 2), jnp.zeros(2))
        >>> problem = rp.Composite(smooth, rp.composite.Ball(1.0))
        >>> rp.solve(problem, rp.composite.ProximalGradient()).value.round(3).tolist()
        [0.707, 0.707]
    """

    step_size: float | None = None
    momentum: bool = eqx.field(default=False, static=True)
    average: bool = eqx.field(default=False, static=True)

    question: ClassVar[type[AbstractProblem]] = Composite
    samples: ClassVar[bool] = True

    def __check_init__(self):
        for name in ("momentum", "average"):
            one_of(self, name, (False, True))
        if self.step_size is not None:
            in_range(self, "step_size", 0)
        if self.average and self.momentum:
            raise ValueError("`average` of ProximalGradient must be False with momentum, got True.")

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> ProximalGradientState:
        if problem.stochastic and self.step_size is None:
            raise ValueError(
                "`step_size` of ProximalGradient must be given where the problem draws batches."
            )
        one = jnp.ones((), jnp.result_type(*jax.tree.leaves(y)))
        smoothness = one if self.step_size is None else one / self.step_size
        average = (y if self.average else None), jnp.array(0, jnp.int32)
        return self._stepped(problem, y, y, smoothness, one, *average, key)

    def step(
        self, problem: Any, y: PyTree[Array], state: ProximalGradientState
    ) -> tuple[PyTree[Array], ProximalGradientState]:
        x, smoothness, weight = state.stepped, state.smoothness, state.weight
        after = x
        if self.momentum:
            weight = (1 + jnp.sqrt(1 + 4 * state.weight**2)) / 2
            after = otu.add_scale(x, (state.weight - 1) / weight, otu.sub(x, state.previous))
        elif self.step_size is None:
            mapping = otu.scale(smoothness, otu.sub(y, x))
            smoothness = eased(state.value, otu.norm(mapping, squared=True), smoothness)
        average, count = state.average, state.count + 1
        if self.average:
            average = jax.tree.map(lambda a, y: a + (y - a) / count, average, y)
        return after, self._stepped(
            problem, after, x, smoothness, weight, average, count, state.key
        )

    def terminate(self, problem: Any, y: PyTree[Array], state: ProximalGradientState) -> Any:
        # Another batch may lead away, and an average comes to rest later.
        if problem.stochastic or self.average:
            return Status.running
        here, after, before = (ravel_pytree(x)[0] for x in (y, state.stepped, state.previous))
        at_rest = jnp.all((after == here) & (before == here))
        return Status.where(at_rest, Status.stalled, Status.running)

    def known(self, problem: Any, y: PyTree[Array], state: ProximalGradientState) -> Known:
        if problem.stochastic or self.average:
            return Known()
        # h may be infinite at y; what falls without bound is f.
        return Known(state.value, problem.gradient_mapping(y, state.gradient))

    def answer(self, problem: Any, y: PyTree[Array], state: ProximalGradientState) -> PyTree[Array]:
        if self.average:
            return state.average
        return state.stepped if self.momentum else y

    def _stepped(
        self,
        problem: Any,
        y: PyTree[Array],
        previous: PyTree[Array],
        smoothness: Float[Array, ""],
        weight: Float[Array, ""],
        average: PyTree[Array] | None,
        count: Int[Array, ""],
        key: Array | None,
    ) -> ProximalGradientState:
        """The state at y, from which the next step is known."""
        value, gradient, key = sampled_gradient(problem, y, key)
        if self.step_size is None:
            # With momentum L never falls: the rate rests on step sizes that do not grow.
            x, smoothness = _backtracked(problem, y, value, gradient, smoothness)
        else:
            x = problem.prox(otu.add_scale(y, -self.step_size, gradient), self.step_size)
        return ProximalGradientState(
            value, gradient, x, previous, smoothness, weight, average, count, key
        )


def _backtracked(
    problem: Any,
    y: PyTree[Array],
    value: Float[Array, ""],
    gradient: PyTree[Array],
    smoothness: Float[Array, ""],
) -> tuple[PyTree[Array], Float[Array, ""]]:
    """A step of size 1/L whose model of f is not below f, and L.

    L is doubled until f(x) <= f(y) + <g, x - y> + L |x - y|^2 / 2, which holds for every L from the
    gradient's Lipschitz constant on.
    """
    # Near a solution the model drowns in the rounding of f, which must not reject a step.
    rounding = 4 * jnp.finfo(value.dtype).eps * jnp.abs(value)

    def tried(smoothness: Array) -> tuple[Array, PyTree[Array], Array]:
        x = problem.prox(otu.add_scale(y, -1 / smoothness, gradient), 1 / smoothness)
        return smoothness, x, problem.value(x)

    def rejected(attempt: tuple[Array, PyTree[Array], Array]) -> Array:
        smoothness, x, reached = attempt
        move = otu.sub(x, y)
        curved = smoothness / 2 * otu.norm(move, squared=True)
        model = value + otu.vdot(gradient, move) + curved
        return ~(reached <= model + rounding) & jnp.isfinite(smoothness)

    smoothness, x, _ = jax.lax.while_loop(
        rejected, lambda attempt: tried(2 * attempt[0]), tried(smoothness)
    )
    return x, smoothness
