"""Thermodynamic natural gradient: a noisy circuit relaxes towards the natural gradient.

Donatella, Duffield, Aifer, Melanson, Crooks, Coles (2024), Thermodynamic Natural Gradient Descent.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from ..validate import require_number, whole_number
from ._core import as_key, like, require, require_given, single

Product = Callable[[Array], Array]


class TngdState(NamedTuple):
    """The circuit, in at least single precision whatever the gradients are in."""

    count: Int[Array, ""]
    x: Float[Array, " n"]  # its voltages, one for each parameter


def tngd(
    learning_rate: float | optax.Schedule,
    damping: float = 0.1,
    analog_time: float = 10.0,
    inverse_temperature: float = math.inf,
    euler_steps: int | None = None,
    key: Array | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Natural gradient descent by a simulated analog circuit (TNGD).

    With the gradient g and the Gauss-Newton matrix J' H J of the batch (J the derivative of the
    model's outputs by the parameters, H the Hessian of the loss by the outputs; for the
    cross-entropy and least squares that is Fisher's), the voltages x of the circuit go on from
    where the step before left them, for the time analog_time, by

        A = J' H J + damping I
        dx = -(A x - g) dt + sqrt(2 / inverse_temperature) dW

    and the parameters by -learning_rate x. At rest x is normal with the mean A^-1 g, which is the
    natural gradient, and the covariance A^-1 / inverse_temperature. After short times x is a sum of
    gradients that A makes forget, as momentum is.

    This is a simulation, for what such a circuit would do: it gains nothing over solving A x = g.
    The exact one takes an eigendecomposition of A, for up to some thousand parameters.

    Args:
        learning_rate: at least 0, or a schedule of the step count.
        damping: added to the diagonal of A, positive.
        analog_time: how long the circuit runs at each step, positive.
        inverse_temperature: positive; without noise by default.
        euler_steps: into how many steps the time is cut by the method of Euler and Maruyama, each
            a product with A and shorter than 2 over its greatest eigenvalue; by default the law of
            x is exact. A static argument of `optax.inject_hyperparams`.
        key: random key of the noise; by default that of seed 0.

    Returns:
        An Optax transformation; its `update` needs the parameters, `model_fn`, the outputs for the
        batch as a function of the parameters, and `loss_fn`, the loss as a function of these. With
        `value_fn`, the loss as a function of the parameters, in their place A has its Hessian,
        which is to be positive.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> model = lambda x: jnp.array([30.0 * x[0], x[0] + 2.0 * x[1]])
        >>> loss = lambda outputs: jnp.sum((outputs - 1.0) ** 2) / 2
        >>> optimizer = rp.train.tngd(1.0, damping=0.01, analog_time=1e4)
        >>> x = jnp.zeros(2)
        >>> state = optimizer.init(x)
        >>> for _ in range(3):
        ...     g = jax.grad(lambda x: loss(model(x)))(x)
        ...     updates, state = optimizer.update(g, state, x, model_fn=model, loss_fn=loss)
        ...     x = x + updates
        >>> bool(loss(model(x)) < 1e-4)
        True
    """
    require("tngd", learning_rate=learning_rate)
    require_number(damping, "`damping` of tngd", 0)
    require_number(analog_time, "`analog_time` of tngd", 0)
    require_number(inverse_temperature, "`inverse_temperature` of tngd", 0, closed="right")
    if euler_steps is not None:
        whole_number(euler_steps, "euler_steps", 1)
    noises = as_key(key)

    def exactly(product: Product, g: Array, x: Array, key: Array) -> Array:
        rates, vectors = jnp.linalg.eigh(jax.vmap(product)(jnp.eye(len(x), dtype=x.dtype)))
        decay = jnp.exp(-rates * analog_time)
        variance = 2 / inverse_temperature * _integral(2 * rates, analog_time)
        pushed = _integral(rates, analog_time) * (vectors.T @ g)
        noise = jnp.sqrt(variance) * jax.random.normal(key, x.shape, x.dtype)
        return vectors @ (decay * (vectors.T @ x) + pushed + noise)

    def by_steps(product: Product, g: Array, x: Array, key: Array, steps: int) -> Array:
        dt = analog_time / steps

        def step(index: Array, x: Array) -> Array:
            noise = jax.random.normal(jax.random.fold_in(key, index), x.shape, x.dtype)
            return x - dt * (product(x) - g) + jnp.sqrt(2 * dt / inverse_temperature) * noise

        return jax.lax.fori_loop(0, steps, step, x)

    def init(params: Any) -> TngdState:
        return TngdState(jnp.zeros((), jnp.int32), jnp.zeros_like(ravel_pytree(single(params))[0]))

    def update(
        updates: Any,
        state: Any,
        params: Any = None,
        *,
        model_fn: Any = None,
        loss_fn: Any = None,
        value_fn: Any = None,
        **_: Any,
    ) -> tuple[Any, TngdState]:
        require_given("tngd", params=params)
        if model_fn is None and value_fn is not None:
            model_fn, loss_fn = lambda params: params, value_fn
        require_given("tngd", model_fn=model_fn, loss_fn=loss_fn)
        g, unravel = ravel_pytree(single(updates))

        def product(v: Array) -> Array:
            curved = _gauss_newton(model_fn, loss_fn, params, like(unravel(v), params))
            return ravel_pytree(single(curved))[0] + damping * v

        drawn = jax.random.fold_in(noises, state.count)
        if euler_steps is None:
            x = exactly(product, g, state.x, drawn)
        else:
            x = by_steps(product, g, state.x, drawn, euler_steps)
        t = jnp.asarray(optax.safe_increment(state.count))
        return like(unravel(x), updates), TngdState(t, x)

    return optax.chain(
        optax.GradientTransformationExtraArgs(init, update),
        optax.scale_by_learning_rate(learning_rate),
    )


def _gauss_newton(model_fn: Any, loss_fn: Any, params: Any, v: Any) -> Any:
    """J' H J v."""
    outputs, turned = jax.jvp(model_fn, (params,), (v,))
    _, curved = jax.jvp(jax.grad(loss_fn), (outputs,), (turned,))
    return jax.vjp(model_fn, params)[1](curved)[0]


def _integral(rates: Array, time: Any) -> Array:
    """Of exp(-rate s) over s from 0 to `time`."""
    return jnp.where(rates == 0, time, -jnp.expm1(-rates * time) / jnp.where(rates == 0, 1, rates))
