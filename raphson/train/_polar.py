"""Turbo-Muon's polar factor: Newton-Schulz steps that begin from balanced rows.

Boissin, Massena, Mamalet, Serrurier (2025), Turbo-Muon: Accelerating Orthogonality-Based
Optimization with Pre-Conditioning.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..validate import whole_number

# The polynomials a x + b x^3 + c x^5 of successive steps; fewer steps take the last of them.
QUINTICS = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)


def polar_factor(
    matrix: Float[Array, "*batch m n"], steps: int | None = 4
) -> Float[Array, "*batch m n"]:
    """The nearest matrix with orthonormal rows or columns: U V' of the matrix U S V'.

    With m <= n (else of the transpose), the rows are first divided by the roots of the absolute row
    sums of X X', after which no singular value of X exceeds 1; then each step takes
    X = a X + (b A + c A^2) X with A = X X' and five times other a, b and c. This is three products
    of matrices a step. Of a matrix with random entries the result is within 10 % of the polar
    factor, in the Frobenius norm; where rows differ much in length it is rather that of the matrix
    with balanced rows, however many the steps.

    Args:
        matrix: X, or several along leading axes.
        steps: 1 to 5; None for the polar factor itself, by a singular value decomposition, in which
            singular values that are rounding count as 0.

    Returns:
        An array like `matrix`, in its dtype; computed in at least single precision.

    Raises:
        ValueError: if `steps` is no whole number from 1 to 5.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> matrix = jnp.array([[3.0, 0.0, 0.0], [0.0, -0.01, 0.0]])
        >>> rp.train.polar_factor(matrix, steps=None).tolist()
        [[1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]
    """
    dtype = jnp.result_type(matrix)
    x = jnp.asarray(matrix, jnp.promote_types(dtype, jnp.float32))
    # The polar factor does not depend on the scale, but the squares of X can leave the range.
    largest = jnp.max(jnp.abs(x), axis=(-2, -1), keepdims=True, initial=0)
    x = x / jnp.where(largest > 0, largest, 1)
    if steps is None:
        u, s, vt = jnp.linalg.svd(x, full_matrices=False)
        rounding = max(x.shape[-2:]) * jnp.finfo(x.dtype).eps
        kept = s > rounding * jnp.max(s, axis=-1, keepdims=True, initial=0)
        return ((u * kept[..., None, :]) @ vt).astype(dtype)
    if whole_number(steps, "steps", 1) > len(QUINTICS):
        raise ValueError(f"`steps` must be at most {len(QUINTICS)}, got {steps}.")

    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    gram = x @ x.mT
    sums = jnp.sum(jnp.abs(gram), axis=-1, keepdims=True)
    scale = jnp.where(sums > 0, 1 / jnp.sqrt(jnp.where(sums > 0, sums, 1)), 0)
    x, gram = scale * x, scale * gram * scale.mT
    for index, (a, b, c) in enumerate(QUINTICS[-steps:]):
        gram = gram if index == 0 else x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).astype(dtype)


def matrix_view(leaf: Array, output_first: bool) -> Float[Array, "outputs inputs"]:
    """A leaf with two or more axes as the matrix of outputs by all else."""
    leaf = leaf if output_first else jnp.moveaxis(leaf, -1, 0)
    return leaf.reshape(leaf.shape[0], -1)


def from_matrix_view(
    matrix: Float[Array, "outputs inputs"], like: Array, output_first: bool
) -> Array:
    """The leaf shaped as `like` whose `matrix_view` is `matrix`."""
    if output_first:
        return matrix.reshape(like.shape)
    return jnp.moveaxis(matrix.reshape(like.shape[-1:] + like.shape[:-1]), 0, -1)


def unit(g: Array, axes: tuple[int, ...] | None = None) -> Array:
    """`g` over its length along `axes`, all by default, and 0 where that is 0."""
    largest = jnp.max(jnp.abs(g), axis=axes, keepdims=True, initial=0)
    g = g / jnp.where(largest > 0, largest, 1)  # whose squares neither overflow nor underflow
    return g / jnp.maximum(jnp.sqrt(jnp.sum(g**2, axis=axes, keepdims=True)), 1)
