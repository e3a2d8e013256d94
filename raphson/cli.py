"""The command line: race, solve, methods, problems, papers, claims, report.

Results go to standard output, with `--json` as JSON alone; progress and refusals go to standard
error. The exit status is 2 where an argument is refused, and 1 where what was asked did not come
true: a solve that found no answer, a claim that does not stand, a race that lost its cluster.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from .race.standings import Standings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# Seconds of stepping a run may take: the race without arguments has to end within a minute.
MAIN_TIME_LIMIT, TIME_LIMIT = 1.0, 10.0
STEPS, TRAINING_STEPS, PLAYERS_STEPS = 10_000, 500, 5_000
# Of the steps and the time of a run on saddles and on two levels, how much a trial has.
TRIAL_PART = 0.2

Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]
Method = Annotated[
    list[str] | None,
    typer.Option("--method", "-m", help="A method or peer, as `raphson methods` lists them."),
]
Rtol = Annotated[float | None, typer.Option(help="Tolerance relative to the problem's scale.")]
Atol = Annotated[float | None, typer.Option(help="Absolute tolerance; the larger counts.")]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        typer.echo(f"raphson {metadata.version('raphson')}")
        raise typer.Exit


@app.callback()
def raphson(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Iterative methods from the literature: race them, run them, check what their papers claim."""


@app.command()
def race(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PROBLEM]...",
            help="Problems, sets of problems, or Python files that define a variable `problem`; "
            "by default the set main.",
        ),
    ] = None,
    method: Method = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="A set of problems, beside those named.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Processes; by default all cores.")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler, tcp://HOST:PORT.")
    ] = None,
    store: Annotated[Path, typer.Option(help="SQLite file that keeps every finished run.")] = Path(
        "races/race.sqlite"
    ),
    report: Annotated[
        Path | None, typer.Option(help="HTML file to write; by default beside the store.")
    ] = None,
    rtol: Rtol = None,
    atol: Atol = None,
    max_steps: Annotated[
        int | None,
        typer.Option(
            min=0,
            help=f"Steps of a run at most; by default {STEPS:,}, on the set training "
            f"{TRAINING_STEPS:,}, on saddle and bilevel {PLAYERS_STEPS:,}.",
        ),
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help=f"Seconds of a run at most, compilation apart; by default {TIME_LIMIT:g}, and "
            f"{MAIN_TIME_LIMIT:g} in the race without problems.",
        ),
    ] = None,
    repeats: Annotated[
        int, typer.Option(min=1, help="How often a run is timed, within its time limit.")
    ] = 3,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of a run that draws.")] = 3,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Run again what the store already holds.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Race methods on problems, each run in a process of its own, and write a report.

    Finished runs are kept in the store: a race that was interrupted goes on where it stopped. On
    problems of the sets training, saddle and bilevel each method that needs one races at the best
    of nine learning rates, tried on each problem with a seed of their own; on the set training no
    run is timed twice.
    """
    from .problems import names as problem_names
    from .race.entrants import entrant
    from .race.pool import ClusterPool, LocalPool
    from .race.questions import questions
    from .race.report import write_report
    from .race.run import Case, Settings
    from .race.runner import MAIN_METHODS, TRAINING_METHODS, main_plan, plan, race as run_race
    from .race.standings import Standings
    from .race.store import Store
    from .race.tuning import trials, tuned

    _double_precision()
    with _refusing():
        pool = ClusterPool(cluster) if cluster else LocalPool(jobs)
    asked = bool(names or sets)
    limit = time_limit or (TIME_LIMIT if asked else MAIN_TIME_LIMIT)
    with _refusing(), contextlib.ExitStack() as unless_planned:
        unless_planned.callback(pool.close)
        found = questions(names or [], sets if asked else ["main"])
        training, players = (
            any(question.name in problem_names(name) for question in found for name in group)
            for group in (("training",), ("saddle", "bilevel"))
        )
        usual_steps = TRAINING_STEPS if training else PLAYERS_STEPS if players else STEPS
        steps = usual_steps if max_steps is None else max_steps
        # To look at all samples costs far more than a step on a batch.
        few = {"repeats": 1, "every": max(1, steps // 25)} if training else {"repeats": repeats}
        settings = Settings(rtol, atol, steps, limit, **few)
        usual = TRAINING_METHODS if training else () if asked else MAIN_METHODS
        entered = [entrant(name) for name in method or usual]
        cases = plan(found, entered, seeds, settings)
        if not asked and not method:
            cases = main_plan(cases)
        kept = Store(store)
        unless_planned.pop_all()
    with kept, pool:

        def raced(cases: list[Case]) -> list[dict[str, Any]]:
            held = {} if fresh else kept.get(case.key for case in cases)
            with _progress(len(cases), len(held), store) as see:
                try:
                    return run_race(cases, kept, pool, held, see)
                except (KeyboardInterrupt, ConnectionError) as ending:
                    reason = str(ending) or "interrupted"
                    _say(f"{reason}: finished runs are in {store}, the same command resumes.")
                    raise typer.Exit(1) from None

        if training or players:
            tried = trials(cases, 1.0 if training else TRIAL_PART)
            cases = tuned(cases, tried, raced(tried))
        records = raced(cases)
    written = write_report(records, report or store.with_suffix(".html"))
    if as_json:
        runs = [{k: v for k, v in record.items() if k != "history"} for record in records]
        _print_json({"report": str(written), "store": str(store), "runs": runs})
    else:
        _print_standings(Standings(records), written)


@app.command()
def report(
    store: Annotated[Path, typer.Argument(help="The SQLite file of a race.")],
    out: Annotated[
        Path | None, typer.Option(help="HTML file to write; by default beside the store.")
    ] = None,
) -> None:
    """Write the report of all runs in a store, the last of each problem, method and seed."""
    from .race.report import write_report
    from .race.store import Store

    with _refusing():
        if not store.is_file():
            raise ValueError(f"there is no store {store}.")
        with Store(store) as kept:
            written = write_report(kept.latest(), out or store.with_suffix(".html"))
    typer.echo(written)


@app.command()
def solve(
    problem: Annotated[str, typer.Argument(help="A problem, or a Python file that defines one.")],
    method: Annotated[
        str | None, typer.Option("--method", "-m", help="By default one that suits the problem.")
    ] = None,
    rtol: Rtol = None,
    atol: Atol = None,
    max_steps: Annotated[int, typer.Option(min=0, help="Steps at most.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Of whatever draws.")] = 0,
    as_json: Json = False,
) -> None:
    """Solve one problem, and print the answer's status and certificate."""
    import jax

    from .engine import solve as run_solve
    from .progress import progress
    from .race.entrants import entrant
    from .race.questions import questions
    from .solution import Status, status_name
    from .wrappers import Counted

    _double_precision()
    with _refusing():
        found = questions([problem])
        if len(found) != 1:
            held = ", ".join(question.name for question in found)
            raise ValueError(f"`{problem}` holds several problems: name one of {held}.")
        chosen = entrant(method).method() if method else None
        with progress():
            solution = run_solve(
                Counted(found[0].load()),
                chosen,
                key=jax.random.key(seed),
                rtol=rtol,
                atol=atol,
                max_steps=max_steps,
                throw=False,
            )
    certificate, stats = solution.certificate, solution.stats
    shown = {
        "problem": found[0].name,
        "method": method or stats.method,
        "reason": stats.reason,
        "status": status_name(solution.status),
        "usable": bool(solution.usable),
        "residual": float(certificate.residual),
        "tolerance": float(certificate.tolerance),
        "noise": float(certificate.noise),
        "steps": int(stats.steps),
        "counts": {name: int(count) for name, count in stats.counts.items() if count},
        "value": jax.tree.map(lambda leaf: leaf.tolist(), solution.value),
    }
    if as_json:
        _print_json(shown)
    else:
        shown["counts"] = ", ".join(f"{n} {name}s" for name, n in shown["counts"].items())
        leaves = ", ".join(
            f"{leaf.dtype}{list(leaf.shape)}" for leaf in jax.tree.leaves(solution.value)
        )
        size = sum(leaf.size for leaf in jax.tree.leaves(solution.value))
        shown["value"] = str(shown["value"]) if size <= 10 else leaves
        rows = [[name, _shown(value)] for name, value in shown.items() if value != ""]
        _print_table(None, ["", ""], rows)
        typer.echo(Status[solution.status])
    if not shown["usable"]:
        raise typer.Exit(1)


@app.command()
def methods(
    family: Annotated[
        str | None, typer.Argument(help="Such as smooth, or a peer's library such as scipy.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the methods, ours and the field's, with the question that each answers."""
    from .race.entrants import entrants

    found = list(entrants().values())
    with _refusing():
        families = list(dict.fromkeys(entrant.family for entrant in found))
        if family is not None and family not in families:
            raise ValueError(f"no family is called `{family}`; there are {', '.join(families)}.")
    rows = [
        {
            "method": entrant.name,
            "family": entrant.family,
            "question": entrant.question.__name__,
            "summary": entrant.summary,
            "ours": entrant.ours,
        }
        for entrant in found
        if family in (None, entrant.family)
    ]
    if as_json:
        _print_json(rows)
    else:
        columns = ["method", "family", "question", "summary"]
        _print_table(None, columns, [[row[column] for column in columns] for row in rows])


@app.command()
def problems(
    name: Annotated[str | None, typer.Argument(metavar="[SET]", help="A set of problems.")] = None,
    as_json: Json = False,
) -> None:
    """List the sets of problems, or the problems of one."""
    from . import problems as registry

    sets = registry.sets()
    if name is None:
        if as_json:
            _print_json(sets)
        else:
            rows = [[name, len(found), ", ".join(found[:3])] for name, found in sets.items()]
            _print_table(None, ["set", "problems", "such as"], rows)
        return
    with _refusing():
        found = registry.names(name)
    if as_json:
        _print_json(found)
    else:
        typer.echo("\n".join(found))


@app.command()
def papers(as_json: Json = False) -> None:
    """List the papers, what implements them, and the names of their claims."""
    from .papers import catalogue

    rows = [
        {
            "paper": entry.paper.slug,
            "title": entry.paper.title,
            "year": entry.paper.year,
            "implements": list(entry.paper.implements),
            "claims": [claim.name for claim in entry.claims],
            "note": entry.paper.note,
        }
        for entry in catalogue()
    ]
    if as_json:
        _print_json(rows)
    else:
        for row in rows:
            typer.secho(f"{row['paper']} ({row['year']})", bold=True)
            for name in ("title", "implements", "claims", "note"):
                if row[name]:
                    typer.echo(f"    {_shown(row[name])}")


@app.command()
def claims(
    papers: Annotated[
        list[str] | None, typer.Argument(metavar="[PAPER]...", help="By default all papers.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="On small budgets.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="How many are checked at once.")] = 1,
    as_json: Json = False,
) -> None:
    """Check what the papers claim; the exit status is 1 if a claim does not stand."""
    import joblib

    from .papers import find

    with _refusing():
        found = [claim for entry in find(papers or []) for claim in entry.claims]
    rows, standing = [], True
    checks = (joblib.delayed(_checked)(claim.paper, claim.name, quick) for claim in found)
    outcomes: Any = joblib.Parallel(jobs, return_as="generator", pre_dispatch="all")(checks)
    for row, stands in outcomes:
        standing &= stands
        rows.append(row)
        verdict = "stands" if stands else f"DOES NOT STAND: {row}"
        _say(f"{row['paper']}: {row['claim']} {verdict}")
    if as_json:
        _print_json(rows)
    else:
        columns = ["claim", "paper", "measured", "threshold", "control", "seconds"]
        cells = [
            [
                "✓" if row["holds"] and row["control_fails"] else "✗",
                *(_shown(row[c]) for c in columns),
            ]
            for row in rows
        ]
        _print_table(None, ["", *columns], cells)
    if not standing:
        raise typer.Exit(1)


def _checked(paper: str, name: str, quick: bool) -> tuple[dict[str, Any], bool]:
    """The row of a claim, and whether it stands; in a process of its own, where there are many."""
    import jax

    from .claims import Budget
    from .papers import find

    _double_precision()
    [claim] = [claim for entry in find([paper]) for claim in entry.claims if claim.name == name]
    try:
        outcome = claim.run(Budget(quick))
        return outcome.as_dict(), outcome.stands
    except Exception as error:
        return _unchecked(claim, error), False
    finally:
        # What it compiled takes memory maps, of which a process may have some 65,000.
        jax.clear_caches()


def _unchecked(claim: Any, error: Exception) -> dict[str, Any]:
    """The row of a claim whose check raised."""
    return {
        "claim": claim.name,
        "paper": claim.paper,
        "says": claim.says,
        **dict.fromkeys(("measured", "threshold", "control")),
        "holds": False,
        "control_fails": False,
        "reproduces": claim.reproduces,
        "seconds": None,
        "case": f"{type(error).__name__}: {error}",
    }


def _double_precision() -> None:
    """Compute in double precision: this process is the command line's own."""
    import jax

    jax.config.update("jax_enable_x64", True)


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """End with status 2 and the sentence of an error from within, without a traceback."""
    try:
        yield
    except (ValueError, NotImplementedError) as error:
        _say(f"error: {error}")
        raise typer.Exit(2) from None


@contextlib.contextmanager
def _progress(total: int, held: int, store: Path) -> Iterator[Any]:
    """A bar on standard error, moved by calling what is yielded with each record."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    if held:
        _say(f"{held} of {total} runs are in {store} already (--fresh runs them again)")
    bar = Progress(
        TextColumn("racing"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.description}", markup=True),
        console=Console(stderr=True),
    )
    with bar:
        task = bar.add_task("starting the workers", total=total, completed=held)

        def see(record: dict[str, Any]) -> None:
            bar.update(task, description=f"{record['method']} on {record['problem']}")
            bar.advance(task)
            if record["error"]:
                at = f"{record['method']} on {record['problem']}"
                bar.console.print(f"{at}: {record['error']}", markup=False, style="yellow")

        yield see
        bar.update(task, description="")


def _print_standings(standings: Standings, written: Path) -> None:
    lines = standings.lines()
    count = len(standings.problems)
    columns = [
        "method",
        "solved",
        "fewest calls on",
        "least time on",
        "calls / best",
        "time / best",
    ]
    rows = [
        [
            line.method,
            f"{line.solved} of {count}",
            line.fewest_calls,
            line.least_seconds,
            _shown(line.calls_ratio),
            _shown(line.seconds_ratio),
        ]
        for line in lines
    ]
    _print_table(" ".join(standings.headline()), columns, rows)
    typer.echo(f"report: {written}")


def _print_table(title: str | None, columns: list[str], rows: list[list[Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=any(columns))
    for i, column in enumerate(columns):
        numeric = all(isinstance(row[i], int | float) or _is_number(row[i]) for row in rows)
        table.add_column(
            column, justify="right" if numeric else "left", overflow="fold", no_wrap=i == 0
        )
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console = Console(markup=False)
    if title:
        console.print(title, style="bold", highlight=False)
    console.print(table)


def _is_number(cell: Any) -> bool:
    with contextlib.suppress(ValueError):
        float(cell)
        return True
    return cell == "–"


def _shown(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:.3g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _say(sentence: str) -> None:
    typer.echo(sentence, err=True)


def _print_json(data: Any) -> None:
    typer.echo(json.dumps(_valid(data), indent=1, allow_nan=False))


def _valid(data: Any) -> Any:
    """The data with null for numbers that JSON cannot hold."""
    if isinstance(data, dict):
        return {key: _valid(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_valid(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
