"""Learning rates: the same trials for every method that needs one, and the best for the race."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from .entrants import entrant
from .run import Case, Settings
from .standings import end, valued

# What is tried: half decades. The seed of the trials is none that is raced.
RATES = tuple(10 ** (i / 2) for i in range(-8, 1))
TRIAL_SEED = -1


def trials(cases: list[Case], part: float = 1.0) -> list[Case]:
    """For each tuned method and problem of a race, a run at each of `RATES`; its end counts.

    Args:
        cases: of the race.
        part: of the steps and of the time of a run, how much a trial has.
    """
    pairs = {(case.question, case.method): case for case in cases}
    return [
        dataclasses.replace(
            case, seed=TRIAL_SEED, rate=rate, settings=_unwatched(case.settings, part)
        )
        for case in pairs.values()
        if entrant(case.method).rate is not None
        for rate in RATES
    ]


def _unwatched(settings: Settings, part: float) -> Settings:
    steps = math.ceil(part * settings.max_steps)
    limit = part * settings.time_limit
    return dataclasses.replace(
        settings, max_steps=steps, time_limit=limit, every=max(1, steps), repeats=1
    )


def tuned(cases: list[Case], tried: list[Case], records: list[dict[str, Any]]) -> list[Case]:
    """The cases of a race, each at the rate whose trial ended best.

    It is the one with the least full objective; where the question has none, the one that solved
    its problem in the fewest steps or, of those that did not, with the least residual.

    Args:
        cases: of the race.
        tried: as `trials` gave them.
        records: of the trials, in their order.
    """
    best: dict[Any, tuple[tuple[float, ...], float]] = {}
    for case, record in zip(tried, records, strict=True):
        outcome = _outcome(record), case.rate or 0.0
        pair = case.question, case.method
        best[pair] = min(best.get(pair, outcome), outcome)
    return [
        dataclasses.replace(case, rate=best[pair][1])
        if (pair := (case.question, case.method)) in best
        else case
        for case in cases
    ]


def _outcome(record: dict[str, Any]) -> tuple[float, ...]:
    """How a trial ended, the less the better."""
    if valued(record):
        return (end(record, "value"),)
    if record.get("solved"):
        return (0.0, record["steps"], end(record, "residual"))
    return (1.0, 0.0, end(record, "residual"))
