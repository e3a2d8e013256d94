"""Successive over-relaxation: solve the equations one after another, and overshoot each time.

Young (1954), Iterative Methods for Solving Partial Difference Equations of Elliptic Type;
Young (1971), Iterative Solution of Large Linear Systems.
"""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, ArrayLike, Bool, Float, PyTree

from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ..solution import Status
from ..validate import in_range
from .problem import LinearSystem


class SORState(eqx.Module):
    residual: PyTree[Array]
    relaxed: Float[Array, "n n"]  # A with its diagonal divided by omega
    singular: Bool[Array, ""]


class _Relaxation(AbstractMethod[SORState]):
    """Add to y what an easily solved part of A makes of the residual."""

    omega: ArrayLike = 1.0

    question: ClassVar[type[AbstractProblem]] = LinearSystem

    def __check_init__(self):
        in_range(self, "omega", 0, 2)

    @abc.abstractmethod
    def correction(self, relaxed: Float[Array, "n n"], r: Float[Array, " n"]) -> Float[Array, " n"]:
        """What a residual r adds to the iterate."""

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> SORState:
        matrix = problem.matrix()
        if matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"`operator` must be square for {self.name}, got {matrix.shape}.")
        diagonal = jnp.diag(matrix)
        # Ones in place of zeros keep the first step finite, so that it ends in a breakdown.
        divisors = jnp.where(diagonal == 0, 1, diagonal) / jnp.asarray(self.omega, matrix.dtype)
        relaxed = jnp.fill_diagonal(matrix, divisors, inplace=False)
        return SORState(problem.residual(y), relaxed, jnp.any(diagonal == 0))

    def step(
        self, problem: Any, y: PyTree[Array], state: SORState
    ) -> tuple[PyTree[Array], SORState]:
        flat, unravel = ravel_pytree(y)
        y = unravel(flat + self.correction(state.relaxed, ravel_pytree(state.residual)[0]))
        return y, SORState(problem.residual(y), state.relaxed, state.singular)

    def known(self, problem: Any, y: PyTree[Array], state: SORState) -> Known:
        return Known(residual=state.residual)

    def terminate(self, problem: Any, y: PyTree[Array], state: SORState) -> Any:
        return Status.where(state.singular, Status.breakdown, Status.running)


class SOR(_Relaxation):
    """Successive over-relaxation, y+ = y + (D / omega + L)^-1 (b - A y), where A = L + D + U.

    A step is one sweep through the equations in order: a product with A and a triangular solve with
    the dense matrix. It converges where A is symmetric positive definite, and at `omega=1`, the
    Gauss-Seidel method, also where A is strictly diagonally dominant.

    Args:
        omega: the relaxation parameter, in (0, 2). If A is a discretized Laplacian (consistently
            ordered, with property A) and Jacobi's iteration matrix has spectral radius r, the best
            is 2 / (1 + sqrt(1 - r^2)).

    Raises:
        ValueError: if `omega` is outside (0, 2) or the operator is not square.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.LinearSystem(jnp.array([[4.0, 1.0], [1.0, 3.0]]), jnp.array([5.0, 4.0]))
        >>> rp.solve(problem, rp.linear.SOR(1.05)).value.round(3).tolist()
        [1.0, 1.0]
    """

    def correction(self, relaxed: Float[Array, "n n"], r: Float[Array, " n"]) -> Float[Array, " n"]:
        return solve_triangular(relaxed, r, lower=True)


class SSOR(_Relaxation):
    """Symmetric successive over-relaxation: a sweep through the equations and one back.

    y+ = y + M^-1 (b - A y) with M = omega / (2 - omega) (D / omega + L) D^-1 (D / omega + U),
    symmetric positive definite where A is.

    Args:
        omega: the relaxation parameter, in (0, 2); the rate depends on it less than that of `SOR`.

    Raises:
        ValueError: if `omega` is outside (0, 2) or the operator is not square.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.LinearSystem(jnp.array([[4.0, 1.0], [1.0, 3.0]]), jnp.array([5.0, 4.0]))
        >>> rp.solve(problem, rp.linear.SSOR(1.05)).value.round(3).tolist()
        [1.0, 1.0]
    """

    def correction(self, relaxed: Float[Array, "n n"], r: Float[Array, " n"]) -> Float[Array, " n"]:
        forward = solve_triangular(relaxed, r, lower=True)
        between = (2 - jnp.asarray(self.omega, r.dtype)) * jnp.diag(relaxed) * forward
        return solve_triangular(relaxed, between, lower=False)
