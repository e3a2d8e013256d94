"""AdaHessian: Adam with the diagonal of the Hessian in the place of the gradient's squares.

Yao, Gholami, Shen, Mustafa, Keutzer, Mahoney (2020), ADAHESSIAN: An Adaptive Second Order Optimizer
for Machine Learning.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.tree as otu
from jaxtyping import Array, Int, PyTree

from ..validate import require_number, whole_number
from ._core import Mask, as_key, descend, like, require, require_given, single
from ._hutchinson import drawn_diagonal


class AdaHessianState(NamedTuple):
    """Moving averages, in at least single precision whatever the gradients are in."""

    count: Int[Array, ""]
    m: PyTree[Array]  # of gradients
    s: PyTree[Array]  # of squared curvatures


def adahessian(
    learning_rate: float | optax.Schedule = 0.15,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-4,
    hessian_power: float = 1.0,
    every: int = 1,
    output_first: bool = True,
    weight_decay: float = 0.0,
    mask: Mask = None,
    key: Array | None = None,
) -> optax.GradientTransformationExtraArgs:
    """AdaHessian, momentum divided by an average of the curvature along each axis.

    With the gradient g, the Hessian H at the parameters x, and random signs z:

        D = |H z|, in the kernel of a convolution its mean over the kernel's places
        m = b1 m + (1 - b1) g
        s = b2 s + (1 - b2) D^2
        u = m / (1 - b1^t) / (sqrt(s / (1 - b2^t))^hessian_power + eps)
        x = x - learning_rate (u + weight_decay x)

    z * (H z) is the diagonal of H on the mean, but its absolute value is not: where H is far from
    diagonal, D is too large by what stands beside the diagonal. A step costs one product with H,
    about two gradients.

    Args:
        learning_rate: at least 0, or a schedule of the step count.
        b1: decay rate of the mean of gradients, in [0, 1).
        b2: decay rate of the mean of squared curvatures, in [0, 1).
        eps: added to the denominator, at least 0.
        hessian_power: from 0, momentum alone, to 1.
        every: a new D comes with the first step and then every so many; between, s rests. A static
            argument of `optax.inject_hyperparams`.
        output_first: whether kernels, leaves with more than two axes, are stored as (outputs,
            inputs, ...), as by Equinox, or as (..., inputs, outputs), as by Flax.
        weight_decay: strength of the decay of weights, at least 0.
        mask: which parameters decay: a prefix of their tree with True for those that do, or a
            function of the parameters that gives one; all by default.
        key: random key of the signs; by default that of seed 0.

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
        >>> loss = lambda x: 500 * x[0] ** 2 + x[1] ** 2
        >>> optimizer = rp.train.adahessian(optax.cosine_decay_schedule(0.3, 100))
        >>> @jax.jit
        ... def step(x, state):
        ...     updates, state = optimizer.update(jax.grad(loss)(x), state, x, value_fn=loss)
        ...     return optax.apply_updates(x, updates), state
        >>> x = jnp.array([3.0, -2.0])
        >>> state = optimizer.init(x)
        >>> for _ in range(100):
        ...     x, state = step(x, state)
        >>> bool(jnp.all(jnp.abs(x) < 0.1))
        True
    """
    require("adahessian", learning_rate=learning_rate, b1=b1, b2=b2, eps=eps)
    require("adahessian", weight_decay=weight_decay)
    require_number(hessian_power, "`hessian_power` of adahessian", 0, 1, closed="both")
    whole_number(every, "every", 1)
    signs = as_key(key)

    def averaged(d: Array) -> Array:
        places = tuple(range(2, d.ndim) if output_first else range(d.ndim - 2))
        d = jnp.abs(d)
        return jnp.broadcast_to(jnp.mean(d, axis=places, keepdims=True), d.shape)

    def init(params: PyTree[Array]) -> AdaHessianState:
        m, s = (jax.tree.map(jnp.zeros_like, single(params)) for _ in range(2))
        return AdaHessianState(jnp.zeros((), jnp.int32), m, s)

    def update(
        updates: Any, state: Any, params: Any = None, *, value_fn: Any = None, **_: Any
    ) -> tuple[PyTree[Array], AdaHessianState]:
        require_given("adahessian", params=params, value_fn=value_fn)

        def looked() -> PyTree[Array]:
            drawn = drawn_diagonal(jax.random.fold_in(signs, state.count), value_fn, params)
            return otu.update_moment(jax.tree.map(averaged, drawn), state.s, b2, 2)

        t = jnp.asarray(optax.safe_increment(state.count))
        m = otu.update_moment(single(updates), state.m, b1, 1)
        s = (
            looked()
            if every == 1
            else jax.lax.cond(state.count % every == 0, looked, lambda: state.s)
        )
        looks = state.count // every + 1
        u = jax.tree.map(
            lambda m, s: m / (jnp.sqrt(s) ** hessian_power + eps),
            otu.bias_correction(m, b1, t),
            otu.bias_correction(s, b2, looks),
        )
        return like(u, updates), AdaHessianState(t, m, s)

    return optax.chain(
        optax.GradientTransformationExtraArgs(init, update),
        descend(learning_rate, weight_decay, mask),
    )
