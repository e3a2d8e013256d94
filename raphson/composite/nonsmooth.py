"""Functions that need not be smooth, each with its proximal operator in closed form.

Parikh, Boyd (2014), Proximal Algorithms.
"""

from __future__ import annotations

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax.projections
import optax.tree as otu
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..validate import in_range, numbers_of


class AbstractNonsmooth(eqx.Module):
    """The part h of a `Composite` problem: a function that is asked for its value and its prox.

    A subclass of yours needs these two. Its arrays are data, by which answers are differentiated.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> class Quadratic(rp.composite.AbstractNonsmooth):
        ...     weight: float
        ...     def value(self, y):
        ...         return self.weight / 2 * jnp.sum(y**2)
        ...     def prox(self, y, step_size):
        ...         return y / (1 + step_size * self.weight)
        >>> problem = rp.Composite(rp.Minimize(lambda y, _: (y - 1.0) ** 2, 0.0), Quadratic(2.0))
        >>> round(float(rp.solve(problem).value), 3)
        0.5
    """

    @abc.abstractmethod
    def value(self, y: PyTree[Array]) -> Float[Array, ""]:
        """h(y), infinite where y is not allowed."""

    @abc.abstractmethod
    def prox(self, y: PyTree[Array], step_size: Any) -> PyTree[Array]:
        """The least point x of h(x) + |x - y|^2 / (2 step_size)."""


class AbstractConvexSet(AbstractNonsmooth):
    """0 in a convex set and infinite outside: its prox is the projection, whatever the step."""

    @abc.abstractmethod
    def project(self, y: PyTree[Array]) -> PyTree[Array]:
        """The nearest point of the set."""

    def value(self, y: PyTree[Array]) -> Float[Array, ""]:
        # What was projected is in the set but for its rounding.
        size = otu.norm(y, ord=1)
        outside = otu.norm(otu.sub(y, self.project(y))) > 8 * jnp.finfo(size.dtype).eps * size
        return jnp.where(outside, jnp.inf, jnp.zeros_like(size))

    def prox(self, y: PyTree[Array], step_size: Any) -> PyTree[Array]:
        return self.project(y)


class L1(AbstractNonsmooth):
    """The weighted sum of absolute values, which makes answers sparse.

    Args:
        weight: of each absolute value, at least 0: one number, or numbers shaped as the start.

    Raises:
        ValueError: if a weight is negative or no number.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> rp.composite.L1(1.0).prox(jnp.array([3.0, -0.5]), 0.5).tolist()
        [2.5, 0.0]
    """

    weight: PyTree[ArrayLike]

    def __check_init__(self):
        weights = numbers_of(self, "weight")
        if np.any(weights < 0):
            raise ValueError(f"`weight` of L1 must be at least 0, got {np.min(weights):g}.")

    def value(self, y: PyTree[Array]) -> Float[Array, ""]:
        weights = jax.tree.broadcast(self.weight, y)
        return jnp.asarray(otu.sum(jax.tree.map(lambda w, y: w * jnp.abs(y), weights, y)))

    def prox(self, y: PyTree[Array], step_size: Any) -> PyTree[Array]:
        def shrunk(w: Array, y: Array) -> Array:
            return y - jnp.clip(y, -step_size * w, step_size * w)

        return jax.tree.map(shrunk, jax.tree.broadcast(self.weight, y), y)


class Box(AbstractConvexSet):
    """The points between bounds, lower <= y <= upper.

    Args:
        lower: the lower bounds, one number or shaped as the start; minus infinity is none.
        upper: the upper bounds, likewise.

    Raises:
        ValueError: if a bound is no number, or a lower one above its upper one.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> rp.composite.Box(0.0, 1.0).project(jnp.array([-2.0, 0.5, 3.0])).tolist()
        [0.0, 0.5, 1.0]
    """

    lower: PyTree[ArrayLike]
    upper: PyTree[ArrayLike]

    def __check_init__(self):
        lower, upper = numbers_of(self, "lower"), numbers_of(self, "upper")
        # Bounds that do not fit each other do not fit the start, which tells of it.
        fit = len({lower.size, upper.size} - {1}) <= 1
        if fit and np.any(above := lower > upper):
            low, high = (np.broadcast_to(b, above.shape)[above][0] for b in (lower, upper))
            raise ValueError(f"`lower` of Box must not be above `upper`, got {low:g} and {high:g}.")

    def project(self, y: PyTree[Array]) -> PyTree[Array]:
        lower, upper = (jax.tree.broadcast(bound, y) for bound in (self.lower, self.upper))
        return optax.projections.projection_box(y, lower, upper)


class Ball(AbstractConvexSet):
    """The points whose Euclidean norm, over all entries, is at most the radius.

    Args:
        radius: positive.

    Raises:
        ValueError: if `radius` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> rp.composite.Ball(1.0).project(jnp.array([3.0, 4.0])).round(3).tolist()
        [0.6, 0.8]
    """

    radius: ArrayLike

    def __check_init__(self):
        in_range(self, "radius", 0)

    def project(self, y: PyTree[Array]) -> PyTree[Array]:
        return optax.projections.projection_l2_ball(y, self.radius)


class Simplex(AbstractConvexSet):
    """The points with entries of at least 0 that add up to the total.

    Args:
        total: positive; 1 for probabilities.

    Raises:
        ValueError: if `total` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> rp.composite.Simplex().project(jnp.array([1.0, 0.5, -1.0])).tolist()
        [0.75, 0.25, 0.0]
    """

    total: ArrayLike = 1.0

    def __check_init__(self):
        in_range(self, "total", 0)

    def project(self, y: PyTree[Array]) -> PyTree[Array]:
        return optax.projections.projection_simplex(y, self.total)


class SquaredNorm(AbstractNonsmooth):
    """The strongly convex w/2 |y - c|^2, alone or added to another part.

    Args:
        weight: w, positive, the modulus of strong convexity.
        center: c, one number or shaped as the start.
        part: what it is added to, such as a set; nothing by default.

    Raises:
        ValueError: if `weight` is not positive, or `part` is not of `raphson.composite`.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> rp.composite.SquaredNorm(1.0).prox(jnp.array([2.0, -4.0]), 1.0).tolist()
        [1.0, -2.0]
    """

    weight: ArrayLike
    center: PyTree[ArrayLike] = 0.0
    part: AbstractNonsmooth | None = None

    def __check_init__(self):
        in_range(self, "weight", 0)
        numbers_of(self, "center")
        if not (self.part is None or isinstance(self.part, AbstractNonsmooth)):
            raise ValueError(
                "`part` of SquaredNorm must be of `raphson.composite` or an AbstractNonsmooth of "
                f"yours, got a {type(self.part).__name__}."
            )

    def value(self, y: PyTree[Array]) -> Float[Array, ""]:
        away = otu.sub(y, jax.tree.broadcast(self.center, y))
        half = self.weight / 2 * otu.norm(away, squared=True)
        return jnp.asarray(half if self.part is None else half + self.part.value(y))

    def prox(self, y: PyTree[Array], step_size: Any) -> PyTree[Array]:
        # Both squares together are one, about a point between y and the center.
        drawn = step_size * self.weight
        center = jax.tree.broadcast(self.center, y)
        between = jax.tree.map(lambda y, c: (y + drawn * c) / (1 + drawn), y, center)
        return between if self.part is None else self.part.prox(between, step_size / (1 + drawn))


class RescaledNonsmooth(AbstractNonsmooth):
    """`value_scale * h(y_scale * y)`, in other units that all unknowns share."""

    nonsmooth: AbstractNonsmooth
    y_scale: ArrayLike
    value_scale: ArrayLike

    def value(self, y: PyTree[Array]) -> Float[Array, ""]:
        return jnp.asarray(self.value_scale * self.nonsmooth.value(otu.scale(self.y_scale, y)))

    def prox(self, y: PyTree[Array], step_size: Any) -> PyTree[Array]:
        step_size = step_size * self.value_scale * self.y_scale**2
        nearest = self.nonsmooth.prox(otu.scale(self.y_scale, y), step_size)
        return otu.scale(1 / self.y_scale, nearest)
