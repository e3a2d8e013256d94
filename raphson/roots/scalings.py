"""Scalings of an unknown within bounds: what is 0 only at a bound against which descent pushes.

Coleman, Li (1996), An Interior Trust Region Approach for Nonlinear Minimization Subject to Bounds;
Heinkenschloss, Ulbrich, Ulbrich (1999), Superlinear and Quadratic Convergence of Affine-Scaling
Interior-Point Newton Methods for Problems with Simple Bounds without Strict Complementarity
Assumption; Kanzow, Klug (2006), On Affine-Scaling Interior-Point Newton Methods for Nonlinear
Minimization with Bound Constraints; Hager, Mair, Zhang (2009), An Affine-Scaling Interior-Point CBB
Method for Box-Constrained Optimization; Ayanzadeh, Yazdanian, Shahamatnia (2019), A New Class of
Scaling Matrices for Scaled Trust Region Algorithms.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..validate import in_range, numbers_of


class AbstractScaling(eqx.Module):
    """A rule for the diagonal d >= 0 of a scaling, with d * g = 0 where an answer may be.

    It is called as `scaling(below, above, g)` with the room down to the lower bounds, that up to
    the upper ones, infinite where there is none, and the gradient. Any such function will do.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> below, above, g = jnp.array([0.0, 0.5]), jnp.array([1.0, 0.5]), jnp.array([3.0, -3.0])
        >>> rp.roots.ColemanLi()(below, above, g).tolist()
        [0.0, 0.5]
    """

    @abc.abstractmethod
    def __call__(
        self, below: Float[Array, " n"], above: Float[Array, " n"], g: Float[Array, " n"]
    ) -> Float[Array, " n"]:
        """d, entry by entry."""


class ColemanLi(AbstractScaling):
    """Coleman and Li's d: `below` if g > 0, `above` if g < 0, the lesser if 0; if infinite, 1.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> float(rp.roots.ColemanLi()(jnp.array(0.25), jnp.array(jnp.inf), jnp.array(-1.0)))
        1.0
    """

    def __call__(self, below: Array, above: Array, g: Array) -> Array:
        near = _ahead(below, above, g)
        return jnp.where(jnp.isfinite(near), near, 1)


class Heinkenschloss(AbstractScaling):
    """Coleman and Li's d where |g| < a^p or a < |g|^p for the distance a to a bound, else 1.

    Of the gradient and the distance to the nearer bound one is then far smaller than the other.

    Args:
        p: the power, above 1.

    Raises:
        ValueError: if `p` is not above 1.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> one = jnp.array(1.0)
        >>> [float(rp.roots.Heinkenschloss()(0.1 * one, one, g * one)) for g in (0.1, 0.5)]
        [1.0, 0.1]
    """

    p: float = 2.0

    def __check_init__(self):
        in_range(self, "p", 1)

    def __call__(self, below: Array, above: Array, g: Array) -> Array:
        near, size = jnp.minimum(below, above), jnp.abs(g)
        apart = (size < near**self.p) | (near < size**self.p)
        return jnp.where(apart, ColemanLi()(below, above, g), 1)


class KanzowKlug(AbstractScaling):
    """Least of `below` + gamma max(0, -g) and `above` + gamma max(0, g); 1 if both are infinite.

    Args:
        gamma: the weight of the gradient, positive.

    Raises:
        ValueError: if `gamma` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> below, above, g = jnp.array(0.25), jnp.array(1.0), jnp.array(-0.125)
        >>> float(rp.roots.KanzowKlug(gamma=2.0)(below, above, g))
        0.5
    """

    gamma: float = 1.0

    def __check_init__(self):
        in_range(self, "gamma", 0)

    def __call__(self, below: Array, above: Array, g: Array) -> Array:
        pushed = self.gamma * jnp.abs(g)
        near = jnp.minimum(below + jnp.where(g < 0, pushed, 0), above + jnp.where(g > 0, pushed, 0))
        return jnp.where(jnp.isfinite(near), near, 1)


class HagerMairZhang(AbstractScaling):
    """The fraction a / (alpha a + |g|) of a = `below` if g > 0, `above` if g < 0; 1 / alpha if 0.

    Args:
        alpha: 1 / d far from all bounds, positive.

    Raises:
        ValueError: if `alpha` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> below, above, g = jnp.array(1.0), jnp.array(jnp.inf), jnp.array(2.0)
        >>> float(rp.roots.HagerMairZhang(alpha=2.0)(below, above, g))
        0.25
    """

    alpha: float = 1.0

    def __check_init__(self):
        in_range(self, "alpha", 0)

    def __call__(self, below: Array, above: Array, g: Array) -> Array:
        # As written the fraction would be NaN where a is infinite.
        pull = jnp.where(g == 0, 0, jnp.abs(g) / _ahead(below, above, g))
        return 1 / (self.alpha + pull)


class ConvexCombination(AbstractScaling):
    """The sum of w_j d_j over several scalings d_j, which keeps what they have in common.

    Args:
        scalings: the d_j, each a scaling or its name; by default the four with their defaults.
        weights: the w_j, at least 0, with sum 1; by default equal.

    Raises:
        ValueError: if there is no scaling, one is unfit, or the weights are.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> scaling = rp.roots.ConvexCombination(("coleman_li", "hager_mair_zhang"), (0.75, 0.25))
        >>> float(scaling(jnp.array(2.0), jnp.array(jnp.inf), jnp.array(2.0)))
        1.625
    """

    scalings: tuple[str | Callable[..., Any], ...] = (
        "coleman_li",
        "heinkenschloss",
        "kanzow_klug",
        "hager_mair_zhang",
    )
    weights: tuple[float, ...] | None = None

    def __check_init__(self):
        if not isinstance(self.scalings, tuple) or not self.scalings:
            raise ValueError(
                "`scalings` of ConvexCombination must be a tuple of at least one scaling, "
                f"got {self.scalings!r}."
            )
        for scaling in self.scalings:
            check_scaling(scaling, "`scalings` of ConvexCombination")
        if self.weights is None:
            return
        weights = numbers_of(self, "weights")
        fits = len(weights) == len(self.scalings) and np.all(weights >= 0)
        if not np.any(np.isnan(weights)) and not (fits and np.isclose(np.sum(weights), 1)):
            raise ValueError(
                "`weights` of ConvexCombination must be numbers of at least 0 with sum 1, one for "
                f"each scaling, got {self.weights!r}."
            )

    def __call__(self, below: Array, above: Array, g: Array) -> Array:
        rules = jnp.stack([as_scaling(s)(below, above, g) for s in self.scalings])
        if self.weights is None:
            return jnp.mean(rules, axis=0)
        return jnp.tensordot(jnp.asarray(self.weights, rules.dtype), rules, 1)


def check_scaling(scaling: Any, what: str) -> None:
    """Refuse what is neither a scaling nor the name of one."""
    if not callable(scaling) and not (isinstance(scaling, str) and scaling in SCALINGS):
        named = ", ".join(map(repr, SCALINGS))
        raise ValueError(f"{what} must be a scaling or one of {named}, got {scaling!r}.")


def as_scaling(scaling: Any) -> Callable[[Array, Array, Array], Array]:
    """A scaling from itself or its name."""
    return SCALINGS[scaling] if isinstance(scaling, str) else scaling


def _ahead(below: Array, above: Array, g: Array) -> Array:
    """The room in the direction of descent; where there is none, the lesser."""
    return jnp.where(g > 0, below, jnp.where(g < 0, above, jnp.minimum(below, above)))


SCALINGS: dict[str, Callable[[Array, Array, Array], Array]] = {
    "coleman_li": ColemanLi(),
    "heinkenschloss": Heinkenschloss(),
    "kanzow_klug": KanzowKlug(),
    "hager_mair_zhang": HagerMairZhang(),
}
SCALINGS["combination"] = ConvexCombination()
