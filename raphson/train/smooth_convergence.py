"""ConvergeSmooth: a term that holds the loss of each batch near the mean of the epoch before.

Zhao, Zhang, Kong, Yin (2023), Fast Adversarial Training with Smooth Convergence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..validate import require_number


class SmoothConvergenceState(NamedTuple):
    """Losses of this epoch, and the means of the two before."""

    epochs: Int[Array, ""]
    total: Float[Array, ""]
    count: Int[Array, ""]
    mean: Float[Array, ""]
    mean_before: Float[Array, ""]


class _SmoothConvergence(NamedTuple):
    init: Callable[[], SmoothConvergenceState]
    term: Callable[[Array, SmoothConvergenceState], tuple[Array, SmoothConvergenceState]]
    end_epoch: Callable[[SmoothConvergenceState], SmoothConvergenceState]


def smooth_convergence(
    weight: float = 1.0, least: float = 0.03, most: float = 0.03
) -> _SmoothConvergence:
    """A term for the loss of fast adversarial training, so that it changes little at a time.

    With the loss l of a batch, as it is or moved at random, and the means P of the last epoch and
    P' of that before:

        tolerance = min(max(P - P', least), most)
        term = weight l  where l > P + tolerance,  -weight l  where l < P - tolerance,  else 0

    It is to be added to what the batch is trained by. In the first epoch there is none, and in the
    second P' is 0. Where the learning rate has just dropped, leave it out for some epochs.

    Args:
        weight: of the term, at least 0.
        least: least tolerance, at least 0; by default it is the greatest.
        most: greatest tolerance, at least 0.

    Returns:
        A tuple of functions: `init()`, the state at the start; `term(l, state)`, the term and the
        state with the batch counted; `end_epoch(state)`, the state when all batches were seen.

    Raises:
        ValueError: if an argument is below 0.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> smooth = rp.train.smooth_convergence()
        >>> state = smooth.init()
        >>> _, state = smooth.term(jnp.array(1.0), state)
        >>> state = smooth.end_epoch(state)
        >>> [float(smooth.term(jnp.array(loss), state)[0]) for loss in (0.5, 1.02, 2.0)]
        [-0.5, 0.0, 2.0]
    """
    for name, value in (("weight", weight), ("least", least), ("most", most)):
        require_number(value, f"`{name}` of smooth_convergence", 0, closed="left")

    def init() -> SmoothConvergenceState:
        zero, none = jnp.zeros(()), jnp.zeros((), jnp.int32)
        return SmoothConvergenceState(none, zero, none, zero, zero)

    def term(
        loss: Float[Array, ""], state: SmoothConvergenceState
    ) -> tuple[Array, SmoothConvergenceState]:
        loss = jnp.asarray(loss)
        fixed = jax.lax.stop_gradient(loss).astype(state.total.dtype)
        tolerance = jnp.minimum(jnp.maximum(state.mean - state.mean_before, least), most)
        away = fixed - state.mean
        acts = (state.epochs > 0) & (jnp.abs(away) > tolerance)
        sign = jnp.where(acts, jnp.sign(away), 0).astype(loss.dtype)
        state = state._replace(total=state.total + fixed, count=state.count + 1)
        return weight * sign * loss, state

    def end_epoch(state: SmoothConvergenceState) -> SmoothConvergenceState:
        fresh = init()
        mean = state.total / jnp.maximum(state.count, 1)
        return fresh._replace(epochs=state.epochs + 1, mean=mean, mean_before=state.mean)

    return _SmoothConvergence(init, term, end_epoch)
