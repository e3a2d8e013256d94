"""Adaptive batch sizes: as many samples as the gradient still stands out from their noise.

Lau, Liu, Kolar (2024), AdAdaGrad: Adaptive Batch Size Schemes for Adaptive Gradient Methods.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from ..validate import require_number, whole_number
from ._core import single


def norm_test(
    gradients: PyTree[Array], eta: float, samples: int = 1, limit: int = 2**30
) -> Int[Array, ""]:
    """The next batch size, for a relative error of the gradient of at most eta.

    With the mean g of the gradients of b samples and their variance V_j in each entry,

        max(b, ceil(sum_j V_j / (eta^2 |g|^2)))

    which is b where the test sum_j V_j / b <= eta^2 |g|^2 holds. Each size is a shape to compile:
    rounded up to a power of two, or to a whole number of batches to accumulate, they stay few.

    Args:
        gradients: of each sample, as by `jax.vmap(jax.grad(loss), (None, 0))`: a PyTree whose
            leaves count them along the first axis; or of each shard of a batch, its mean. At least
            two.
        eta: the relative error, positive; the paper's theory needs less than 1.
        samples: how many samples each of the gradients is the mean of.
        limit: the largest size to return, below 2**31, such as for a gradient of 0.

    Returns:
        The size, a whole number, safe under `jit` and `vmap`.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> gradients = jnp.array([[3.0, 4.0], [1.0, 0.0]])
        >>> int(rp.train.norm_test(gradients, eta=0.5)), int(rp.train.norm_test(gradients, 2.0))
        (5, 2)
    """
    rows, variances, mean = _moments("norm_test", gradients, eta, samples)
    bound = eta**2 * jnp.sum(mean**2)
    return _next_size(samples * len(rows), jnp.sum(variances), bound, limit)


def coordinate_test(
    gradients: PyTree[Array], eta: float, samples: int = 1, limit: int = 2**30
) -> Int[Array, ""]:
    """The next batch size, for a relative error of each entry of the gradient of at most eta.

    As `norm_test`, with the test V_j / b <= eta^2 g_j^2 in every entry j:

        max(b, max_j ceil(V_j / (eta^2 g_j^2)))

    which is never less, and is `limit` as soon as one entry of the mean is 0 without all being.

    Args:
        gradients: as in `norm_test`.
        eta: the relative error, positive.
        samples: how many samples each of the gradients is the mean of.
        limit: the largest size to return, below 2**31.

    Returns:
        The size, a whole number, safe under `jit` and `vmap`.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> int(rp.train.coordinate_test(jnp.array([[3.0, 4.0], [1.0, 0.0]]), eta=0.5))
        8
    """
    rows, variances, mean = _moments("coordinate_test", gradients, eta, samples)
    return _next_size(samples * len(rows), variances, eta**2 * mean**2, limit)


def inner_product_test(
    gradients: PyTree[Array],
    eta: float,
    nu: float = math.inf,
    samples: int = 1,
    limit: int = 2**30,
) -> Int[Array, ""]:
    """The next batch size, for a relative error of at most eta along the gradient alone.

    As `norm_test`, with the variance W of a sample's part along the mean g, and the rest of the
    variance, across it, only held to nu:

        max(b, ceil(W / (eta^2 |g|^2)), ceil((sum_j V_j - W) / (nu^2 |g|^2)))

    which is never more than that test's where nu is at least eta. It is enough for a direction that
    most likely descends.

    Args:
        gradients: as in `norm_test`.
        eta: the relative error along the gradient, positive.
        nu: the relative error across it, positive, for the orthogonality test; 5.84, the tangent
            of 80 degrees, is usual. By default there is none.
        samples: how many samples each of the gradients is the mean of.
        limit: the largest size to return, below 2**31.

    Returns:
        The size, a whole number, safe under `jit` and `vmap`.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> gradients = jnp.array([[3.0, 1.0], [1.0, -1.0]])
        >>> [int(rp.train.inner_product_test(gradients, 0.5, nu)) for nu in (1e3, 0.3)]
        [2, 6]
    """
    rows, variances, mean = _moments("inner_product_test", gradients, eta, samples)
    require_number(nu, "`nu` of inner_product_test", 0, closed="right")
    square, total = jnp.sum(mean**2), jnp.sum(variances)
    direction = mean / jnp.where(square > 0, jnp.sqrt(square), 1)
    # Where the mean is 0 all is across it, and the bound no number or 0: the size is the limit.
    along = samples * jnp.var(rows @ direction, ddof=1)
    both = jnp.stack([along, jnp.maximum(total - along, 0)])
    bounds = square * jnp.array([eta, nu]) ** 2
    return _next_size(samples * len(rows), both, bounds, limit)


def _moments(
    owner: str, gradients: PyTree[Array], eta: float, samples: int
) -> tuple[Float[Array, "b n"], Float[Array, " n"], Float[Array, " n"]]:
    """The gradients as rows, the variances of a sample's gradient, the mean."""
    require_number(eta, f"`eta` of {owner}", 0)
    whole_number(samples, "samples", 1)
    leaves = jax.tree.leaves(single(gradients))
    counts = {leaf.shape[:1] for leaf in leaves}
    if len(counts) != 1 or counts <= {(), (0,), (1,)}:
        raise ValueError(
            f"`gradients` of {owner} must be arrays with one first axis of at least 2 entries, got "
            f"the shapes {', '.join(str(leaf.shape) for leaf in leaves)}."
        )
    rows = jnp.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)
    variances = samples * jnp.var(rows, axis=0, ddof=1)
    return rows, variances, jnp.mean(rows, axis=0)


def _next_size(size: int, variance: Array, bound: Array, limit: int) -> Int[Array, ""]:
    whole_number(limit, "limit", 1)
    needed = jnp.max(jnp.where(variance == 0, 0, jnp.ceil(variance / bound)))
    fitting = jnp.maximum(needed, min(size, limit)).astype(jnp.int32)
    return jnp.where(needed < limit, fitting, limit)  # not by `minimum`, which would keep NaN
