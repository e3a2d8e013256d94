"""Optimistic AMSGrad: a step ahead along the gradient that is predicted to come.

Wang, Li, Karimi, Li (2019), An Optimistic Acceleration of AMSGrad for Nonconvex Optimization.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.tree as otu
from jaxtyping import Array, Float, Int, PyTree

from ..validate import require_number, whole_number
from ._core import as_schedule, like, require, single


class OptimisticAMSGradState(NamedTuple):
    """Averages and what is ahead, in at least single precision whatever the gradients are in."""

    count: Int[Array, ""]
    m: PyTree[Array]  # of gradients
    v: PyTree[Array]  # of the squares of what was not predicted
    largest: PyTree[Array]  # v so far, entry by entry
    prediction: PyTree[Array]  # of the next gradient
    ahead: PyTree[Array]  # how far the parameters are from where they would be without it
    history: PyTree[Array]  # the last gradients, stacked, the newest last


def optimistic_amsgrad(
    learning_rate: float | optax.Schedule = 1e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    history: int = 5,
    reg: float = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """AMSGrad with a step ahead along the predicted gradient (OPT-AMSGrad).

    With the gradient g, its prediction p from the step before (0 at first), and w, where the
    parameters x would be without steps ahead:

        m = b1 m + (1 - b1) g
        v = b2 v + (1 - b2) (g - p)^2
        s = max(s, v), eps at first
        p = the prediction of the next gradient
        w = w - learning_rate m / sqrt(s)
        x = w - learning_rate (b1 m + (1 - b1) p) / sqrt(s)

    The prediction is what gradients tend to that come from a linear recurrence, by regularized
    extrapolation of the last ones: sum c_i g_i, with sum c_i = 1, for which sum c_i (g_i - g_i-1)
    is least. Until there are enough, and with a `history` of 1, it is the last gradient itself.

    This is not `optax.optimistic_adam_v2`, which extrapolates Adam's updates.

    Args:
        learning_rate: at least 0, or a schedule of the step count.
        b1: decay rate of the mean of gradients, in [0, 1).
        b2: decay rate of the mean of squares, in [0, 1).
        eps: what s is at least, positive.
        history: how many gradients are kept to predict the next, at least 1; a static argument of
            `optax.inject_hyperparams`.
        reg: regularization of the extrapolation, relative to the changes, positive.

    Returns:
        An Optax transformation.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import raphson as rp
        >>> optimizer = rp.train.optimistic_amsgrad(0.3)
        >>> x = jnp.array([3.0, -2.0])
        >>> state = optimizer.init(x)
        >>> for _ in range(100):
        ...     updates, state = optimizer.update(2 * x, state)
        ...     x = optax.apply_updates(x, updates)
        >>> bool(jnp.all(jnp.abs(x) < 0.1))
        True
    """
    require("optimistic_amsgrad", learning_rate=learning_rate, b1=b1, b2=b2)
    require_number(eps, "`eps` of optimistic_amsgrad", 0)
    require_number(reg, "`reg` of optimistic_amsgrad", 0)
    whole_number(history, "history", 1)
    rate = as_schedule(learning_rate)

    def init(params: PyTree[Array]) -> OptimisticAMSGradState:
        def zeros() -> PyTree[Array]:
            return jax.tree.map(jnp.zeros_like, single(params))

        past = jax.tree.map(lambda p: jnp.zeros((history, *p.shape), p.dtype), zeros())
        count = jnp.zeros((), jnp.int32)
        return OptimisticAMSGradState(count, zeros(), zeros(), zeros(), zeros(), zeros(), past)

    def update(
        updates: Any, state: Any, params: Any = None
    ) -> tuple[PyTree[Array], OptimisticAMSGradState]:
        g, t = single(updates), jnp.asarray(optax.safe_increment(state.count))
        m = otu.update_moment(g, state.m, b1, 1)
        v = otu.update_moment(otu.sub(g, state.prediction), state.v, b2, 2)
        largest = jax.tree.map(lambda s, v: jnp.maximum(jnp.maximum(s, v), eps), state.largest, v)
        past = jax.tree.map(lambda past, g: jnp.append(past[1:], g[None], axis=0), state.history, g)
        p = g if history == 1 else otu.where(t >= history, _limit(past, reg), g)

        def step(direction: PyTree[Array]) -> PyTree[Array]:
            return jax.tree.map(
                lambda u, s: -jnp.asarray(rate(state.count), u.dtype) * u / jnp.sqrt(s),
                direction,
                largest,
            )

        ahead = step(otu.add_scale(otu.scale(b1, m), 1 - b1, p))
        change = otu.add(otu.sub(step(m), state.ahead), ahead)
        return like(change, updates), OptimisticAMSGradState(t, m, v, largest, p, ahead, past)

    return optax.with_extra_args_support(optax.GradientTransformation(init, update))


def _limit(past: PyTree[Float[Array, "history ..."]], reg: Any) -> PyTree[Array]:
    """Where gradients go that come from a linear recurrence."""
    changes = [jnp.diff(leaf, axis=0) for leaf in jax.tree.leaves(past)]
    rows = jnp.concatenate([change.reshape(len(change), -1) for change in changes], axis=1)
    largest = jnp.max(jnp.abs(rows))
    rows = rows / jnp.where(largest > 0, largest, 1)  # whose squares neither overflow nor underflow
    gram = rows @ rows.T
    # What is below rounding would regularize nothing.
    reg = jnp.maximum(reg, 10 * jnp.finfo(gram.dtype).eps)
    reg = reg * jnp.where(largest > 0, jnp.trace(gram), 1)
    ones = jnp.ones(len(gram), gram.dtype)
    weights = jnp.linalg.solve(gram + reg * jnp.eye(len(gram), dtype=gram.dtype), ones)
    weights = weights / jnp.sum(weights)
    return jax.tree.map(lambda leaf: jnp.tensordot(weights.astype(leaf.dtype), leaf[1:], 1), past)
