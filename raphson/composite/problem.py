"""The question of composite minimization: find y where f(y) + h(y) is least."""

from __future__ import annotations

from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as otu
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..problem import AbstractObjective, AbstractProblem, AbstractResidual, Facts, Known, oracle
from ..validate import require_like
from .nonsmooth import AbstractNonsmooth, RescaledNonsmooth


class Composite(AbstractProblem):
    """Minimize f + h, where f is smooth and h need not be, nor be finite everywhere.

    Of h is known its proximal operator: that of a convex set is the projection. The oracles
    `value`, `gradient` and `value_and_gradient` are those of f, and `prox` is that of h; the
    measure `value` is f + h. The residual at y is y - prox(y - g(y), 1), the gradient of f where
    there is no h.

    Args:
        smooth: f, a `Minimize`, a `FiniteSum` or another objective, with its start and data;
            hand-written oracles are given to it.
        nonsmooth: h, one of `raphson.composite` or a subclass of its `AbstractNonsmooth`.
        facts: what is known of the problem, the constants being those of f.

    Raises:
        ValueError: if `smooth` is no objective or wrapped, or `nonsmooth` does not take what is
            shaped as the start.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> smooth = rp.Minimize(lambda y, a: jnp.sum((y - a) ** 2), jnp.zeros(2), jnp.arange(2.0))
        >>> problem = rp.Composite(smooth, rp.composite.L1(0.5))
        >>> rp.solve(problem).value.round(3).tolist()
        [0.0, 0.75]
    """

    smooth: AbstractObjective
    nonsmooth: AbstractNonsmooth
    oracles: dict[str, Any]
    facts: Facts
    wrappers: tuple[Any, ...]

    def __init__(
        self,
        smooth: AbstractObjective,
        nonsmooth: AbstractNonsmooth,
        *,
        facts: Facts | None = None,
    ):
        if not isinstance(smooth, AbstractObjective):
            raise ValueError(
                f"`smooth` must be an objective such as a Minimize, got a {type(smooth).__name__}."
            )
        if smooth.wrappers:
            raise ValueError("`smooth` must be without wrappers: wrap the Composite instead.")
        if not isinstance(nonsmooth, AbstractNonsmooth):
            raise ValueError(
                "`nonsmooth` must be one of `raphson.composite` or an AbstractNonsmooth of yours, "
                f"got a {type(nonsmooth).__name__}."
            )
        try:
            nearest = jax.eval_shape(nonsmooth.prox, smooth.y0, 1.0)
        except (TypeError, ValueError) as error:
            reason = str(error).split("\n")[0]
            raise ValueError(f"`nonsmooth` does not take the start: {reason}") from None
        require_like(nearest, smooth.y0, "prox")
        self.smooth, self.nonsmooth = smooth.without_facts, nonsmooth
        self.oracles, self.facts, self.wrappers = {}, facts or Facts(), ()

    @property
    def y0(self) -> PyTree[Array]:
        """The start, that of f."""
        return self.smooth.y0

    @property
    def args(self) -> PyTree:
        """The data of f."""
        return self.smooth.args

    @property
    def stochastic(self) -> bool:
        """Whether `sample` draws at random."""
        return self.smooth.stochastic

    @oracle
    def value(self, y: PyTree[Array]) -> Float[Array, ""]:
        """f(y)."""
        return self.smooth.value(y)

    @oracle
    def gradient(self, y: PyTree[Array]) -> PyTree[Array]:
        """The gradient of f at y, shaped as y."""
        return self.smooth.gradient(y)

    @oracle
    def value_and_gradient(self, y: PyTree[Array]) -> tuple[Float[Array, ""], PyTree[Array]]:
        """f(y) and the gradient of f, in one pass."""
        return self.smooth.value_and_gradient(y)

    @oracle
    def sample(self, key: Array | None) -> PyTree[Array] | None:
        """What a stochastic method draws at each step: a batch, or None where f is exact."""
        return self.smooth.sample(key)

    @oracle
    def batch_value_and_gradient(
        self, y: PyTree[Array], batch: PyTree[Array] | None
    ) -> tuple[Float[Array, ""], PyTree[Array]]:
        """f and its gradient estimated on a batch."""
        return self.smooth.batch_value_and_gradient(y, batch)

    @oracle
    def prox(self, y: PyTree[Array], step_size: Any) -> PyTree[Array]:
        """The least point x of h(x) + |x - y|^2 / (2 step_size), shaped as y."""
        nearest = self.nonsmooth.prox(y, step_size)
        return jax.tree.map(lambda x, y: jnp.asarray(x, y.dtype), nearest, y)

    def minimized(self, y: PyTree[Array]) -> Float[Array, ""]:
        """f(y) + h(y)."""
        value = self.value(y)
        return value + jnp.asarray(self.nonsmooth.value(y), value.dtype)

    def optimality(self, y: PyTree[Array]) -> PyTree[Array]:
        value, gradient = self.value_and_gradient(y)
        # Autodiff finds a zero gradient also where `where` has chosen a NaN for f.
        finite = jnp.isfinite(value)
        gradient = jax.tree.map(lambda leaf: jnp.where(finite, leaf, jnp.nan), gradient)
        return self.gradient_mapping(y, gradient)

    def gradient_mapping(self, y: PyTree[Array], gradient: PyTree[Array]) -> PyTree[Array]:
        """y - prox(y - g, 1), from the gradient g of f at y."""
        return otu.sub(y, self.prox(otu.sub(y, gradient), 1.0))

    def verdict(self, known: Known) -> Any:
        return self.smooth.verdict(known)

    def traced(self, y: PyTree[Array]) -> Self:
        return eqx.tree_at(lambda p: p.smooth, self, self.smooth.traced(y))

    def rescaled(self, y_scale: PyTree[Array], value_scale: ArrayLike) -> Self:
        scales = ravel_pytree(y_scale)[0]
        if jnp.any(scales != scales[0]):
            raise ValueError(
                "`y_scale` of a Composite must be one number: others change the metric of its prox."
            )
        nonsmooth = RescaledNonsmooth(self.nonsmooth, scales[0], value_scale)
        # What scales of a least-squares problem is its residual, of which f is half the square.
        squared = isinstance(self.smooth, AbstractResidual)
        smooth = self.smooth.rescaled(y_scale, value_scale**0.5 if squared else value_scale)
        return type(self)(smooth, nonsmooth)
