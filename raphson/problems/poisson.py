"""Discretized Poisson systems, whose spectra and solutions are known in closed form."""

from __future__ import annotations

import functools
import math

import jax.numpy as jnp
import lineax as lx
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from ..linear.problem import LinearSystem
from ..problem import Facts
from ..validate import as_start, whole_number


def poisson(
    shape: tuple[int, ...] = (10, 10), shift: ArrayLike = 0.0, rhs: ArrayLike | None = None
) -> LinearSystem:
    """The system (-Laplacian + shift) y = rhs on a grid, with y = 0 around it.

    The Laplacian is the second-order difference on a grid of unit spacing: row by row, minus the
    neighbors plus 2, 4 or 6 times the point. For a spacing h, multiply `shift` and `rhs` by h^2. An
    implicit step of length s of the heat equation has the shift 1 / s.

    Args:
        shape: interior points along each of 1 to 3 axes.
        shift: what is added to the diagonal, more than minus the least eigenvalue of -Laplacian.
        rhs: the right-hand side, of this shape or raveled; ones by default.

    Returns:
        A system over the raveled grid, its operator a dense matrix tagged positive definite. Facts:
        the solution `minimizer`; the extreme eigenvalues `strong_convexity` and `lipschitz`.

    Raises:
        ValueError: if an argument is unfit, or the matrix would not be positive definite.

    Example:
        >>> import raphson as rp
        >>> problem = poisson((3,))
        >>> problem.matrix().tolist()
        [[2.0, -1.0, 0.0], [-1.0, 2.0, -1.0], [0.0, -1.0, 2.0]]
        >>> rp.solve(problem, rp.linear.SOR(1.2)).value.round(3).tolist()
        [1.5, 2.0, 1.5]
    """
    if not isinstance(shape, tuple) or not 1 <= len(shape) <= 3:
        raise ValueError(f"`shape` must be a tuple of 1 to 3 whole numbers, got {shape!r}.")
    shape = tuple(whole_number(size, "shape", 1) for size in shape)
    b = jnp.ones(shape) if rhs is None else as_start(rhs, "rhs")
    if b.shape not in (shape, (math.prod(shape),)):
        raise ValueError(f"`rhs` must have the shape {shape} or be raveled, got {b.shape}.")
    spectrum = _spectrum(shape, b.dtype)
    shift = jnp.asarray(shift, b.dtype)
    if jnp.ndim(shift):
        raise ValueError(f"`shift` must be one number, got an array of shape {shift.shape}.")
    least = spectrum.min()
    if not isinstance(shift, Tracer) and not shift > -least:
        raise ValueError(f"`shift` must be more than {-float(least):g}, got {float(shift):g}.")
    matrix = _laplacian(shape, b.dtype) + shift * jnp.eye(b.size, dtype=b.dtype)
    solution = _sines(_sines(b.reshape(shape)) / (spectrum + shift))
    facts = Facts(
        minimizer=solution.ravel(),
        lipschitz=spectrum.max() + shift,
        strong_convexity=least + shift,
    )
    operator = lx.MatrixLinearOperator(matrix, lx.positive_semidefinite_tag)
    return LinearSystem(operator, b.ravel(), facts=facts)


def _laplacian(shape: tuple[int, ...], dtype: jnp.dtype) -> Float[Array, "n n"]:
    """-Laplacian, the sum over the axes of Kronecker products of second differences."""
    total = jnp.zeros((1, 1), dtype)
    for size in shape:
        eye = jnp.eye(size, dtype=dtype)
        difference = 2 * eye - jnp.eye(size, k=1, dtype=dtype) - jnp.eye(size, k=-1, dtype=dtype)
        total = jnp.kron(total, eye) + jnp.kron(jnp.eye(len(total), dtype=dtype), difference)
    return total


def _spectrum(shape: tuple[int, ...], dtype: jnp.dtype) -> Float[Array, "..."]:
    """The eigenvalues of -Laplacian on the grid of frequencies."""
    angles = [jnp.arange(1, n + 1, dtype=dtype) * jnp.pi / (2 * n + 2) for n in shape]
    axes = [4 * jnp.sin(angle) ** 2 for angle in angles]
    return functools.reduce(jnp.add.outer, axes)


def _sines(values: Float[Array, "..."]) -> Float[Array, "..."]:
    """The sine transform along each axis, which diagonalizes -Laplacian and is its own inverse."""
    for axis, size in enumerate(values.shape):
        points = jnp.arange(1, size + 1, dtype=values.dtype)
        basis = jnp.sin(jnp.outer(points, points) * jnp.pi / (size + 1)) * (2 / (size + 1)) ** 0.5
        values = jnp.moveaxis(jnp.tensordot(basis, values, (1, axis)), 0, axis)
    return values
