"""diffGrad: Adam slowed down where the gradient does not change.

Dubey, Chakraborty, Roy, Mukherjee, Singh, Chaudhuri (2019), diffGrad: An Optimization Method for
Convolutional Neural Networks.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.tree as otu
from jaxtyping import Array, Int, PyTree

from ._core import quotient, require, scale_by


class DiffGradState(NamedTuple):
    """Moving averages, in at least single precision whatever the gradients are in."""

    count: Int[Array, ""]
    gradient: PyTree[Array]  # of the step before
    m: PyTree[Array]  # of gradients
    v: PyTree[Array]  # of their squares


def diffgrad(
    learning_rate: float | optax.Schedule = 1e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """Adam with a friction coefficient from the change of the gradient (diffGrad).

    With the gradient g, that of the step before g' (0 at the first), and the parameters x:

        m = b1 m + (1 - b1) g
        v = b2 v + (1 - b2) g^2
        c = 1 / (1 + exp(-|g - g'|))
        u = sqrt(1 - b2^t) / (1 - b1^t) c m / (sqrt(v) + eps)
        x = x - learning_rate u

    The coefficient c is in [1/2, 1), so that steps are half to whole steps of Adam. It depends on
    the scale of gradients, as Adam does not: where all are much below 1, this is Adam at half the
    learning rate.

    Args:
        learning_rate: at least 0, or a schedule of the step count.
        b1: decay rate of the mean of gradients, in [0, 1).
        b2: decay rate of the mean of squares, in [0, 1).
        eps: added to the denominator, before bias correction; at least 0.

    Returns:
        An Optax transformation.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import raphson as rp
        >>> optimizer = rp.train.diffgrad(optax.cosine_decay_schedule(0.2, 100))
        >>> x = jnp.array([3.0, -2.0])
        >>> state, update = optimizer.init(x), jax.jit(optimizer.update)
        >>> for _ in range(100):
        ...     updates, state = update(2 * x, state)
        ...     x = optax.apply_updates(x, updates)
        >>> bool(jnp.all(jnp.abs(x) < 0.1))
        True
    """
    require("diffgrad", learning_rate=learning_rate, b1=b1, b2=b2, eps=eps)

    def direction(
        g: PyTree[Array], state: DiffGradState, t: Int[Array, ""]
    ) -> tuple[PyTree[Array], DiffGradState]:
        m = otu.update_moment(g, state.m, b1, 1)
        v = otu.update_moment(g, state.v, b2, 2)
        c = jax.tree.map(lambda g, before: jax.nn.sigmoid(jnp.abs(g - before)), g, state.gradient)
        u = quotient(otu.mul(c, m), v, eps)
        # The root of what corrects the bias of v, as eps is added before.
        u = otu.scale(jnp.sqrt(1 - b2**t), otu.bias_correction(u, b1, t))
        return u, DiffGradState(t, g, m, v)

    return optax.chain(
        scale_by(DiffGradState, direction), optax.scale_by_learning_rate(learning_rate)
    )
