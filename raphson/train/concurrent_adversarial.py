"""Concurrent adversarial training: adversarial samples are made with the weights of a step before.

Liu, Chen, Cheng, Hsieh, You (2021), Concurrent Adversarial Learning for Large-Batch Training.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..validate import as_function, require_number
from ._core import like


def concurrent_value_and_grad(
    loss: Callable[..., Array],
    epsilon: float,
    mix: float = 0.5,
    low: float = -jnp.inf,
    high: float = jnp.inf,
) -> Callable[..., tuple[Array, PyTree[Array]]]:
    """`jax.value_and_grad` of a loss on samples and on adversarial ones, made with stale weights.

    With the parameters w, those of some steps ago w', the samples x, and the adversarial samples

        a = clip(x + epsilon sign(dl/dx (w', x)), low, high)

    the value is (1 - mix) l(w, x) + mix l(w, a), and the gradient that of it by w with a fixed.
    As a does not depend on w, a batch can be made adversarial while the one before it is learned
    from; here both are in one program, and devices are free to overlap them. With w' = w it is
    adversarial training by one gradient, one after the other. The paper's statistics of batch
    normalization, apart for x and a, are left to the loss.

    Args:
        loss: `loss(params, x, *args)`, a real scalar.
        epsilon: how far each entry of x is moved, at least 0.
        mix: how much the adversarial samples count, in [0, 1].
        low: least value of an entry.
        high: greatest value.

    Returns:
        A function of w, w', x and the further arguments of `loss`, that gives the value and the
        gradient in w. For the first steps w' is the start.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import raphson as rp
        >>> loss = lambda w, x, y: jnp.mean((x @ w - y) ** 2)
        >>> call = jax.jit(rp.train.concurrent_value_and_grad(loss, epsilon=0.1))
        >>> optimizer = optax.sgd(0.1)
        >>> x, y = jnp.eye(2), jnp.array([1.0, -1.0])
        >>> params = stale = jnp.zeros(2)
        >>> state = optimizer.init(params)
        >>> for _ in range(100):
        ...     value, gradient = call(params, stale, x, y)
        ...     updates, state = optimizer.update(gradient, state)
        ...     params, stale = optax.apply_updates(params, updates), params
        >>> bool(jnp.all(jnp.abs(params - y) < 0.3))
        True
    """
    as_function(loss, "loss")
    require_number(epsilon, "`epsilon` of concurrent_value_and_grad", 0, closed="left")
    require_number(mix, "`mix` of concurrent_value_and_grad", 0, 1, closed="both")

    def value_and_grad(
        params: PyTree[Array], stale: PyTree[Array], x: PyTree[Array], *args: Any
    ) -> tuple[Array, PyTree[Array]]:
        slope = jax.grad(loss, 1)(stale, x, *args)
        moved = jax.tree.map(lambda x, s: jnp.clip(x + epsilon * jnp.sign(s), low, high), x, slope)
        moved = jax.lax.stop_gradient(like(moved, x))

        def mixed(params: PyTree[Array]) -> Array:
            return (1 - mix) * loss(params, x, *args) + mix * loss(params, moved, *args)

        return jax.value_and_grad(mixed)(params)

    return value_and_grad
