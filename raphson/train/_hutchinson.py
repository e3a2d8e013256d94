"""The diagonal of a Hessian from its products with random signs, by Hutchinson's idea."""

from __future__ import annotations

from collections.abc import Callable

import jax
import optax.tree as otu
from jaxtyping import Array, PyTree

from ._core import single


def drawn_diagonal(
    key: Array, value_fn: Callable[[PyTree[Array]], Array], params: PyTree[Array]
) -> PyTree[Array]:
    """z * (H z) with the Hessian H and random signs z, in at least single precision.

    Its mean over the signs is the diagonal of H; where H is diagonal, every draw is.
    """
    z = otu.random_like(key, params, jax.random.rademacher)
    _, product = jax.jvp(jax.grad(value_fn), (params,), (z,))
    return single(otu.mul(z, product))
