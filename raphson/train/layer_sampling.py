"""Layer sampling: an optimizer that trains a few layers at a time and remembers only of these.

Pan, Liu, Diao, Pi, Zhang, Han, Zhang (2024), LISA: Layerwise Importance Sampling for
Memory-Efficient Large Language Model Fine-Tuning.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from ..validate import whole_number
from ._core import as_key, require_given


class LayerSamplingState(NamedTuple):
    count: Int[Array, ""]
    inner: PyTree[Array]  # of the layers that are trained


def layer_sampling(
    inner: optax.GradientTransformation, layers: int, period: int, key: Array | None = None
) -> optax.GradientTransformation:
    """Train a random set of layers for a period, then another; all others rest.

    Layers are what the leading axis of each parameter counts, as it does where a network is a scan.
    The state of the inner optimizer is that of the chosen layers only, begun anew with each set:
    of 2 of 24 layers, Adam remembers a twelfth. Copies of one network that have the same `key`
    and count train the same layers. Layers that are always trained take their own optimizer by
    `optax.partition`.

    Args:
        inner: the optimizer of the layers that are trained.
        layers: how many these are, at least 1.
        period: how many steps, at least 1.
        key: of the draws; the one of seed 0 by default.

    Returns:
        An Optax transformation, whose update takes the parameters.

    Raises:
        ValueError: if an argument is unfit, or the parameters have fewer layers or differ in them.

    Example:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import raphson as rp
        >>> optimizer = rp.train.layer_sampling(optax.adam(0.1), layers=1, period=5)
        >>> x = jnp.ones((4, 100))
        >>> state = optimizer.init(x)
        >>> updates, state = optimizer.update(x, state, x)
        >>> int(jnp.sum(jnp.any(updates != 0, axis=1))), state.inner[0].mu.shape
        (1, (1, 100))
    """
    whole_number(layers, "layers", 1)
    whole_number(period, "period", 1)
    key = as_key(key)

    def chosen(params: PyTree[Array], count: Any) -> Int[Array, " layers"]:
        held = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(params)}
        if len(held) != 1 or held == {()} or min(held) < (layers,):
            raise ValueError(
                "`params` of layer_sampling must have one number of layers, the length of their "
                f"leading axis, and at least {layers}, got {sorted(held)}."
            )
        ((number,),) = held
        return jax.random.permutation(jax.random.fold_in(key, count // period), number)[:layers]

    def taken(tree: PyTree[Array], rows: Array) -> PyTree[Array]:
        return jax.tree.map(lambda leaf: leaf[rows], tree)

    def init(params: PyTree[Array]) -> LayerSamplingState:
        return LayerSamplingState(
            jnp.zeros((), jnp.int32), inner.init(taken(params, chosen(params, 0)))
        )

    def update(
        updates: Any, state: Any, params: Any = None
    ) -> tuple[PyTree[Array], LayerSamplingState]:
        require_given("layer_sampling", params=params)
        rows = chosen(params, state.count)
        x, g = taken(params, rows), taken(updates, rows)
        own = jax.lax.cond(state.count % period == 0, lambda: inner.init(x), lambda: state.inner)
        moves, own = inner.update(g, own, x)
        updates = jax.tree.map(lambda g, u: jnp.zeros_like(g).at[rows].set(u), updates, moves)
        return updates, LayerSamplingState(jnp.asarray(optax.safe_increment(state.count)), own)

    return optax.GradientTransformation(init, update)
