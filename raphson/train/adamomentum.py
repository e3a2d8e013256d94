"""AdaMomentum: Adam whose second average is that of the squares of the first.

Wang, Kang, Qin, Wang, Xu, Zhang, Fu (2021), Rethinking Adam: A Twofold Exponential Moving Average
Approach.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.tree as otu
from jaxtyping import Array, Int, PyTree

from ._core import Decay, Mask, descend, require, scale_by


class AdaMomentumState(NamedTuple):
    """Moving averages, in at least single precision whatever the gradients are in."""

    count: Int[Array, ""]
    m: PyTree[Array]  # of gradients
    v: PyTree[Array]  # of the squares of m


def adamomentum(
    learning_rate: float | optax.Schedule = 1e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    mask: Mask = None,
    decay: Decay = "decoupled",
) -> optax.GradientTransformationExtraArgs:
    """Adam with the moving average of gradients in the place of the gradient (AdaMomentum).

    With the gradient g and the parameters x:

        m = b1 m + (1 - b1) g
        v = b2 v + (1 - b2) m^2 + eps
        u = (m / (1 - b1^t)) / sqrt(v / (1 - b2^t))
        x = x - learning_rate (u + weight_decay x)

    Averages of noise are smaller than noise: where gradients are noise around 0, steps are
    sqrt((1 + b1) / (1 - b1)) times those of Adam, 4.4 times with the defaults, so that a learning
    rate tuned for Adam may be too large. The first step is 1 / (1 - b1) learning rates long.

    Args:
        learning_rate: at least 0, or a schedule of the step count.
        b1: decay rate of the mean of gradients, in [0, 1).
        b2: decay rate of the mean of squares, in [0, 1).
        eps: added to v at every step, so that it grows there to eps / (1 - b2); at least 0, where 0
            fails for parameters whose gradient has always been 0.
        weight_decay: strength of the decay of weights, at least 0.
        mask: which parameters decay: a prefix of their tree with True for those that do, or a
            function of the parameters that gives one; all by default.
        decay: `"decoupled"` as above; `"proximal"`, where x is (x - learning_rate u) / (1 +
            learning_rate weight_decay); or `"cautious"`, as `cautious_decay` does.

    Returns:
        An Optax transformation; its `update` needs the parameters.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import raphson as rp
        >>> optimizer = rp.train.adamomentum(optax.cosine_decay_schedule(0.2, 100))
        >>> x = jnp.array([3.0, -2.0])
        >>> state = optimizer.init(x)
        >>> for _ in range(100):
        ...     updates, state = optimizer.update(2 * x, state, x)
        ...     x = optax.apply_updates(x, updates)
        >>> bool(jnp.all(jnp.abs(x) < 0.1))
        True
    """
    require(
        "adamomentum", learning_rate=learning_rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay
    )

    def direction(
        g: PyTree[Array], state: AdaMomentumState, t: Int[Array, ""]
    ) -> tuple[PyTree[Array], AdaMomentumState]:
        m = otu.update_moment(g, state.m, b1, 1)
        # With eps added last, XLA would read the old v once for the new one and once for u.
        v = jax.tree.map(lambda m, v: (1 - b2) * m**2 + eps + b2 * v, m, state.v)
        m_hat, v_hat = otu.bias_correction(m, b1, t), otu.bias_correction(v, b2, t)
        u = jax.tree.map(lambda m, v: m / jnp.sqrt(v), m_hat, v_hat)
        return u, AdaMomentumState(t, m, v)

    return optax.chain(
        scale_by(AdaMomentumState, direction), descend(learning_rate, weight_decay, mask, decay)
    )
