"""A chain of steps solved for all of its states at once, as a triangular system of equations.

Song, Meng, Liao, Ermon (2021), Accelerating Feedforward Computation via Parallel Nonlinear Equation
Solving.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, Int, PyTree

from ..validate import as_function, as_start, require_structure, tolerance


def solve_feedforward(
    step: Callable[[Any, Any], Any],
    start: PyTree[Array],
    inputs: PyTree[Array],
    *,
    guess: PyTree[Array] | None = None,
    atol: float = 0.0,
) -> tuple[PyTree[Array], Int[Array, ""]]:
    """The states s_t = h(s_{t-1}, x_t), t = 1, ..., T, by Jacobi sweeps over the whole chain.

    A sweep takes all T steps at once from the states that the last sweep found. After k sweeps the
    first k states are exact, so that T sweeps at most do what `jax.lax.scan` does in T steps; far
    fewer do where the chain forgets. Needs memory for T steps; not for reverse-mode derivatives.

    Args:
        step: h, `step(state, input)`, returning what is shaped as `state`.
        start: s_0, a PyTree of floating-point arrays.
        inputs: x_1, ..., x_T, a PyTree of arrays that agree in their first axis.
        guess: the states to sweep from, such as those of a chain nearby; zeros by default.
        atol: the sweeps end where none of the numbers changes by more than this.

    Returns:
        The states, stacked along a first axis of length T, and the number of sweeps.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> halved = lambda s, x: s / 2 + x
        >>> states, sweeps = rp.roots.solve_feedforward(halved, 0.0, jnp.ones(100), atol=1e-3)
        >>> round(float(states[-1]), 2), int(sweeps)
        (2.0, 11)
    """
    as_function(step, "step")
    start, atol = as_start(start, "start"), tolerance(atol, "atol")
    lengths = sorted({jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(inputs)})
    if len(lengths) != 1 or lengths == [()]:
        raise ValueError(
            f"`inputs` must be arrays that agree in their first axis, got first axes {lengths}."
        )
    (T,) = lengths[0]
    first = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), inputs)
    require_structure(jax.eval_shape(step, start, first), start, "step(start, input)", "`start`")
    zeros = jax.tree.map(lambda leaf: jnp.zeros((T, *leaf.shape), leaf.dtype), start)
    guess = zeros if guess is None else jax.tree.map(jnp.asarray, guess)
    require_structure(guess, zeros, "guess", "the states")

    def sweep(carry: tuple[Any, Any, Array]) -> tuple[Any, Any, Array]:
        states, _, sweeps = carry
        before = jax.tree.map(lambda s, rest: jnp.concatenate([s[None], rest])[:-1], start, states)
        after = jax.vmap(step)(before, inputs)
        return after, otu.norm(otu.sub(after, states), ord="inf"), sweeps + 1

    def going(carry: tuple[Any, Any, Array]) -> Array:
        _, change, sweeps = carry
        # A guess may lead to NaN, which is gone after T sweeps if it is none of the chain's.
        return ~(change <= atol) & (sweeps < T)

    infinite = jnp.array(jnp.inf, jnp.result_type(*jax.tree.leaves(start)))
    states, _, sweeps = jax.lax.while_loop(going, sweep, (guess, infinite, jnp.array(0, jnp.int32)))
    return states, sweeps
