"""One run of a race, as a worker process does it: load, trace, repeat, and put into a record."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
import os
import platform
import signal
import threading
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import jax
import numpy as np
import optax.tree as otu
import scipy.optimize  # noqa: F401, or the first run of a SciPy solver would pay for it
from joblib.externals.loky import process_executor

from ..engine import Trace, trace
from ..problem import AbstractProblem
from ..solution import status_name
from ..wrappers import Counted
from .entrants import Entrant, entrant
from .questions import Question

LIBRARIES = ("raphson", "jax", "equinox", "optimistix", "optax", "lineax", "scipy", "numpy")

# An oracle call that costs as much as one product for each unknown.
_DENSE = ("hessian", "jacobian", "matrix")

# A process holds what it compiled, some 10 MB a run, until it has done this many runs more.
CLEAR_EVERY = 25
_runs = itertools.count(1)


@dataclass(frozen=True)
class Settings:
    """What all runs of a race have in common.

    Attributes:
        rtol: tolerance relative to the problem's scale; the engine's default if None.
        atol: absolute tolerance, likewise.
        max_steps: how many steps at most.
        time_limit: seconds of stepping at most.
        repeats: how often a run is timed, as long as its repetitions fit into `time_limit`.
        every: look at a run after this many steps each; by default ever less often.
    """

    rtol: float | None = None
    atol: float | None = None
    max_steps: int = 10_000
    time_limit: float = 10.0
    repeats: int = 3
    every: int | None = None


@dataclass(frozen=True)
class Case:
    """One run: who, on what, with which seed, under which settings, at which learning rate."""

    question: Question
    method: str
    seed: int
    settings: Settings
    version: str
    rate: float | None = None

    @classmethod
    def of(cls, question: Question, method: Entrant, seed: int, settings: Settings) -> Case:
        """The case, with the version of the method that it is about."""
        return cls(question, method.name, seed, settings, method.version)

    @property
    def key(self) -> str:
        """What the run depends on, as a hash: a run of this key need not be run again."""
        parts = {
            "problem": [self.question.name, self.question.fingerprint],
            "method": [self.method, self.version],
            "seed": self.seed,
            "settings": asdict(self.settings),
            "rate": self.rate,
            "raphson": _version("raphson"),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]

    def record(self, **found: Any) -> dict[str, Any]:
        """What is written down of the run: itself, where and when it ran, and what was found."""
        return {
            "problem": self.question.name,
            "method": self.method,
            "seed": self.seed,
            "rate": self.rate,
            "settings": asdict(self.settings),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            **found,
        }

    def failure(self, error: str) -> dict[str, Any]:
        """The record of a run that has no result."""
        return self.record(status="error", solved=False, error=error)


def prepare(race: int) -> None:
    """Make this process a worker of the process `race`: what interrupts that is not its business.

    It does not outlive the race, even one that was killed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # loky replaces a process that has grown by 300 MB, as every one does that compiles.
    process_executor._USE_PSUTIL = False

    def leave_with_race() -> None:
        while os.getppid() == race:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=leave_with_race, daemon=True).start()


def run(case: Case) -> dict[str, Any]:
    """The record of one run; an exception becomes a record too."""
    # A worker is the race's own process, and problem sets are stated in double precision.
    jax.config.update("jax_enable_x64", True)
    if next(_runs) % CLEAR_EVERY == 0:
        jax.clear_caches()
    try:
        return _record(case)
    except Exception as error:
        message = str(error).strip().split("\n")[0]
        return case.failure(f"{type(error).__name__}: {message}"[:500])


def _record(case: Case) -> dict[str, Any]:
    problem, settings = case.question.load(), case.settings
    once = functools.partial(
        trace,
        Counted(problem),
        entrant(case.method).method(case.rate),
        key=jax.random.key(case.seed),
        rtol=settings.rtol,
        atol=settings.atol,
        max_steps=settings.max_steps,
        every=settings.every,
        time_limit=settings.time_limit,
    )
    first = once()
    timed, spent = [first], float(first.seconds[-1])
    while len(timed) < settings.repeats and spent < settings.time_limit:
        timed.append(once())
        spent += float(timed[-1].seconds[-1])
    solution, size = first.solution, _size(problem)
    certificate = solution.certificate
    return case.record(
        status=status_name(solution.status),
        solved=bool(solution.usable),
        error="",
        question=type(problem).__name__,
        size=size,
        dtype=str(np.result_type(*jax.tree.leaves(problem.y0))),
        stochastic=bool(getattr(problem, "stochastic", False)),
        # Of other questions a value is no measure of progress.
        valued=jax.eval_shape(lambda: problem.minimized(problem.y0)) is not None,
        optimum=_number(problem.facts.optimum),
        constants=_constants(problem),
        residual=_number(certificate.residual),
        tolerance=_number(certificate.tolerance),
        noise=_number(certificate.noise),
        steps=int(solution.stats.steps),
        counts={name: int(count) for name, count in solution.stats.counts.items() if count},
        calls=_calls(first, size)[-1],
        seconds=_seconds([run.seconds[-1] for run in timed]),
        repeats=len(timed),
        # SciPy compiles as it goes, and `trace` does not tell how long that took.
        compile_seconds=_seconds([first.compile_seconds]) or None,
        history=_history(timed, size),
        versions=versions(),
        machine=machine(),
    )


def _history(timed: list[Trace], size: int) -> dict[str, list[Any]]:
    first = timed[0]
    # Repetitions are looked at after the same steps, but a time limit may cut them differently.
    seconds = [
        _seconds([run.seconds[i] for run in timed if len(run.steps) > i and run.steps[i] == step])
        for i, step in enumerate(first.steps)
    ]
    return {
        "steps": first.steps.tolist(),
        "seconds": seconds,
        "calls": _calls(first, size),
        **{name: [_number(x) for x in column] for name, column in first.measures.items()},
    }


def _constants(problem: AbstractProblem) -> dict[str, float] | None:
    """What a lower bound on the gap after so many gradients is made of, where it is known."""
    facts = problem.facts
    if not facts.convex or facts.lipschitz is None or facts.minimizer is None:
        return None
    return {
        "lipschitz": float(facts.lipschitz),
        "strong_convexity": float(facts.strong_convexity or 0),
        "distance": float(otu.norm(otu.sub(problem.y0, facts.minimizer))),
    }


def _calls(run: Trace, size: int) -> list[int]:
    """Oracle calls along a run: a value, a gradient or a product is one, a dense Hessian n."""
    columns = [column * (size if name in _DENSE else 1) for name, column in run.counts.items()]
    return np.sum(columns, axis=0, dtype=int).tolist()


def _seconds(repeated: list[float]) -> float:
    """The median, to microseconds."""
    return round(float(np.median(repeated)), 6)


def _size(problem: AbstractProblem) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(problem.y0))


def _number(x: Any) -> float | None:
    """A number that JSON can hold, else None."""
    return float(x) if x is not None and math.isfinite(float(x)) else None


def versions() -> dict[str, str]:
    """The versions that results depend on."""
    return {name: _version(name) for name in LIBRARIES} | {"python": platform.python_version()}


def machine() -> dict[str, Any]:
    """The machine in a few words."""
    return {
        "cores": os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "system": f"{platform.system()} {platform.machine()}",
    }


@functools.cache
def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "not installed"
