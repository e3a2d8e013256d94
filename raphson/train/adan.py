"""Adan: adaptive steps along an estimate of Nesterov's momentum.

Xie, Zhou, Li, Lin, Yan (2022), Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing
Deep Models.
"""

from __future__ import annotations

from typing import NamedTuple

import optax
import optax.tree as otu
from jaxtyping import Array, Int, PyTree

from ..validate import require_number
from ._core import Mask, descend, quotient, require, scale_by


class AdanState(NamedTuple):
    """Moving averages, in at least single precision whatever the gradients are in."""

    count: Int[Array, ""]
    gradient: PyTree[Array]  # of the step before
    m: PyTree[Array]  # of gradients
    v: PyTree[Array]  # of their changes
    n: PyTree[Array]  # of the squares of extrapolated gradients


def adan(
    learning_rate: float | optax.Schedule = 1e-3,
    b1: float = 0.98,
    b2: float = 0.92,
    b3: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    max_grad_norm: float | None = None,
    no_prox: bool = False,
    mask: Mask = None,
) -> optax.GradientTransformationExtraArgs:
    """The adaptive Nesterov momentum algorithm (Adan).

    With the gradient g, its change d since the step before (0 at the first), and the parameters x:

        m = b1 m + (1 - b1) g
        v = b2 v + (1 - b2) d
        n = b3 n + (1 - b3) (g + b2 d)^2
        u = (m / (1 - b1^t) + b2 v / (1 - b2^t)) / (sqrt(n / (1 - b3^t)) + eps)
        x = (x - learning_rate u) / (1 + learning_rate weight_decay)

    This is the algorithm of the paper, whose beta_i are 1 - b_i, and of its authors' code. It is
    not `optax.adan`, which takes the same decay rates but weighs the changes by 1 - b2 where these
    have b2 (0.08 for 0.92), and decays weights as `no_prox` does. Its authors take learning rates 5
    to 10 times those of Adam.

    Args:
        learning_rate: at least 0, or a schedule of the step count.
        b1: decay rate of the mean of gradients, in [0, 1).
        b2: decay rate of the mean of changes, and how far gradients are extrapolated, in [0, 1).
        b3: decay rate of the mean of squares, in [0, 1).
        eps: added to the denominator, at least 0.
        weight_decay: strength of the decay of weights, at least 0.
        max_grad_norm: norm, over all parameters together, to which longer gradients are cut,
            positive; by default none are.
        no_prox: whether weights decay as AdamW's do, x - learning_rate (u + weight_decay x), rather
            than by the proximal step above.
        mask: which parameters decay: a prefix of their tree with True for those that do, or a
            function of the parameters that gives one; all by default.

    Returns:
        An Optax transformation; its `update` needs the parameters.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import raphson as rp
        >>> optimizer = rp.train.adan(learning_rate=0.2)
        >>> x = jnp.array([3.0, -2.0])
        >>> state = optimizer.init(x)
        >>> for _ in range(300):
        ...     updates, state = optimizer.update(2 * x, state, x)
        ...     x = optax.apply_updates(x, updates)
        >>> bool(jnp.all(jnp.abs(x) < 0.1))
        True
    """
    require(
        "adan", learning_rate=learning_rate, b1=b1, b2=b2, b3=b3, eps=eps, weight_decay=weight_decay
    )
    if max_grad_norm is not None:
        require_number(max_grad_norm, "`max_grad_norm` of adan", 0)

    def direction(
        g: PyTree[Array], state: AdanState, t: Int[Array, ""]
    ) -> tuple[PyTree[Array], AdanState]:
        d = otu.where(t == 1, otu.zeros_like(g), otu.sub(g, state.gradient))
        m = otu.update_moment(g, state.m, b1, 1)
        v = otu.update_moment(d, state.v, b2, 1)
        n = otu.update_moment(otu.add_scale(g, b2, d), state.n, b3, 2)
        numerator = otu.add_scale(otu.bias_correction(m, b1, t), b2, otu.bias_correction(v, b2, t))
        u = quotient(numerator, otu.bias_correction(n, b3, t), eps)
        return u, AdanState(t, g, m, v, n)

    return optax.chain(
        optax.identity() if max_grad_norm is None else optax.clip_by_global_norm(max_grad_norm),
        scale_by(AdanState, direction),
        descend(learning_rate, weight_decay, mask, "decoupled" if no_prox else "proximal"),
    )
