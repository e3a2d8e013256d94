"""Steps that follow from the ones before, solved at once as a triangular system of equations.

Song, Meng, Liao, Ermon (2021), Accelerating Feedforward Computation via Parallel Nonlinear Equation
Solving.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, Bool, Int, PyTree

from ..validate import as_function, require_structure, tolerance, whole_number


def solve_feedforward(
    step: Callable[[Any, Any], Any],
    start: PyTree[Array],
    inputs: PyTree[Array],
    *,
    history: bool = False,
    chunk: int = 1,
    windows: int = 1,
    guess: PyTree[Array] | None = None,
    atol: float = 0.0,
) -> tuple[PyTree[Array], Int[Array, ""]]:
    """The states s_t = h(s_{t-1}, x_t), t = 1, ..., T, or of all before, by sweeps over them.

    A Jacobi sweep takes all T steps at once from the states that the last sweep found. After k
    sweeps the first k states are exact, so that T sweeps at most do what `jax.lax.scan` does in T
    steps; far fewer do where the past is soon forgotten. Chunks and windows mix that with the
    sequential order, which is Gauss and Seidel's.

    Derivatives, forward and reverse, are those of the answer: sweeps over the linearized steps end
    where no number changes by more than the rounding of the greatest at its place among all T
    states. They need memory for T steps.

    Args:
        step: h, `step(state, input)`, returning what is shaped as `state`.
        start: s_0, a PyTree of arrays, also of whole numbers or booleans.
        inputs: x_1, ..., x_T, a PyTree of arrays that agree in their first axis.
        history: whether h depends on all states before. Then it is `step(past, input)` with s_0,
            ..., s_{T-1} stacked, of which step t may use the first t, and `inputs` hold t if h is
            to know it. What does not depend on the input is computed once a sweep for all steps.
        chunk: how many states in a row a sweep finds one after the other, in all chunks at once
            (Jacobi-GS); T / chunk sweeps then suffice.
        windows: how many equal parts of the T steps are solved one after the other (GS-Jacobi). A
            sweep then needs memory for T / windows steps, and the late ones wait for the early.
        guess: the states to sweep from, such as those of a sequence nearby; zeros by default.
        atol: the sweeps end where none of the numbers changes by more than this.

    Returns:
        The states, stacked along a first axis of length T, and the number of sweeps, of all
        windows together.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> halved = lambda s, x: s / 2 + x
        >>> states, sweeps = rp.roots.solve_feedforward(halved, 0.0, jnp.ones(100), atol=1e-3)
        >>> round(float(states[-1]), 2), int(sweeps)
        (2.0, 11)
        >>> rabbits = lambda past, t: past[t - 1] + past[t - 2] * (t > 1)
        >>> t = jnp.arange(1, 9)
        >>> rp.roots.solve_feedforward(rabbits, 1, t, history=True)[0].tolist()
        [1, 2, 3, 5, 8, 13, 21, 34]
    """
    as_function(step, "step")
    leaves, atol = jax.tree.leaves(start), tolerance(atol, "atol")
    if not leaves or not all(map(eqx.is_array_like, leaves)):
        raise ValueError(f"`start` must be made of arrays of numbers, got {start!r}.")
    start = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), start)
    lengths = sorted({jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(inputs)})
    if len(lengths) != 1 or lengths == [()]:
        raise ValueError(
            f"`inputs` must be arrays that agree in their first axis, got first axes {lengths}."
        )
    (T,) = lengths[0]
    chunk, windows = whole_number(chunk, "chunk", 1), whole_number(windows, "windows", 1)
    if T % (chunk * windows):
        raise ValueError(
            f"`chunk` times `windows` must divide the {T} steps, got {chunk} and {windows}."
        )
    inputs = jax.tree.map(jnp.asarray, inputs)
    zeros = jax.tree.map(lambda leaf: jnp.zeros((T, *leaf.shape), leaf.dtype), start)
    guess = zeros if guess is None else jax.tree.map(jnp.asarray, guess)
    require_structure(guess, zeros, "guess", "the states")
    first = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), inputs)
    call, before = ("step(past, input)", zeros) if history else ("step(state, input)", start)
    require_structure(jax.eval_shape(step, before, first), start, call, "`start`")
    # What h closes over is differentiated as well.
    step = eqx.filter_closure_convert(step, before, first)
    return _solved(step, start, inputs, guess, atol, history, chunk, windows)


@eqx.filter_custom_jvp
def _solved(
    step: Callable[[Any, Any], Any],
    start: PyTree[Array],
    inputs: PyTree[Array],
    guess: PyTree[Array],
    atol: Any,
    history: bool,
    chunk: int,
    windows: int,
) -> tuple[PyTree[Array], Int[Array, ""]]:
    T = len(jax.tree.leaves(guess)[0])
    chunks = T // windows // chunk

    def solve_window(window: Array, carry: tuple[Any, Array]) -> tuple[Any, Array]:
        def stage(place: Array, carry: tuple[Any, Array]) -> tuple[Any, Array]:
            """The states at one place of all chunks."""
            line, settled = carry
            rows = window * (T // windows) + place + chunk * jnp.arange(chunks)
            found = _after(step, line, _at(rows, inputs), rows, history)
            settled &= _close(found, _at(rows + 1, line), lambda _: atol)
            return jax.tree.map(lambda leaf, s: leaf.at[rows + 1].set(s), line, found), settled

        line, total = carry
        sweep = lambda line: jax.lax.fori_loop(0, chunk, stage, (line, jnp.array(True)))
        line, sweeps = _swept(sweep, line, chunks)
        return line, total + sweeps

    start_of_all = _line(start, guess), jnp.array(0, jnp.int32)
    line, sweeps = jax.lax.fori_loop(0, windows, solve_window, start_of_all)
    return jax.tree.map(lambda leaf: leaf[1:], line), sweeps


@_solved.def_jvp
def _solved_jvp(primals: Any, tangents: Any) -> Any:
    """Of s = F(s, data) the ds with ds = (dF/ds) ds + dF; in reverse, by the transpose of dF/ds."""
    states, sweeps = _solved(*primals)
    data, history = primals[:3], primals[5]
    moving, still = eqx.partition(states, eqx.is_inexact_array)
    if not jax.tree.leaves(moving):
        return (states, sweeps), (moving, None)
    T = len(jax.tree.leaves(moving)[0])

    def F(moving: PyTree[Array], data: Any) -> PyTree[Array]:
        step, start, inputs = data
        line = _line(start, eqx.combine(moving, still))
        return eqx.filter(_after(step, line, inputs, jnp.arange(T), history), eqx.is_inexact_array)

    _, dF = eqx.filter_jvp(lambda data: F(moving, data), (data,), (tangents[:3],))
    # What none of the data moves has no tangent.
    dF = jax.tree.map(lambda s, t: jnp.zeros_like(s) if t is None else t, moving, dF)
    _, forward = jax.linearize(lambda moving: F(moving, data), moving)
    transposed = jax.linear_transpose(forward, moving)

    def rounding(v: Array) -> Array:
        greatest = jnp.max(jnp.abs(v), axis=0, initial=0)
        return jnp.broadcast_to(jnp.finfo(v.dtype).eps * greatest, v.shape)

    def solver(operator: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
        def sweep(v: PyTree[Array], b: PyTree[Array]) -> tuple[PyTree[Array], Bool[Array, ""]]:
            after = otu.add(b, operator(v))
            return after, _close(after, v, rounding)

        return lambda _, b: _swept(lambda v: sweep(v, b), b, T)[0]

    ds = jax.lax.custom_linear_solve(
        lambda v: otu.sub(v, forward(v)), dF, solver(forward), solver(lambda w: transposed(w)[0])
    )
    return (states, sweeps), (ds, None)


def _swept(
    sweep: Callable[[Any], tuple[Any, Any]], y: PyTree[Array], most: int
) -> tuple[PyTree[Array], Int[Array, ""]]:
    """y after the sweep in which it settles, and how many that took."""

    def body(carry: tuple[Any, Array, Array]) -> tuple[Any, Bool[Array, ""], Array]:
        y, _, sweeps = carry
        return *sweep(y), sweeps + 1

    going = lambda carry: ~carry[1] & (carry[2] < most)
    y, _, sweeps = jax.lax.while_loop(going, body, (y, jnp.array(False), jnp.array(0, jnp.int32)))
    return y, sweeps


def _line(start: PyTree[Array], states: PyTree[Array]) -> PyTree[Array]:
    """s_0, ..., s_T."""
    return jax.tree.map(lambda s, rest: jnp.concatenate([s[None], rest]), start, states)


def _after(
    step: Callable[[Any, Any], Any], line: PyTree[Array], inputs: Any, rows: Array, history: bool
) -> PyTree[Array]:
    """The states after those in some rows of the line."""
    past = jax.tree.map(lambda leaf: leaf[:-1], line) if history else _at(rows, line)
    return jax.vmap(step, (None if history else 0, 0))(past, inputs)


def _at(rows: Array, tree: PyTree[Array]) -> PyTree[Array]:
    return jax.tree.map(lambda leaf: leaf[rows], tree)


def _close(a: PyTree[Array], b: PyTree[Array], atol: Callable[[Array], Any]) -> Bool[Array, ""]:
    """Whether no number changed by more than that; NaN does, and of a guess is gone in the end."""
    close = jax.tree.map(lambda a, b: jnp.all(jnp.isclose(a, b, 0, atol(a))), a, b)
    return jnp.all(jnp.stack(jax.tree.leaves(close)))
