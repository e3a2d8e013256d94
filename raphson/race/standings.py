"""Who solved what, at which cost: the same test for everyone, nothing averaged over failures.

A run has solved its problem if the certificate of its answer says so; its cost is that of the first
look at which the residual met the tolerance, whenever the method itself cared to stop. Where the
objective is sampled, no method can certify its answer: there a run has solved the problem once the
full objective reached a target between its value at the start and the least value known.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from .entrants import entrants
from .profiles import best_ratios

# The part of the way from the start to the least value known that is left at the target.
TARGET = 1e-5
TARGET_SAMPLED = 1e-2

Record = dict[str, Any]


@dataclass(frozen=True)
class Aim:
    """What there is to reach on a problem.

    Attributes:
        sampled: whether the objective is sampled.
        best: the least value known, of the problem's facts and all runs; None without an objective.
        gap: how far above `best` the target is; None likewise.
    """

    sampled: bool
    best: float | None = None
    gap: float | None = None

    @property
    def target(self) -> float | None:
        """The value at which the problem counts as solved, where its value decides."""
        return None if self.best is None or self.gap is None else self.best + self.gap


@dataclass(frozen=True)
class Line:
    """A method's place in a race.

    Attributes:
        method: its name.
        solved: how many problems it solved, with more than half of its seeds.
        entered: how many it was raced on.
        fewest_calls: on how many problems it needed the fewest oracle calls.
        least_seconds: on how many it needed the least time.
        calls_ratio: median of its calls over the best method's, on the problems it solved.
        seconds_ratio: the same of seconds.
        stopped_short: runs that it ended by itself although the residual was not met.
        errors: runs that raised or died.
    """

    method: str
    solved: int
    entered: int
    fewest_calls: int
    least_seconds: int
    calls_ratio: float
    seconds_ratio: float
    stopped_short: int
    errors: int


class Standings:
    """The records of a race, judged.

    Args:
        records: one for each run, of one or several seeds.
    """

    def __init__(self, records: list[Record]):
        self.runs: dict[tuple[str, str], list[Record]] = defaultdict(list)
        for record in records:
            self.runs[record["problem"], record["method"]].append(record)
        self.problems = list(dict.fromkeys(problem for problem, _ in self.runs))
        self.methods = list(dict.fromkeys(method for _, method in self.runs))
        self.aims = {problem: self._aim(problem) for problem in self.problems}

    def _aim(self, problem: str) -> Aim:
        records = [r for (p, _), rs in self.runs.items() if p == problem for r in rs]
        records = [r for r in records if r["status"] != "error"]
        values = [v for r in records for v in r["history"].get("value", ()) if v is not None]
        sampled = any(r["stochastic"] for r in records)
        unbounded = any(r["status"] == "unbounded" for r in records)
        # The value of a saddle is no measure of progress.
        if not values or unbounded or any(r["question"] == "Saddle" for r in records):
            return Aim(sampled)
        best = min([*values, *(r["optimum"] for r in records if r["optimum"] is not None)])
        starts = [r["history"]["value"][0] for r in records]
        # Of an infinite fall, from outside of a set, there is no part.
        if None in starts:
            return Aim(sampled)
        part = TARGET_SAMPLED if sampled else TARGET
        return Aim(sampled, best, part * (max(starts) - best))

    def solved(self, record: Record) -> bool:
        """Whether a run solved its problem."""
        if record["status"] == "error":
            return False
        if self.aims[record["problem"]].sampled:
            return math.isfinite(self.cost(record, "steps"))
        return record["solved"]

    def elsewhere(self, record: Record) -> bool:
        """Whether a run solved its problem at a value that is not near the least known."""
        if self.aims[record["problem"]].target is None or not self.solved(record):
            return False
        return math.isinf(self.cost_to_target(record, "steps"))

    def cost(self, record: Record, unit: str) -> float:
        """What it cost in `"calls"`, `"seconds"` or `"steps"`; infinite where it did not solve."""
        if record["status"] == "error":
            return math.inf
        if self.aims[record["problem"]].sampled:
            return self.cost_to_target(record, unit)
        if not record["solved"]:
            return math.inf
        return _first(record, unit, "residual", record["tolerance"], record["history"][unit][-1])

    def cost_to_target(self, record: Record, unit: str) -> float:
        """What it cost to bring the value to the target, whatever became of the run then."""
        target = self.aims[record["problem"]].target
        if record["status"] == "error" or target is None:
            return math.inf
        return _first(record, unit, "value", target, math.inf)

    def table(self, unit: str, to_target: bool = False) -> np.ndarray:
        """Costs, shape (methods, problems): medians over seeds, infinite where half of them failed.

        A problem on which a method was not raced counts as not solved by it. With `to_target`, the
        problems are those that have an objective.
        """
        measure = self.cost_to_target if to_target else self.cost
        problems = [p for p in self.problems if not to_target or self.aims[p].target is not None]
        return np.array(
            [
                [_median([measure(r, unit) for r in self.runs.get((p, m), ())]) for p in problems]
                for m in self.methods
            ]
        ).reshape(len(self.methods), len(problems))

    def lines(self) -> list[Line]:
        """The methods' places, who solved most first."""
        calls, seconds = self.table("calls"), self.table("seconds")
        by_calls, by_seconds = best_ratios(calls), best_ratios(seconds)
        lines = []
        for i, method in enumerate(self.methods):
            records = [r for (_, m), rs in self.runs.items() if m == method for r in rs]
            done = np.isfinite(calls[i])
            lines.append(
                Line(
                    method,
                    int(done.sum()),
                    sum((problem, method) in self.runs for problem in self.problems),
                    int((by_calls[i] == 1).sum()),
                    int((by_seconds[i] == 1).sum()),
                    _median(by_calls[i][done].tolist()),
                    _median(by_seconds[i][done].tolist()),
                    sum(r["status"] == "stalled" and not self.solved(r) for r in records),
                    sum(r["status"] == "error" for r in records),
                )
            )
        return sorted(lines, key=lambda line: (-line.solved, line.calls_ratio))

    def headline(self) -> list[str]:
        """What the race showed, in a few sentences."""
        lines, count = self.lines(), len(self.problems)
        first = [line.method for line in lines if line.solved == lines[0].solved]
        what = f"{count} problem{'s' * (count != 1)}"
        if lines[0].solved == 0:
            return [f"No method solved any of {what}."]
        if len(first) == len(lines) > 1:
            most = f"All {len(lines)} methods solved {lines[0].solved} of {what}."
        else:
            most = f"{_listed(first)} solved most: {lines[0].solved} of {what}."
        calls = max(lines, key=lambda line: (line.fewest_calls, -line.calls_ratio))
        seconds = max(lines, key=lambda line: (line.least_seconds, -line.seconds_ratio))
        both = "and" if calls is seconds else f"{seconds.method}"
        sentences = [
            most,
            f"{calls.method} needed the fewest oracle calls on {calls.fewest_calls}, "
            f"{both} the least time on {seconds.least_seconds}.",
        ]
        ours = {name for name, entrant in entrants().items() if entrant.ours}
        own = next((line for line in lines if line.method in ours), None)
        if own is not None and own.method not in first:
            sentences.append(f"Of Raphson's own, {own.method} solved most: {own.solved}.")
        none = int((~np.isfinite(self.table("steps"))).all(axis=0).sum())
        if none:
            sentences.append(f"{none} {'was' if none == 1 else 'were'} solved by none.")
        return sentences


def _first(record: Record, unit: str, measure: str, level: float, otherwise: float) -> float:
    """The cost at the first look at which a measure was at or below a level."""
    history = record["history"]
    for cost, figure in zip(history[unit], history.get(measure, ()), strict=False):
        if figure is not None and figure <= level:
            return cost
    return otherwise


def _median(costs: list[float]) -> float:
    if not costs:
        return math.inf
    with np.errstate(invalid="ignore"):
        median = float(np.median(costs))
    return math.inf if math.isnan(median) else median


def _listed(names: list[str]) -> str:
    shown = names if len(names) <= 4 else [*names[:3], f"{len(names) - 3} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
