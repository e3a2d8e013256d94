"""The question of risk budgeting: weights by which every asset bears its share of the risk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax.tree as otu
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..problem import AbstractObjective, Facts, oracle
from ..validate import as_start, require_structure


class RiskParity(AbstractObjective):
    """Minimize y'C y / 2 - sum_i b_i ln y_i over y > 0, where C is a correlation matrix.

    At the minimizer y_i (C y)_i = b_i: of the risk y'C y the asset i contributes its budget. Of the
    portfolio y is what is held of each asset in units of its volatility; `weights` are the shares
    of the money. Outside of y > 0 the objective is infinite.

    An asset held short is stated by its negative: flip the signs of its row and its column, and
    that of its weight.

    Args:
        covariance: of the returns, symmetric and positive semidefinite, shape (n, n).
        budget: b, a PyTree of n positive numbers in all; by default 1 / n each. In proportion to it
            the risk is shared.
        y0: the start, shaped as the budget and positive; by default the same number for all, at
            which the risk is the sum of b.
        facts: what is known of the problem.
        **oracles: hand-written `mv(y, args)` or `matrix(args)` instead of C's own.

    Raises:
        ValueError: if the covariance or the budget is none, or their shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.smooth.RiskParity(jnp.array([[0.01, 0.01], [0.01, 0.04]]))
        >>> solution = rp.solve(problem)
        >>> problem.weights(solution.value).round(3).tolist()
        [0.667, 0.333]
    """

    C: Float[Array, "n n"]
    budget: PyTree[Array]
    volatility: Float[Array, " n"]
    y0: PyTree[Array]
    args: PyTree
    oracles: dict[str, Callable[..., Any]]
    facts: Facts
    wrappers: tuple[Any, ...]

    def __init__(
        self,
        covariance: ArrayLike,
        budget: PyTree[ArrayLike] | None = None,
        y0: PyTree[ArrayLike] | None = None,
        *,
        facts: Facts | None = None,
        **oracles: Callable[..., Any],
    ):
        matrix: Array = as_start(jnp.asarray(covariance), "covariance")
        _require_covariance(matrix)
        n = len(matrix)
        budget = jnp.full(n, 1 / n, matrix.dtype) if budget is None else budget
        # A list of numbers is a vector here and not a PyTree.
        leaves = jax.tree.leaves(budget)
        if leaves and all(isinstance(leaf, int | float) for leaf in leaves):
            budget = np.asarray(budget, matrix.dtype)
        self.budget = as_start(budget, "budget")
        b = ravel_pytree(self.budget)[0]
        if b.size != n:
            raise ValueError(f"`budget` must hold {n} numbers, one for each asset, got {b.size}.")
        if not isinstance(b, Tracer) and not bool(jnp.all((b > 0) & jnp.isfinite(b))):
            raise ValueError(f"`budget` must hold positive numbers, got {b.tolist()}.")
        self.volatility = jnp.sqrt(jnp.diag(matrix))
        self.C = matrix / jnp.outer(self.volatility, self.volatility)
        level = jnp.sqrt(jnp.sum(b) / jnp.sum(self.C))
        even = jax.tree.map(lambda leaf: jnp.full_like(leaf, level), self.budget)
        self.y0 = even if y0 is None else as_start(y0)
        require_structure(self.y0, self.budget, "y0", "the budget")
        self.args, self.oracles = None, oracles
        self.facts, self.wrappers = facts or Facts(convex=True), ()

    @oracle
    def mv(self, y: PyTree[Array]) -> PyTree[Array]:
        """C y."""
        flat, unravel = ravel_pytree(y)
        return unravel(self.C @ flat)

    @oracle
    def matrix(self) -> Float[Array, "n n"]:
        """C, over the raveled unknown."""
        return self.C

    @oracle
    def gradient(self, y: PyTree[Array]) -> PyTree[Array]:
        return self.slope(y, self.mv(y))

    @oracle
    def value_and_gradient(self, y: PyTree[Array]) -> tuple[Float[Array, ""], PyTree[Array]]:
        product = self.mv(y)
        return self._value(y, product), self.slope(y, product)

    def slope(self, y: PyTree[Array], product: PyTree[Array]) -> PyTree[Array]:
        """The gradient C y - b / y from `product`, which is C y; NaN outside of y > 0."""
        return jax.tree.map(
            lambda y, p, b: jnp.where(y > 0, p - b / y, jnp.nan), y, product, self.budget
        )

    def objective(self, y: PyTree[Array]) -> Float[Array, ""]:
        return self._value(y, self.mv(y))

    def optimality(self, y: PyTree[Array]) -> PyTree[Array]:
        return self.gradient(y)

    def weights(self, y: PyTree[Array]) -> PyTree[Array]:
        """The portfolio that y stands for: the share of the money in each asset."""
        flat, unravel = ravel_pytree(y)
        held = flat / self.volatility
        return unravel(held / jnp.sum(held))

    def measures(self, y: PyTree[Array]) -> dict[str, Float[Array, ""]]:
        # Contributions are shares of the risk at hand, as the weights know no scale.
        b = ravel_pytree(self.budget)[0]
        contributions = ravel_pytree(otu.mul(y, self.mv(y)))[0]
        shares = contributions * (jnp.sum(b) / jnp.sum(contributions))
        return super().measures(y) | {"imbalance": jnp.max(jnp.abs(shares - b))}

    def traced(self, y: PyTree[Array]) -> Self:
        return self

    def rescaled(self, y_scale: PyTree[Array], value_scale: ArrayLike) -> Self:
        # But for a constant: sum b ln(d y) = sum b ln d + sum b ln y.
        d = ravel_pytree(y_scale)[0]
        return self._with(
            C=value_scale * self.C * jnp.outer(d, d),
            budget=otu.scale(value_scale, self.budget),
            volatility=self.volatility / d,
            facts=Facts(),
        )

    def _value(self, y: PyTree[Array], product: PyTree[Array]) -> Float[Array, ""]:
        inside = jnp.all(ravel_pytree(y)[0] > 0)
        logarithms = jax.tree.map(lambda leaf: jnp.log(jnp.where(inside, leaf, 1)), y)
        value = otu.vdot(y, product) / 2 - otu.vdot(self.budget, logarithms)
        return jnp.where(inside, value, jnp.inf)


def _require_covariance(covariance: Array) -> None:
    """Refuse what is no covariance matrix of risky assets; a traced one is let through."""
    if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1]:
        raise ValueError(f"`covariance` must be a square matrix, got shape {covariance.shape}.")
    if isinstance(covariance, Tracer):
        return
    matrix = np.asarray(covariance)
    if not np.isfinite(matrix).all() or not (np.diag(matrix) > 0).all():
        raise ValueError("`covariance` must be finite, with a positive diagonal.")
    s = np.sqrt(np.diag(matrix))
    correlation = matrix / np.outer(s, s)
    rounding = 10 * len(matrix) * np.finfo(matrix.dtype).eps
    if np.abs(correlation - correlation.T).max() > rounding:
        raise ValueError("`covariance` must be symmetric.")
    try:
        np.linalg.cholesky(correlation + rounding * np.eye(len(matrix), dtype=matrix.dtype))
    except np.linalg.LinAlgError:
        raise ValueError("`covariance` must be positive semidefinite.") from None
