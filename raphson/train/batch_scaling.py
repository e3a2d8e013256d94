"""Learning rates for other batch sizes, from how much steeper a batch's loss is than the whole.

Granziol, Zohren, Roberts (2022), Learning Rates as a Function of Batch Size: A Random Matrix Theory
Approach to Neural Network Training.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..validate import as_function, random_key, require_number, whole_number
from ._core import single


def batch_curvature(
    curvature: Float[ArrayLike, ""],
    noise: Float[ArrayLike, ""],
    batch_size: float,
    num_samples: float | None = None,
) -> Float[Array, ""]:
    """The greatest eigenvalue of the Hessian of a batch's loss, expected by random matrices.

    With the greatest eigenvalue l of the whole loss, the noise v of one sample and the size B:

        l + v / (B l)      where l > sqrt(v / B)
        2 sqrt(v / B)      else

    Gradient descent on batches is stable up to the learning rate 2 / batch_curvature, so that one
    found at some size scales as its inverse to others. The formula is that for a symmetric matrix
    of independent noise in each entry; the second line is the edge of the noise alone.

    Args:
        curvature: l, positive.
        noise: v, at least 0: the number of parameters times the variance of an entry in the Hessian
            of one sample; `curvature_and_noise` measures both.
        batch_size: B, positive.
        num_samples: of how many a batch is drawn without replacement, at least B: v / B is then
            smaller by the factor 1 - B / num_samples. By default, or with replacement, it is not.

    Returns:
        The eigenvalue, at least that of the whole loss.

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        >>> import raphson as rp
        >>> [float(rp.train.batch_curvature(10.0, 50.0, size)) for size in (1, 5, 10)]
        [15.0, 11.0, 10.5]
    """
    require_number(curvature, "`curvature` of batch_curvature", 0)
    require_number(noise, "`noise` of batch_curvature", 0, closed="left")
    require_number(batch_size, "`batch_size` of batch_curvature", 0)
    left = 1.0
    if num_samples is not None:
        require_number(num_samples, "`num_samples` of batch_curvature", 0)
        left = jnp.maximum(1 - batch_size / num_samples, 0)
    variance = left * noise / batch_size
    spike = curvature + variance / curvature
    return jnp.where(jnp.square(curvature) > variance, spike, 2 * jnp.sqrt(variance))


def curvature_and_noise(
    loss: Callable[[Any, Any], Float[Array, ""]],
    params: PyTree[Array],
    samples: PyTree[Array],
    key: Array,
    steps: int = 30,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """What `batch_curvature` needs: the greatest eigenvalue of the Hessian, and a sample's noise.

    With the Hessians H_i of single samples, their mean H, and its leading eigenvector u, the noise
    is the mean of |(I - u u') (H_i - H) u|^2, without bias. For noise as in the theory it is the
    same along any direction; for real data it is greater along u, and it is there that it counts.

    Args:
        loss: `loss(params, sample)`, that of one sample.
        params: where to measure.
        samples: a PyTree whose leaves count some hundred samples along the first axis, at least
            two; one product with the Hessian of each is held at a time.
        key: of the random start.
        steps: products with H for the eigenvector, by Lanczos' method; at most as many as there are
            parameters are made.

    Returns:
        Eigenvalue and noise, in at least single precision.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> loss = lambda x, a: (a @ x) ** 2 / 2
        >>> samples = jnp.array([[2.0, 0.0], [1.0, 1.0], [1.0, -1.0]])
        >>> found = rp.train.curvature_and_noise(loss, jnp.ones(2), samples, jax.random.key(0))
        >>> [round(float(number), 4) for number in found]
        [2.0, 1.0]
    """
    as_function(loss, "loss")
    random_key(key)
    flat, unravel = ravel_pytree(single(params))
    steps = min(whole_number(steps, "steps", 1), flat.size)

    def products(v: Float[Array, " n"]) -> Float[Array, "b n"]:
        """H_i v for each sample."""

        def product(sample: Any) -> Array:
            gradient = jax.grad(lambda flat: loss(unravel(flat), sample))
            return jax.jvp(gradient, (flat,), (v,))[1]

        return jax.vmap(product)(samples)

    def extend(
        k: Array, carry: tuple[Float[Array, "k n"], Float[Array, "k n"]]
    ) -> tuple[Float[Array, "k n"], Float[Array, "k n"]]:
        basis, images = carry
        image = jnp.mean(products(basis[k]), axis=0)
        rest = image
        for _ in range(2):  # for what rounding leaves of the first time
            rest = rest - basis.T @ (basis @ rest)
        length = jnp.linalg.norm(rest)
        ended = length <= 10 * flat.size * jnp.finfo(flat.dtype).eps * jnp.linalg.norm(image)
        following = jnp.where(ended, 0, rest / jnp.where(ended, 1, length))
        return basis.at[k + 1].set(following, mode="drop"), images.at[k].set(image)

    empty = jnp.zeros((steps, flat.size), flat.dtype)
    first = jax.random.normal(key, flat.shape, flat.dtype)
    start = empty.at[0].set(first / jnp.linalg.norm(first)), empty
    basis, images = jax.lax.fori_loop(0, steps, extend, start)
    matrix = basis @ images.T
    # Where the space ended early, what is left of the basis is 0, and its eigenvalues come last.
    unused = jnp.where(jnp.any(basis != 0, axis=1), 0, 1 + 2 * jnp.linalg.norm(matrix))
    eigenvalues, vectors = jnp.linalg.eigh(matrix - jnp.diag(unused))
    u = basis.T @ vectors[:, -1]
    departures = products(u)
    departures = departures - jnp.mean(departures, axis=0, keepdims=True)
    departures = departures - jnp.outer(departures @ u, u)
    return eigenvalues[-1], jnp.sum(departures**2) / (len(departures) - 1)
