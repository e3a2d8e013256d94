"""How much a map stretches distances: whether it is nonexpansive, as fixed-point methods assume.

Park, Ryu (2023), Accelerated Infeasibility Detection of Constrained Optimization and Fixed-Point
Iterations.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ..compiled import compiled
from ..roots.problem import FixedPoint
from ..validate import require_number, whole_number


def expansion(
    problem: FixedPoint,
    y: PyTree[Array],
    key: Array,
    *,
    radius: float = 1.0,
    pairs: int = 100,
) -> Float[Array, ""]:
    """Probe the greatest |T(x) - T(z)| / |x - z| over random pairs about a point.

    It is at most 1 where T is nonexpansive, but for rounding: more than 1 + 1e-6 in double
    precision refutes that, and with it what `infimal_displacement` says. No more than a Lipschitz
    constant of T, it may be less where few directions are stretched. How far x is from y, and z
    from x, is from 1e-3 of the radius to all of it.

    Args:
        problem: a fixed-point problem.
        y: about where, shaped as the problem's start.
        key: a random key, for the pairs.
        radius: how far x is from y at most, and z from x; positive.
        pairs: how many, at least 1; T is asked twice for each.

    Returns:
        The greatest ratio; safe under `jit` and `vmap`.

    Raises:
        ValueError: if `problem` is no FixedPoint, or a number is outside its range.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.FixedPoint(lambda y, _: 1 - 3 * y, jnp.zeros(2))
        >>> round(float(rp.probes.expansion(problem, problem.y0, jax.random.key(0))), 3)
        3.0
    """
    if not isinstance(problem, FixedPoint):
        raise ValueError(f"`problem` must be a FixedPoint, got a {type(problem).__name__}.")
    require_number(radius, "`radius`", 0)
    return compiled(_probed, problem, y, key, radius, whole_number(pairs, "pairs", 1))


def _probed(
    problem: FixedPoint, y: PyTree[Array], key: Array, radius: Array, pairs: int
) -> Float[Array, ""]:
    flat, unravel = ravel_pytree(y)

    def unit(key: Array) -> Float[Array, " n"]:
        direction = jax.random.normal(key, flat.shape, flat.dtype)
        return direction / jnp.linalg.norm(direction)

    def ratio(key: Array) -> Float[Array, ""]:
        keys = jax.random.split(key, 3)
        near, far = radius * 10 ** jax.random.uniform(keys[0], (2,), flat.dtype, -3, 0)
        x = flat + far * unit(keys[1])
        z = x + near * unit(keys[2])
        Tx, Tz = (ravel_pytree(problem.apply(unravel(point)))[0] for point in (x, z))
        return jnp.linalg.norm(Tx - Tz) / jnp.linalg.norm(x - z)

    return jnp.max(jax.lax.map(ratio, jax.random.split(key, pairs)))
