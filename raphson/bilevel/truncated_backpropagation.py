"""Truncated back-propagation: differentiate through the last few of many lower steps.

Shaban, Cheng, Hatch, Boots (2019), Truncated Back-propagation for Bilevel Optimization.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, Bool, PyTree

from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ..solution import Status
from ..validate import in_range, whole_number
from ._shared import as_transformation, at_rest, descended, require_steps, scan_keys
from .problem import AbstractBilevel


class TruncatedBackpropagationState(eqx.Module):
    upper: PyTree[Array]  # of the upper transformation
    hypergradient: PyTree[Array]  # by which the last step went
    at_rest: Bool[Array, ""]
    key: Array | None


class TruncatedBackpropagation(AbstractMethod[TruncatedBackpropagationState]):
    """Descent along the derivative of T lower steps, of which the last K are seen.

    The steps are those of the heavy ball from m = 0, with momentum 0 of gradient descent:

        m+  =  momentum m + f_y(x, y)             y+  =  y - step_size m+         T times
        x   =  x - s h

    where h is F_x + dy/dx^T F_y, propagated back by hand. Without momentum, from a = F_y and
    h = F_x, for the last K iterates in reverse:

        h   =  h - step_size f_xy a               a   =  a - step_size f_yy a

    With K = T this is the derivative itself. On a mu-strongly convex f less than that errs by a
    factor (1 - step_size mu)^K, which stays however long the run; with a lower level that is solved
    it is the implicit gradient by K terms of `raphson.linear.Neumann`. Only the last K iterates are
    kept. Each x starts from the last y.

    Args:
        upper: s, positive, or an Optax transformation.
        step_size: of the lower steps, positive; at most 1 / L where f is L-smooth in y.
        inner_steps: T, at least 1.
        back: K, from 1 to T; by default T.
        momentum: of the lower steps, in [0, 1).

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import raphson as rp
        >>> upper = lambda x, y, _: (y - 1.0) ** 2 + x**2
        >>> lower = lambda x, y, _: (y - 2.0 * x) ** 2
        >>> problem = rp.Bilevel(upper, lower, 0.0, 0.0)
        >>> method = rp.bilevel.TruncatedBackpropagation(0.1, 0.25, inner_steps=30, back=20)
        >>> x, y = rp.solve(problem, method, max_steps=1000).value
        >>> round(float(x), 3), round(float(y), 3)
        (0.4, 0.8)
    """

    upper: Any = 0.1
    step_size: float = 0.25
    inner_steps: int = 20
    back: int | None = None
    momentum: float = 0.0

    question: ClassVar[type[AbstractProblem]] = AbstractBilevel
    samples: ClassVar[bool] = True

    def __check_init__(self):
        require_steps(self, "upper")
        in_range(self, "step_size", 0)
        whole_number(self.inner_steps, "inner_steps", 1)
        if self.back is not None and whole_number(self.back, "back", 1) > self.inner_steps:
            raise ValueError(
                f"`back` must be at most `inner_steps`, got {self.back} and {self.inner_steps}."
            )
        in_range(self, "momentum", 0, 1, closed="left")

    def init(
        self, problem: Any, y: PyTree[Array], key: Array | None
    ) -> TruncatedBackpropagationState:
        x, y = y
        upper = as_transformation(self.upper).init(x)
        F_x, _ = problem.upper_gradient(x, y, None)
        key = key if problem.stochastic else None
        return TruncatedBackpropagationState(upper, F_x, jnp.array(False), key)

    def step(
        self, problem: Any, y: PyTree[Array], state: TruncatedBackpropagationState
    ) -> tuple[PyTree[Array], TruncatedBackpropagationState]:
        (x, y), (key, last, keys) = y, scan_keys(state.key, self.inner_steps)
        back = self.inner_steps if self.back is None else self.back
        held = problem.sets[1] is not None

        def forward(carry: tuple[Any, Any], key: Array | None) -> tuple[tuple[Any, Any], Any]:
            y, m = carry
            _, f_y = problem.lower_gradient(x, y, problem.sample(key)[1])
            m = otu.add_scale(f_y, self.momentum, m)
            move = otu.scale(self.step_size, m)
            # How a set bends the step depends on where it went, else y is all that is needed.
            kept = y, move if held else None
            return (problem.project((x, otu.sub(y, move)))[1], m), kept

        def backward(carry: tuple[Any, Any, Any], kept: Any) -> tuple[tuple[Any, Any, Any], None]:
            (a, b, h), ((y, move), key) = carry, kept
            a = problem.tangent(y, move)(a)
            b = otu.add_scale(otu.scale(self.momentum, b), -self.step_size, a)
            f_xb, f_yb = problem.lower_product(x, y, b, problem.sample(key)[1])
            return (otu.add(a, f_yb), b, otu.add(h, f_xb)), None

        early, late = (None, None) if keys is None else (keys[:-back], keys[-back:])
        blind = lambda carry, key: (forward(carry, key)[0], None)
        carry, _ = jax.lax.scan(blind, (y, otu.zeros_like(y)), early, self.inner_steps - back)
        (after, _), kept = jax.lax.scan(forward, carry, late, back)
        F_x, F_y = problem.upper_gradient(x, after, problem.sample(last)[0])
        start = F_y, otu.zeros_like(y), F_x
        (_, _, h), _ = jax.lax.scan(backward, start, (kept, late), back, reverse=True)
        moved, upper = descended(problem, x, after, h, self.upper, state.upper)
        resting = at_rest(self.upper, (x, y), (moved, after))
        return (moved, after), TruncatedBackpropagationState(upper, h, resting, key)

    def known(self, problem: Any, y: PyTree[Array], state: TruncatedBackpropagationState) -> Known:
        return Known()

    def terminate(
        self, problem: Any, y: PyTree[Array], state: TruncatedBackpropagationState
    ) -> Any:
        return Status.where(state.at_rest, Status.stalled, Status.running)
