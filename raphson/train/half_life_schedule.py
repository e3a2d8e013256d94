"""Decay rates by their half-life: AdEMAMix's schedule of its slow average.

Pagliardini, Ablin, Grangier (2024), The AdEMAMix Optimizer: Better, Faster, Older.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array

from ..validate import require_number


def half_life_schedule(
    init_value: float, end_value: float, transition_steps: float
) -> optax.Schedule:
    """A schedule of the decay rate of a moving average whose half-life grows linearly.

    An average of decay rate b forgets half of what it holds within log(1/2) / log(b) steps. A
    linear schedule of b itself grows this hardly at all, then all at once. It is the schedule of b3
    in `optax.contrib.ademamix`, from b1, over as many steps as alpha takes to grow from 0.

    Args:
        init_value: the decay rate at a count of 0, in (0, 1).
        end_value: the decay rate from `transition_steps` on, in (0, 1).
        transition_steps: how many steps the half-life takes from one to the other, positive.

    Returns:
        A function of the step count that gives the decay rate.

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        >>> import optax
        >>> import raphson as rp
        >>> b3 = rp.train.half_life_schedule(0.9, 0.999, 1000)
        >>> [round(float(b3(count)), 3) for count in (0, 100, 500, 1000)]
        [0.9, 0.991, 0.998, 0.999]
        >>> optimizer = optax.contrib.ademamix(
        ...     1e-3, b1=0.9, b3=b3, alpha=optax.linear_schedule(0.0, 8.0, 1000)
        ... )
    """
    for name, value in (("init_value", init_value), ("end_value", end_value)):
        require_number(value, f"`{name}` of half_life_schedule", 0, 1)
    require_number(transition_steps, "`transition_steps` of half_life_schedule", 0)

    def schedule(count: Any) -> Array:
        # A quotient of whole numbers would be in single precision whatever the rest is in.
        done = jnp.clip(count * (1 / transition_steps), 0, 1)
        return jnp.exp(1 / ((1 - done) / jnp.log(init_value) + done / jnp.log(end_value)))

    return schedule
