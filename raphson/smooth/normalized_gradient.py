"""Normalized gradient descent, for functions whose curvature grows with their gradient.

Chen, Zhou, Liang, Lu (2023), Generalized-Smooth Nonconvex Optimization is As Efficient As Smooth
Nonconvex Optimization.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import optax.tree as otu
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PyTree

from ..method import AbstractMethod
from ..problem import AbstractObjective, AbstractProblem, Known
from ..solution import Status
from ..validate import in_range
from ._shared import descent


class NormalizedGradientState(eqx.Module):
    value: Float[Array, ""]
    gradient: PyTree[Array]
    step_size: Float[Array, ""]
    smoothness: Float[Array, ""]
    at_rest: Bool[Array, ""]


class NormalizedGradient(AbstractMethod[NormalizedGradientState]):
    """Normalized gradient descent, y+ = y - s g / |g|^p.

    It is made for an f whose curvature is at most of the order 1 + |g|^a, a in (0, 1]: a = 1 for
    exponentials, (d - 2) / (d - 1) for polynomials of degree d. With p from a to 1 one s is then
    right both far away, where a constant multiple of the gradient would have to be tiny, and near.
    For a given s and p > a the accuracy ends where steps of the length s |g|^(1 - p) overshoot.

    Args:
        step_size: s, positive; by default found at each step by backtracking on the descent lemma,
            at the price of function values.
        power: p, in [0, 1]; 1 serves every a, and 0 is gradient descent.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.Minimize(lambda y, _: jnp.sum(jnp.cosh(y - 1.0)), jnp.full(2, 30.0))
        >>> rp.solve(problem, rp.smooth.NormalizedGradient(), rtol=1e-16).value.round(3).tolist()
        [1.0, 1.0]
    """

    step_size: float | None = None
    power: float = 1.0

    question: ClassVar[type[AbstractProblem]] = AbstractObjective

    def __check_init__(self):
        if self.step_size is not None:
            in_range(self, "step_size", 0)
        in_range(self, "power", 0, 1, closed="both")

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> NormalizedGradientState:
        value, gradient = problem.value_and_gradient(y)
        one = jnp.ones_like(value)
        step_size = one if self.step_size is None else one * self.step_size
        return NormalizedGradientState(value, gradient, step_size, one, jnp.array(False))

    def step(
        self, problem: Any, y: PyTree[Array], state: NormalizedGradientState
    ) -> tuple[PyTree[Array], NormalizedGradientState]:
        size = otu.norm(state.gradient)
        norm = jnp.where(size > 0, size**self.power, 1)
        smoothness = norm / state.step_size
        if self.step_size is None:
            # Where the decrease drowns in the rounding of f, a longer step would go untested.
            decrease = size**2 / smoothness
            resolved = decrease > 8 * jnp.finfo(size.dtype).eps * jnp.abs(state.value)
            smoothness = jnp.where(resolved, smoothness / 2, state.smoothness)
            after, smoothness = descent(problem, y, state.value, state.gradient, smoothness)
        else:
            after = otu.add_scale(y, -1 / smoothness, state.gradient)
        value, gradient = problem.value_and_gradient(after)
        at_rest = jnp.array_equal(ravel_pytree(after)[0], ravel_pytree(y)[0])
        return after, NormalizedGradientState(
            value, gradient, norm / smoothness, smoothness, at_rest
        )

    def terminate(self, problem: Any, y: PyTree[Array], state: NormalizedGradientState) -> Any:
        return Status.where(state.at_rest, Status.stalled, Status.running)

    def known(self, problem: Any, y: PyTree[Array], state: NormalizedGradientState) -> Known:
        return Known(state.value, state.gradient)
