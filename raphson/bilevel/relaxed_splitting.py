"""Relaxed splitting: one minimization in x and two coupled copies of the lower unknown.

Xue, Qi, Xin (2020), RARTS: An Efficient First-Order Relaxed Architecture Search Method.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import optax
import optax.tree as otu
from jaxtyping import Array, PyTree

from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ..validate import in_range
from ._shared import as_transformation, descended, require_steps
from .problem import AbstractBilevel


class RelaxedSplittingState(eqx.Module):
    z: PyTree[Array]  # the copy of y that the upper level sees
    optimizers: tuple[PyTree[Array], ...]  # the states of those of y, z and x
    key: Array | None


class RelaxedSplitting(AbstractMethod[RelaxedSplittingState]):
    """Descent of F(x, z) + weight f(x, y) + coupling |y - z|^2 / 2, one unknown after the other.

        y  =  y - d (weight f_y(x, y) + coupling (y - z))
        z  =  z - d (F_y(x, z) + coupling (z - y))
        x  =  x - s (weight f_x(x, y) + F_x(x, z))

    It asks for no second derivative, and ends at a minimum of this sum, not of the bilevel problem:
    its bias is O(1 / weight + 1 / coupling).

    Args:
        upper: s, positive, or an Optax transformation.
        inner: d, positive, or an Optax transformation, for both copies; a step size should be below
            2 / (weight L + coupling) where f is L-smooth.
        weight: of the lower level, positive.
        coupling: of the copies, positive.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import raphson as rp
        >>> upper = lambda x, y, _: (y - 1.0) ** 2 + x**2
        >>> lower = lambda x, y, _: (y - 2.0 * x) ** 2
        >>> problem = rp.Bilevel(upper, lower, 0.0, 0.0)
        >>> method = rp.bilevel.RelaxedSplitting(0.002, 0.002, weight=100.0, coupling=100.0)
        >>> x, y = rp.solve(problem, method, max_steps=3000, throw=False).value
        >>> round(float(x), 1), round(float(y), 1)
        (0.4, 0.8)
    """

    upper: Any = 0.01
    inner: Any = 0.01
    weight: float = 10.0
    coupling: float = 10.0

    question: ClassVar[type[AbstractProblem]] = AbstractBilevel
    samples: ClassVar[bool] = True

    def __check_init__(self):
        require_steps(self, "upper", "inner")
        in_range(self, "weight", 0)
        in_range(self, "coupling", 0)

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> RelaxedSplittingState:
        z = problem.project(y)[1]
        inner = as_transformation(self.inner).init(z)
        optimizers = inner, inner, as_transformation(self.upper).init(y[0])
        return RelaxedSplittingState(z, optimizers, key if problem.stochastic else None)

    def step(
        self, problem: Any, y: PyTree[Array], state: RelaxedSplittingState
    ) -> tuple[PyTree[Array], RelaxedSplittingState]:
        (x, y), z, key = y, state.z, state.key
        of_y, of_z, of_x = state.optimizers
        now = None
        if key is not None:
            key, now = jax.random.split(key)
        upper, lower = problem.sample(now)

        def moved(copy: Any, slope: Any, other: Any, optimizer: Any) -> tuple[Any, Any]:
            slope = otu.add_scale(slope, self.coupling, otu.sub(copy, other))
            updates, optimizer = as_transformation(self.inner).update(slope, optimizer, copy)
            return problem.project((x, optax.apply_updates(copy, updates)))[1], optimizer

        _, f_y = problem.lower_gradient(x, y, lower)
        y, of_y = moved(y, otu.scale(self.weight, f_y), z, of_y)
        _, F_z = problem.upper_gradient(x, z, upper)
        z, of_z = moved(z, F_z, y, of_z)
        F_x, f_x = problem.upper_gradient(x, z, upper)[0], problem.lower_gradient(x, y, lower)[0]
        slope = otu.add_scale(F_x, self.weight, f_x)
        x, of_x = descended(problem, x, y, slope, self.upper, of_x)
        return (x, y), RelaxedSplittingState(z, (of_y, of_z, of_x), key)

    def known(self, problem: Any, y: PyTree[Array], state: RelaxedSplittingState) -> Known:
        return Known()
