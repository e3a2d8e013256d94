"""How far around a point an approximate Hessian predicts the gradient, in units of the gradient.

Semenov, Jaggi, Doikov (2025), Gradient-Normalized Smoothness for Optimization with Approximate
Hessians.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ..compiled import compiled
from ..problem import AbstractObjective
from ..smooth import GradientRegularizedNewton
from ..validate import whole_number

# Lengths |h| are tried from 1e-10 to 1e6 times the size of y, then ever closer to the best.
ROUNDS, LENGTHS, ASCENTS = 6, 41, 5


def gradient_normalized_smoothness(
    problem: AbstractObjective,
    y: PyTree[Array],
    key: Array,
    *,
    hessian: str | Callable[[Any, Any], Any] = "exact",
    directions: int = 8,
) -> Float[Array, ""]:
    """Probe gamma(y), the radius in which g + H h predicts the gradient to within a share of |g|.

    It is the greatest r such that e(h) = g(y + h) - g(y) - H h is at most |g| |h| / r for all h in
    the ball of radius r, which is the least of max(|h|, |g| |h| / |e(h)|) over all h. For a
    gradient with Lipschitz constant L and H = 0 it is at least |g| / L, for a Hessian with constant
    L and H exact at least sqrt(2 |g| / L). The least is sought along random directions, turned
    towards greater errors; what is found is gamma itself for one unknown, and else no less.

    Args:
        problem: an objective.
        y: where, shaped as the problem's start.
        key: a random key, for the directions.
        hessian: what H is, as in `GradientRegularizedNewton`.
        directions: how many to start from, the gradient's among them.

    Returns:
        gamma, infinite where no error is found; safe under `jit` and `vmap`.

    Raises:
        ValueError: if `problem` is no objective, or another argument is unfit.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.Minimize(lambda y, _: jnp.abs(y) ** 3 / 6, jnp.array(2.0))
        >>> gamma = rp.probes.gradient_normalized_smoothness(problem, problem.y0, jax.random.key(0))
        >>> round(float(gamma), 2)  # sqrt(2 |g|), for a Hessian with Lipschitz constant 1
        2.0
    """
    if not isinstance(problem, AbstractObjective):
        raise ValueError(f"`problem` must be an objective, got a {type(problem).__name__}.")
    directions = whole_number(directions, "directions", 1)
    curvature = GradientRegularizedNewton(hessian).curvature
    return compiled(_probed, problem, y, key, curvature, directions)


def _probed(problem: Any, y: Any, key: Array, curvature: Any, directions: int) -> Array:
    flat, unravel = ravel_pytree(y)
    H = curvature(problem, y)
    H = jnp.zeros((flat.size, flat.size), flat.dtype) if H is None else H
    g = ravel_pytree(problem.gradient(y))[0]
    slope, eps = jnp.linalg.norm(g), jnp.finfo(g.dtype).eps

    def attempt(direction: Array, length: Array) -> tuple[Array, Array]:
        """max(|h|, |g| |h| / |e|), and a direction in which |e| is greater."""
        h = length * direction
        there, predicted = ravel_pytree(problem.gradient(unravel(flat + h)))[0], g + H @ h
        error = there - predicted
        size = jnp.linalg.norm(error)
        rounding = eps**0.5 * (jnp.linalg.norm(there) + jnp.linalg.norm(predicted))
        radius = jnp.where(size <= rounding, jnp.inf, jnp.maximum(length, slope * length / size))
        # Where there is no gradient the error is as great as can be.
        radius = jnp.where(jnp.isfinite(size), radius, length)
        # The gradient of |e|^2 / 2 by h: a power iteration, were e linear.
        turned = ravel_pytree(problem.hvp(unravel(flat + h), unravel(error)))[0] - H @ error
        turned = turned / jnp.linalg.norm(turned)
        return radius, jnp.where(jnp.all(jnp.isfinite(turned)), turned, direction)

    def least(direction: Array, length: Array) -> tuple[Array, Array]:
        """The least radius that is met while the direction turns, and the direction there."""

        def turn(direction: Array, _: None) -> tuple[Array, tuple[Array, Array]]:
            radius, turned = attempt(direction, length)
            return turned, (radius, direction)

        radii, met = jax.lax.scan(turn, direction, length=ASCENTS)[1]
        return jnp.min(radii), met[jnp.argmin(radii)]

    def search(direction: Array) -> Array:
        """The least radius that is found from one direction."""

        def closer(carry: Any, _: None) -> tuple[Any, Array]:
            direction, length, decades = carry
            lengths = length * 10 ** (decades * jnp.linspace(-1, 1, LENGTHS, dtype=g.dtype))
            radii, met = jax.vmap(least, in_axes=(None, 0))(direction, lengths)
            best = jnp.argmin(radii)
            return (met[best], lengths[best], 2 * decades / (LENGTHS - 1)), radii[best]

        middle = 1e-2 * (1 + jnp.linalg.norm(flat))
        start = (direction, middle, jnp.asarray(8.0, flat.dtype))
        return jnp.min(jax.lax.scan(closer, start, length=ROUNDS)[1])

    starts = jax.random.normal(key, (directions, flat.size), flat.dtype).at[0].set(g)
    starts = starts / jnp.linalg.norm(starts, axis=1, keepdims=True)
    return jnp.min(jax.vmap(search)(jnp.concatenate([starts, -starts])))
