"""The optimal brain surgeon: weights are taken out by what that costs, and the others adapt.

Frantar, Kurtic, Alistarh (2021), M-FAC: Efficient Matrix-Free Approximations of Second-Order
Information.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, Float, PyTree

from ..validate import require_number
from ._core import like, single
from .mfac import combined, gram_matrix, products, solved


def obs_scores(
    params: PyTree[Array], gradients: PyTree[Float[Array, "m ..."]], damping: float = 1e-5
) -> PyTree[Array]:
    """How much the loss rises, to the second order, when one parameter is taken out.

    With F = damping I + (1 / m) sum of g_i g_i' for the Hessian, that is w_j^2 / (2 (F^-1)_jj) for
    the parameter w_j, as the others make up for it. `magnitude_mask` of the scores keeps those that
    are largest.

    Args:
        params: the parameters, of a trained network.
        gradients: m gradients, of samples or batches, stacked along the first axis of each leaf.
        damping: positive.

    Returns:
        A tree like `params`, in at least single precision.

    Raises:
        ValueError: if `damping` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> gradients = jnp.array([[1.0, 0.0], [0.0, 3.0]])
        >>> rp.train.obs_scores(jnp.array([2.0, 1.0]), gradients, 0.5).round(3).tolist()
        [2.0, 2.5]
    """
    require_number(damping, "`damping` of obs_scores", 0)
    gradients = single(gradients)
    gram = gram_matrix(gradients)

    def score(w: Array, g: Array) -> Array:
        # Of F^-1 = (I - G' (m damping I + G G')^-1 G) / damping, the diagonal.
        rows = g.reshape(len(g), -1)
        share = 1 - jnp.sum(rows * solved(gram, damping, rows), axis=0)
        # What is below rounding is no more than its own error.
        share = jnp.maximum(share, jnp.finfo(share.dtype).eps)
        return w**2 * damping / (2 * share.reshape(w.shape))

    return jax.tree.map(score, single(params), gradients)


def obs_update(
    params: PyTree[Array],
    kept: PyTree[Array],
    gradients: PyTree[Float[Array, "m ..."]],
    damping: float = 1e-5,
) -> PyTree[Array]:
    """The parameters without those that are not kept, with the others changed to make up for them.

    The change of those kept is where the loss rises least, to the second order with the F of
    `obs_scores` for the Hessian, of all taken out together: with the columns K of the gradients G
    for those kept and P for the others,

        w_K + G_K' (m damping I + G_K G_K')^-1 G_P w_P.

    Args:
        params: the parameters, of a trained network.
        kept: a tree like `params` of booleans, as from `magnitude_mask`.
        gradients: m gradients, of samples or batches, stacked along the first axis of each leaf.
        damping: positive.

    Returns:
        A tree like `params`.

    Raises:
        ValueError: if `damping` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> params, kept = jnp.array([2.0, 1.0]), jnp.array([True, False])
        >>> rp.train.obs_update(params, kept, jnp.array([[1.0, 1.0]]), 1e-3).round(2).tolist()
        [3.0, 0.0]
    """
    require_number(damping, "`damping` of obs_update", 0)
    gradients, w = single(gradients), single(params)
    left = jax.tree.map(lambda keep, g: jnp.where(keep[None], g, 0), kept, gradients)
    out = jax.tree.map(lambda keep, w: jnp.where(keep, 0, w), kept, w)
    weights = solved(gram_matrix(left), damping, products(gradients, out))
    return like(otu.add(otu.sub(w, out), combined(left, weights)), params)
