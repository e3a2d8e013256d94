"""Where runs are computed: processes of this machine through joblib's loky, or a Dask cluster.

Either way each run comes back as a record, also where the process that computed it died.
"""

from __future__ import annotations

import abc
import os
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Self

import joblib
from joblib.externals.loky import ProcessPoolExecutor

from .run import Case, prepare, run

# How much longer than its time limits allow a local run may take before it counts as hanging.
GRACE_SECONDS = 180.0


class Pool(abc.ABC):
    """Workers; to be closed after use, as by a `with` block."""

    @abc.abstractmethod
    def race(self, cases: list[Case]) -> Iterator[tuple[Case, dict[str, Any]]]:
        """The cases and their records as they come in."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let the workers go, whatever they are doing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()


class LocalPool(Pool):
    """Processes of this machine, one thread each.

    A run whose process dies may only have stood beside the culprit, so it is run once more, alone;
    if its process dies again, that is its record. A run that hangs is ended.

    Args:
        jobs: how many processes; one for each core by default.
    """

    def __init__(self, jobs: int | None = None):
        self.jobs = jobs or joblib.cpu_count()
        self.workers = self._hired()
        # The workers import what they need while the race is still being put together.
        self.first = [self.workers.submit(os.getpid) for _ in range(self.jobs)]

    def close(self) -> None:
        # Killed before it has handed these on, loky's own thread dies of a KeyError.
        patience = time.monotonic() + 5.0
        while not all(f.running() or f.done() for f in self.first) and time.monotonic() < patience:
            time.sleep(0.005)
        self.workers.shutdown(kill_workers=True)

    def race(self, cases: list[Case]) -> Iterator[tuple[Case, dict[str, Any]]]:
        waiting = deque(cases)
        while waiting:
            suspects = []
            for case, record in self._run(waiting, self.jobs):
                if record is None:
                    suspects.append(case)
                else:
                    yield case, record
            for suspect in suspects:
                for case, record in self._run(deque([suspect]), 1):
                    yield case, record or case.failure("its process died, twice")

    def _run(
        self, waiting: deque[Case], width: int
    ) -> Iterator[tuple[Case, dict[str, Any] | None]]:
        """Cases and their records until all are done or a process dies.

        If one dies, the cases that were running come without a record, and `waiting` is left with
        those that had not begun.
        """
        running: dict[Any, tuple[Case, float]] = {}
        broken = False
        while (waiting or running) and not broken:
            while waiting and len(running) < width:
                case = waiting.popleft()
                try:
                    running[self.workers.submit(run, case)] = case, time.monotonic()
                except BrokenProcessPool:
                    broken = True
                    yield case, None
                    break
            for future in wait(running, 1.0, FIRST_COMPLETED).done:
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    broken = True
                else:
                    case, _ = running.pop(future)
                    yield case, future.result() if error is None else case.failure(_told(error))
            hanging = [f for f, (case, start) in running.items() if _overdue(case, start)]
            if hanging:
                for future in hanging:
                    case, start = running.pop(future)
                    waited = time.monotonic() - start
                    yield case, case.failure(f"did not end, and was ended after {waited:.0f} s")
                waiting.extendleft(case for case, _ in running.values())
                running.clear()
                self._rehire()
        if broken:
            for case, _ in running.values():
                yield case, None
            self._rehire()

    def _rehire(self) -> None:
        self.close()
        self.workers = self._hired()

    def _hired(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self.jobs, initializer=prepare, initargs=(os.getpid(),), env=_environment()
        )


def _overdue(case: Case, start: float) -> bool:
    allowed = 2 * case.settings.time_limit + GRACE_SECONDS
    return time.monotonic() - start > allowed


def _environment() -> dict[str, str]:
    """One thread a process, what XLA compiled kept for the next race, memory shared fairly."""
    threads = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB_MAXIMUM")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    flags = os.environ.get("XLA_FLAGS", "")
    defaults = {
        "JAX_COMPILATION_CACHE_DIR": str(cache / "raphson" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    return {
        **{name: os.environ.get(name, default) for name, default in defaults.items()},
        **{f"{name}_NUM_THREADS": "1" for name in threads},
        "XLA_FLAGS": f"{flags} --xla_cpu_multi_thread_eigen=false".strip(),
    }


class ClusterPool(Pool):
    """The workers of a Dask cluster, on which Raphson must be installed.

    Dask hands the run of a worker that died to another one, a few times; then its record says so.

    Args:
        address: of the scheduler, such as `"tcp://10.0.0.1:8786"`.

    Raises:
        ValueError: if there is no Dask here, or no scheduler answers at the address.
    """

    def __init__(self, address: str):
        try:
            import distributed
        except ImportError:
            raise ValueError("`--cluster` needs Dask: install `raphson[cluster]`.") from None
        try:
            self.client = distributed.Client(address, timeout=10, set_as_default=False)
        except (OSError, ValueError) as error:
            reason = str(error).split("\n")[0].rstrip(".")
            raise ValueError(f"no Dask scheduler answers at {address}: {reason}.") from None

    def race(self, cases: list[Case]) -> Iterator[tuple[Case, dict[str, Any]]]:
        from distributed import as_completed

        futures = {self.client.submit(run, case, pure=False): case for case in cases}
        for future in as_completed(list(futures), loop=self.client.loop):
            if future.status == "cancelled":
                raise ConnectionError("the Dask cluster went away")
            # What is popped here is released there.
            case, error = futures.pop(future), future.exception()
            yield case, future.result() if error is None else case.failure(_told(error))

    def close(self) -> None:
        # The scheduler drops the runs that nobody waits for any more.
        self.client.close()


def _told(error: BaseException) -> str:
    if type(error).__name__ == "KilledWorker":
        return "each worker that ran it died"
    return f"{type(error).__name__}: {error}".split("\n")[0][:500]
