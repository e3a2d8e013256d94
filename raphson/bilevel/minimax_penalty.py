"""The minimax penalty: two copies of the lower unknown, each trained by an optimizer of Optax.

Pan et al. (2024), ScaleBiO: Scalable Bilevel Optimization for LLM Data Reweighting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import optax.tree as otu
from jaxtyping import Array, Int, PyTree

from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ..validate import in_range
from ._shared import as_transformation, descended, require_steps
from .problem import AbstractBilevel


class MinimaxPenaltyState(eqx.Module):
    z: PyTree[Array]  # the copy that follows f alone
    optimizers: tuple[PyTree[Array], ...]  # the states of those of z, y and x
    count: Int[Array, ""]
    key: Array | None


class MinimaxPenalty(AbstractMethod[MinimaxPenaltyState]):
    """Descent of the minimax problem min_(x, y) max_z of F(x, y) + w (f(x, y) - f(x, z)).

    One step of each unknown after the other, all on one batch of each level, so that what the
    difference of the copies has of noise cancels:

        z  takes a step along  w f_y(x, z)
        y  takes a step along  F_y(x, y) + w f_y(x, y)
        x  takes a step along  F_x(x, y) + w (f_x(x, y) - f_x(x, z))

    No second derivative is asked for, and any loss that Optax can train can be the lower level:
    two copies of the model are held. The bias is O(1 / w). Where the memory of the optimizers of
    both copies is too much, `inner=rp.train.layer_sampling(optax.adam(1e-5), layers, period)`
    trains a few layers at a time, the same of both.

    Args:
        upper: the step size of x, positive, or an Optax transformation.
        inner: that of y and of z, positive, or an Optax transformation; a step size should be below
            2 / (w L) where f is L-smooth. With a constant rate Adam does not settle.
        penalty: w, positive, or a function of the step count from 0, such as an Optax schedule.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import raphson as rp
        >>> upper = lambda x, y, _: (y - 1.0) ** 2 + x**2
        >>> lower = lambda x, y, _: (y - 2.0 * x) ** 2
        >>> problem = rp.Bilevel(upper, lower, 0.0, 0.0)
        >>> run = rp.solve(problem, rp.bilevel.MinimaxPenalty(), max_steps=2000, throw=False)
        >>> round(float(run.value[0]), 2), round(float(run.value[1]), 1)
        (0.4, 0.8)
    """

    upper: Any = 0.05
    inner: Any = 1e-3
    penalty: float | Callable[[Array], Any] = 100.0

    question: ClassVar[type[AbstractProblem]] = AbstractBilevel
    samples: ClassVar[bool] = True

    def __check_init__(self):
        require_steps(self, "upper", "inner")
        if not callable(self.penalty):
            in_range(self, "penalty", 0)

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> MinimaxPenaltyState:
        z = problem.project(y)[1]
        inner = as_transformation(self.inner).init(z)
        optimizers = inner, inner, as_transformation(self.upper).init(y[0])
        key = key if problem.stochastic else None
        return MinimaxPenaltyState(z, optimizers, jnp.array(0, jnp.int32), key)

    def step(
        self, problem: Any, y: PyTree[Array], state: MinimaxPenaltyState
    ) -> tuple[PyTree[Array], MinimaxPenaltyState]:
        (x, y), z, key = y, state.z, state.key
        of_z, of_y, of_x = state.optimizers
        now = None
        if key is not None:
            key, now = jax.random.split(key)
        upper, lower = problem.sample(now)
        w: Any = self.penalty(state.count) if callable(self.penalty) else self.penalty
        w = jnp.asarray(w, jnp.result_type(*jax.tree.leaves(x)))

        def moved(copy: Any, slope: Any, optimizer: Any) -> tuple[Any, Any]:
            updates, optimizer = as_transformation(self.inner).update(slope, optimizer, copy)
            return problem.project((x, optax.apply_updates(copy, updates)))[1], optimizer

        z, of_z = moved(z, otu.scale(w, problem.lower_gradient(x, z, lower)[1]), of_z)
        F_y, f_y = (
            problem.upper_gradient(x, y, upper)[1],
            problem.lower_gradient(x, y, lower)[1],
        )
        y, of_y = moved(y, otu.add_scale(F_y, w, f_y), of_y)
        F_x = problem.upper_gradient(x, y, upper)[0]
        f_x, f_z = (problem.lower_gradient(x, copy, lower)[0] for copy in (y, z))
        slope = otu.add_scale(F_x, w, otu.sub(f_x, f_z))
        x, of_x = descended(problem, x, y, slope, self.upper, of_x)
        return (x, y), MinimaxPenaltyState(z, (of_z, of_y, of_x), state.count + 1, key)

    def known(self, problem: Any, y: PyTree[Array], state: MinimaxPenaltyState) -> Known:
        return Known()
