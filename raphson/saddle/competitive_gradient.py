"""Competitive gradients: each player answers what the other is about to do.

Vyas, Azizzadenesheli (2023), Competitive Gradient Optimization; Schaefer, Anandkumar (2019),
Competitive Gradient Descent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optax.tree as otu
from jaxtyping import Array, Int, PyTree

from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ..validate import in_range, one_of
from ._shared import asked, moved, require_positive, scheduled
from .problem import Saddle


class CompetitiveGradientState(eqx.Module):
    operator: PyTree[Array] | None  # F at the iterate; not held where it is sampled
    count: Int[Array, ""]
    key: Array | None


class CompetitiveGradient(AbstractMethod[CompetitiveGradientState]):
    """Competitive gradient optimization, z+ = z - s g(z).

    With F = (f_x, -f_y), the direction g = (g_x, g_y) solves

        g_x + a f_xy g_y = f_x
        g_y - a f_yx g_x = -f_y

    as if the other player took a step of length a along its own direction. With a = s it is
    competitive gradient descent, with a = 0 gradient descent ascent, to which the former tends as s
    does to 0. Optimistic steps take g from ahead: z+ = z - s g(z - s g(z)).

    The system is solved by conjugate gradients for g_x, with products by f_xy alone. On a sampled
    problem F and the products of a step are those of one batch.

    Args:
        step_size: s, positive; a pair for x and for y, or a function of the step count from 0.
        alpha: a, at least 0, in the units of a step size: the weight of the interaction. Where
            a |f_xy| is large, progress is slowed by about that factor.
        optimistic: whether to take the direction from ahead, for two solutions of the system a
            step, which is stable also where s is long against a.

    Raises:
        ValueError: if a hyperparameter is outside its range, or the problem has nonsmooth parts,
            with which solutions are no fixed points of the step.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.Saddle(lambda x, y, _: x * y, jnp.array(1.0), jnp.array(1.0))
        >>> x, y = rp.solve(problem, rp.saddle.CompetitiveGradient(0.5, 1.0)).value
        >>> abs(float(x)) < 1e-2 and abs(float(y)) < 1e-2
        True
    """

    step_size: float | tuple[float, float] | Callable[[Array], Any] = 0.1
    alpha: float = 1.0
    optimistic: bool = eqx.field(static=True, default=False)

    question: ClassVar[type[AbstractProblem]] = Saddle
    samples: ClassVar[bool] = True

    def __check_init__(self):
        one_of(self, "optimistic", (False, True))
        require_positive(self, "step_size", pair=True, schedule=True)
        in_range(self, "alpha", 0, closed="left")

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> CompetitiveGradientState:
        if not problem.smooth:
            raise ValueError(
                "`problem` must be a Saddle without nonsmooth parts for CompetitiveGradient, got "
                f"{problem.nonsmooth!r}."
            )
        operator = None if problem.stochastic else problem.operator(y)
        key = key if problem.stochastic else None
        return CompetitiveGradientState(operator, jnp.array(0, jnp.int32), key)

    def step(
        self, problem: Any, y: PyTree[Array], state: CompetitiveGradientState
    ) -> tuple[PyTree[Array], CompetitiveGradientState]:
        # 1 / (t + 1) of an int32 would come in single precision.
        s = scheduled(self.step_size, state.count.astype(jnp.result_type(*jax.tree.leaves(y))))
        key, now = (None, None) if state.key is None else jax.random.split(state.key)
        batch = problem.sample(now)
        operator = problem.batch_operator(y, batch) if problem.stochastic else state.operator
        after = moved(y, s, self._direction(problem, y, operator, batch))
        if self.optimistic:
            ahead = asked(problem, after, batch)
            after = moved(y, s, self._direction(problem, after, ahead, batch))
        operator = None if problem.stochastic else problem.operator(after)
        return after, CompetitiveGradientState(operator, state.count + 1, key)

    def known(self, problem: Any, y: PyTree[Array], state: CompetitiveGradientState) -> Known:
        return Known(residual=state.operator)

    def _direction(
        self, problem: Any, z: PyTree[Array], operator: Any, batch: PyTree[Array] | None
    ) -> PyTree[Array]:
        """(g_x, g_y), by (I + a^2 f_xy f_yx) g_x = F_x - a f_xy F_y and g_y = F_y + a f_yx g_x."""
        F_x, F_y = operator
        no_x, no_y = otu.zeros_like(z)

        def mixed(v: PyTree[Array]) -> PyTree[Array]:
            return problem.mixed(z, v) if batch is None else problem.batch_mixed(z, v, batch)

        def by_xy(v: PyTree[Array]) -> PyTree[Array]:
            return otu.scale(self.alpha, mixed((no_x, v))[0])

        def by_yx(v: PyTree[Array]) -> PyTree[Array]:
            return otu.scale(self.alpha, mixed((v, no_y))[1])

        system = lx.FunctionLinearOperator(
            lambda v: otu.add(v, by_xy(by_yx(v))),
            jax.eval_shape(lambda: F_x),
            (lx.symmetric_tag, lx.positive_semidefinite_tag),
            closure_convert=False,
        )
        size = otu.norm(operator)
        tolerance = float(jnp.finfo(size.dtype).eps) ** 0.75
        solver = lx.CG(tolerance, tolerance * size)
        # Called as a plain function, so that the products inside are counted like any other.
        g_x, _, _ = solver.compute(solver.init(system, {}), otu.sub(F_x, by_xy(F_y)), {})
        return g_x, otu.add(F_y, by_yx(g_x))
