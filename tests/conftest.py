"""Numerics are strict under test, and the closing summary counts the checks of the battery."""

import gc
import itertools
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

# The library leaves these to its user; they are set here once, before any test makes an array.
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")


MAPS = Path("/proc/self/maps")
MANY_MAPS = 25_000
ran = itertools.count(1)


@pytest.fixture(autouse=True)
def few_programs() -> Iterator[None]:
    """Forget compiled programs before they use up the memory maps of the process.

    Each takes some, Linux allows 65,530, and where none is left XLA dies of it.
    """
    yield
    if next(ran) % 20 == 0 and MAPS.exists():
        with MAPS.open("rb") as lines:
            if sum(1 for _ in lines) > MANY_MAPS:
                jax.clear_caches()
                gc.collect()


def pytest_collection_finish() -> None:
    """Look for garbage rarely, and not among what stays: tracing makes many objects, and no cycles.

    At Python's own pace some 6 % of the time of the tests went into it.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture
def strict_dtypes() -> Iterator[None]:
    """Refuse every implicit promotion of dtypes while the test runs.

    It is asked for rather than set for all tests: several of Optax's optimizers, Adam among
    them, raise a float to an integer step count, which strict promotion refuses.
    """
    with jax.numpy_dtype_promotion("strict"):
        yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many checks of the common battery ran: a green run of too few is no pass."""
    ran = ("passed", "failed", "error", "xfailed", "xpassed")
    checks = {
        report.nodeid
        for outcome in ran
        for report in terminalreporter.stats.get(outcome, ())
        if "test_battery" in report.nodeid or "test_bad_input" in report.nodeid
    }
    terminalreporter.write_line(f"battery checks: {len(checks)}")
