"""Preconditioners that cut the greatest eigenvalues off, made of symmetric polynomials of them.

Doikov, Rodomanov (2023), Polynomial Preconditioning for Gradient Methods.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float

from ..validate import whole_number


def symmetric_polynomial(
    B: Float[Array, "n n"] | lx.AbstractLinearOperator, tau: int = 1
) -> lx.MatrixLinearOperator:
    """The preconditioner P_tau of a positive semidefinite B.

    P has the eigenvectors of B. To that of the i-th eigenvalue belongs the mean, over all sets of
    tau of the other eigenvalues, of their products. Thus P_0 = I, P_1 is tr(B) I - B but for its
    scale, and P_{n-1} is the adjugate, which is proportional to the inverse. Where tau eigenvalues
    are far greater than the rest, P_tau B is conditioned as if they were not.

    The paper's P is larger, by binom(n - 1, tau), and of B itself; here it is of B n / tr(B), so
    that P has no units and is I for every multiple of I. It is made from the eigenvalues, by sums
    of positive terms: the paper's alternating recursion in powers of B loses its digits.

    Args:
        B: a symmetric positive semidefinite matrix, or an operator that has one.
        tau: the degree, from 0 to n - 1.

    Returns:
        P, an operator on vectors of length n.

    Raises:
        ValueError: if B is not square or `tau` is not a degree.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> B = jnp.diag(jnp.array([100.0, 2.0, 1.0]))
        >>> P = rp.linear.symmetric_polynomial(B, 2)
        >>> (P.as_matrix() @ B / P.as_matrix()[1, 1]).diagonal().round(3).tolist()
        [2.0, 2.0, 2.0]
    """
    matrix = B.as_matrix() if isinstance(B, lx.AbstractLinearOperator) else jnp.asarray(B)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"`B` must be a square matrix, got the shape {matrix.shape}.")
    n = matrix.shape[0]
    if whole_number(tau, "tau") >= n:
        raise ValueError(f"`tau` must be less than the number of unknowns, {n}, got {tau}.")
    eigenvalues, basis = jnp.linalg.eigh((matrix + matrix.T) / 2)
    # Semidefinite matrices have eigenvalues below 0 by rounding.
    eigenvalues = jnp.maximum(eigenvalues, 0)
    mean = jnp.mean(eigenvalues)
    shares = eigenvalues / jnp.where(mean > 0, mean, 1)
    degrees = jnp.arange(1, tau + 1, dtype=shares.dtype)

    def mean_product(i: Array) -> Array:
        """Mean products of 0, ..., tau of the eigenvalues but the i-th, one joining at a time."""

        def join(means: Array, m: Array) -> tuple[Array, None]:
            part = degrees / m
            share = shares[jnp.where(m <= i, m - 1, m)]
            return means.at[1:].set((1 - part) * means[1:] + part * share * means[:-1]), None

        none_yet = jnp.zeros(tau + 1, shares.dtype).at[0].set(1)
        return jax.lax.scan(join, none_yet, jnp.arange(1, n))[0][-1]

    weights = jax.vmap(mean_product)(jnp.arange(n))
    return lx.MatrixLinearOperator((basis * weights[None]) @ basis.T, lx.positive_semidefinite_tag)
