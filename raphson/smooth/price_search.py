"""Price's controlled random search: a crowd of points that contracts where the values are least.

Price (1977), A Controlled Random Search Procedure for Global Optimisation; Andronov, Tkachenko
(2013), Comparative Analysis of Numerical Methods for Parameter Determination.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

from ..compiled import compiled
from ..problem import AbstractObjective
from ..validate import as_bounds, random_key, require_number, whole_number


class PriceMinimum(NamedTuple):
    """The best point of a population.

    Attributes:
        minimizer: the point, shaped as the start.
        value: f there.
        spread: how much f varies in the last population.
        evaluations: how many values of f were asked for.
    """

    minimizer: PyTree[Array]
    value: Float[Array, ""]
    spread: Float[Array, ""]
    evaluations: Int[Array, ""]


def price_search(
    problem: AbstractObjective,
    lower: PyTree[ArrayLike],
    upper: PyTree[ArrayLike],
    *,
    key: Array,
    population: int | None = None,
    atol: float = 1e-6,
    max_trials: int = 100_000,
) -> PriceMinimum:
    """The least value of f in a box, sought at random and from values alone.

    A population is drawn evenly from the box. Then n + 1 of its members are drawn, the last is
    reflected through the centroid of the others, y = 2 g - y_(n+1), and where this trial is in the
    box and better than the worst of the population, it takes its place. Nothing is proved: a
    population that is too small contracts to a minimum that is not the least, and into a corner of
    the box it is led less surely than inside.

    Args:
        problem: the objective, of n unknowns.
        lower: the lower bounds, finite, shaped as the start or one number.
        upper: the upper bounds, likewise.
        key: a random key; an array of keys by `vmap`.
        population: how many points, at least n + 2; 10 (n + 1) by default.
        atol: the search ends where f varies by no more than this in the population; at least 0.
        max_trials: how many trials at most, those outside of the box among them.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> waves = lambda y, _: jnp.sum(y**2 - 5 * jnp.cos(4 * y))
        >>> problem = rp.Minimize(waves, jnp.array([3.0, 3.0]))
        >>> found = rp.smooth.price_search(problem, -5.0, 5.0, key=jax.random.key(0))
        >>> bool(jnp.all(jnp.abs(found.minimizer) < 1e-2))
        True
    """
    n = sum(leaf.size for leaf in jax.tree.leaves(problem.y0))
    bounds = as_bounds(lower, upper, problem.y0)
    known = [leaf for leaf in jax.tree.leaves(bounds) if not isinstance(leaf, Tracer)]
    if not all(np.all(np.isfinite(leaf)) for leaf in known):
        raise ValueError("`lower` and `upper` must be finite.")
    low, high = (ravel_pytree(bound)[0] for bound in bounds)
    random_key(key)
    size = 10 * (n + 1) if population is None else whole_number(population, "population", n + 2)
    require_number(atol, "`atol`", 0, closed="left")
    limit = whole_number(max_trials, "max_trials")
    return compiled(_searched, problem, low, high, key, size, atol, limit)


def _searched(
    problem: AbstractObjective,
    low: Float[Array, " n"],
    high: Float[Array, " n"],
    key: Array,
    size: int,
    atol: Any,
    max_trials: int,
) -> PriceMinimum:
    _, unravel = ravel_pytree(problem.y0)
    n = low.size

    def value(flat: Float[Array, " n"]) -> Float[Array, ""]:
        f = problem.value(unravel(flat))
        return jnp.where(jnp.isnan(f), jnp.inf, f)  # no point is worse

    key, now = jax.random.split(key)
    points = jax.random.uniform(now, (size, n), low.dtype, low[None], high[None])
    values = jax.lax.map(value, points)

    def apart(carry: Any) -> Array:
        _, values, _, _, trials = carry
        return ~(jnp.max(values) - jnp.min(values) <= atol) & (trials < max_trials)

    def tried(carry: Any) -> Any:
        points, values, key, evaluations, trials = carry
        key, now = jax.random.split(key)
        drawn = points[jax.random.choice(now, size, (n + 1,), replace=False)]
        trial = 2 * jnp.mean(drawn[:-1], axis=0) - drawn[-1]
        inside = jnp.all((trial >= low) & (trial <= high))
        f = jax.lax.cond(inside, value, lambda _: jnp.full_like(values[0], jnp.inf), trial)
        worst = jnp.argmax(values)
        better = f < values[worst]
        points = points.at[worst].set(jnp.where(better, trial, points[worst]))
        values = values.at[worst].min(f)
        return points, values, key, evaluations + inside, trials + 1

    carry = points, values, key, jnp.array(size), 0
    points, values, _, evaluations, _ = jax.lax.while_loop(apart, tried, carry)
    best = jnp.argmin(values)
    spread = jnp.max(values) - values[best]
    return PriceMinimum(unravel(points[best]), values[best], spread, evaluations)
