"""Bilevel descent aggregation: of many lower minima, lower steps that lean to the upper level.

Liu, Mu, Yuan, Zeng, Zhang (2020), A Generic First-Order Algorithmic Framework for Bi-Level
Programming Beyond Lower-Level Singleton.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, Bool, Float, PyTree

from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ..solution import Status
from ..validate import in_range, whole_number
from ._shared import as_transformation, at_rest, descended, require_steps, scan_keys
from .problem import AbstractBilevel


class DescentAggregationState(eqx.Module):
    upper: PyTree[Array]  # of the upper transformation
    start: PyTree[Array]  # y_0
    hypergradient: PyTree[Array]  # by which the last step went
    at_rest: Bool[Array, ""]
    key: Array | None


class DescentAggregation(AbstractMethod[DescentAggregationState]):
    """Bilevel descent aggregation: differentiate through steps down both levels.

    From the y_0 of the start, for k = 0, ..., T - 1 and with weights a_k that fall to 0:

        y_k+1  =  y_k - a_k upper_step_size F_y(x, y_k) - (1 - a_k) lower_step_size f_y(x, y_k)
        x      =  x - s d/dx F(x, y_T)

    The derivative is propagated back through all T steps, which are kept. Where f(x, .) has many
    minima, the part of F leads to the one at which F is least, if F is strongly convex in y. What
    it leaves in y is of the size of a_T, however long the run.

    Args:
        upper: s, positive, or an Optax transformation.
        upper_step_size: at most 2 / L where F is L-smooth in y, positive.
        lower_step_size: at most 1 / L where f is L-smooth in y, positive.
        inner_steps: T, at least 1.
        weight: c in (0, 1] for a_k = c / (k + 1), or a function of k that gives a_k; with 0 for all
            k this is plain unrolling, which ends wherever the start is led by f alone.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import raphson as rp
        >>> problem = rp.problems.non_singleton()
        >>> method = rp.bilevel.DescentAggregation(0.2, 0.7, 0.7, inner_steps=64)
        >>> x, y = rp.solve(problem, method, max_steps=500, throw=False).value
        >>> round(float(x), 2), y.round(1).tolist()
        (1.0, [1.0, 1.0])
    """

    upper: Any = 0.1
    upper_step_size: float = 0.25
    lower_step_size: float = 0.25
    inner_steps: int = 100
    weight: Any = 1.0

    question: ClassVar[type[AbstractProblem]] = AbstractBilevel
    samples: ClassVar[bool] = True

    def __check_init__(self):
        require_steps(self, "upper")
        in_range(self, "upper_step_size", 0)
        in_range(self, "lower_step_size", 0)
        whole_number(self.inner_steps, "inner_steps", 1)
        if not isinstance(self.weight, Callable):
            in_range(self, "weight", 0, 1, closed="right")

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> DescentAggregationState:
        x, y = y
        upper = as_transformation(self.upper).init(x)
        F_x, _ = problem.upper_gradient(x, y, None)
        key = key if problem.stochastic else None
        return DescentAggregationState(upper, y, F_x, jnp.array(False), key)

    def step(
        self, problem: Any, y: PyTree[Array], state: DescentAggregationState
    ) -> tuple[PyTree[Array], DescentAggregationState]:
        (x, _), (key, last, keys) = y, scan_keys(state.key, self.inner_steps)
        held = problem.sets[1] is not None
        count = jnp.arange(self.inner_steps)

        def forward(y: PyTree[Array], at: Any) -> tuple[PyTree[Array], Any]:
            k, key = at
            upper, lower = problem.sample(key)
            _, F_y = problem.upper_gradient(x, y, upper)
            _, f_y = problem.lower_gradient(x, y, lower)
            move = self._aggregated(k, F_y, f_y)
            # How a set bends the step depends on where it went, else y is all that is needed.
            return problem.project((x, otu.sub(y, move)))[1], (y, move if held else None)

        def backward(carry: tuple[Any, Any], kept: Any) -> tuple[tuple[Any, Any], None]:
            (a, h), ((y, move), (k, key)) = carry, kept
            upper, lower = problem.sample(key)
            a = problem.tangent(y, move)(a)
            of_F, of_f = (
                problem.upper_product(x, y, a, upper),
                problem.lower_product(x, y, a, lower),
            )
            xa, ya = self._aggregated(k, of_F, of_f)
            return (otu.sub(a, ya), otu.sub(h, xa)), None

        after, kept = jax.lax.scan(forward, state.start, (count, keys))
        F_x, F_y = problem.upper_gradient(x, after, problem.sample(last)[0])
        (_, h), _ = jax.lax.scan(backward, (F_y, F_x), (kept, (count, keys)), reverse=True)
        moved, upper = descended(problem, x, after, h, self.upper, state.upper)
        resting = at_rest(self.upper, y, (moved, after))
        return (moved, after), DescentAggregationState(upper, state.start, h, resting, key)

    def known(self, problem: Any, y: PyTree[Array], state: DescentAggregationState) -> Known:
        return Known()

    def terminate(self, problem: Any, y: PyTree[Array], state: DescentAggregationState) -> Any:
        return Status.where(state.at_rest, Status.stalled, Status.running)

    def _aggregated(self, k: Float[Array, ""], of_F: PyTree[Array], of_f: PyTree[Array]) -> Any:
        """What of both levels makes up step k."""
        weight = self.weight(k) if isinstance(self.weight, Callable) else self.weight / (k + 1)

        def mixed(F: Array, f: Array) -> Array:
            by_F, by_f = weight * self.upper_step_size, (1 - weight) * self.lower_step_size
            return jnp.asarray(by_F, F.dtype) * F + jnp.asarray(by_f, f.dtype) * f

        return jax.tree.map(mixed, of_F, of_f)
