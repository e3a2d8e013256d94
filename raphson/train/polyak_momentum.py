"""Momentum whose learning rate comes from how far the loss of the batch is above its least value.

Wang, Johansson, Zhang (2023), Generalized Polyak Step Size for First Order Optimization with
Momentum.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import jax.numpy as jnp
import optax
import optax.tree as otu
from jaxtyping import Array, Int, PyTree

from ..validate import require_number
from ._core import as_schedule, like, require, require_given, single

Kind = Literal["moving_average", "heavy_ball"]


class PolyakMomentumState(NamedTuple):
    """The last direction or update, in at least single precision whatever the gradients are in."""

    count: Int[Array, ""]
    memory: PyTree[Array]


def polyak_momentum(
    learning_rate: float | optax.Schedule = 1.0,
    momentum: float = 0.9,
    kind: Kind = "moving_average",
    f_star: float = 0.0,
    c: float = 1.0,
) -> optax.GradientTransformationExtraArgs:
    """Polyak's step size with momentum m on batches, S-MAG and S-HB.

    With the loss f of the batch and its gradient g, by `kind`,

    - `"moving_average"`: d = g + m d, eta = (f - f_star) / (c |d|^2), x = x - eta d;
    - `"heavy_ball"`: p = m p - eta g, eta = (f - f_star + m <g, p>) / (c |g|^2), x = x + p;

    where eta is at least 0 and at most `learning_rate`. On convex losses of which one x minimizes
    all, the first never moves away from such an x if c >= 1; the second may. `PolyakMomentum` is
    the method on all data.

    Args:
        learning_rate: the greatest eta, at least 0, or a schedule of the step count.
        momentum: m, in [0, 1).
        kind: `"moving_average"` or `"heavy_ball"`.
        f_star: the least value of the loss of a batch, 0 where a model can fit all of them.
        c: positive; greater for losses whose noise is to be trusted less.

    Returns:
        An Optax transformation; its `update` needs `value`, the loss.

    Raises:
        ValueError: if a hyperparameter is outside its range, or there is no such kind.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> loss = lambda x: (x[0] - 1) ** 2 + 20 * (x[0] + x[1]) ** 2
        >>> optimizer = rp.train.polyak_momentum()
        >>> @jax.jit
        ... def step(x, state):
        ...     value, g = jax.value_and_grad(loss)(x)
        ...     updates, state = optimizer.update(g, state, x, value=value)
        ...     return x + updates, state
        >>> x = jnp.zeros(2)
        >>> state = optimizer.init(x)
        >>> for _ in range(200):
        ...     x, state = step(x, state)
        >>> bool(loss(x) < 1e-3)
        True
    """
    require("polyak_momentum", learning_rate=learning_rate, momentum=momentum)
    require_number(f_star, "`f_star` of polyak_momentum")
    require_number(c, "`c` of polyak_momentum", 0)
    if kind not in get_args(Kind):
        listed = ", ".join(map(repr, get_args(Kind)))
        raise ValueError(f"`kind` of polyak_momentum must be one of {listed}, got {kind!r}.")
    greatest = as_schedule(learning_rate)

    def init(params: PyTree[Array]) -> PolyakMomentumState:
        return PolyakMomentumState(jnp.zeros((), jnp.int32), otu.zeros_like(single(params)))

    def update(
        updates: Any, state: Any, params: Any = None, *, value: Any = None, **_: Any
    ) -> tuple[PyTree[Array], PolyakMomentumState]:
        require_given("polyak_momentum", value=value)
        g, kept = single(updates), otu.scale(momentum, state.memory)
        d = g if kind == "heavy_ball" else otu.add(g, kept)
        square = jnp.asarray(otu.norm(d, squared=True))
        bound = jnp.asarray(value, square.dtype) - f_star
        if kind == "heavy_ball":
            bound = bound + otu.vdot(g, kept)
        # Where there is no direction there is no step.
        eta = jnp.maximum(bound, 0) / (c * jnp.where(square > 0, square, jnp.inf))
        step = otu.scale(-jnp.minimum(eta, greatest(state.count)), d)
        step = otu.add(kept, step) if kind == "heavy_ball" else step
        count = jnp.asarray(optax.safe_increment(state.count))
        memory = step if kind == "heavy_ball" else d
        return like(step, updates), PolyakMomentumState(count, memory)

    return optax.GradientTransformationExtraArgs(init, update)
