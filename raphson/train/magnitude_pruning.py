"""Global magnitude pruning: the weights that are smallest in the whole network are taken out.

Gupta, Camci, Keneta, Vaidyanathan, Kanodia, Foo, Wu, Lin (2022), Is Complexity Required for Neural
Network Pruning? A Case Study on Global Magnitude Pruning.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from ..validate import require_number, whole_number
from ._core import single

Prunable = PyTree[bool] | Callable[[PyTree], PyTree[bool]] | None


def magnitude_mask(
    params: PyTree[Array],
    sparsity: float,
    least_kept: int = 0,
    prunable: Prunable = None,
) -> PyTree[Array]:
    """Which parameters are left when the smallest of all prunable leaves together are taken out.

    Of N prunable entries, round((1 - sparsity) N) are kept: first the `least_kept` largest of each
    leaf, all of them if they are more, then those with the largest absolute values wherever they
    are, of equal ones the first. Without the floor, at high sparsity, a whole layer, and with it
    the network, can be cut off.

    Args:
        params: the parameters.
        sparsity: which share to take out, in [0, 1].
        least_kept: how many entries each leaf keeps at least, all if it has fewer; the paper's
            minimum threshold.
        prunable: which leaves are, a prefix of their tree with True for those that are, or a
            function of the parameters that gives one; by default those with two axes or more.

    Returns:
        A tree like `params` of arrays of booleans, True for what is kept.

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> params = {"w": jnp.array([[3.0, -0.1], [0.5, -2.0]]), "b": jnp.zeros(2)}
        >>> mask = rp.train.magnitude_mask(params, 0.5)
        >>> mask["w"].tolist(), mask["b"].tolist()
        ([[True, False], [False, True]], [True, True])
    """
    require_number(sparsity, "`sparsity` of magnitude_mask", 0, 1, closed="both")
    whole_number(least_kept, "least_kept")
    chosen = prunable(params) if callable(prunable) else prunable
    if chosen is None:
        chosen = jax.tree.map(lambda leaf: jnp.ndim(leaf) > 1, params)
    leaves, treedef = jax.tree.flatten(params)
    chosen = jax.tree.leaves(jax.tree.broadcast(chosen, params))

    sizes = [jnp.abs(single(leaf)).ravel() for leaf, is_chosen in zip(leaves, chosen) if is_chosen]
    floors = [_rank(size) < least_kept for size in sizes]
    floor = jnp.concatenate([*floors, jnp.zeros(0, bool)])
    pooled = jnp.where(floor, jnp.inf, jnp.concatenate([*sizes, jnp.zeros(0)]))
    kept = floor | (_rank(pooled) < jnp.round((1 - sparsity) * pooled.size))
    parts = iter(jnp.split(kept, np.cumsum([size.size for size in sizes])[:-1]))
    masks = [
        next(parts).reshape(leaf.shape) if is_chosen else jnp.ones(jnp.shape(leaf), bool)
        for leaf, is_chosen in zip(leaves, chosen)
    ]
    return treedef.unflatten(masks)


class MagnitudePruningState(NamedTuple):
    """What is kept, and the state of the optimizer within."""

    count: Int[Array, ""]
    mask: PyTree[Array]
    inner: Any


def magnitude_pruning(
    inner: optax.GradientTransformation,
    sparsity: float | optax.Schedule,
    every: int = 1,
    least_kept: int = 0,
    prunable: Prunable = None,
) -> optax.GradientTransformationExtraArgs:
    """Any optimizer on a network whose smallest weights are taken out, by `magnitude_mask`.

    What is taken out is 0 from the next update on, whatever the inner optimizer remembers; and as
    nothing is smaller, it stays so while the sparsity does not fall. One number prunes at the first
    update, for training what is left; the usual gradual way is cubic in the step count t from t_0
    on, s_f + (s_i - s_f) (1 - (t - t_0) / n)^3, which is
    `optax.polynomial_schedule(s_i, s_f, 3, n, t_0)`.

    Args:
        inner: the optimizer; it sees no gradient of what is taken out.
        sparsity: which share of all prunable entries to take out, in [0, 1], or a schedule of the
            step count.
        every: how many steps share a mask, at least 1.
        least_kept: how many entries each leaf keeps at least, all if it has fewer; the paper's
            minimum threshold.
        prunable: which leaves are, as in `magnitude_mask`.

    Returns:
        An Optax transformation; its `update` needs the parameters. Its state holds the `mask`.

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import raphson as rp
        >>> optimizer = rp.train.magnitude_pruning(optax.sgd(0.1), sparsity=0.5)
        >>> x = jnp.array([[3.0, -0.1], [0.5, -2.0]])
        >>> updates, state = optimizer.update(x, optimizer.init(x), x)
        >>> optax.apply_updates(x, updates).round(2).tolist()
        [[2.7, 0.0], [0.0, -1.8]]
    """
    if not callable(sparsity):
        require_number(sparsity, "`sparsity` of magnitude_pruning", 0, 1, closed="both")
    whole_number(every, "every", 1)
    whole_number(least_kept, "least_kept")
    inner = optax.with_extra_args_support(inner)

    def init(params: PyTree[Array]) -> MagnitudePruningState:
        mask = jax.tree.map(lambda leaf: jnp.ones(jnp.shape(leaf), bool), params)
        return MagnitudePruningState(jnp.zeros((), jnp.int32), mask, inner.init(params))

    def update(
        updates: Any, state: Any, params: Any = None, **extra: Any
    ) -> tuple[PyTree[Array], MagnitudePruningState]:
        share: Any = sparsity(state.count) if callable(sparsity) else sparsity
        mask = jax.lax.cond(
            state.count % every == 0,
            lambda: magnitude_mask(params, share, least_kept, prunable),
            lambda: state.mask,
        )
        gradient = jax.tree.map(lambda keep, g: jnp.where(keep, g, 0), mask, updates)
        updates, within = inner.update(gradient, state.inner, params, **extra)
        updates = jax.tree.map(
            lambda keep, u, x: jnp.where(keep, u, -x.astype(u.dtype)), mask, updates, params
        )
        count = jnp.asarray(optax.safe_increment(state.count))
        return updates, MagnitudePruningState(count, mask, within)

    return optax.GradientTransformationExtraArgs(init, update)


def _rank(sizes: Float[Array, " n"]) -> Int[Array, " n"]:
    """The place of each entry from the largest on; of equal ones the first comes before."""
    order = jnp.argsort(-sizes, stable=True)
    return jnp.zeros_like(order).at[order].set(jnp.arange(order.size))
