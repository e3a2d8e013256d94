"""AdamP: Adam that does not lengthen weights whose length does not matter.

Heo, Chun, Oh, Han, Yun, Kim, Uh, Ha (2020), AdamP: Slowing Down the Slowdown for Momentum
Optimizers on Scale-invariant Weights.
"""

from __future__ import annotations

from typing import NamedTuple

import optax
import optax.tree as otu
from jaxtyping import Array, Int, PyTree

from ._core import Mask, quotient, require, scale_by
from .remove_radial import remove_radial


class AdamPState(NamedTuple):
    """Moving averages, in at least single precision whatever the gradients are in."""

    count: Int[Array, ""]
    m: PyTree[Array]  # of gradients
    v: PyTree[Array]  # of their squares


def adamp(
    learning_rate: float | optax.Schedule = 1e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    delta: float = 0.1,
    wd_ratio: float = 0.1,
    output_first: bool = True,
    mask: Mask = None,
) -> optax.GradientTransformationExtraArgs:
    """AdamW along the sphere for weights that the loss sees the direction of only (AdamP).

    With Adam's direction u, and r = wd_ratio where `remove_radial` changes it, else 1:

        x = x - learning_rate (remove_radial(u) + r weight_decay x)

    Args:
        learning_rate: at least 0, or a schedule of the step count.
        b1: decay rate of the mean of gradients, in [0, 1).
        b2: decay rate of the mean of squares, in [0, 1).
        eps: added to the denominator, at least 0.
        weight_decay: strength of the decay of weights, at least 0.
        delta: how near to orthogonal to the weights gradients must be, as in `remove_radial`.
        wd_ratio: the share of the decay where directions are changed, at least 0.
        output_first: whether leaves are stored as (outputs, inputs, ...), as by Equinox, or as
            (..., inputs, outputs), as by Flax.
        mask: which parameters decay: a prefix of their tree with True for those that do, or a
            function of the parameters that gives one; all by default.

    Returns:
        An Optax transformation; its `update` needs the parameters.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import raphson as rp
        >>> loss = lambda x: jnp.sum((x / jnp.linalg.norm(x) - jnp.array([[0.6, 0.8]])) ** 2)
        >>> optimizer = rp.train.adamp(optax.cosine_decay_schedule(0.2, 100))
        >>> x = jnp.array([[3.0, -2.0]])
        >>> state = optimizer.init(x)
        >>> for _ in range(100):
        ...     updates, state = optimizer.update(jax.grad(loss)(x), state, x)
        ...     x = optax.apply_updates(x, updates)
        >>> bool(loss(x) < 1e-4)
        True
    """
    require("adamp", learning_rate=learning_rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay)
    require("adamp", delta=delta, wd_ratio=wd_ratio)

    def direction(
        g: PyTree[Array], state: AdamPState, t: Int[Array, ""]
    ) -> tuple[PyTree[Array], AdamPState]:
        m = otu.update_moment(g, state.m, b1, 1)
        v = otu.update_moment(g, state.v, b2, 2)
        u = quotient(otu.bias_correction(m, b1, t), otu.bias_correction(v, b2, t), eps)
        return u, AdamPState(t, m, v)

    adam = scale_by(AdamPState, direction)
    return optax.chain(
        remove_radial(adam, weight_decay, delta, wd_ratio, output_first, mask),
        optax.scale_by_learning_rate(learning_rate),
    )
