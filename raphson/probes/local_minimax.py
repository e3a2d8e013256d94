"""Second-order test of a stationary point of a saddle: can it be a local minimax point?

Chae, Kim, Kim (2024), Two-Timescale Extragradient for Finding Local Minimax Points.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..compiled import compiled
from ..saddle.problem import Saddle


class LocalMinimax(eqx.Module):
    """What the second derivatives say of a stationary point.

    Attributes:
        schur: least eigenvalue of the restricted Schur complement, infinite where it is empty.
        rank: the rank that f_yy was taken to have.
        concave: whether f_yy <= 0.
        least_step_size: what the step size eta of two-timescale extragradient must exceed if the
            point is to attract it for every large tau.
        tolerance: what eigenvalues and singular values were held against to tell them from 0.
    """

    schur: Float[Array, ""]
    rank: Int[Array, ""]
    concave: Bool[Array, ""]
    least_step_size: Float[Array, ""]
    tolerance: Float[Array, ""]

    @property
    def necessary(self) -> Bool[Array, ""]:
        """Whether the second-order necessary condition of a local minimax point holds."""
        return self.concave & (self.schur >= -self.tolerance)


def local_minimax(
    problem: Saddle, z: tuple[PyTree[Array], PyTree[Array]], *, rtol: float | None = None
) -> LocalMinimax:
    """Probe the second-order conditions of a local minimax point, also where f_yy is singular.

    With A, B, C the blocks f_xx, f_yy, f_xy of the Hessian, let C1 and C2 be the parts of C on the
    range and on the kernel of B, B1 the part of B on its range, and U an orthonormal basis of the
    kernel of C2'. The restricted Schur complement is U' (A - C1 B1^-1 C1') U. At a local minimax
    point it is at least 0 and B <= 0. Where B <= 0, it is positive and the Hessian nonsingular,
    two-timescale extragradient with the steps eta / tau and eta converges from nearby for every
    large tau, if eta is between `least_step_size` and 1 / L: max_j -u_j' S u_j / s_j^2, where S is
    the full Schur complement and s_j the distinct nonzero singular values of C2 with left vectors
    u_j. Hessians are formed densely.

    Args:
        problem: a saddle.
        z: the stationary point (x, y), shaped as the problem's start.
        rtol: eigenvalues of B and singular values of C2 count as 0 up to this fraction of the norm
            of the whole Hessian: relative to B alone, a B that is all rounding would have full
            rank. The square root of the machine epsilon by default.

    Returns:
        The condition's figures; safe under `jit` and `vmap`.

    Raises:
        ValueError: if `problem` is no Saddle.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> origin = jnp.array(0.0), jnp.array(0.0)
        >>> problem = rp.Saddle(lambda x, y, _: x * y - x**2 / 10, *origin)
        >>> probe = rp.probes.local_minimax(problem, origin)
        >>> int(probe.rank), bool(probe.necessary), round(float(probe.least_step_size), 3)
        (0, True, 0.2)
    """
    if not isinstance(problem, Saddle):
        raise ValueError(f"`problem` must be a Saddle, got a {type(problem).__name__}.")
    return compiled(_probed, problem, z, rtol)


def _probed(problem: Saddle, z: tuple[Any, Any], rtol: Any) -> LocalMinimax:
    A, B, C = _hessian(problem, z)
    norm = jnp.linalg.norm(jnp.block([[A, C], [C.T, B]]), 2)
    tolerance = norm * (jnp.finfo(norm.dtype).eps ** 0.5 if rtol is None else rtol)

    eigenvalues, basis = jnp.linalg.eigh(B)
    in_range = jnp.abs(eigenvalues) > tolerance
    inverse = jnp.where(in_range, 1 / jnp.where(in_range, eigenvalues, 1), 0)
    # Masks in place of subsets of columns: how many there are is known only at run time.
    C = C @ basis
    schur = A - C @ jnp.diag(inverse) @ C.T
    left, singular, _ = jnp.linalg.svd(jnp.where(in_range[None, :], 0, C))
    singular = jnp.zeros(len(A), norm.dtype).at[: len(singular)].set(singular)
    coupled = singular > tolerance
    schur = left.T @ schur @ left

    # What lies outside of U gets an eigenvalue above all others.
    above = jnp.where(coupled, jnp.linalg.norm(schur) + 1, 0)
    kept = ~(coupled[:, None] | coupled[None, :])
    least = jnp.linalg.eigvalsh(jnp.where(kept, schur, 0) + jnp.diag(above))[0]
    steps = jnp.where(coupled, -jnp.diag(schur) / jnp.where(coupled, singular, 1) ** 2, 0)
    return LocalMinimax(
        schur=jnp.where(jnp.all(coupled), jnp.inf, least),
        rank=jnp.sum(in_range),
        concave=eigenvalues[-1] <= tolerance,
        least_step_size=jnp.maximum(jnp.max(steps), 0),
        tolerance=tolerance,
    )


def _hessian(problem: Saddle, z: tuple[Any, Any]) -> tuple[Array, Array, Array]:
    """f_xx, f_yy and f_xy as matrices, from the derivative of the operator (f_x, -f_y)."""
    flat, unravel = ravel_pytree(z)
    n = ravel_pytree(z[0])[0].size
    derivative = jax.jacfwd(lambda flat: ravel_pytree(problem.operator(unravel(flat)))[0])(flat)
    return derivative[:n, :n], -derivative[n:, n:], derivative[:n, n:]
