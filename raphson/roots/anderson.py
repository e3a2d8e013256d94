"""Anderson acceleration: the combination of past images whose residuals cancel best.

Anderson (1965), Iterative Procedures for Nonlinear Integral Equations; Walker, Ni (2011), Anderson
Acceleration for Fixed-Point Iterations.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ..solution import Status
from ..validate import in_range, whole_number
from .problem import FixedPoint


class AndersonState(eqx.Module):
    residual: Float[Array, " n"]  # f = T(y) - y
    moves: Float[Array, "m n"]  # dy, the last m in no order, 0 where there were fewer
    changes: Float[Array, "m n"]  # df
    count: Int[Array, ""]
    at_rest: Bool[Array, ""]


class Anderson(AbstractMethod[AndersonState]):
    """Anderson acceleration of the iteration y+ = T(y), in its type II form.

    With f = T(y) - y, and dY, dF the last m moves of y and changes of f as columns, the step is

        c = argmin |f - dF c|^2 + lambda sum_j |dF_j|^2 c_j^2,    y+ = y + b f - (dY + b dF) c.

    Where T is affine and all moves are kept this is GMRES: y+ with b = 1 is the image of the point
    that GMRES reaches on y - T(y) = 0. In one dimension it is the secant method. It converges from
    near a fixed point of a contraction, also of many maps whose Picard iteration does not converge;
    from afar nothing guards it.

    Args:
        memory: m, at least 1; more than the number of unknowns is no use.
        damping: b, in (0, 1]; less than 1 where the accelerated steps go too far.
        regularization: lambda, positive. It holds c where the columns of dF depend on each other,
            and does not depend on their scale.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.FixedPoint(lambda y, _: jnp.cos(y), jnp.array(0.5))
        >>> solution = rp.solve(problem, rp.roots.Anderson())
        >>> round(float(solution.value), 2), int(solution.stats.steps) < 6
        (0.74, True)
    """

    memory: int = 5
    damping: float = 1.0
    regularization: float = 1e-12

    question: ClassVar[type[AbstractProblem]] = FixedPoint

    def __check_init__(self):
        whole_number(self.memory, "memory", 1)
        in_range(self, "damping", 0, 1, closed="right")
        in_range(self, "regularization", 0)

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> AndersonState:
        flat = ravel_pytree(y)[0]
        none = jnp.zeros((min(self.memory, flat.size), flat.size), flat.dtype)
        residual = ravel_pytree(problem.apply(y))[0] - flat
        return AndersonState(residual, none, none, jnp.array(0, jnp.int32), jnp.array(False))

    def step(
        self, problem: Any, y: PyTree[Array], state: AndersonState
    ) -> tuple[PyTree[Array], AndersonState]:
        flat, unravel = ravel_pytree(y)
        f, dY, dF, b = state.residual, state.moves.T, state.changes.T, self.damping
        eps = jnp.finfo(f.dtype).eps
        rounding = 10 * eps * (jnp.linalg.norm(flat) + jnp.linalg.norm(f))
        c = _least_squares(dF, f, self.regularization, rounding)
        trial = flat + b * f - (dY + b * dF) @ c
        residual = ravel_pytree(problem.apply(unravel(trial)))[0] - trial
        oldest = state.count % len(state.moves)
        return unravel(trial), AndersonState(
            residual,
            state.moves.at[oldest].set(trial - flat),
            state.changes.at[oldest].set(residual - f),
            state.count + 1,
            jnp.all(trial == flat),
        )

    def terminate(self, problem: Any, y: PyTree[Array], state: AndersonState) -> Any:
        return Status.where(state.at_rest, Status.stalled, Status.running)

    def known(self, problem: Any, y: PyTree[Array], state: AndersonState) -> Known:
        return Known(residual=ravel_pytree(y)[1](state.residual))


def _least_squares(
    A: Float[Array, "n m"], b: Float[Array, " n"], regularization: Any, rounding: Array
) -> Float[Array, " m"]:
    """argmin |A c - b|^2 + lambda sum_j |A_j|^2 c_j^2, by QR of A with columns of length 1."""
    m = A.shape[1]
    lengths = jnp.linalg.norm(A, axis=0)
    # Columns of rounding alone, or of nothing as before there are m moves, get the coefficient 0.
    resolved = lengths > rounding
    lengths = jnp.where(resolved, lengths, 1)
    unit = jnp.where(resolved[None, :], A / lengths[None, :], 0)
    weight = jnp.sqrt(jnp.asarray(regularization, A.dtype))
    Q, R = jnp.linalg.qr(jnp.concatenate([unit, weight * jnp.eye(m, dtype=A.dtype)]))
    return solve_triangular(R, Q.T @ jnp.append(b, jnp.zeros(m, b.dtype))) / lengths
