"""The Neumann series of an inverse: a few products with A, and a few vectors of memory.

Lorraine, Vicol, Duvenaud (2020), Optimizing Millions of Hyperparameters by Implicit
Differentiation.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
import optax.tree as otu
from jaxtyping import Array, PyTree

from ..validate import in_range, whole_number


class Neumann(lx.AbstractLinearSolver[lx.AbstractLinearOperator]):
    """K terms of the Neumann series of an inverse, a Lineax solver for square operators.

        A^-1 b  ~  s (b + (1 - s A) b + ... + (1 - s A)^(K - 1) b)

    It converges where |1 - s A| < 1, for a symmetric positive definite A where s < 2 / L with L
    the largest eigenvalue. It is what differentiating through K steps of gradient descent with the
    step size s gives at the minimum of a function with the Hessian A. From a start, the option
    `y0` of `lineax.linear_solve`, it is the series for what is left of b there.

    Args:
        terms: K, at least 1; fewer are taken where a term is longer than the one before it, and
            the result is then `RESULTS.breakdown`.
        step_size: s, positive.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import lineax as lx
        >>> import raphson as rp
        >>> A = lx.MatrixLinearOperator(jnp.array([[4.0, 1.0], [1.0, 3.0]]))
        >>> solver = rp.linear.Neumann(50, 0.25)
        >>> lx.linear_solve(A, jnp.array([5.0, 4.0]), solver).value.round(3).tolist()
        [1.0, 1.0]
    """

    terms: int
    step_size: float

    def __check_init__(self):
        whole_number(self.terms, "terms", 1)
        in_range(self, "step_size", 0)

    def init(
        self, operator: lx.AbstractLinearOperator, options: dict[str, Any]
    ) -> lx.AbstractLinearOperator:
        if operator.in_structure() != operator.out_structure():
            raise ValueError("`operator` must be square for Neumann.")
        return lx.linearise(operator)

    def compute(
        self, state: lx.AbstractLinearOperator, vector: PyTree[Array], options: dict[str, Any]
    ) -> tuple[PyTree[Array], lx.RESULTS, dict[str, Any]]:
        start = options.get("y0")
        p = vector if start is None else otu.sub(vector, state.mv(start))
        # A term that A does not shrink changes in length by its rounding.
        slack = 1 + 8 * jnp.finfo(jnp.result_type(*jax.tree.leaves(vector))).eps

        def unfinished(carry: tuple[Any, ...]) -> Array:
            _, _, j, growing = carry
            return (j < self.terms) & ~growing

        def add(carry: tuple[Any, ...]) -> tuple[Any, ...]:
            q, p, j, _ = carry
            after = otu.add_scale(p, -self.step_size, state.mv(p))
            return otu.add(q, p), after, j + 1, ~(otu.norm(after) <= slack * otu.norm(p))

        carry = otu.zeros_like(vector), p, jnp.array(0), jnp.array(False)
        q, _, j, growing = jax.lax.while_loop(unfinished, add, carry)
        y = otu.scale(self.step_size, q)
        result = lx.RESULTS.where(growing, lx.RESULTS.breakdown, lx.RESULTS.successful)
        stats = {"num_steps": j, "max_steps": self.terms}
        return y if start is None else otu.add(start, y), result, stats

    def transpose(self, state: lx.AbstractLinearOperator, options: dict[str, Any]) -> Any:
        return state.transpose(), {}

    def conj(self, state: lx.AbstractLinearOperator, options: dict[str, Any]) -> Any:
        return lx.conj(state), {}

    def assume_full_rank(self) -> bool:
        return True
