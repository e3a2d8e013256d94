"""`solve` and `trace`: a problem, a method, and what came of it.

`solve` is one compiled loop. `trace` takes the same steps in compiled chunks; between chunks the
host keeps measures and counts, looks at the clock, writes a checkpoint. Neither prints.
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax.tree as otu
from jax.core import Tracer
from jaxtyping import Array, PyTree

from .compiled import compiled
from .defaults import choose, successors
from .derivatives import answer_of
from .lifts import HostMethod, as_method
from .method import AbstractMethod, Run, advance, begin, finite, iterate
from .problem import AbstractProblem
from .solution import Certificate, Solution, Stats, Status, raise_unless_usable
from .validate import as_function, random_key, refusing, tolerance, whole_number
from .wrappers import counts_of

MAX_STEPS = 10_000
# A path that does not lead to a root may lead to infinity, and nothing else would end it.
SUCCESSOR_STEPS = 1_000
# A compiled chunk of `trace` is planned to take this many seconds at most.
CHUNK_SECONDS = 0.25
# How much further, in steps, each look at a run is than the one before.
LOOK_GROWTH = 1.15


def solve(
    problem: AbstractProblem,
    method: Any = None,
    *,
    key: Array | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_steps: int = MAX_STEPS,
    throw: bool = True,
) -> Solution:
    """Run a method on a problem until the problem says that it is solved.

    Compiled end to end, and safe under `jit`, `vmap`, `grad` and `jvp`: the answer is
    differentiated through the problem's optimality condition by whatever arrays the problem holds,
    and the derivative of an answer that is not usable is NaN.

    Args:
        problem: what is asked, from where.
        method: a Raphson method, or an Optimistix, Optax or Lineax solver; by default one that
            suits the problem (`Solution.stats` says which and why). Where that comes to rest off a
            root another goes on, outside of JAX's transformations.
        key: a random key, where the method or the problem draws.
        rtol: tolerance on the norm of the problem's residual, relative to its scale (its residual
            at the start; for a linear system the right-hand side); by default 1e-9 in double
            precision and 1e-5 in single.
        atol: absolute tolerance on the same norm; by default 1e-6 in double precision and 1e-3 in
            single. The larger of the two counts.
        max_steps: how many steps at most; 0 only judges the start.
        throw: whether to raise where the answer is not usable, or only to say so in the status.

    Returns:
        The answer with its status, certificate, stats and the method's last state.

    Raises:
        ValueError: if an argument is unfit, before anything runs.
        SolveError: if `throw` and the answer is not usable.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.Minimize(lambda y, _: jnp.sum((y - 3.0) ** 2), jnp.zeros(2))
        >>> solution = rp.solve(problem, rp.smooth.GradientDescent(step_size=0.25))
        >>> solution.value.round(3).tolist(), bool(solution.converged)
        ([3.0, 3.0], True)
    """
    problem, chosen, reason = _checked(problem, method, key, max_steps)
    rtol, atol = _tolerances(problem, rtol, atol)
    with refusing():
        if _watcher.get() is not None and not _is_traced((problem, chosen, key)):
            watched = trace(
                problem, method, key=key, rtol=rtol, atol=atol, max_steps=max_steps, throw=False
            )
            solution = watched.solution
        elif isinstance(chosen, HostMethod) and not _is_traced((problem, chosen, key)):
            run = chosen.run(problem, key, rtol, atol, max_steps)
            solution = _ended(problem, chosen, run, rtol, atol, reason)
        else:

            def found(method: AbstractMethod, limit: int, reason: str) -> Solution:
                return compiled(_solved, problem, method, key, rtol, atol, np.int32(limit), reason)

            solution = found(chosen, max_steps, reason)
            if reason and not isinstance(solution.status._value, Tracer):
                solution = _carried_on(problem, solution, max_steps, found)
    return raise_unless_usable(solution) if throw else solution


def _carried_on(
    problem: AbstractProblem,
    solution: Solution,
    max_steps: int,
    found: Callable[[AbstractMethod, int, str], Solution],
) -> Solution:
    """The solution of what takes over where the chosen method failed, if it has an answer."""
    methods, reason = successors(problem, solution)
    for method in methods:
        left = max_steps - int(solution.stats.steps)
        if left <= 0:
            break
        other = found(method, min(left, SUCCESSOR_STEPS), reason)
        # What all have taken is what the answer costs.
        spent = (solution.stats.steps, solution.stats.counts)
        steps, counts = jax.tree.map(jnp.add, spent, (other.stats.steps, other.stats.counts))
        last = bool(other.usable) or int(other.status._value) in _FROM_OUTSIDE
        kept = other if last else solution
        stats = Stats(steps, counts, kept.stats.method, reason)
        solution = eqx.tree_at(lambda s: s.stats, kept, stats)
        if last:
            break
    return solution


# What ends a run from outside ends all that would follow.
_FROM_OUTSIDE = [int(status._value) for status in (Status.interrupted, Status.time_limit)]  # pyright: ignore


def _checked(
    problem: Any, method: Any, key: Any, max_steps: Any
) -> tuple[AbstractProblem, AbstractMethod, str]:
    """The problem, the method and why it was chosen, if they fit together."""
    if not isinstance(problem, AbstractProblem):
        raise ValueError(f"`problem` must be a Raphson problem, got {problem!r}.")
    reason = ""
    if method is None:
        method, reason = choose(problem)
    method = as_method(method)
    if not isinstance(problem, method.question):
        raise ValueError(
            f"`method` {method.name} answers {method.question.__name__}, "
            f"got a {type(problem).__name__}."
        )
    if key is not None:
        random_key(key)
    draws = method.stochastic or getattr(problem, "stochastic", False)
    if draws and key is None:
        raise ValueError(
            f"`key` must be a random key, since {method.name} or the problem draws: "
            "pass `key=jax.random.key(0)`."
        )
    whole_number(max_steps, "max_steps")
    return problem, method, reason


def _tolerances(problem: AbstractProblem, rtol: Any, atol: Any) -> tuple[Any, Any]:
    if rtol is None or atol is None:
        dtype = jnp.result_type(*jax.tree.leaves(problem.y0))
        # A residual at a far start may be huge, so that a loose relative tolerance says nothing.
        defaults = (1e-9, 1e-6) if jnp.finfo(dtype).eps < 1e-10 else (1e-5, 1e-3)
        rtol, atol = (
            default if given is None else given
            for given, default in zip((rtol, atol), defaults, strict=True)
        )
    return tolerance(rtol, "rtol"), tolerance(atol, "atol")


def _is_traced(tree: Any) -> bool:
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))


def _stopped(tree: Any) -> Any:
    """The tree with no derivative flowing through its arrays."""

    def stopped(leaf: Any) -> Any:
        # What is no tracer has no derivative, and must remain a constant for XLA to fold.
        traced = isinstance(leaf, Tracer) and eqx.is_inexact_array(leaf)
        return jax.lax.stop_gradient(leaf) if traced else leaf

    return jax.tree.map(stopped, tree)


def _solved(
    problem: AbstractProblem,
    method: AbstractMethod,
    key: Array | None,
    rtol: Any,
    atol: Any,
    max_steps: Any,
    reason: str,
) -> Solution:
    traced = problem.traced(problem.y0)
    # The answer's derivative comes from the optimality condition, never through the loop.
    still, method = _stopped((traced, method))
    still, method = method.suited(still)
    run = iterate(still, method, still.y0, key, rtol=rtol, atol=atol, max_steps=max_steps)
    judged = _judged(traced, _answered(still, method, run), run.status, rtol, atol)
    return _concluded(traced, method, run, judged, reason)


def _answered(problem: AbstractProblem, method: AbstractMethod, run: Run) -> PyTree[Array]:
    """What the run has to show."""
    if type(method).answer is AbstractMethod.answer:
        return run.y
    answer = method.answer(_stopped(problem.bare.without_facts), run.y, run.state)
    # After a NaN the iterate is the last finite one, but the state is not.
    return otu.where(finite(answer), answer, run.y)


def _judged(
    problem: AbstractProblem, y: PyTree[Array], status: Any, rtol: Any, atol: Any
) -> tuple[PyTree[Array], Any, Certificate]:
    """An answer with its derivatives, its status and certificate, by the bare problem.

    Of the method nothing is asked, so that all methods share what is compiled here.
    """
    bare = problem.bare.without_facts
    still = _stopped(bare)
    certificate, start = _certificate(still, y, rtol, atol)
    status = Status.where(status == Status.running, Status.max_steps, status)
    status = Status.where(jnp.isfinite(start), status, Status.nonfinite_start)
    # That it converged is a method's belief until the certificate holds.
    status = Status.where(status == Status.converged, Status.stalled, status)
    resting = (status == Status.stalled) | (status == Status.max_steps)
    # What changes by a good part of the scale within one rounding is a jump, not noise.
    eps = jnp.finfo(certificate.noise.dtype).eps
    noise = jnp.where(certificate.noise <= eps**0.25 * certificate.scale, certificate.noise, 0)
    at_limit = certificate.residual <= noise
    status = Status.where(resting & at_limit, Status.precise, status)
    status = still.diagnosed(y, status)
    final = (status == Status.unbounded) | (status == Status.nonfinite_start)
    status = Status.where(certificate.holds & ~final, Status.converged, status)
    status = Status.where(jnp.isfinite(certificate.residual) | final, status, Status.nonfinite)
    usable = (status == Status.converged) | (status == Status.precise)
    return answer_of(bare, y, usable), status, certificate


def _concluded(
    problem: AbstractProblem, method: AbstractMethod, run: Run, judged: Any, reason: str
) -> Solution:
    stats = Stats(run.step, counts_of(problem, run.memory), method.name, reason)
    value, status, certificate = judged
    return Solution(value, status, certificate, stats, run.state)


def _ended(
    problem: AbstractProblem, method: AbstractMethod, run: Run, rtol: Any, atol: Any, reason: str
) -> Solution:
    """The solution of a run that the host drove."""
    answer = _answer(problem, method, run)
    judged = compiled(_judged, problem.bare, answer, run.status, rtol, atol)
    return _concluded(problem, method, run, judged, reason)


def _answer(problem: AbstractProblem, method: AbstractMethod, run: Run) -> PyTree[Array]:
    own = type(method).answer is not AbstractMethod.answer
    return compiled(_answered, problem, method, run) if own else run.y


def _certificate(
    problem: AbstractProblem, y: PyTree[Array], rtol: Any, atol: Any
) -> tuple[Certificate, Array]:
    """The certificate of the answer, and the norm of the residual at the start."""

    def perturbed(leaf: Array) -> Array:
        eps = jnp.finfo(leaf.dtype).eps
        signs = jnp.where(jnp.arange(leaf.size) % 2 == 0, 1, -1).reshape(leaf.shape)
        return leaf + eps * jnp.abs(leaf) * signs.astype(leaf.dtype)

    # One copy of the residual is compiled for all three points.
    nearby = jax.tree.map(perturbed, y)
    points = jax.tree.map(lambda *leaves: jnp.stack(leaves), problem.y0, y, nearby)
    residuals = jax.lax.map(problem.optimality, points)
    start, here, near = (jax.tree.map(lambda leaf: leaf[i], residuals) for i in range(3))  # noqa: B023
    scale, noise = problem.scale(start), otu.norm(otu.sub(near, here))
    limit = jnp.maximum(atol, rtol * scale)
    return Certificate(otu.norm(here), limit, scale, noise), otu.norm(start)


class Trace(eqx.Module):
    """A run with its history.

    Attributes:
        solution: as `solve` returns it.
        steps: the steps at which the run was looked at, from 0, shape (k,).
        seconds: time spent stepping until then, compilation apart, shape (k,).
        measures: the problem's measures at these steps, each of shape (k,).
        counts: oracle calls until then by name, where the problem was `Counted`, shape (k,).
        compile_seconds: time spent on compilation.
    """

    solution: Solution
    steps: np.ndarray
    seconds: np.ndarray
    measures: dict[str, np.ndarray]
    counts: dict[str, np.ndarray]
    compile_seconds: float


class Record(NamedTuple):
    """What a callback sees of a run.

    Attributes:
        step: how many steps were taken.
        seconds: time spent stepping, compilation apart.
        measures: the problem's measures.
        counts: oracle calls, where the problem was `Counted`.
    """

    step: int
    seconds: float
    measures: dict[str, float]
    counts: dict[str, int]


_watcher: contextvars.ContextVar[Callable[[Record], Any] | None] = contextvars.ContextVar(
    "watcher", default=None
)


@contextlib.contextmanager
def watch(callback: Callable[[Record], Any]) -> Iterator[None]:
    """Within this context each `solve` and `trace` outside of `jit` reports to `callback`.

    Args:
        callback: called with a `Record` now and then along a run; a true answer interrupts it.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.Minimize(lambda y, _: jnp.sum(y**2), jnp.ones(2))
        >>> seen = []
        >>> with rp.watch(seen.append):
        ...     solution = rp.solve(problem)
        >>> seen[0].step, seen[-1].step == int(solution.stats.steps)
        (0, True)
    """
    token = _watcher.set(_both(_watcher.get(), callback))
    try:
        yield
    finally:
        _watcher.reset(token)


def _both(one: Callable[[Record], Any] | None, other: Callable[[Record], Any] | None) -> Any:
    """A callback that calls both, where there are both."""
    if one is None or other is None:
        return one or other
    return lambda record: any([one(record), other(record)])


def trace(
    problem: AbstractProblem,
    method: Any = None,
    *,
    key: Array | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_steps: int = MAX_STEPS,
    throw: bool = False,
    every: int | None = None,
    time_limit: float | None = None,
    callback: Callable[[Record], Any] | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 10.0,
) -> Trace:
    """Run a method on a problem as `solve` does, and keep the history.

    The run is looked at between compiled chunks: by default after 1, 2, 3, ... steps and then ever
    less often, so that a long run has about as many points on a logarithmic axis as a short one.
    Looking is not counted in the seconds, nor is compilation. Ctrl-C ends the run with status
    `interrupted` and returns what there is.

    Args:
        problem: what is asked, from where.
        method: as in `solve`.
        key: as in `solve`.
        rtol: as in `solve`.
        atol: as in `solve`.
        max_steps: how many steps at most.
        throw: whether to raise where the answer is not usable.
        every: look at the run after this many steps each, instead of ever less often.
        time_limit: seconds of stepping, since it was resumed if it was, after which the run ends
            with status `time_limit`.
        callback: called with a `Record` at each look; a true answer interrupts the run.
        checkpoint: a file that the run is saved to; if it exists, the run goes on from it, and
            ends bit for bit where an uninterrupted run ends.
        checkpoint_seconds: how many seconds at least between saves along the run.

    Returns:
        The solution and the history.

    Raises:
        ValueError: if an argument is unfit, or the checkpoint is of another run.
        SolveError: if `throw` and the answer is not usable.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.Minimize(lambda y, _: jnp.sum(y**2), jnp.ones(2))
        >>> history = rp.trace(problem, rp.smooth.GradientDescent(0.25))
        >>> history.steps[:3].tolist(), history.measures["value"][:3].tolist()
        ([0, 1, 2], [2.0, 0.5, 0.125])
    """
    problem, method, reason = _checked(problem, method, key, max_steps)
    rtol, atol = _tolerances(problem, rtol, atol)
    if every is not None:
        whole_number(every, "every", 1)
    if time_limit is not None:
        tolerance(time_limit, "time_limit")
    if callback is not None:
        as_function(callback, "callback")
    tolerance(checkpoint_seconds, "checkpoint_seconds")
    if checkpoint is not None and not isinstance(checkpoint, str | Path):
        raise ValueError(f"`checkpoint` must be the path of a file, got {checkpoint!r}.")
    if checkpoint is not None and isinstance(method, HostMethod):
        raise ValueError(f"`checkpoint` needs a compiled loop, and {method.name} has its own.")
    saved = None if checkpoint is None else _Checkpoint(Path(checkpoint), checkpoint_seconds)
    history = _History(problem, every, time_limit, _both(callback, _watcher.get()))

    # What takes over is not saved: a run that is taken up again comes to it again.
    def found(method: AbstractMethod, limit: int, reason: str, saved: Any = None) -> Solution:
        history.follow(method)
        ending = None
        try:
            if isinstance(method, HostMethod):
                run = method.run(problem, key, rtol, atol, limit, history.look)
            else:
                run = _stepped(problem, method, key, rtol, atol, limit, history, saved)
        except _Stopped as stopped:
            run, ending = history.run, stopped.status
        except KeyboardInterrupt:
            if history.run is None:
                raise
            run, ending = history.run, Status.interrupted
        if ending is not None and _is_running(run):
            run = eqx.tree_at(lambda r: r.status, run, ending)
        history.look(run, history.spent, final=True)
        return _ended(problem, method, run, rtol, atol, reason)

    solution = found(method, max_steps, reason, saved)
    if reason:
        try:
            solution = _carried_on(problem, solution, max_steps, found)
        except KeyboardInterrupt:
            solution = eqx.tree_at(lambda s: s.status, solution, Status.interrupted)
    if throw:
        raise_unless_usable(solution)
    return history.trace(solution)


def _stepped(
    problem: AbstractProblem,
    method: AbstractMethod,
    key: Array | None,
    rtol: Any,
    atol: Any,
    max_steps: int,
    history: _History,
    saved: _Checkpoint | None,
) -> Run:
    """The compiled loop in chunks, from its start or from a checkpoint."""

    def timed(fn: Callable[..., Any], *args: Any) -> tuple[Any, float]:
        start = time.perf_counter()
        result = jax.block_until_ready(compiled(fn, problem, method, *args))
        return result, time.perf_counter() - start

    # What the first call takes more than the second is compilation; so is a chunk of no steps.
    _, first = timed(_begun, key, rtol, atol)
    run, seconds = timed(_begun, key, rtol, atol)
    _, none = timed(_advanced, run, rtol, atol, np.int32(0))
    history.compile_seconds += max(0.0, first - seconds) + none
    if saved is not None:
        run, seconds = saved.restored(run, history, seconds)
    chunk = 1
    try:
        history.look(run, seconds)
        while _is_running(run) and int(run.step) < max_steps:
            step = int(run.step)
            until = min(history.next_look(step), step + chunk, max_steps)
            run, spent = timed(_advanced, run, rtol, atol, np.int32(until))
            seconds += spent
            chunk = max(1, int(CHUNK_SECONDS * (int(run.step) - step) / max(spent, 1e-9)))
            history.look(run, seconds)
            if saved is not None:
                saved.save(run, history, seconds)
    finally:
        if saved is not None:
            saved.save(run, history, seconds, now=True)
    return run


def _begun(problem: Any, method: Any, key: Any, rtol: Any, atol: Any) -> Run:
    problem, method = method.suited(problem.traced(problem.y0))
    return begin(problem, method, problem.y0, key, rtol=rtol, atol=atol)


def _advanced(problem: Any, method: Any, run: Run, rtol: Any, atol: Any, until: Any) -> Run:
    problem, method = method.suited(problem.traced(run.y))
    return advance(problem, method, run, rtol=rtol, atol=atol, until=until)


def _measured(problem: Any, y: PyTree[Array]) -> dict[str, Array]:
    return problem.measures(y)


def _is_running(run: Run) -> bool:
    return int(run.status._value) == int(Status.running._value)  # pyright: ignore


class _Stopped(Exception):
    """The host ended a run, for the reason that `status` tells."""

    def __init__(self, status: Any):
        self.status = status


class _History:
    """What the host keeps of a run, and what ends it from outside."""

    def __init__(
        self,
        problem: AbstractProblem,
        every: int | None,
        time_limit: float | None,
        callback: Callable[[Record], Any] | None,
    ):
        self.problem, self.callback = problem, callback
        self.every, self.time_limit = every, time_limit
        self.method: Any = None
        self.run: Any = None
        self.spent = self.resumed_from = self.compile_seconds = 0.0
        self.records: list[Record] = []
        # What the methods before this one have taken.
        self.steps_before, self.seconds_before = 0, 0.0
        self.counts_before: dict[str, int] = {}

    def follow(self, method: AbstractMethod) -> None:
        """Go on with the run of `method`, after that of another if there was one."""
        if self.run is not None:
            self.steps_before += int(self.run.step)
            self.seconds_before += self.spent
            self.counts_before = self.counts(self.run)
        self.method, self.run, self.spent = method, None, 0.0

    def counts(self, run: Run) -> dict[str, int]:
        """The oracle calls until then."""
        counts = counts_of(self.problem, run.memory)
        return {name: int(n) + self.counts_before.get(name, 0) for name, n in counts.items()}

    def next_look(self, step: int) -> int:
        """The step after `step` of this run at which to look."""
        step += self.steps_before
        if self.every is not None:
            return (step // self.every + 1) * self.every - self.steps_before
        return max(step + 1, int(step * LOOK_GROWTH)) - self.steps_before

    def look(self, run: Run, seconds: float, final: bool = False) -> None:
        """Record the run if it is time to; end it if its time is over or the callback says so."""
        self.run, self.spent = run, seconds
        step, seconds = int(run.step), self.seconds_before + seconds
        last = self.records[-1].step - self.steps_before if self.records else -1
        if step > last and (final or last < 0 or step >= self.next_look(last)):
            answer = _answer(self.problem, self.method, run)
            measures = compiled(_measured, self.problem.bare, answer)
            # A compiled function answers a dict in the order of its names.
            first = {"residual": float(measures.pop("residual"))}
            record = Record(
                self.steps_before + step,
                seconds,
                first | {name: float(value) for name, value in measures.items()},
                self.counts(run),
            )
            self.records.append(record)
            if self.callback is not None and self.callback(record) and not final:
                raise _Stopped(Status.interrupted)
        limit = math.inf if final or self.time_limit is None else self.time_limit
        if seconds - self.resumed_from > limit:
            raise _Stopped(Status.time_limit)

    def trace(self, solution: Solution) -> Trace:
        """The history as arrays."""

        def columns(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
            return {name: np.array([row[name] for row in rows]) for name in rows[0]}

        return Trace(
            solution,
            np.array([record.step for record in self.records]),
            np.array([record.seconds for record in self.records]),
            columns([record.measures for record in self.records]),
            columns([record.counts for record in self.records]),
            self.compile_seconds,
        )


class _Checkpoint:
    """A file that holds a run and its history: one line of JSON, then the run's arrays."""

    def __init__(self, path: Path, interval: float):
        self.path, self.interval, self.written = path, interval, time.monotonic()

    def save(self, run: Run, history: _History, seconds: float, now: bool = False) -> None:
        """Write the run if the last time is long enough ago, never leaving half a file."""
        if not now and time.monotonic() - self.written < self.interval:
            return
        header = {
            "method": history.method.name,
            "structure": str(jax.tree.map(jnp.shape, _raw(run))),
            "seconds": seconds,
            "records": history.records,
        }
        partial = self.path.with_name(self.path.name + ".partial")
        with partial.open("wb") as file:
            file.write(json.dumps(header).encode() + b"\n")
            eqx.tree_serialise_leaves(file, _raw(run))
        os.replace(partial, self.path)
        self.written = time.monotonic()

    def restored(self, run: Run, history: _History, seconds: float) -> tuple[Run, float]:
        """The saved run, with the history put back; `run` itself where nothing was saved."""
        if not self.path.exists():
            return run, seconds
        with self.path.open("rb") as file:
            header = json.loads(file.readline())
            structure = str(jax.tree.map(jnp.shape, _raw(run)))
            if (header["method"], header["structure"]) != (history.method.name, structure):
                raise ValueError(
                    f"`checkpoint` {self.path} holds a run of {header['method']} with other "
                    f"shapes; expected one of {history.method.name}: name another file."
                )
            raw = eqx.tree_deserialise_leaves(file, _raw(run))
        history.records = [Record(*record) for record in header["records"]]
        history.resumed_from = header["seconds"]
        return _cooked(raw, run), header["seconds"]


def _raw(run: Run) -> Run:
    """The run with random keys as plain numbers."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, run)


def _cooked(raw: Run, like: Run) -> Run:
    return jax.tree.map(
        lambda x, key: (
            jax.random.wrap_key_data(x, impl=jax.random.key_impl(key)) if _is_key(key) else x
        ),
        raw,
        like,
    )


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.asarray(leaf).dtype, jax.dtypes.prng_key)
