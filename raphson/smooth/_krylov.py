"""A Hessian of which only products are known, on the space of its powers times the gradient."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._shared import spectrum


def krylov_spectrum(
    product: Callable[[Array], Array], g: Float[Array, " n"], move: Float[Array, " n"], rank: int
) -> tuple[Float[Array, " k"], Float[Array, "n k"]]:
    """Eigenvalues and eigenvectors of H on the Krylov space of g and the last move together.

    The Krylov space is spanned by Lanczos' method, where each vector is made orthogonal to all
    before it, twice. Where it ends early, or has the move within it, the rest are zero, with
    eigenvalue zero.

    Args:
        product: v -> H v.
        g: the gradient.
        move: the last move of y, 0 if there is none.
        rank: how many of g, H g, H^2 g, ... span the Krylov space.
    """
    k = min(rank, g.size)

    def extend(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        Q, HQ = carry
        Hq = product(Q[:, i])
        HQ, v = HQ.at[:, i].set(Hq), jnp.where(i < k - 1, Hq, move)
        rounding = 10 * g.size * jnp.finfo(g.dtype).eps * jnp.linalg.norm(v)
        v = v - Q @ (Q.T @ v)
        v = v - Q @ (Q.T @ v)
        return Q.at[:, i + 1].set(_unit(v, rounding), mode="drop"), HQ

    empty = jnp.zeros((g.size, k + 1), g.dtype)
    Q, HQ = jax.lax.fori_loop(0, k + 1, extend, (empty.at[:, 0].set(_unit(g, 0.0)), empty))
    eigenvalues, basis = spectrum(Q.T @ HQ)
    return eigenvalues, Q @ basis


def _unit(v: Float[Array, " n"], rounding: Array | float) -> Float[Array, " n"]:
    length = jnp.linalg.norm(v)
    ended = length <= rounding
    return jnp.where(ended, 0, v / jnp.where(ended, 1, length))
