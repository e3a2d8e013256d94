"""OASIS: the diagonal of the Hessian for a metric, and a step size from what the gradient does.

Jahani, Rusakov, Shi, Richtárik, Mahoney, Takáč (2021), Doubly Adaptive Scaled Algorithm for Machine
Learning Using Second-Order Information.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.tree as otu
from jaxtyping import Array, Float, Int, PyTree

from ..validate import require_number, whole_number
from ._core import as_key, as_schedule, like, require, require_given, single
from ._hutchinson import drawn_diagonal


class OasisState(NamedTuple):
    """Two copies of the parameters, in at least single precision whatever these are in."""

    count: Int[Array, ""]
    d: PyTree[Array]  # the mean of draws of the Hessian's diagonal
    before: PyTree[Array]  # the parameters of the step before; () at a fixed rate
    rate: Float[Array, ""]
    growth: Float[Array, ""]  # of the rate in the step before


def oasis(
    initial_rate: float = 1e-3,
    b2: float = 0.999,
    alpha: float = 1e-3,
    samples: int = 100,
    learning_rate: float | optax.Schedule | None = None,
    key: Array | None = None,
) -> optax.GradientTransformationExtraArgs:
    """OASIS, gradient steps in a metric of curvature that choose their length themselves.

    With the gradient g and the Hessian H of the batch at the parameters x, random signs z, the
    gradient of the same batch at the parameters w of the step before, and B = max(|D|, alpha):

        D = b2 D + (1 - b2) z * (H z)
        r = min(sqrt(1 + growth) r, |x - w|_B / (2 |g(x) - g(w)|_1/B))
        x = x - r g / B

    where |u|_B^2 is the sum of B u^2 and growth the last r over the one before it, infinite at
    first. A step costs one product with H and a second gradient. Bad scales of the parameters slow
    it less than they slow gradient descent, but do slow it: the noise of z * (H z) in one entry is
    that of all others.

    Where `learning_rate` is given it is r, and no second gradient is taken. Momentum is then
    Optax's before it: `optax.chain(optax.ema(0.9), oasis(learning_rate=0.1))`.

    Args:
        initial_rate: the r of the first step, positive; better too small than too large.
        b2: decay rate of the mean of draws, in [0, 1).
        alpha: least entry of the metric, positive: small beside the curvatures that matter.
        samples: how many draws the first D is the mean of, at least 1. A static argument of
            `optax.inject_hyperparams`.
        learning_rate: a fixed r, at least 0, or a schedule of the step count; none by default.
        key: random key of the signs; by default that of seed 0.

    Returns:
        An Optax transformation; its `update` needs the parameters and `value_fn`, the loss of the
        same batch as a function of the parameters.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import raphson as rp
        >>> loss = lambda x: 500 * x[0] ** 2 + x[1] ** 2
        >>> optimizer = rp.train.oasis()
        >>> @jax.jit
        ... def step(x, state):
        ...     updates, state = optimizer.update(jax.grad(loss)(x), state, x, value_fn=loss)
        ...     return optax.apply_updates(x, updates), state
        >>> x = jnp.array([3.0, -2.0])
        >>> state = optimizer.init(x)
        >>> for _ in range(20):
        ...     x, state = step(x, state)
        >>> bool(jnp.all(jnp.abs(x) < 1e-3))
        True
    """
    require_number(initial_rate, "`initial_rate` of oasis", 0)
    require_number(b2, "`b2` of oasis", 0, 1, closed="left")
    require_number(alpha, "`alpha` of oasis", 0)
    whole_number(samples, "samples", 1)
    if learning_rate is not None:
        require("oasis", learning_rate=learning_rate)
    signs = as_key(key)

    def init(params: PyTree[Array]) -> OasisState:
        d, before = (jax.tree.map(jnp.zeros_like, single(params)) for _ in range(2))
        dtype = jnp.result_type(*jax.tree.leaves(d))
        rate, growth = jnp.asarray(initial_rate, dtype), jnp.asarray(jnp.inf, dtype)
        before = before if learning_rate is None else ()
        return OasisState(jnp.zeros((), jnp.int32), d, before, rate, growth)

    def found(x: Any, state: OasisState, metric: Any, turned: Any) -> tuple[Array, Array]:
        moved = otu.sub(x, state.before)
        length = jnp.sqrt(otu.sum(jax.tree.map(lambda b, u: b * u**2, metric, moved)))
        turn = jnp.sqrt(otu.sum(jax.tree.map(lambda b, u: u**2 / b, metric, turned)))
        longest = jnp.sqrt(1 + state.growth) * state.rate
        bound = jnp.where(turn > 0, length / (2 * jnp.where(turn > 0, turn, 1)), jnp.inf)
        new = jnp.minimum(longest, bound)
        # Where the parameters rested, or no gradient has turned yet, there is nothing to learn.
        learned = (state.count > 0) & (length > 0) & jnp.isfinite(new)
        rate = jnp.where(learned, new, state.rate)
        return rate, jnp.where(learned, rate / state.rate, state.growth)

    def update(
        updates: Any, state: Any, params: Any = None, *, value_fn: Any = None, **_: Any
    ) -> tuple[PyTree[Array], OasisState]:
        require_given("oasis", params=params, value_fn=value_fn)
        g, x, t = single(updates), single(params), jnp.asarray(optax.safe_increment(state.count))
        first, here = t == 1, jax.random.fold_in(signs, state.count)
        draws = jnp.where(first, samples, 1)

        def add_draw(index: Array, total: PyTree[Array]) -> PyTree[Array]:
            return otu.add(total, drawn_diagonal(jax.random.fold_in(here, index), value_fn, params))

        drawn = jax.lax.fori_loop(0, draws, add_draw, otu.zeros_like(x))
        drawn = otu.scale(1 / draws.astype(state.rate.dtype), drawn)
        d = otu.where(first, drawn, otu.update_moment(drawn, state.d, b2, 1))
        metric = jax.tree.map(lambda d: jnp.maximum(jnp.abs(d), alpha), d)

        if learning_rate is None:
            turned = otu.sub(g, single(jax.grad(value_fn)(like(state.before, params))))
            (rate, growth), before = found(x, state, metric, turned), x
        else:
            rate = jnp.asarray(as_schedule(learning_rate)(state.count), state.rate.dtype)
            growth, before = state.growth, ()
        u = jax.tree.map(lambda g, b: -rate * g / b, g, metric)
        return like(u, updates), OasisState(t, d, before, rate, growth)

    return optax.GradientTransformationExtraArgs(init, update)
