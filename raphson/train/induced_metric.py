"""The induced metric: steps along the graph of the loss, short where it is steep.

Harvey (2025), The Optimiser Hidden in Plain Sight: Training with the Loss Landscape's Induced
Metric.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import jax.numpy as jnp
import optax
import optax.tree as otu
from jaxtyping import Array, Float, Int, PyTree

from ._core import Mask, descend, like, quotient, require, require_given, single

Variant = Literal["plain", "log", "rms"]


class InducedMetricState(NamedTuple):
    """Moving averages, in at least single precision whatever the gradients are in."""

    count: Int[Array, ""]
    m: PyTree[Array]  # of gradients
    n: PyTree[Array]  # of their squares, None where nothing is divided by them
    q: Float[Array, ""]  # of the squared slope of the graph


def induced_metric(
    learning_rate: float | optax.Schedule = 0.1,
    momentum: float = 0.9,
    b2: float = 0.8,
    b3: float = 0.99,
    xi: float = 0.1,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    variant: Variant = "plain",
    mask: Mask = None,
) -> optax.GradientTransformationExtraArgs:
    """Momentum in the metric of the graph of the loss.

    The graph of sqrt(xi) f over the parameters has the metric I + xi g g', in which the direction
    of steepest descent is g / (1 + xi |g|^2): gradients are clipped smoothly, and no step is longer
    than learning_rate / (2 sqrt(xi)). With averages of both:

        m = momentum m + (1 - momentum) g
        q = b2 q + (1 - b2) xi |g|^2
        x = x - learning_rate (c m / (1 - momentum^t) + weight_decay x)
        c = 1 / (1 + q / (1 - b2^t))

    log: descends log(f) on its graph, with c = f / (f^2 + q / (1 - b2^t)) for f > 0, else 0.

    rms: in the metric P + xi g g', with P = diag(sqrt(n / (1 - b3^t)) + eps) and n the average of
    g^2 with the rate b3, m is divided by P, and g' P^-1 g stands for |g|^2.

    Args:
        learning_rate: at least 0, or a schedule of the step count.
        momentum: decay rate of the mean of gradients, in [0, 1).
        b2: decay rate of the mean of slopes, in [0, 1).
        b3: decay rate of the mean of squares, in [0, 1); for rms.
        xi: how much height counts beside length, at least 0, where 0 is momentum alone; in the
            units of (parameters / loss)^2, but of parameters^2 for log.
        eps: added to the denominator, at least 0; for rms.
        weight_decay: strength of the decay of weights, at least 0.
        variant: `"plain"`, `"log"` or `"rms"`.
        mask: which parameters decay: a prefix of their tree with True for those that do, or a
            function of the parameters that gives one; all by default.

    Returns:
        An Optax transformation; its `update` needs the parameters, and for log `value`, the loss.

    Raises:
        ValueError: if a hyperparameter is outside its range, or an argument of the update missing.

    Example:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import raphson as rp
        >>> optimizer = rp.train.induced_metric(learning_rate=0.2)
        >>> x = jnp.array([3.0, -2.0])
        >>> state = optimizer.init(x)
        >>> for _ in range(200):
        ...     updates, state = optimizer.update(2 * x, state, x)
        ...     x = optax.apply_updates(x, updates)
        >>> bool(jnp.all(jnp.abs(x) < 0.1))
        True
    """
    require("induced_metric", learning_rate=learning_rate, momentum=momentum, b2=b2, b3=b3)
    require("induced_metric", xi=xi, eps=eps, weight_decay=weight_decay)
    if variant not in get_args(Variant):
        listed = ", ".join(map(repr, get_args(Variant)))
        raise ValueError(f"`variant` must be one of {listed}, got {variant!r}.")

    def init(params: PyTree[Array]) -> InducedMetricState:
        m, n = (otu.zeros_like(single(params)) for _ in range(2))
        slope = jnp.asarray(otu.norm(m, squared=True))
        n = n if variant == "rms" else None
        return InducedMetricState(jnp.zeros((), jnp.int32), m, n, slope)

    def update(
        updates: Any, state: Any, params: Any = None, *, value: Any = None, **_: Any
    ) -> tuple[PyTree[Array], InducedMetricState]:
        if variant == "log":
            require_given("induced_metric", value=value)
        g, t = single(updates), jnp.asarray(optax.safe_increment(state.count))
        m, n = otu.update_moment(g, state.m, momentum, 1), state.n
        u, raised = otu.bias_correction(m, momentum, t), g
        if variant == "rms":
            n = otu.update_moment(g, n, b3, 2)
            corrected = otu.bias_correction(n, b3, t)
            u, raised = quotient(u, corrected, eps), quotient(g, corrected, eps)
        q = b2 * state.q + (1 - b2) * xi * otu.vdot(g, raised)
        slope = q / (1 - b2 ** t.astype(q.dtype))
        if variant == "log":
            f = jnp.where(value > 0, value, 1)  # not by f^2, which may underflow
            c = jnp.where(value > 0, 1 / (f + slope / f), 0)
        else:
            c = 1 / (1 + slope)
        return like(otu.scale(c, u), updates), InducedMetricState(t, m, n, q)

    return optax.chain(
        optax.GradientTransformationExtraArgs(init, update),
        descend(learning_rate, weight_decay, mask),
    )
