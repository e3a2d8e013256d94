"""Learn a solver's parameter while it solves one linear system after another, from costs alone.

Khodak, Chow, Balcan, Talwalkar (2024), Learning to Relax: Setting Solver Parameters Across a
Sequence of Linear System Instances.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree

from ..compiled import compiled
from ..method import AbstractMethod, iterate
from ..solution import Status
from ..validate import as_function, as_start, tolerance, whole_number
from .problem import LinearSystem
from .sor import SOR

State = TypeVar("State")


class AbstractTuner(eqx.Module, Generic[State]):
    """A bandit: what to try next, and what to make of its cost. Pure, safe under `jit` and `scan`.

    Nothing in it knows of linear systems: any parameter of any solver will do, with any cost of at
    least 1, such as a number of iterations.
    """

    @abc.abstractmethod
    def init(self) -> State:
        """The state in which nothing has been tried."""

    @abc.abstractmethod
    def suggest(
        self, state: State, key: Array, context: ArrayLike | None = None
    ) -> tuple[Float[Array, ""], State]:
        """The value to try next, drawn by `key`, where `context` is known of the task ahead."""

    @abc.abstractmethod
    def observe(self, state: State, cost: ArrayLike) -> State:
        """The state once the value suggested last has turned out to cost `cost`."""


class SequenceSolution(eqx.Module):
    """The answers of `solve_sequence`, each field with a leading axis over the T systems.

    Attributes:
        values: the answers.
        converged: whether each answer meets the tolerance.
        costs: steps that each solve took, `max_steps` where it did not converge.
        parameters: the parameters that were tried.
        state: the tuner's last state, without that axis; a later sequence can go on from it.
    """

    values: PyTree[Array]
    converged: Bool[Array, " T"]
    costs: Int[Array, " T"]
    parameters: Float[Array, " T"]
    state: PyTree[Array]


def solve_sequence(
    system: Callable[[Any, Any], LinearSystem],
    y0: PyTree[ArrayLike],
    xs: PyTree[Array],
    tuner: AbstractTuner,
    *,
    key: Array,
    contexts: Float[ArrayLike, " T"] | None = None,
    state: Any = None,
    method: Callable[[Any], AbstractMethod] = SOR,
    rtol: float = 1e-6,
    atol: float = 0.0,
    max_steps: int = 10_000,
) -> SequenceSolution:
    """Solve one linear system after another by a method whose parameter is tuned along the way.

    Compiled end to end, as one `jax.lax.scan`; systems may depend on the answer before them, as
    the steps of an implicit time-stepper do.

    Args:
        system: `system(y, x)`, the next `LinearSystem`, from the last answer and a slice of `xs`.
            Each solve starts at its `y0`, which is zero unless given.
        y0: what stands for the last answer at first, shaped as every answer.
        xs: data of the systems, a PyTree of arrays with a leading axis of length T.
        tuner: what suggests the parameter, such as `TsallisINF` or `ChebCB`.
        key: a random key.
        contexts: one number for each system which the tuner may go by.
        state: a state of the tuner to go on from; a fresh one by default.
        method: makes the method from the parameter.
        rtol: tolerance on the norm of b - A y relative to that of b.
        atol: absolute tolerance on the same norm; the larger of the two counts.
        max_steps: how many steps a solve may take; a solve that fails costs as many.

    Returns:
        Answers, costs and parameters of all systems.

    Raises:
        ValueError: if an argument is unfit, before anything runs.

    Example:
        Implicit heat flow, cooled from outside with a random strength at each step.

        >>> import jax
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> tuner = rp.linear.TsallisINF(jnp.array([1.0, 1.5, 1.9]))
        >>> strengths = jax.random.uniform(jax.random.key(0), (100,))
        >>> def system(y, strength):
        ...     return rp.problems.poisson((5, 5), shift=0.1 + strength, rhs=0.1 * y)
        >>> flow = rp.linear.solve_sequence(
        ...     system, jnp.ones(25), strengths, tuner, key=jax.random.key(1), rtol=1e-4
        ... )
        >>> flow.values.shape, bool(flow.converged.all())
        ((100, 25), True)
    """
    as_function(system, "system")
    whole_number(max_steps, "max_steps", 1)
    y0 = as_start(y0)
    tolerances = tolerance(rtol, "rtol"), tolerance(atol, "atol")
    contexts = None if contexts is None else jnp.asarray(contexts)
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves((xs, contexts))}
    if len(lengths) != 1 or lengths & {(), (0,)}:
        raise ValueError(
            "`xs` and `contexts` must hold arrays with one common leading axis of at least 1 "
            f"system, got leading axes {sorted(lengths)}."
        )
    state = tuner.init() if state is None else state
    limit = np.int32(max_steps)
    return compiled(_run, system, y0, xs, contexts, tuner, state, method, key, tolerances, limit)


def _run(
    system: Callable[[Any, Any], LinearSystem],
    y0: PyTree[Array],
    xs: PyTree[Array],
    contexts: Array | None,
    tuner: AbstractTuner,
    state: Any,
    method: Callable[[Any], AbstractMethod],
    key: Array,
    tolerances: tuple[Any, Any],
    max_steps: Any,
) -> SequenceSolution:
    limits = dict(zip(("rtol", "atol"), tolerances), max_steps=max_steps)

    def solve(carry: Any, given: Any) -> Any:
        y, state = carry
        x, context, key = given
        draw, run_key = jax.random.split(key)
        problem = system(y, x)
        _check_system(problem, y)
        parameter, state = tuner.suggest(state, draw, context)
        run = iterate(problem, method(parameter), problem.y0, run_key, **limits)
        converged = run.status == Status.converged
        cost = jnp.where(converged, run.step, max_steps)
        state = tuner.observe(state, jnp.maximum(cost, 1))
        return (run.y, state), (run.y, converged, cost, parameter)

    length = len(jax.tree.leaves((xs, contexts))[0])
    given = (xs, contexts, jax.random.split(key, length))
    (_, state), histories = jax.lax.scan(solve, (y0, state), given)
    values, converged, costs, parameters = histories
    return SequenceSolution(values, converged, costs, parameters, state)


def _check_system(problem: Any, y: PyTree[Array]) -> None:
    """Refuse what is no linear system with unknowns like `y`."""
    if not isinstance(problem, LinearSystem):
        raise ValueError(f"`system` must return a LinearSystem, got {type(problem).__name__}.")
    unknown, given = (
        jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", tree)
        for tree in (problem.y0, y)
    )
    if unknown != given:
        raise ValueError(f"`y0` must be like the unknown of the systems, {unknown}, got {given}.")
