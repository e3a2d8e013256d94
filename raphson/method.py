"""The protocol of a method, and the bare compiled loop that the engine and inner solves share."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, Bool, Float, Int, PyTree

from .problem import AbstractProblem, Known
from .solution import Status

State = TypeVar("State")


class AbstractMethod(eqx.Module, Generic[State]):
    """An iteration. Everything is pure: PyTrees in, PyTrees out; states hold arrays only.

    A method says how to begin and how to step. Whether the problem is solved is the problem's to
    say: the loop holds the residual that the method knows against the tolerance.
    """

    # The class of problems that the method answers.
    question: ClassVar[type[AbstractProblem]]
    # Whether `init` needs a random key whatever the problem.
    stochastic: ClassVar[bool] = False
    # Whether it draws batches where the problem is sampled.
    samples: ClassVar[bool] = False

    @abc.abstractmethod
    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> State:
        """The state in which the first step is taken, from the start `y`."""

    @abc.abstractmethod
    def step(self, problem: Any, y: PyTree[Array], state: State) -> tuple[PyTree[Array], State]:
        """One step: the next iterate and state."""

    def terminate(self, problem: Any, y: PyTree[Array], state: State) -> Any:
        """The method's own reason to stop at `y`, a `Status`; `Status.running` to go on."""
        return Status.running

    def known(self, problem: Any, y: PyTree[Array], state: State) -> Known:
        """What the state already holds of the problem at `y`.

        The default pays for the residual; a method that has it says so, and one that cannot
        afford it (a stochastic one) returns `Known()`: then it runs until `max_steps`.
        """
        return Known(residual=problem.optimality(y))

    def answer(self, problem: Any, y: PyTree[Array], state: State) -> PyTree[Array]:
        """What to return for the iterate `y`: itself, unless the method averages."""
        return y

    def suited(self, problem: AbstractProblem) -> tuple[AbstractProblem, AbstractMethod]:
        """What runs on a problem whose function is traced: by default, this method on it.

        Another method, or the same question stated otherwise, may suit what the trace shows.
        """
        return problem, self

    @property
    def name(self) -> str:
        """How reports call the method."""
        return type(self).__name__


class Run(eqx.Module):
    """Where a run stands: the carry of the loop, and all that a checkpoint must hold."""

    y: PyTree[Array]
    state: PyTree[Array]
    memory: tuple[PyTree[Array], ...]
    step: Int[Array, ""]
    status: Any
    scale: Float[Array, ""]


def begin(
    problem: AbstractProblem,
    method: AbstractMethod,
    y: PyTree[Array],
    key: Array | None,
    *,
    rtol: Any,
    atol: Any,
) -> Run:
    """The run before its first step; it may have ended already, at a solution or at a NaN."""

    def start(door: AbstractProblem) -> tuple[Any, Known]:
        state = method.init(door, y, key)
        return state, method.known(door, y, state)

    memory = tuple(wrapper.memory(problem, y) for wrapper in problem.wrappers)
    (state, known), memory = through(problem, memory, start)
    # A method that does not know the residual is not tested along the way: it needs no scale.
    residual = otu.zeros_like(y) if known.residual is None else known.residual
    scale = problem.scale(residual)
    status = _assessed(problem, known, Status.running, scale, rtol, atol)
    status = Status.where(finite((y, known)), status, Status.nonfinite_start)
    run = Run(y, state, memory, jnp.array(0, jnp.int32), status, scale)
    # A weak type would be lost in the first step, and with it what was compiled.
    return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype), run)


def advance(
    problem: AbstractProblem,
    method: AbstractMethod,
    run: Run,
    *,
    rtol: Any,
    atol: Any,
    until: Any,
) -> Run:
    """Step the run until something ends it or its step count reaches `until`."""

    def going(run: Run) -> Bool[Array, ""]:
        return (run.status == Status.running) & (run.step < until)

    def body(run: Run) -> Run:
        def take(door: AbstractProblem) -> tuple[Any, Any, Known, Any]:
            y, state = method.step(door, run.y, run.state)
            y, state = _fitted((run.y, run.state), (y, state), method)
            return y, state, method.known(door, y, state), method.terminate(door, y, state)

        (y, state, known, own), memory = through(problem, run.memory, take)
        status = _assessed(problem, known, own, run.scale, rtol, atol)
        is_finite = finite((y, known))
        # A reason that the method or the problem gives says more than the number it led to.
        explained = (own != Status.running) | (status == Status.unbounded)
        status = Status.where(is_finite | explained, status, Status.nonfinite)
        # The last finite iterate is what a user can restart from.
        y = jax.tree.map(lambda new, old: jnp.where(is_finite, new, old), y, run.y)
        return Run(y, state, memory, run.step + 1, status, run.scale)

    return jax.lax.while_loop(going, body, run)


def iterate(
    problem: AbstractProblem,
    method: AbstractMethod,
    y: PyTree[Array],
    key: Array | None = None,
    *,
    rtol: Any,
    atol: Any,
    max_steps: Any,
) -> Run:
    """Run a method on a problem from `y`: the bare compiled loop, also inside other methods.

    Args:
        problem: the problem, its function already traced.
        method: the method.
        y: the start.
        key: a random key, where the method draws.
        rtol: tolerance relative to the problem's scale, usually its residual at the start.
        atol: absolute tolerance on the norm of the problem's residual.
        max_steps: how many steps at most.

    Returns:
        The run where it ended; its status is `Status.running` if `max_steps` was reached.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.Minimize(lambda y, _: jnp.sum(y**2), jnp.ones(2))
        >>> method = rp.smooth.GradientDescent(0.5)
        >>> run = rp.iterate(problem, method, problem.y0, rtol=0.0, atol=1e-6, max_steps=10)
        >>> run.y.tolist(), int(run.step)
        ([0.0, 0.0], 1)
    """
    run = begin(problem, method, y, key, rtol=rtol, atol=atol)
    return advance(problem, method, run, rtol=rtol, atol=atol, until=max_steps)


def through(
    problem: AbstractProblem,
    memory: tuple[PyTree[Array], ...],
    use: Callable[[AbstractProblem], Any],
) -> tuple[Any, tuple[PyTree[Array], ...]]:
    """`use(problem)` with the wrappers' memory at hand, and that memory afterwards.

    The memory lives in mutable references for as long as the oracles are called, so that calls
    inside line searches and inner loops are remembered too; outside it is ordinary data.
    """
    refs = jax.tree.map(jax.new_ref, memory)
    bound = tuple(w.bound(ref) for w, ref in zip(problem.wrappers, refs, strict=True))
    result = use(problem.rewrapped(bound).without_facts)
    return result, jax.tree.map(jax.freeze, refs)


def _assessed(
    problem: AbstractProblem, known: Known, own: Any, scale: Array, rtol: Any, atol: Any
) -> Any:
    """The status of an iterate: converged by the residual, else as the problem or method says."""
    status = Status.where(own == Status.running, problem.verdict(known), own)
    if known.residual is None:
        return status
    met = otu.norm(known.residual) <= jnp.maximum(atol, rtol * scale)
    return Status.where(met, Status.converged, status)


def finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether every number is finite."""
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def _fitted(old: PyTree, new: PyTree, method: AbstractMethod) -> PyTree:
    """`new` in the dtypes of `old`, so that mixed precisions survive a step."""
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (old, new)]
    if shapes[0] != shapes[1]:
        raise TypeError(
            f"a step of {method.name} must keep the structure and shapes of iterate and state."
        )
    return jax.tree.map(lambda a, b: jnp.asarray(b, jnp.result_type(a)), old, new)
