"""Forward gradients: estimates of a gradient from derivatives along random directions.

Baydin, Pearlmutter, Syme, Wood, Torr (2022), Gradients without Backpropagation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array

from ..validate import as_function, whole_number
from ._core import like


def forward_value_and_grad(
    fn: Callable[..., Any],
    samples: int = 1,
    directions: str = "normal",
    has_aux: bool = False,
) -> Callable[..., tuple[Any, Any]]:
    """`jax.value_and_grad` without a backward pass: the mean of <g, v> v over random directions v.

    The entries of v are independent, of mean 0 and variance 1, so that the estimate is unbiased;
    <g, v> is one forward derivative, which keeps nothing of what was computed on the way. With n
    parameters the mean of |estimate - g|^2 over |g|^2 is (n + 1) / samples for normal directions
    and (n - 1) / samples for signs: step sizes are to be as many times smaller.

    Args:
        fn: of the parameters, a PyTree of arrays, and any further arguments, to a real scalar (and
            to what else is returned with it, where `has_aux`).
        samples: how many directions, at least 1.
        directions: `"normal"` or `"rademacher"`, entries 1 or -1.
        has_aux: whether `fn` returns a pair of the scalar and anything else.

    Returns:
        A function of a random key and of the arguments of `fn` that gives the value, or the pair,
        and the estimate of the gradient in the first of these arguments.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> estimate = rp.train.forward_value_and_grad(lambda x: jnp.sum(x**2), samples=20_000)
        >>> value, gradient = estimate(jax.random.key(0), jnp.array([1.0, -2.0]))
        >>> value.tolist(), bool(jnp.all(jnp.abs(gradient - jnp.array([2.0, -4.0])) < 0.3))
        (5.0, True)
    """
    as_function(fn)
    whole_number(samples, "samples", 1)
    samplers = {"normal": jax.random.normal, "rademacher": jax.random.rademacher}
    if directions not in samplers:
        raise ValueError(
            f"`directions` must be one of {', '.join(map(repr, samplers))}, got {directions!r}."
        )

    def value_and_grad(key: Array, params: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        # Not by `linearize`, which would keep what a backward pass keeps.
        def estimate(key: Array) -> tuple[Any, Any]:
            v = otu.random_like(key, params, samplers[directions])
            value, slope, *aux = jax.jvp(
                lambda params: fn(params, *args, **kwargs), (params,), (v,), has_aux=has_aux
            )
            return (value, *aux) if has_aux else value, otu.scale(slope, v)

        keys = jax.random.split(key, samples)
        value, estimates = jax.vmap(estimate, out_axes=(None, 0))(keys)
        return value, like(jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), estimates), params)

    return value_and_grad
