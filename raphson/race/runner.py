"""A race from its plan to its records: only what the store does not hold yet is run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .entrants import Entrant, entrants
from .pool import Pool
from .questions import Question
from .run import Case, Settings
from .store import Store

# The race without arguments: the problems of the set "main", ours beside the field's.
MAIN_METHODS = (
    "GradientDescent",
    "TruncatedNewton",
    "Nesterov",
    "LazyNewton",
    "adan",
    "optimistix.BFGS",
    "optimistix.LBFGS",
    "optax.adam",
    "optax.lbfgs",
    "scipy.BFGS",
    "scipy.L-BFGS-B",
    "scipy.trust-ncg",
)
# The race on the set "training" where no methods are named.
TRAINING_METHODS = (
    "adahessian",
    "adan",
    "adamomentum",
    "adamp",
    "auon",
    "exadam",
    "lion_k",
    "optimistic_amsgrad",
    "psgd",
    "shampoo",
    "steepest_descent",
    "optax.sgd",
    "optax.adam",
    "optax.adabelief",
    "optax.ademamix",
    "optax.lion",
    "optax.muon",
)
# Dense matrices of 2,410 rows take three of these past the time limit within a few steps, and the
# search of the fourth would compare values of different samples.
MAIN_WITHOUT = {
    ("perceptron/digits", method)
    for method in ("LazyNewton", "optimistix.BFGS", "scipy.BFGS", "optax.lbfgs")
}


def plan(
    questions: list[Question], named: list[Entrant], seeds: int, settings: Settings
) -> list[Case]:
    """The runs of a race: each method on each problem that it answers.

    Args:
        questions: the problems.
        named: the methods; all of ours and the usual peers if empty.
        seeds: with how many seeds, from 0, a run is done that depends on them; the others once.
        settings: of every run.

    Raises:
        ValueError: if a method that was named answers none of the problems.
    """
    field = named or [entrant for entrant in entrants().values() if entrant.usual]
    problems = {question: question.load() for question in questions}
    for method in named:
        if not any(method.answers(problem) for problem in problems.values()):
            asked = sorted({type(problem).__name__ for problem in problems.values()})
            raise ValueError(
                f"{method.name} answers {method.question.__name__}, "
                f"which none of the problems is: {', '.join(asked)}."
            )
    return [
        Case.of(question, method, seed, settings)
        for question, problem in problems.items()
        for method in field
        if method.answers(problem)
        for seed in range(seeds if method.draws(problem) else 1)
    ]


def main_plan(cases: list[Case]) -> list[Case]:
    """The cases of the race without arguments."""
    return [case for case in cases if (case.question.name, case.method) not in MAIN_WITHOUT]


def race(
    cases: list[Case],
    store: Store,
    pool: Pool,
    held: dict[str, dict[str, Any]],
    see: Callable[[dict[str, Any]], Any] = lambda record: None,
) -> list[dict[str, Any]]:
    """Run the cases that are not held yet; each is in the store as soon as it has finished.

    Args:
        cases: the runs of the race.
        store: where finished runs are kept.
        pool: the workers.
        held: the records by key of runs that need not be run again, as `store.get` has them.
        see: called with each record as it comes in.

    Returns:
        The records of all cases, in their order.
    """
    records = dict(held)
    missing = [case for case in cases if case.key not in records]
    for case, record in pool.race(missing):
        store.add(case.key, record)
        records[case.key] = record
        see(record)
    return [records[case.key] for case in cases]
