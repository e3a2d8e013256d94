"""Saddles whose solutions and constants are known exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..problem import Facts
from ..saddle.problem import Saddle
from ..validate import whole_number
from ._shared import positive


def bilinear(
    singular_values: Sequence[float] | np.ndarray = (1.0, 0.5, 0.25), *, seed: int = 0
) -> Saddle:
    """The saddle of f(x, y) = (x - a)' A (y - b): monotone, but nowhere strongly.

    Gradient descent ascent diverges on it whatever its step size.

    Args:
        singular_values: of A, shape (n,), positive.
        seed: of A's singular vectors, of the solution (a, b) and of the start, both normal.

    Returns:
        A saddle in x and y of shape (n,), in JAX's default precision. Facts: `minimizer` = (a, b);
        `lipschitz`, the largest singular value; `convex`.

    Raises:
        ValueError: if `singular_values` is not of shape (n,) or not positive.

    Example:
        >>> import raphson as rp
        >>> problem = bilinear([1.0, 0.5])
        >>> method = rp.saddle.Extragradient.from_lipschitz(problem.facts.lipschitz)
        >>> bool(rp.solve(problem, method).converged)
        True
    """
    return _drawn(singular_values, 0.0, seed)


def strongly_monotone(
    singular_values: Sequence[float] | np.ndarray = (1.0, 0.5, 0.25),
    strong_convexity: float = 0.1,
    *,
    seed: int = 0,
) -> Saddle:
    """The saddle of f(x, y) = mu/2 |x - a|^2 + (x - a)' A (y - b) - mu/2 |y - b|^2.

    Its operator is mu times the identity plus a skew matrix.

    Args:
        singular_values: of A, shape (n,), positive.
        strong_convexity: mu, positive.
        seed: as in `bilinear`.

    Returns:
        A saddle in x and y of shape (n,), in JAX's default precision. Facts: `minimizer` = (a, b);
        `strong_convexity` = mu, the modulus of strong monotonicity; `lipschitz` = sqrt(mu^2 + s^2)
        with s the largest singular value; `convex`.

    Raises:
        ValueError: if `singular_values` is not of shape (n,), or an argument is not positive.

    Example:
        >>> problem = strongly_monotone([1.0, 0.5], 0.75)
        >>> float(problem.facts.lipschitz)
        1.25
    """
    return _drawn(singular_values, positive(strong_convexity, "strong_convexity"), seed)


def local_minimax() -> Saddle:
    """The saddle of f(x, y) = x y - x^2 / 10, a local minimax point whose f_yy vanishes.

    Gradient descent ascent with the step sizes eta / tau and eta diverges on it, however large tau
    is. Extragradient converges for eta = 0.5 and every tau >= 1; for eta <= 0.2 it diverges too.

    Returns:
        A saddle in two scalars from (1, 1). Facts: `minimizer` = (0, 0); `lipschitz` =
        0.1 + sqrt(1.01); not `convex`.

    Example:
        >>> import raphson as rp
        >>> method = rp.saddle.Extragradient((0.5 / 5, 0.5))
        >>> bool(rp.solve(local_minimax(), method).converged)
        True
    """
    start, origin = (jnp.array(1.0), jnp.array(1.0)), (jnp.array(0.0), jnp.array(0.0))
    facts = Facts(minimizer=origin, lipschitz=0.1 + 1.01**0.5, convex=False)
    return Saddle(_degenerate, *start, facts=facts)


def _degenerate(x: Array, y: Array, args: None) -> Array:
    return x * y - x**2 / 10


def _quadratic(
    x: Float[Array, " n"], y: Float[Array, " n"], args: tuple[Any, ...]
) -> Float[Array, ""]:
    A, a, b, mu = args
    dx, dy = x - a, y - b
    return dx @ (A @ dy) + mu / 2 * (dx @ dx - dy @ dy)


def _drawn(singular_values: Sequence[float] | np.ndarray, mu: float, seed: int) -> Saddle:
    """The saddle of mu/2 |x - a|^2 + (x - a)' A (y - b) - mu/2 |y - b|^2, drawn at random."""
    values = np.asarray(singular_values, float)
    if values.ndim != 1 or values.size == 0 or not np.all(values > 0):
        raise ValueError(
            f"`singular_values` must be a vector of positive numbers, got {singular_values!r}."
        )
    rng = np.random.default_rng(whole_number(seed, "seed"))
    n = values.size
    left, right = (np.linalg.qr(rng.standard_normal((n, n)))[0] for _ in range(2))
    x, y, a, b = (jnp.asarray(rng.standard_normal(n)) for _ in range(4))
    facts = Facts(
        minimizer=(a, b),
        # F is mu times the identity plus a skew part, whose eigenvalues are +-i times A's values.
        lipschitz=math.hypot(mu, values.max()),
        strong_convexity=mu or None,
        convex=True,
    )
    A = jnp.asarray((left * values) @ right.T)
    return Saddle(_quadratic, x, y, (A, a, b, mu), facts=facts)
