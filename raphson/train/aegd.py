"""AEGD: gradient descent on the root of the loss, with an energy for each parameter.

Liu, Tian (2020), AEGD: Adaptive Gradient Descent with Energy.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.tree as otu
from jaxtyping import Array, Int, PyTree

from ..validate import require_number
from ._core import as_schedule, like, require, require_given, single


class AegdState(NamedTuple):
    """In at least single precision whatever the gradients are in."""

    count: Int[Array, ""]
    r: PyTree[Array]  # the energies, 0 until the first loss is known


def aegd(
    learning_rate: float | optax.Schedule = 0.1, c: float = 1.0
) -> optax.GradientTransformationExtraArgs:
    """AEGD, gradient steps whose sizes fall where gradients are large, and never rise.

    With the loss f of the batch and its gradient g, and r = sqrt(f + c) at first:

        v = g / (2 sqrt(f + c))
        r = r / (1 + 2 learning_rate v^2)
        x = x - 2 learning_rate r v

    so that the energies r fall whatever the learning rate. Stable is not convergent: where it is
    large they are used up before the loss is least. `EnergyGradient` is the method on all data,
    also in other metrics and with restarts.

    Args:
        learning_rate: at least 0, or a schedule of the step count.
        c: what is added to the loss of a batch to make it positive, positive; where it does not,
            the parameters become NaN.

    Returns:
        An Optax transformation; its `update` needs `value`, the loss.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> loss = lambda x: jnp.sum((x - 1) ** 2)
        >>> optimizer = rp.train.aegd()
        >>> @jax.jit
        ... def step(x, state):
        ...     value, g = jax.value_and_grad(loss)(x)
        ...     updates, state = optimizer.update(g, state, x, value=value)
        ...     return x + updates, state
        >>> x = jnp.zeros(2)
        >>> state = optimizer.init(x)
        >>> for _ in range(100):
        ...     x, state = step(x, state)
        >>> x.round(3).tolist()
        [1.0, 1.0]
    """
    require("aegd", learning_rate=learning_rate)
    require_number(c, "`c` of aegd", 0)
    rate = as_schedule(learning_rate)

    def init(params: PyTree[Array]) -> AegdState:
        return AegdState(jnp.zeros((), jnp.int32), otu.zeros_like(single(params)))

    def update(
        updates: Any, state: Any, params: Any = None, *, value: Any = None, **_: Any
    ) -> tuple[PyTree[Array], AegdState]:
        require_given("aegd", value=value)
        g, eta = single(updates), rate(state.count)
        root = jnp.sqrt(single(value) + c)
        first = state.count == 0
        v = jax.tree.map(lambda g: g / (2 * root), g)
        r = jax.tree.map(lambda r, v: jnp.where(first, root, r) / (1 + 2 * eta * v**2), state.r, v)
        step = jax.tree.map(lambda r, v: -2 * eta * r * v, r, v)
        count = jnp.asarray(optax.safe_increment(state.count))
        return like(step, updates), AegdState(count, like(r, state.r))

    return optax.GradientTransformationExtraArgs(init, update)
