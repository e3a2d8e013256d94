"""Implicit hypergradients: solve the lower level, then one linear system for how it moves.

Lorraine, Vicol, Duvenaud (2020), Optimizing Millions of Hyperparameters by Implicit
Differentiation; Pedregosa (2016), Hyperparameter Optimization with Approximate Gradient.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import lineax as lx
import optax
from jaxtyping import Array, PyTree

from ..composite import ProximalGradient
from ..lifts import as_method
from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ..smooth import GradientDescent
from ..validate import in_range, whole_number
from ._shared import as_transformation, descended, hypergradient, lower_solve
from .problem import AbstractBilevel


class ImplicitGradientState(eqx.Module):
    upper: PyTree[Array]  # of the upper transformation
    v: PyTree[Array]  # f_yy v = F_y
    residual: PyTree[Array]  # the hypergradient, f_y, F_y - f_yy v
    key: Array | None


class ImplicitGradient(AbstractMethod[ImplicitGradientState]):
    """Descent along the hypergradient by implicit differentiation.

    With N inner steps from where the last ones ended, s the upper step:

        y  =  N steps of the inner method on f(x, .)
        v  =  the linear solver's answer to f_yy v = F_y
        x  =  x - s (F_x - f_xy v)

    No Hessian is formed and no inner step is kept: memory does not grow with N.

    Args:
        upper: s, positive, or an Optax transformation.
        inner: a method for the lower level, ours or Optax's; by default gradient descent that
            finds its own step, projected where y has a set.
        inner_steps: N, at least 1; fewer are taken where they find the minimum.
        solver: of the linear system, one of Lineax's or of `raphson.linear`; by default conjugate
            gradients, for which f must be convex in y near its minimum.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> upper = lambda x, y, _: (y - 1.0) ** 2 + x**2
        >>> lower = lambda x, y, _: (y - 2.0 * x) ** 2
        >>> method = rp.bilevel.ImplicitGradient(0.1)
        >>> x, y = rp.solve(rp.Bilevel(upper, lower, 0.0, 0.0), method).value
        >>> round(float(x), 3), round(float(y), 3)
        (0.4, 0.8)
    """

    upper: Any = 0.1
    inner: Any = None
    inner_steps: int = 10
    solver: lx.AbstractLinearSolver = eqx.field(default_factory=lambda: lx.CG(1e-10, 1e-10))

    question: ClassVar[type[AbstractProblem]] = AbstractBilevel
    samples: ClassVar[bool] = True

    def __check_init__(self):
        if not isinstance(self.upper, optax.GradientTransformation):
            in_range(self, "upper", 0)
        whole_number(self.inner_steps, "inner_steps", 1)
        if not isinstance(self.solver, lx.AbstractLinearSolver):
            raise ValueError(f"`solver` must be a linear solver of Lineax, got {self.solver!r}.")

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> ImplicitGradientState:
        x, y = y
        _, residual, v, key = self._at(problem, x, y, None, key)
        # Of the start itself, from which the lower level has not been solved.
        _, f_y = problem.lower_gradient(x, y, None)
        upper = as_transformation(self.upper).init(x)
        return ImplicitGradientState(upper, v, (residual[0], f_y, residual[2]), key)

    def step(
        self, problem: Any, y: PyTree[Array], state: ImplicitGradientState
    ) -> tuple[PyTree[Array], ImplicitGradientState]:
        x, y = y
        x, upper = descended(problem, x, y, state.residual[0], self.upper, state.upper)
        y, residual, v, key = self._at(problem, x, y, state.v, state.key)
        return (x, y), ImplicitGradientState(upper, v, residual, key)

    def known(self, problem: Any, y: PyTree[Array], state: ImplicitGradientState) -> Known:
        if problem.stochastic:
            return Known()
        hypergradient, f_y, left = state.residual
        return Known(residual=(*problem.natural_residual(*y, hypergradient, f_y), left))

    def _at(
        self, problem: Any, x: PyTree[Array], y: PyTree[Array], v: Any, key: Array | None
    ) -> tuple[PyTree[Array], PyTree[Array], PyTree[Array], Array | None]:
        """The lower answer at x from y, the residual there, v, and the next key."""
        key, inner, now = (None,) * 3 if key is None else jax.random.split(key, 3)
        default = GradientDescent() if problem.sets[1] is None else ProximalGradient()
        method = default if self.inner is None else as_method(self.inner)
        y = lower_solve(problem, x, y, method, self.inner_steps, inner)
        batches = problem.sample(now)
        gradient, v, left = hypergradient(problem, x, y, self.solver, batches, v)
        return y, (gradient, problem.lower_gradient(x, y, batches[1])[1], left), v, key
