"""The question of linear algebra: find y where A y = b."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import jax
import lineax as lx
import numpy as np
import optax.tree as otu
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..problem import AbstractProblem, Facts, oracle
from ..validate import as_operator, as_start, require_structure


class LinearSystem(AbstractProblem):
    """Solve A y = b.

    Args:
        operator: A, a Lineax operator or a matrix of shape (m, n).
        vector: b, a PyTree of floating-point arrays shaped as A's output.
        y0: the start, zero by default.
        facts: what is known of the problem.
        **oracles: hand-written `mv(y, args)` or `matrix(args)` instead of the operator's own.

    Raises:
        ValueError: if `operator` is no operator or matrix, or its shape does not fit `vector`.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.LinearSystem(jnp.array([[2.0, 0.0], [0.0, 4.0]]), jnp.ones(2))
        >>> rp.solve(problem).value.tolist()
        [0.5, 0.25]
    """

    A: lx.AbstractLinearOperator
    vector: PyTree[Array]
    y0: PyTree[Array]
    args: PyTree
    oracles: dict[str, Callable[..., Any]]
    facts: Facts
    wrappers: tuple[Any, ...]

    def __init__(
        self,
        operator: lx.AbstractLinearOperator | ArrayLike,
        vector: PyTree[ArrayLike],
        y0: PyTree[ArrayLike] | None = None,
        *,
        facts: Facts | None = None,
        **oracles: Callable[..., Any],
    ):
        if not isinstance(operator, lx.AbstractLinearOperator):
            operator = as_operator(operator, "operator")
            # Beside a matrix, a list of numbers is a vector and not a PyTree.
            leaves = jax.tree.leaves(vector)
            if leaves and all(isinstance(leaf, int | float) for leaf in leaves):
                vector = np.asarray(vector)
        self.A, self.vector = operator, as_start(vector, "vector")
        require_structure(self.vector, operator.out_structure(), "vector", "the operator's output")
        self.y0 = otu.zeros_like(operator.in_structure()) if y0 is None else as_start(y0)
        require_structure(self.y0, operator.in_structure(), "y0", "the operator's input")
        self.args, self.oracles = None, oracles
        self.facts, self.wrappers = facts or Facts(), ()

    @oracle
    def mv(self, y: PyTree[Array]) -> PyTree[Array]:
        """A y."""
        return self.A.mv(y)

    @oracle
    def operator(self) -> lx.AbstractLinearOperator:
        """A as a Lineax operator, with the structure that its tags promise."""
        return self.A

    @oracle
    def matrix(self) -> Float[Array, "m n"]:
        """A as a dense matrix, over the raveled unknown."""
        return self.A.as_matrix()

    def residual(self, y: PyTree[Array]) -> PyTree[Array]:
        """b - A y, by one product."""
        return otu.sub(self.vector, self.mv(y))

    def optimality(self, y: PyTree[Array]) -> PyTree[Array]:
        return self.residual(y)

    def scale(self, residual: PyTree[Array]) -> Float[Array, ""]:
        return otu.norm(self.vector)

    def traced(self, y: PyTree[Array]) -> Self:
        return self

    def rescaled(self, y_scale: PyTree[Array], value_scale: ArrayLike) -> Self:
        columns = lx.DiagonalLinearOperator(y_scale)
        return type(self)(value_scale * (self.A @ columns), otu.scale(value_scale, self.vector))
