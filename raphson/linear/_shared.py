"""What several tuners share."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float


def as_grid(grid: Any) -> Float[Array, " d"]:
    """`grid` as a vector of finite values to choose from."""
    values = jnp.asarray(grid)
    if values.ndim != 1 or not values.size or not jnp.issubdtype(values.dtype, jnp.floating):
        raise ValueError(
            "`grid` must be a vector of floating-point numbers, "
            f"got {values.dtype} of shape {values.shape}."
        )
    if not isinstance(values, Tracer) and not bool(jnp.isfinite(values).all()):
        raise ValueError(f"`grid` must hold finite numbers only, got {values.tolist()}.")
    return values
