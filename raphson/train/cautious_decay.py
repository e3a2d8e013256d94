"""Cautious weight decay: only where it does not oppose the step.

Chen, Li, Liang, Su, Xie, Pierse, Liang, Lao, Liu (2025), Cautious Weight Decay.
"""

from __future__ import annotations

import optax

from ._core import Mask, cautious, require


def cautious_decay(weight_decay: float, mask: Mask = None) -> optax.GradientTransformation:
    """Decay of weights in the entries in which the optimizer shrinks them anyway.

    Between a transformation that gives directions u and its learning rate, where AdamW has
    `optax.add_decayed_weights`, this turns u for the parameters x to

        u + weight_decay x  where u x >= 0,  u  elsewhere.

    Decay then draws the limit away from no minimum: where an entry of x would grow, nothing opposes
    it, and along directions in which the loss is flat, x shrinks on. With decay everywhere, the
    limit minimizes another function. The `weight_decay` that suits AdamW suits this.

    An optimizer with a learning rate of its own gives directions if that is 1 and
    `optax.scale(-1.0)` follows.

    Args:
        weight_decay: strength of the decay, at least 0.
        mask: which parameters decay: a prefix of their tree with True for those that do, or a
            function of the parameters that gives one; all by default.

    Returns:
        An Optax transformation; its `update` needs the parameters.

    Raises:
        ValueError: if `weight_decay` is below 0.

    Example:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import raphson as rp
        >>> optimizer = optax.chain(
        ...     optax.scale_by_adam(),
        ...     rp.train.cautious_decay(0.1),
        ...     optax.scale_by_learning_rate(optax.linear_schedule(0.2, 0.0, 100)),
        ... )
        >>> x = jnp.array([3.0, -2.0])
        >>> state = optimizer.init(x)
        >>> for _ in range(100):
        ...     updates, state = optimizer.update(x - 1.0, state, x)
        ...     x = optax.apply_updates(x, updates)
        >>> x.round(2).tolist()
        [1.0, 1.0]
    """
    require("cautious_decay", weight_decay=weight_decay)
    return cautious(weight_decay, mask)
