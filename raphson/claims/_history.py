"""What bounds that hold at every step are held against."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..compiled import compiled
from ..lifts import as_method
from ..problem import AbstractProblem


def history(
    problem: AbstractProblem, method: Any, steps: int, key: Array | None = None
) -> dict[str, np.ndarray]:
    """The problem's measures at the start and after each of so many steps, without stopping.

    `trace` with `every=1` looks from the host each time; this is one compiled loop.

    Args:
        problem: the problem, with the facts that its measures need.
        method: a Raphson method or one that can be lifted.
        steps: how many steps.
        key: a random key, or several, shape (k,), for as many runs.

    Returns:
        Each measure, shape (steps + 1,), or (k, steps + 1) where there are several keys.
    """
    measures = compiled(_measured, problem, as_method(method), steps, key)
    return {name: np.asarray(column) for name, column in measures.items()}


def _measured(problem: Any, method: Any, steps: int, key: Array | None) -> dict[str, Array]:
    if key is not None and key.ndim:
        return jax.vmap(lambda key: _measured(problem, method, steps, key))(key)
    door = problem.without_facts

    def measures(y: Any, state: Any) -> dict[str, Array]:
        return problem.measures(method.answer(door, y, state))

    def step(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], dict[str, Array]]:
        y, state = method.step(door, *carry)
        return (y, state), measures(y, state)

    start = problem.y0, method.init(door, problem.y0, key)
    _, later = jax.lax.scan(step, start, length=steps)
    return jax.tree.map(lambda a, b: jnp.append(a, b), measures(*start), later)
