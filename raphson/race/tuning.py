"""Learning rates: the same trials for every optimizer, and the best of them for the race."""

from __future__ import annotations

import dataclasses
from typing import Any

from .entrants import entrant
from .run import Case, Settings
from .standings import end

# What is tried: half decades. The seed of the trials is none that is raced.
RATES = tuple(10 ** (i / 2) for i in range(-8, 1))
TRIAL_SEED = -1


def trials(cases: list[Case]) -> list[Case]:
    """For each optimizer and problem of a race, a run at each of `RATES`; its end counts."""
    pairs = {(case.question, case.method): case for case in cases}
    return [
        dataclasses.replace(case, seed=TRIAL_SEED, rate=rate, settings=_unwatched(case.settings))
        for case in pairs.values()
        if entrant(case.method).rate is not None
        for rate in RATES
    ]


def _unwatched(settings: Settings) -> Settings:
    return dataclasses.replace(settings, every=max(1, settings.max_steps))


def tuned(cases: list[Case], tried: list[Case], records: list[dict[str, Any]]) -> list[Case]:
    """The cases of a race, each at the rate whose trial ended with the least full objective.

    Args:
        cases: of the race.
        tried: as `trials` gave them.
        records: of the trials, in their order.
    """
    best: dict[Any, tuple[float, float]] = {}
    for case, record in zip(tried, records, strict=True):
        outcome = end(record, "value"), case.rate or 0.0
        pair = case.question, case.method
        best[pair] = min(best.get(pair, outcome), outcome)
    return [
        dataclasses.replace(case, rate=best[pair][1])
        if (pair := (case.question, case.method)) in best
        else case
        for case in cases
    ]
