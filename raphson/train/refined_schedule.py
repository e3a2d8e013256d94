"""Refined schedules: learning rates for the next run from the gradients of the last one.

Defazio, Cutkosky, Mehta, Mishchenko (2023), When, Why and How Much? Adaptive Learning Rate
Scheduling by Refinement.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float
from numpy.lib.stride_tricks import sliding_window_view

from ..validate import require_number


def refined_schedule(
    peak_value: float,
    gradient_norms: Float[ArrayLike, " t"],
    smoothing: float = 0.1,
    power: float = 2.0,
) -> optax.Schedule:
    """The schedule that is best for the last point of a run with gradients of these norms.

    With G the norms, each the median of those within `smoothing` of the run:

        w_t = 1 / G_t^power
        learning_rate_t = c w_t (w_t+1 + ... + w_T)

    where c makes the largest `peak_value`. Norms that stay the same give linear decay to 0; where
    they are large at first, it begins with warmup, and where they grow at last, it falls faster. A
    run with linear decay is a good one to take them from. The paper takes |g| and the power 2 for
    SGD, and sum |g_i| and the power 1 for Adam.

    Args:
        peak_value: the largest learning rate, at least 0.
        gradient_norms: |g_t| at each step of a run, positive, of as many steps as the next one is
            to have; known, not traced.
        smoothing: width of the median filter as a share of the run, in [0, 1], where 0 filters
            nothing.
        power: of the norms in the weights, at least 0.

    Returns:
        A function of the step count that gives the learning rate, 0 at the last step and after.

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        >>> import raphson as rp
        >>> schedule = rp.train.refined_schedule(0.5, [2.0] * 5)
        >>> [float(schedule(count)) for count in range(6)]
        [0.5, 0.375, 0.25, 0.125, 0.0, 0.0]
        >>> warmup = rp.train.refined_schedule(1.0, [4.0, 2.0, 1.0, 1.0, 1.0], smoothing=0.0)
        >>> [round(float(warmup(count)), 3) for count in range(5)]
        [0.102, 0.375, 1.0, 0.5, 0.0]
    """
    require_number(peak_value, "`peak_value` of refined_schedule", 0, closed="left")
    require_number(smoothing, "`smoothing` of refined_schedule", 0, 1, closed="both")
    require_number(power, "`power` of refined_schedule", 0, closed="left")
    norms = np.asarray(gradient_norms, float)
    if norms.ndim != 1 or len(norms) < 2 or not np.all((norms > 0) & (norms < np.inf)):
        raise ValueError(
            "`gradient_norms` of refined_schedule must be two or more positive numbers, one a "
            f"step, got {gradient_norms!r}."
        )

    reach = int(smoothing * len(norms) / 2)
    # As in the paper: the first norm goes on before the run, and the end is mirrored.
    padded = np.pad(np.pad(norms, (reach, 0), "edge"), (0, reach), "symmetric")
    norms = np.median(sliding_window_view(padded, 2 * reach + 1), axis=1)
    weights = (norms / np.min(norms)) ** -power
    tails = np.append(np.cumsum(weights[:0:-1])[::-1], 0)
    shape = weights * tails / np.max(weights * tails)

    def schedule(count: Any) -> Array:
        return peak_value * jnp.asarray(shape)[jnp.clip(count, 0, len(shape) - 1)]

    return schedule
