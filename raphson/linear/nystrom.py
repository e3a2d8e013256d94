"""The Nystrom method: a damped inverse from a few columns of the matrix.

Hataya, Yamada (2023), Nystrom Method for Accurate and Scalable Implicit Differentiation.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ..validate import in_range, whole_number


class Nystrom(lx.AbstractLinearSolver[tuple[Array, Array]]):
    """The damped inverse of the Nystrom approximation, a Lineax solver for symmetric operators.

    With C the columns of A that a set of k indices names, and W the rows of C that it names,

        A  ~  C W^+ C^T,    (C W^+ C^T + d)^-1 b  =  (b - C (C^T C + d W)^+ C^T b) / d.

    The cost is k products with A and k vectors of memory, whatever the condition number; with all
    columns the answer is (A + d)^-1 b. Where d is small next to the greatest eigenvalue, the
    subtraction loses as many digits as the two are apart.

    Args:
        rank: k, at least 1; all columns where there are no more.
        damping: d, positive.
        key: a random key that draws the indices; the first k by default.

    Raises:
        ValueError: if a hyperparameter is outside its range, or the operator is not symmetric.

    Example:
        >>> import jax.numpy as jnp
        >>> import lineax as lx
        >>> import raphson as rp
        >>> A = lx.MatrixLinearOperator(jnp.array([[3.0, 1.0], [1.0, 3.0]]), lx.symmetric_tag)
        >>> solver = rp.linear.Nystrom(2, 1.0)
        >>> lx.linear_solve(A, jnp.array([5.0, 5.0]), solver).value.round(3).tolist()
        [1.0, 1.0]
    """

    rank: int
    damping: float
    key: Array | None = None

    def __check_init__(self):
        whole_number(self.rank, "rank", 1)
        in_range(self, "damping", 0)

    def init(
        self, operator: lx.AbstractLinearOperator, options: dict[str, Any]
    ) -> tuple[Float[Array, "k n"], Float[Array, "k k"]]:
        if not (lx.is_symmetric(operator) or lx.is_positive_semidefinite(operator)):
            raise ValueError("`operator` must be symmetric for Nystrom: tag it so.")
        operator = lx.linearise(operator)
        zeros, unravel = ravel_pytree(
            jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), operator.in_structure())
        )
        chosen = jnp.arange(min(self.rank, zeros.size))
        if self.key is not None:
            chosen = jax.random.permutation(self.key, zeros.size)[: chosen.size]

        def column(i: Array) -> Array:
            return ravel_pytree(operator.mv(unravel(zeros.at[i].set(1))))[0]

        rows = jax.lax.map(column, chosen)
        return rows, rows[:, chosen]

    def compute(
        self, state: tuple[Array, Array], vector: PyTree[Array], options: dict[str, Any]
    ) -> tuple[PyTree[Array], lx.RESULTS, dict[str, Any]]:
        (rows, among), (b, unravel) = state, ravel_pytree(vector)
        coefficients = jnp.linalg.lstsq(rows @ rows.T + self.damping * among, rows @ b)[0]
        y = (b - coefficients @ rows) / self.damping
        return unravel(y), lx.RESULTS.successful, {}

    def transpose(self, state: tuple[Array, Array], options: dict[str, Any]) -> Any:
        return state, {}

    def conj(self, state: tuple[Array, Array], options: dict[str, Any]) -> Any:
        return state, {}

    def assume_full_rank(self) -> bool:
        return True
