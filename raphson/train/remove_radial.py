"""Steps along the sphere: without what only lengthens weights whose length does not matter.

Heo, Chun, Oh, Han, Yun, Kim, Uh, Ha (2020), AdamP: Slowing Down the Slowdown for Momentum
Optimizers on Scale-invariant Weights.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, PyTree

from ._core import Mask, like, require, require_given, single, spread
from ._polar import from_matrix_view, matrix_view


def remove_radial(
    inner: optax.GradientTransformation,
    weight_decay: float = 0.0,
    delta: float = 0.1,
    wd_ratio: float = 0.1,
    output_first: bool = True,
    mask: Mask = None,
) -> optax.GradientTransformationExtraArgs:
    """Directions without their part along the weights, where the loss does not see that.

    Before a normalization the length of the weights x of a channel, or of a layer, does not matter,
    and their gradient g is orthogonal to them. Momentum is not, and lengthens them for nothing but
    shorter effective steps. With the directions u of `inner` and n entries in a row,

        u - (u, x) x / (x, x)  in each row, if |cos(g, x)| < delta / sqrt(n) in all rows,

    where the rows of a kernel are first its output channels, then, if these do not pass, all of it
    is one row. Leaves with fewer than two axes stay. Then weight_decay x is added, times wd_ratio
    where directions were changed. Lengths count as at least 3e-16 in single precision, 1e-146 in
    double, where those of the authors' code count as at least 1e-8.

    Args:
        inner: a transformation of gradients to directions, without a learning rate.
        weight_decay: strength of the decay of weights, at least 0.
        delta: how near to orthogonal gradients must be, at least 0, where 0 changes nothing.
        wd_ratio: the share of the decay where directions are changed, at least 0.
        output_first: whether leaves are stored as (outputs, inputs, ...), as by Equinox, or as
            (..., inputs, outputs), as by Flax.
        mask: which parameters decay: a prefix of their tree with True for those that do, or a
            function of the parameters that gives one; all by default.

    Returns:
        An Optax transformation; its `update` needs the parameters.

    Raises:
        ValueError: if a number is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import raphson as rp
        >>> transformation = rp.train.remove_radial(optax.trace(0.9))
        >>> x = jnp.array([[3.0, 4.0]])
        >>> state = transformation.init(x)
        >>> updates, state = transformation.update(jnp.array([[-4.0, 3.0]]), state, x)
        >>> updates, state = transformation.update(jnp.array([[-4.0, 3.0]]), state, 2 * x)
        >>> updates.round(2).tolist()
        [[-7.6, 5.7]]
    """
    require("remove_radial", weight_decay=weight_decay, delta=delta, wd_ratio=wd_ratio)
    inner = optax.with_extra_args_support(inner)

    def update(
        updates: Any, state: Any, params: Any = None, **extra: Any
    ) -> tuple[PyTree[Array], Any]:
        require_given("remove_radial", params=params)
        directions, state = inner.update(updates, state, params, **extra)

        def direction(u: Array, g: Array, x: Array, decays: bool) -> Array:
            u, changed = _tangential(u, g, x, delta, output_first)
            return u + decays * weight_decay * jnp.where(changed, wd_ratio, 1) * x

        leaves = single(directions), single(updates), single(params), spread(mask, params)
        return like(jax.tree.map(direction, *leaves), directions), state

    return optax.GradientTransformationExtraArgs(inner.init, update)


def _tangential(
    u: Array, g: Array, x: Array, delta: Any, output_first: bool
) -> tuple[Array, Bool[Array, ""]]:
    """u as the loss sees it, and whether that is another."""
    if jnp.ndim(x) < 2:
        return u, jnp.array(False)

    # Barriers keep XLA from storing products: the squares of g, which Adam takes too, and all that
    # it would sum once by rows and once as a whole.
    g = jax.lax.optimization_barrier(g)
    u_rows, g_rows, x_rows = (matrix_view(leaf, output_first) for leaf in (u, g, x))
    pairs = (g_rows, x_rows), (g_rows, g_rows), (x_rows, x_rows), (u_rows, x_rows)
    by_row = jax.lax.optimization_barrier([jnp.sum(a * b, axis=1) for a, b in pairs])
    least = jnp.finfo(x.dtype).tiny / jnp.finfo(x.dtype).eps  # below, squares underflow

    def radial(gx: Array, gg: Array, xx: Array, ux: Array, n: int) -> tuple[Array, Bool[Array, ""]]:
        gg, xx = jnp.maximum(gg, least), jnp.maximum(xx, least)
        cosines = jnp.abs(gx) / (jnp.sqrt(gg) * jnp.sqrt(xx))
        return ux / xx, jnp.max(cosines) < delta / n**0.5

    of_rows, each = radial(*by_row, n=x_rows.shape[1])
    of_all, whole = radial(*(jnp.sum(sums) for sums in by_row), n=x_rows.size)
    tangential = u_rows - jnp.where(each, of_rows, of_all)[:, None] * x_rows
    changed = each | whole
    return jnp.where(changed, from_matrix_view(tangential, x, output_first), u), changed
