"""A penalty on gradients that vanish, or explode, on their way back through time.

Pascanu, Mikolov, Bengio (2013), On the difficulty of training Recurrent Neural Networks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


def vanishing_gradient_penalty(
    cell: Callable[[Any, Array, Any], Array],
    loss: Callable[[Float[Array, "t *shape"]], Float[Array, ""]],
    params: PyTree[Array],
    start: Float[Array, "*shape"],
    inputs: PyTree[Array],
) -> Float[Array, ""]:
    """How much gradients change in length on their way back through a recurrent network.

    With the states x_k+1 = cell(params, x_k, u_k), the derivative J_k of x_k+1 by x_k, and the
    whole derivative d_k of the loss by x_k:

        the sum over k of (|d_k+1 J_k| / |d_k+1| - 1)^2

    It is to be added with some weight to the loss of the sequence; `jax.vmap` takes several. As in
    the paper, its derivative by the parameters counts states and d as constants, so that none goes
    through time. Where d is 0 nothing is to be kept, and nothing is added.

    Args:
        cell: `cell(params, x, u)`, the state after x with the input u.
        loss: `loss(states)`, a scalar, of the states x_1 to x_t stacked.
        params: parameters of the cell.
        start: the state x_0.
        inputs: arrays whose leading axis counts u_0 to u_t-1.

    Returns:
        The penalty, at least 0.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> cell = lambda w, x, u: w * x + u
        >>> loss = lambda states: states[-1, 0]
        >>> start, inputs = jnp.ones(1), jnp.zeros((3, 1))
        >>> penalty = lambda w: rp.train.vanishing_gradient_penalty(cell, loss, w, start, inputs)
        >>> float(penalty(0.5)), float(jax.grad(penalty)(0.5))
        (0.75, -3.0)
    """

    def run(shifts: Array) -> tuple[Array, Array]:
        def step(x: Array, shift_and_input: tuple[Array, Any]) -> tuple[Array, Array]:
            shift, u = shift_and_input
            x = cell(params, x, u) + shift
            return x, x

        _, states = jax.lax.scan(step, start, (shifts, inputs))
        return loss(states), states

    # The derivative by a shift of a state is the whole derivative by the state.
    steps = jax.tree.leaves(inputs)[0].shape[0]
    shifts = jnp.zeros((steps, *start.shape), start.dtype)
    derivatives, states = jax.lax.stop_gradient(jax.grad(run, has_aux=True)(shifts))

    def departure(x: Array, u: Any, d: Array) -> Array:
        _, pull_back = jax.vjp(lambda x: cell(params, x, u), x)
        length = _length(d)
        ratio = _length(*pull_back(d)) / jnp.where(length > 0, length, 1)
        return jnp.where(length > 0, ratio - 1, 0)

    before = jnp.concatenate([start[None], states[:-1]])
    return jnp.sum(jax.vmap(departure)(jax.lax.stop_gradient(before), inputs, derivatives) ** 2)


def _length(x: Array) -> Float[Array, ""]:
    """The norm, with the derivative 0 at 0, of what may be too small to be squared."""
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x)))
    scale = jnp.where(largest > 0, largest, 1)
    squares = jnp.sum((x / scale) ** 2)
    return jnp.where(largest > 0, scale * jnp.sqrt(jnp.where(largest > 0, squares, 1)), 0)
