"""Lion-K: Lion with the subgradient of any convex K for its sign.

Chen, Liu, Liang, Liu (2023), Lion Secretly Solves Constrained Optimization: As Lyapunov Predicts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.tree as otu
from jaxtyping import Array, Int, PyTree

from ..validate import as_function
from ._core import Decay, Mask, descend, require, scale_by


class LionKState(NamedTuple):
    """A moving average, in at least single precision whatever the gradients are in."""

    count: Int[Array, ""]
    m: PyTree[Array]  # of gradients


def lion_k(
    learning_rate: float | optax.Schedule,
    b1: float = 0.9,
    b2: float = 0.99,
    subgradient: Callable[[Array], Array] | None = None,
    weight_decay: float = 0.0,
    mask: Mask = None,
    decay: Decay = "decoupled",
) -> optax.GradientTransformationExtraArgs:
    """Lion-K, descent along the subgradient of a convex function K at a momentum.

    With the gradient g and the parameters x:

        u = subgradient of K at b1 m + (1 - b1) g
        m = b2 m + (1 - b2) g
        x = x - learning_rate (u + weight_decay x)

    It solves: minimize f(x) + K*(-weight_decay x) / weight_decay, with the convex conjugate K* of
    K. Where K is a norm this is f on the ball of radius 1 / weight_decay of the dual norm: weights
    that decay are weights held within a bound. With the sign, whose K sums absolute values, it is
    `optax.lion`, and the bound is on the greatest entry.

    Args:
        learning_rate: at least 0, or a schedule of the step count.
        b1: how much of the momentum is in the direction, in [0, 1).
        b2: decay rate of the momentum, in [0, 1).
        subgradient: of K, a function of a leaf to one of its shape; at 0 it should give 0. By
            default the sign; `lambda m: m / jnp.sqrt(m**2 + 1e-6)` is a smooth one, and m over its
            length bounds each leaf's length.
        weight_decay: strength of the decay of weights, at least 0.
        mask: which parameters decay: a prefix of their tree with True for those that do, or a
            function of the parameters that gives one; all by default.
        decay: `"decoupled"` as above; `"proximal"`, the paper's implicit form, where x is (x -
            learning_rate u) / (1 + learning_rate weight_decay); or `"cautious"`, as
            `cautious_decay` does.

    Returns:
        An Optax transformation; its `update` needs the parameters.

    Raises:
        ValueError: if a hyperparameter is outside its range, or `subgradient` is no function.

    Example:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import raphson as rp
        >>> optimizer = rp.train.lion_k(0.01, weight_decay=1.0)
        >>> x = jnp.zeros(2)
        >>> state = optimizer.init(x)
        >>> for _ in range(1000):
        ...     updates, state = optimizer.update(x - jnp.array([3.0, 0.2]), state, x)
        ...     x = optax.apply_updates(x, updates)
        >>> x.round(1).tolist()  # the nearest point with entries within 1 / weight_decay
        [1.0, 0.2]
    """
    require("lion_k", learning_rate=learning_rate, b1=b1, b2=b2, weight_decay=weight_decay)
    along = jnp.sign if subgradient is None else as_function(subgradient, "subgradient")

    def direction(
        g: PyTree[Array], state: LionKState, t: Int[Array, ""]
    ) -> tuple[PyTree[Array], LionKState]:
        u = jax.tree.map(along, otu.update_moment(g, state.m, b1, 1))
        return u, LionKState(t, otu.update_moment(g, state.m, b2, 1))

    descent = descend(learning_rate, weight_decay, mask, decay)
    return optax.chain(scale_by(LionKState, direction), descent)
