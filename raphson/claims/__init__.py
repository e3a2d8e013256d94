"""Claims: one sentence of a paper as a check that runs, with a control that must fail it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Paper:
    """An entry of the catalogue.

    Attributes:
        slug: short name, as in `raphson claims SLUG`.
        title: full title.
        authors: family names, comma-separated.
        year: of publication.
        implements: dotted public names, such as `"raphson.smooth.LazyNewton"`.
        note: what a reader should know: what does not reproduce, what departs from the paper.
    """

    slug: str
    title: str
    authors: str
    year: int
    implements: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Budget:
    """How much a claim may spend: `quick` runs within seconds."""

    quick: bool = True

    def pick(self, quick: T, full: T) -> T:
        """The size of a run: `quick` or `full`."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    Attributes:
        measured: the figure of the method.
        threshold: what it is held against.
        control: the same figure of the comparator that must be beaten, or of the broken variant.
        case: on what, in words.
        at_most: whether a figure passes at or below the threshold; else at or above.
    """

    measured: float
    threshold: float
    control: float
    case: str
    at_most: bool = True

    def passes(self, figure: float) -> bool:
        """Whether a figure meets the threshold; NaN never does."""
        return bool(figure <= self.threshold if self.at_most else figure >= self.threshold)


@dataclass(frozen=True)
class Outcome:
    """A claim that ran: it stands only if it holds and its control fails."""

    claim: Claim
    verdict: Verdict
    seconds: float

    @property
    def holds(self) -> bool:
        return self.verdict.passes(self.verdict.measured)

    @property
    def control_fails(self) -> bool:
        # A control that broke down proves nothing.
        return not math.isnan(self.verdict.control) and not self.verdict.passes(
            self.verdict.control
        )

    @property
    def stands(self) -> bool:
        return self.holds and self.control_fails

    def as_dict(self) -> dict[str, Any]:
        """The outcome as plain data."""
        return {
            "claim": self.claim.name,
            "paper": self.claim.paper,
            "says": self.claim.says,
            "measured": float(self.verdict.measured),
            "threshold": float(self.verdict.threshold),
            "control": float(self.verdict.control),
            "holds": self.holds,
            "control_fails": self.control_fails,
            "reproduces": self.claim.reproduces,
            "seconds": round(self.seconds, 3),
            "case": self.verdict.case,
        }


@dataclass(frozen=True)
class Claim:
    """One sentence of a paper and its check."""

    name: str
    paper: str
    says: str
    check: Callable[[Budget], Verdict]
    reproduces: bool

    def run(self, budget: Budget = Budget()) -> Outcome:
        """Run the check and its control."""
        start = time.perf_counter()
        verdict = self.check(budget)
        return Outcome(self, verdict, time.perf_counter() - start)


def claim(
    paper: Paper, says: str, *, reproduces: bool = True
) -> Callable[[Callable[[Budget], Verdict]], Claim]:
    """Declare a check of a sentence of a paper; the claim is named as the function.

    Args:
        paper: whose sentence it is.
        says: the sentence.
        reproduces: False where the paper's claim was found not to hold; then `says` and the check
            speak of what was found instead.
    """

    def declared(check: Callable[[Budget], Verdict]) -> Claim:
        return Claim(check.__name__, paper.slug, says, check, reproduces)  # pyright: ignore

    return declared
