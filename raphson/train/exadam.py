"""EXAdam: Adam whose bias corrections regard each other's moment, and the gradient beside its mean.

Adly (2024), EXAdam: The Power of Adaptive Cross-Moments.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import optax
import optax.tree as otu
from jaxtyping import Array, Int, PyTree

from ._core import Decay, Mask, descend, quotient, require, scale_by


class EXAdamState(NamedTuple):
    """Moving averages, in at least single precision whatever the gradients are in."""

    count: Int[Array, ""]
    m: PyTree[Array]  # of gradients
    v: PyTree[Array]  # of their squares


def exadam(
    learning_rate: float | optax.Schedule = 1e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    mask: Mask = None,
    decay: Decay = "decoupled",
) -> optax.GradientTransformationExtraArgs:
    """Adam with corrections across its moments and with the gradient itself (EXAdam).

    With the gradient g and the parameters x:

        m = b1 m + (1 - b1) g
        v = b2 v + (1 - b2) g^2
        c = 1 + b2^t v / (v + eps)
        d = 1 + b1^t m^2 / (m^2 + eps)
        u = c (m + g) / (1 - b1^t) / (sqrt(d v / (1 - b2^t)) + eps)
        x = x - learning_rate (u + weight_decay x)

    Late, c and d are 1 and u is Adam's direction plus the gradient divided as its mean is. Before,
    for some 1 / (1 - b2) steps, c makes this up to twice as long: where gradients agree, steps are
    four learning rates long, the first even 16. Since v and m^2 are held against eps, steps depend
    on the scale of gradients, as Adam's do not.

    This is the algorithm of the authors' code. The paper's first version grows the learning rate by
    log(sqrt(2) sqrt(t + 1)) besides, which a schedule can do.

    Args:
        learning_rate: at least 0, or a schedule of the step count.
        b1: decay rate of the mean of gradients, in [0, 1).
        b2: decay rate of the mean of squares, in [0, 1).
        eps: added to the denominator, and what v and m^2 are held against; at least 0, where 0
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
        >>> optimizer = rp.train.exadam(optax.cosine_decay_schedule(0.2, 100))
        >>> x = jnp.array([3.0, -2.0])
        >>> state = optimizer.init(x)
        >>> for _ in range(100):
        ...     updates, state = optimizer.update(2 * x, state, x)
        ...     x = optax.apply_updates(x, updates)
        >>> bool(jnp.all(jnp.abs(x) < 0.1))
        True
    """
    require("exadam", learning_rate=learning_rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay)

    def direction(
        g: PyTree[Array], state: EXAdamState, t: Int[Array, ""]
    ) -> tuple[PyTree[Array], EXAdamState]:
        m = otu.update_moment(g, state.m, b1, 1)
        v = otu.update_moment(g, state.v, b2, 2)
        c = jax.tree.map(lambda v: 1 + b2**t * v / (v + eps), v)
        d = jax.tree.map(lambda m: 1 + b1**t * m**2 / (m**2 + eps), m)
        first = otu.bias_correction(otu.mul(c, otu.add(m, g)), b1, t)
        second = otu.bias_correction(otu.mul(d, v), b2, t)
        return quotient(first, second, eps), EXAdamState(t, m, v)

    return optax.chain(
        scale_by(EXAdamState, direction), descend(learning_rate, weight_decay, mask, decay)
    )
