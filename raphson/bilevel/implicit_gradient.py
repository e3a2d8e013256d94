"""Implicit hypergradients: solve the lower level, then one linear system for how it moves.

Lorraine, Vicol, Duvenaud (2020), Optimizing Millions of Hyperparameters by Implicit
Differentiation; Pedregosa (2016), Hyperparameter Optimization with Approximate Gradient.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optax.tree as otu
from jaxtyping import Array, Bool, Float, PyTree

from ..composite import ProximalGradient
from ..lifts import as_method
from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ..smooth import GradientDescent
from ..solution import Status
from ..validate import in_range, one_of, whole_number
from ._shared import (
    as_transformation,
    descended,
    hypergradient,
    lower_solve,
    require_influence,
    require_steps,
)
from .problem import AbstractBilevel


class ImplicitGradientState(eqx.Module):
    upper: PyTree[Array]  # of the upper transformation
    v: PyTree[Array]  # f_yy v = F_y
    residual: PyTree[Array]  # the hypergradient, f_y, F_y - f_yy v
    most: Float[Array, ""]  # the greatest |F_y| so far
    failed: Bool[Array, ""]  # whether the linear solver did
    key: Array | None


class ImplicitGradient(AbstractMethod[ImplicitGradientState]):
    """Descent along the hypergradient by implicit differentiation.

    With N inner steps from where the last ones ended, s the upper step:

        y  =  N steps of the inner method on f(x, .)
        v  =  the linear solver's answer to (f_yy + damping) v = F_y
        x  =  x - s (F_x - f_xy v)

    No Hessian is formed and no inner step is kept: memory does not grow with N. The status is
    `breakdown` where the linear solver fails or leaves more of F_y than there ever was. A
    hyperparameter on which f_y does not depend, such as the step size of the inner method, has no
    implicit gradient; where that is all of x, it is refused.

    Args:
        upper: s, positive, or an Optax transformation.
        inner: a method for the lower level, ours or Optax's; by default gradient descent that
            finds its own step, projected where y has a set.
        inner_steps: N, at least 1; fewer are taken where they find the minimum.
        solver: of the linear system, one of Lineax's or of `raphson.linear`; by default conjugate
            gradients, for which f must be convex in y near its minimum.
        damping: at least 0; more than 0 where f is not strongly convex in y, at the price of a
            bias, which the residual shows.
        warm_start: whether the solver starts at the last v, if it takes a start, or at 0.

    Raises:
        ValueError: if a hyperparameter is outside its range, or the hypergradient is 0 everywhere.

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
    solver: lx.AbstractLinearSolver = eqx.field(
        # What the cheap residual misses shows in the exact one of the hypergradient.
        default_factory=lambda: lx.CG(1e-10, 1e-10, stabilise_every=None)
    )
    damping: float = 0.0
    warm_start: bool = True

    question: ClassVar[type[AbstractProblem]] = AbstractBilevel
    samples: ClassVar[bool] = True

    def __check_init__(self):
        one_of(self, "warm_start", (False, True))
        require_steps(self, "upper")
        whole_number(self.inner_steps, "inner_steps", 1)
        if not isinstance(self.solver, lx.AbstractLinearSolver):
            raise ValueError(f"`solver` must be a linear solver of Lineax, got {self.solver!r}.")
        in_range(self, "damping", 0, closed="left")

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> ImplicitGradientState:
        x, y = y
        require_influence(problem, x, y)
        upper = as_transformation(self.upper).init(x)
        _, state = self._at(problem, x, y, upper, None, key)
        # The residual is of the start itself, from which the lower level has not been solved.
        _, f_y = problem.lower_gradient(x, y, None)
        return eqx.tree_at(lambda s: s.residual[1], state, f_y)

    def step(
        self, problem: Any, y: PyTree[Array], state: ImplicitGradientState
    ) -> tuple[PyTree[Array], ImplicitGradientState]:
        x, y = y
        x, upper = descended(problem, x, y, state.residual[0], self.upper, state.upper)
        y, state = self._at(problem, x, y, upper, state, state.key)
        return (x, y), state

    def known(self, problem: Any, y: PyTree[Array], state: ImplicitGradientState) -> Known:
        if problem.stochastic:
            return Known()
        hypergradient, f_y, left = state.residual
        return Known(residual=(*problem.natural_residual(*y, hypergradient, f_y), left))

    def terminate(self, problem: Any, y: PyTree[Array], state: ImplicitGradientState) -> Any:
        return Status.where(state.failed, Status.breakdown, Status.running)

    def _at(
        self,
        problem: Any,
        x: PyTree[Array],
        y: PyTree[Array],
        upper: PyTree[Array],
        last: ImplicitGradientState | None,
        key: Array | None,
    ) -> tuple[PyTree[Array], ImplicitGradientState]:
        """The lower answer at x from y, and the state there."""
        key, inner, now = (None,) * 3 if key is None else jax.random.split(key, 3)
        default = GradientDescent() if problem.sets[1] is None else ProximalGradient()
        method = default if self.inner is None else as_method(self.inner)
        y = lower_solve(problem, x, y, method, self.inner_steps, inner)
        batches = problem.sample(now)
        v = last.v if last is not None and self.warm_start else None
        found = hypergradient(problem, x, y, self.solver, batches, v, self.damping)
        residual = found.value, problem.lower_gradient(x, y, batches[1])[1], found.left
        most = found.given if last is None else jnp.maximum(last.most, found.given)
        failed = found.failed | (otu.norm(found.left) > 1.01 * most)  # a factor for the rounding
        return y, ImplicitGradientState(upper, found.v, residual, most, failed, key)
