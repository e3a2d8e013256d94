"""What the methods of two players share: steps that may be a pair, answers of F clipped."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax.projections
from jax.core import Tracer
from jaxtyping import Array, Float, PyTree

from ..validate import in_range


def moved(z: PyTree[Array], step_size: Any, direction: PyTree[Array]) -> PyTree[Array]:
    """z - s d, with one step size s for all of z or one for each player."""

    def along(s: Any, z: PyTree[Array], d: PyTree[Array]) -> PyTree[Array]:
        return jax.tree.map(lambda z, d: z - jnp.asarray(s, z.dtype) * d, z, d)

    return jax.tree.map(along, step_size, z, direction)


def asked(problem: Any, z: PyTree[Array], batch: PyTree[Array] | None) -> PyTree[Array]:
    """F(z), estimated on a batch where there is one."""
    return problem.operator(z) if batch is None else problem.batch_operator(z, batch)


def clipped(operator: PyTree[Array], clip: Any) -> PyTree[Array]:
    """What F answered, scaled to the length `clip` where it is longer and there is a limit."""
    return operator if clip is None else optax.projections.projection_l2_ball(operator, clip)


def scheduled(number: Any, count: Float[Array, ""]) -> Any:
    """A hyperparameter at a step: itself, or what a function of the step count says."""
    return number(count) if callable(number) else number


def require_positive(method: Any, name: str, *, pair: bool = False, schedule: bool = False) -> None:
    """Refuse what is no positive number nor, where it may be one, a pair or a function."""
    value = getattr(method, name)
    if isinstance(value, tuple) and not (pair and len(value) == 2):
        wanted = "one number or a pair, for x and for y" if pair else "one number"
        raise ValueError(f"`{name}` of {method.name} must be {wanted}, got {value!r}.")
    unknown = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value))
    if not (unknown or (schedule and callable(value))):
        in_range(method, name, 0)


def require_players(method: Any, problem: Any) -> None:
    """Refuse a pair of step sizes where the iterate is not the pair of players."""
    if isinstance(method.step_size, tuple) and not problem.two_players:
        raise ValueError(
            f"`step_size` of {method.name} may be a pair only for a Saddle, whose iterate is "
            f"the pair of players, got a {type(problem).__name__}."
        )
