"""Saddle-free Newton steps on batches, within a small space that products with the Hessian span.

Pascanu, Dauphin, Ganguli, Bengio (2014), On the Saddle Point Problem for Non-Convex Optimization.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from ..smooth._krylov import krylov_spectrum
from ..validate import require_number, whole_number
from ._core import like, require, require_given, single

# From the largest curvature to a millionth of it.
DAMPINGS = tuple(10.0**-power for power in range(7))


class SaddleFreeState(NamedTuple):
    """In at least single precision whatever the gradients are in."""

    step: Float[Array, " n"]  # the last one, one entry for each parameter


def saddle_free(
    learning_rate: float | optax.Schedule = 1.0, rank: int = 10, damping: float | None = None
) -> optax.GradientTransformationExtraArgs:
    """Saddle-free Newton, steps that negative curvature does not turn towards a saddle.

    With the gradient g and the Hessian H of the batch, V an orthonormal basis of the space of g,
    H g, ..., H^(rank - 1) g and the last step, and |V' H V| the matrix of the same eigenvectors
    with the absolute values of the eigenvalues:

        x = x - learning_rate V (|V' H V| + damping I)^-1 V' g

    A step costs rank + 1 products with H, about two gradients each, and, where the damping is
    sought, seven losses. V takes rank + 1 times the memory of the parameters. Noise in g and H is
    not averaged: for large batches, on which every step takes its own curvature.

    Args:
        learning_rate: at least 0, or a schedule of the step count.
        rank: of the Krylov space, at least 1; the authors take up to 500. A static argument of
            `optax.inject_hyperparams`.
        damping: positive; by default the one of 1, 0.1, ..., 1e-6 times the largest curvature in V
            with which a step of learning rate 1 leads to the least loss of the batch.

    Returns:
        An Optax transformation; its `update` needs the parameters and `value_fn`, the loss of the
        same batch as a function of the parameters.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import raphson as rp
        >>> loss = lambda x: x[0] ** 2 / 2 - x[1] ** 2 / 2 + x[1] ** 4 / 4
        >>> optimizer = rp.train.saddle_free(rank=2)
        >>> @jax.jit
        ... def step(x, state):
        ...     updates, state = optimizer.update(jax.grad(loss)(x), state, x, value_fn=loss)
        ...     return optax.apply_updates(x, updates), state
        >>> x = jnp.array([1.0, 1e-3])
        >>> state = optimizer.init(x)
        >>> for _ in range(20):
        ...     x, state = step(x, state)
        >>> x.round(3).tolist()
        [0.0, 1.0]
    """
    require("saddle_free", learning_rate=learning_rate)
    whole_number(rank, "rank", 1)
    if damping is not None:
        require_number(damping, "`damping` of saddle_free", 0)

    def init(params: Any) -> SaddleFreeState:
        return SaddleFreeState(jnp.zeros_like(ravel_pytree(single(params))[0]))

    def update(
        updates: Any, state: Any, params: Any = None, *, value_fn: Any = None, **_: Any
    ) -> tuple[Any, SaddleFreeState]:
        require_given("saddle_free", params=params, value_fn=value_fn)
        g, unravel = ravel_pytree(single(updates))
        x = ravel_pytree(single(params))[0]

        def product(v: Array) -> Array:
            v = like(unravel(v), params)
            return ravel_pytree(single(jax.jvp(jax.grad(value_fn), (params,), (v,))[1]))[0]

        eigenvalues, V = krylov_spectrum(product, g, state.step, rank)
        sizes, slopes = jnp.abs(eigenvalues), V.T @ g

        def stepped(damping: Any) -> Array:
            return V @ (slopes / (sizes + damping))

        def reached(damping: Array) -> Array:
            value = value_fn(like(unravel(x - stepped(damping)), params))
            return jnp.where(jnp.isnan(value), jnp.inf, value)

        if damping is None:
            largest = jnp.max(sizes)
            tried = jnp.asarray(DAMPINGS, g.dtype) * jnp.where(largest > 0, largest, 1)
            chosen = tried[jnp.argmin(jax.lax.map(reached, tried))]
        else:
            chosen = jnp.asarray(damping, g.dtype)
        step = stepped(chosen)
        return like(unravel(step), updates), SaddleFreeState(step)

    return optax.chain(
        optax.GradientTransformationExtraArgs(init, update),
        optax.scale_by_learning_rate(learning_rate),
    )
