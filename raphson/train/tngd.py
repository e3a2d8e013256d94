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

from ..validate import as_function, require_number, whole_number
from ._core import as_key, like, require, require_given, single
from .egn import loss_function

Product = Callable[[Array], Array]
Run = Callable[[Array, Any, Array], Array]


class TngdState(NamedTuple):
    """The circuit, in at least single precision whatever the gradients are in."""

    count: Int[Array, ""]
    x: Float[Array, " n"]  # its voltages after the delay, one for each parameter


def tngd(
    learning_rate: float | optax.Schedule,
    damping: float = 0.1,
    analog_time: float = 10.0,
    inverse_temperature: float = math.inf,
    delay: float = 0.0,
    warm_start: bool = True,
    euler_steps: int | None = None,
    model: Callable[[Any, Any], Array] | None = None,
    loss: str | Callable[[Array, Any], Float[Array, ""]] = "squared",
    key: Array | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Natural gradient descent by a simulated analog circuit (TNGD).

    With the gradient g and the Gauss-Newton matrix J' Q J of the batch (J the derivative of the
    model's outputs by the parameters, Q the Hessian of the mean loss by the outputs; for the
    cross-entropy and least squares that is Fisher's), the voltages x of the circuit run for the
    time analog_time by

        A = J' Q J + damping I
        dx = -(A x - g) dt + sqrt(2 / inverse_temperature) dW

    and the parameters are moved by -learning_rate x. At rest x is normal with the mean A^-1 g,
    which is the natural gradient, and the covariance A^-1 / inverse_temperature.

    x begins at the first gradient and goes on from where it is, so that after short times it is a
    sum of gradients that A makes forget, as momentum is. Until the next A and g are there the
    circuit runs by those that it has, for the time `delay`. Without `warm_start` x begins each step
    at its gradient: from gradient descent after no time to natural gradient after a long one.

    This is a simulation, for what such a circuit would do: it gains nothing over solving A x = g.
    The exact one takes an eigendecomposition of A, for up to some thousand parameters.

    Args:
        learning_rate: at least 0, or a schedule of the step count.
        damping: added to the diagonal of A, positive.
        analog_time: how long the circuit runs at each step, positive.
        inverse_temperature: positive; without noise by default.
        delay: how long it runs on by A and g after it was read, at least 0.
        warm_start: whether x goes on from the step before.
        euler_steps: into how many steps each time is cut by the method of Euler and Maruyama, each
            a product with A and shorter than 2 over its greatest eigenvalue; by default the law of
            x is exact. A static argument of `optax.inject_hyperparams`, as the two below.
        model: `model(params, input)`, the outputs of one sample. Without it A has the Hessian of
            the loss for J' Q J, which is to be positive.
        loss: of the outputs of one sample and its target, as in `egn`.
        key: random key of the noise; by default that of seed 0.

    Returns:
        An Optax transformation; its `update` needs the parameters and, with a model, `inputs` and
        `targets`, of the batch, stacked along the first axis; without one `value_fn`, the loss of
        the batch as a function of the parameters.

    Raises:
        ValueError: if a hyperparameter is outside its range, or `model` or `loss` is unfit.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> model = lambda x, input: jnp.atleast_1d(input @ x)
        >>> data = {"inputs": jnp.array([[30.0, 0.0], [1.0, 2.0]]), "targets": jnp.ones((2, 1))}
        >>> optimizer = rp.train.tngd(1.0, damping=0.01, analog_time=1e4, model=model)
        >>> def loss(x, inputs, targets):
        ...     return jnp.mean((jax.vmap(model, (None, 0))(x, inputs) - targets) ** 2) / 2
        >>> x = jnp.zeros(2)
        >>> state = optimizer.init(x)
        >>> for _ in range(3):
        ...     updates, state = optimizer.update(jax.grad(loss)(x, **data), state, x, **data)
        ...     x = x + updates
        >>> bool(loss(x, **data) < 1e-4)
        True
    """
    require("tngd", learning_rate=learning_rate)
    require_number(damping, "`damping` of tngd", 0)
    require_number(analog_time, "`analog_time` of tngd", 0)
    require_number(inverse_temperature, "`inverse_temperature` of tngd", 0, closed="right")
    require_number(delay, "`delay` of tngd", 0, closed="left")
    if euler_steps is not None:
        whole_number(euler_steps, "euler_steps", 1)
    if model is not None:
        as_function(model, "model")
    loss_of = loss_function(loss, "tngd")
    noises = as_key(key)

    def exact(product: Product, g: Array) -> Run:
        rates, vectors = jnp.linalg.eigh(jax.vmap(product)(jnp.eye(len(g), dtype=g.dtype)))
        push = vectors.T @ g

        def run(x: Array, time: Any, key: Array) -> Array:
            kept = jnp.exp(-rates * time) * (vectors.T @ x)
            deviation = jnp.sqrt(2 / inverse_temperature * _integral(2 * rates, time))
            noise = deviation * jax.random.normal(key, x.shape, x.dtype)
            return vectors @ (kept + _integral(rates, time) * push + noise)

        return run

    def stepped(product: Product, g: Array, steps: int) -> Run:
        def run(x: Array, time: Any, key: Array) -> Array:
            dt = time / steps

            def step(index: Array, x: Array) -> Array:
                noise = jax.random.normal(jax.random.fold_in(key, index), x.shape, x.dtype)
                return x - dt * (product(x) - g) + jnp.sqrt(2 * dt / inverse_temperature) * noise

            return jax.lax.fori_loop(0, jnp.where(time > 0, steps, 0), step, x)

        return run

    def init(params: Any) -> TngdState:
        return TngdState(jnp.zeros((), jnp.int32), jnp.zeros_like(ravel_pytree(single(params))[0]))

    def update(
        updates: Any,
        state: Any,
        params: Any = None,
        *,
        inputs: Any = None,
        targets: Any = None,
        value_fn: Any = None,
        **_: Any,
    ) -> tuple[Any, TngdState]:
        require_given("tngd", params=params)
        if model is None:
            require_given("tngd", value_fn=value_fn)
            outputs_fn, loss_fn = lambda params: params, value_fn
        else:
            require_given("tngd", inputs=inputs, targets=targets)
            batched = jax.vmap(model, (None, 0))
            outputs_fn = lambda params: batched(params, inputs)
            loss_fn = lambda outputs: jnp.mean(jax.vmap(loss_of)(outputs, targets))
        g, unravel = ravel_pytree(single(updates))

        def product(v: Array) -> Array:
            curved = _gauss_newton(outputs_fn, loss_fn, params, like(unravel(v), params))
            return ravel_pytree(single(curved))[0] + damping * v

        run = exact(product, g) if euler_steps is None else stepped(product, g, euler_steps)
        before, after = jax.random.split(jax.random.fold_in(noises, state.count))
        goes_on = jnp.logical_and(warm_start, state.count > 0)
        x = run(jnp.where(goes_on, state.x, g), analog_time, before)
        left = run(x, delay, after)
        t = jnp.asarray(optax.safe_increment(state.count))
        return like(unravel(x), updates), TngdState(t, left)

    return optax.chain(
        optax.GradientTransformationExtraArgs(init, update),
        optax.scale_by_learning_rate(learning_rate),
    )


def _gauss_newton(outputs_fn: Any, loss_fn: Any, params: Any, v: Any) -> Any:
    """J' Q J v."""
    outputs, turned = jax.jvp(outputs_fn, (params,), (v,))
    _, curved = jax.jvp(jax.grad(loss_fn), (outputs,), (turned,))
    return jax.vjp(outputs_fn, params)[1](curved)[0]


def _integral(rates: Array, time: Any) -> Array:
    """Of exp(-rate s) over s from 0 to `time`."""
    return jnp.where(rates == 0, time, -jnp.expm1(-rates * time) / jnp.where(rates == 0, 1, rates))
