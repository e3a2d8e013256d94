"""Who solved what, at which cost: the same test for everyone, nothing averaged over failures.

A run has solved its problem if the certificate of its answer says so; its cost is that of the first
look at which the residual met the tolerance, whenever the method itself cared to stop. Where the
objective is sampled, no method can certify its answer: there a run has solved the problem once the
full objective reached a target between its value at the start and the least value known. A question
without an objective, such as a saddle or two levels, is judged by its certificate even so.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats

from .entrants import entrants
from .profiles import best_ratios

# Of the intervals of ranks.
CONFIDENCE, RESAMPLED = 0.9, 2000

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


@dataclass(frozen=True)
class Rank:
    """An optimizer's place among those that trained the same models.

    Attributes:
        method: its name.
        loss: its mean rank over the problems by the loss at the end, with the interval.
        held_out: the same by the loss on the samples held out.
        seconds: median time of a step over the least of any optimizer, over the problems.
    """

    method: str
    loss: tuple[float, float, float]
    held_out: tuple[float, float, float]
    seconds: float


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
        if not self._valued(problem):
            return Aim(False)
        if not values or unbounded:
            return Aim(sampled)
        best = min([*values, *(r["optimum"] for r in records if r["optimum"] is not None)])
        starts = [r["history"]["value"][0] for r in records]
        # Of an infinite fall, from outside of a set, there is no part.
        if None in starts:
            return Aim(sampled)
        part = TARGET_SAMPLED if sampled else TARGET
        return Aim(sampled, best, part * (max(starts) - best))

    def _valued(self, problem: str) -> bool:
        """Whether a least value is asked for."""
        return all(valued(r) for (p, _), rs in self.runs.items() if p == problem for r in rs)

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

    def ranks(self) -> list[Rank]:
        """Those who raced at tuned learning rates, the best by their loss first.

        Ranks are by the median over seeds on each problem, their mean is over problems, and its
        interval holds 90 % of the means where problems, and seeds within them, are drawn anew. Who
        was not raced on every problem, or ended nowhere, has the last rank there.
        """
        tuned = {
            (p, m)
            for (p, m), rs in self.runs.items()
            if any(r.get("rate") for r in rs) and self._valued(p)
        }
        methods = [m for m in self.methods if any((p, m) in tuned for p in self.problems)]
        problems = [p for p in self.problems if any((p, m) in tuned for m in methods)]
        if len(methods) < 2:
            return []
        by_loss = self._mean_ranks("value", problems, methods)
        by_held_out = self._mean_ranks("held_out", problems, methods)
        paces = best_ratios(
            np.array(
                [[_median(_paces(self.runs.get((p, m), []))) for p in problems] for m in methods]
            )
        )
        ranks = [
            Rank(method, by_loss[i], by_held_out[i], _median(paces[i].tolist()))
            for i, method in enumerate(methods)
        ]
        return sorted(ranks, key=lambda rank: rank.loss)

    def _mean_ranks(
        self, measure: str, problems: list[str], methods: list[str]
    ) -> list[tuple[float, float, float]]:
        seeds = max(len(self.runs.get((p, m), ())) for p in problems for m in methods)
        ends = np.full((len(problems), len(methods), seeds), np.inf)
        for i, problem in enumerate(problems):
            for j, method in enumerate(methods):
                for k, record in enumerate(self.runs.get((problem, method), ())):
                    ends[i, j, k] = end(record, measure)
        rng = np.random.default_rng(0)
        drawn = []
        for _ in range(RESAMPLED):
            which = rng.integers(len(problems), size=len(problems))
            seed = rng.integers(seeds, size=(len(problems), len(methods), seeds))
            drawn.append(_ranked(np.take_along_axis(ends[which], seed, axis=2)))
        low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
        return [(float(a), float(b), float(c)) for a, b, c in zip(_ranked(ends), low, high)]

    def headline(self) -> list[str]:
        """What the race showed, in a few sentences."""
        ranks = self.ranks()
        if ranks:
            return _trained(ranks, len(self.problems))
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


def end(record: Record, measure: str) -> float:
    """A measure at the end of a run; infinite where there is none, or it was lost."""
    value = record.get("history", {}).get(measure, [None])[-1]
    return math.inf if value is None or record["status"] == "nonfinite" else value


def valued(record: Record) -> bool:
    """Whether what the question asks for is a least value; a run that died does not tell."""
    return record.get("valued", True)


def _paces(records: list[Record]) -> list[float]:
    """Seconds of a step."""
    return [r["seconds"] / r["steps"] for r in records if r.get("steps")]


def _ranked(ends: np.ndarray) -> np.ndarray:
    """The mean over problems of the ranks of the medians over seeds; equals share their ranks."""
    # A race that all seeds lost is infinite, and NaN to no one.
    medians = np.quantile(ends, 0.5, axis=2, method="higher")
    return np.mean(scipy.stats.rankdata(medians, axis=1), axis=0)


def _trained(ranks: list[Rank], count: int) -> list[str]:
    """The headline of a race of optimizers at tuned learning rates."""
    first, *others = ranks
    rank, low, high = first.loss
    reach = [other.method for other in others if other.loss[1] <= high]
    best = min(ranks, key=lambda other: other.held_out)
    return [
        f"{first.method} has the least mean rank by loss: {rank:.1f} of {len(ranks)} on {count} "
        f"problems, {CONFIDENCE:.0%} interval {low:.1f} to {high:.1f}.",
        f"No winner is claimed: into its interval those of {_listed(reach)} reach."
        if reach
        else "No other interval reaches into its own.",
        f"On the samples held out {best.method} is first, mean rank {best.held_out[0]:.1f}.",
    ]


def _median(costs: list[float]) -> float:
    if not costs:
        return math.inf
    with np.errstate(invalid="ignore"):
        median = float(np.median(costs))
    return math.inf if math.isnan(median) else median


def _listed(names: list[str]) -> str:
    shown = names if len(names) <= 4 else [*names[:3], f"{len(names) - 3} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
