"""The report of a race: one HTML file that needs nothing else, not even a network."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ..problems.bounds import first_order_lower_bound
from ..solution import Status
from .entrants import entrants
from .profiles import best_ratios, data_profile, performance_profile
from .standings import TARGET, TARGET_SAMPLED, Record, Standings

_PARTS = Path(__file__).parent

# Of a history, what the page has a place for; all else are measures of the problem's own.
_SHOWN = ("steps", "calls", "seconds", "residual", "value", "held_out", "distance")


def write_report(records: list[Record], path: Path) -> Path:
    """Write the report of a race.

    Args:
        records: of its runs.
        path: the HTML file; its folder is made if it does not exist.

    Returns:
        The path.

    Raises:
        ValueError: if there is no record.
    """
    if not records:
        raise ValueError("a report needs at least one finished run, and there is none.")
    from plotly.offline import get_plotlyjs

    standings = Standings(records)
    data = json.dumps(_data(standings), separators=(",", ":"), allow_nan=False)
    parts = {
        "HEADLINE": html.escape(standings.headline()[0]),
        "STYLE": (_PARTS / "report.css").read_text(),
        "PLOTLY": get_plotlyjs(),
        # Within a script element `</script>` would end it, also inside of a string.
        "DATA": data.replace("<", "\\u003c"),
        "SCRIPT": (_PARTS / "report.js").read_text(),
    }
    page = (_PARTS / "report.html").read_text()
    for name, text in parts.items():
        page = page.replace(f"@{name}@", text)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def _data(standings: Standings) -> dict[str, Any]:
    """All that the page shows, as plain data."""
    records = [record for runs in standings.runs.values() for record in runs]
    known = entrants()
    order = {name: i for i, name in enumerate(known)}
    lines = standings.lines()
    methods = sorted(standings.methods, key=lambda name: order.get(name, len(order)))
    return {
        "headline": standings.headline(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "methods": [
            {
                "name": name,
                "family": known[name].family if name in known else "",
                "ours": name in known and known[name].ours,
                "summary": known[name].summary if name in known else "",
            }
            for name in methods
        ],
        "problems": [_problem(standings, name) for name in standings.problems],
        "runs": [_run(standings, record, methods) for record in records],
        "lines": [
            {key: _finite(value) for key, value in vars(line).items()} | {"method": line.method}
            for line in lines
        ],
        "ranks": [vars(rank) | {"seconds": _finite(rank.seconds)} for rank in standings.ranks()],
        "ratios": _ratios(standings, methods),
        "profiles": _profiles(standings, methods),
        "statuses": {name: Status[item] for name, item in Status._name_to_item.items()},
        "targets": {"exact": TARGET, "sampled": TARGET_SAMPLED},
        "settings": _distinct(record["settings"] for record in records),
        "seeds": sorted({record["seed"] for record in records}),
        "versions": _distinct(r["versions"] for r in records if "versions" in r),
        "machines": _distinct(r["machine"] for r in records if "machine" in r),
    }


def _problem(standings: Standings, name: str) -> dict[str, Any]:
    runs = [r for (p, _), rs in standings.runs.items() if p == name for r in rs]
    done = [r for r in runs if r["status"] != "error"]
    aim = standings.aims[name]
    return {
        "name": name,
        "size": done[0]["size"] if done else None,
        "question": done[0]["question"] if done else "",
        "sampled": aim.sampled,
        "heldOut": any("held_out" in r["history"] for r in done),
        "more": sorted({measure for r in done for measure in _own(standings, r)}),
        "best": aim.best,
        "targetGap": _rounded(aim.gap),
        "target": aim.target,
        "tolerance": max((r["tolerance"] or 0 for r in done), default=None),
        "bound": _bound(done) if aim.best is not None and not aim.sampled else None,
    }


def _bound(runs: list[Record]) -> list[list[float | None]] | None:
    """Calls, and the gap that no method of gradients can promise to get below with so many."""
    constants = next((r["constants"] for r in runs if r.get("constants")), None)
    if constants is None:
        return None
    # Beyond half of the unknowns the bound for convex functions does not hold.
    most = max(r["history"]["calls"][-1] for r in runs)
    if constants["strong_convexity"] == 0:
        most = min(most, (runs[0]["size"] - 1) // 2)
    calls = np.unique(np.geomspace(1, max(most, 1), 60).astype(int))
    gaps = first_order_lower_bound(calls, **constants)
    return [calls.tolist(), [_rounded(gap) for gap in gaps]]


def _run(standings: Standings, record: Record, methods: list[str]) -> dict[str, Any]:
    shown = {
        "problem": standings.problems.index(record["problem"]),
        "method": methods.index(record["method"]),
        "seed": record["seed"],
        "rate": record.get("rate"),
        "status": record["status"],
        "solved": standings.solved(record),
        "elsewhere": standings.elsewhere(record),
        "error": record["error"],
    }
    if record["status"] == "error":
        return shown
    history, best = record["history"], standings.aims[record["problem"]].best
    values = history.get("value", []) if best is not None else []
    gaps = [None if value is None else value - best for value in values]
    return shown | {
        **{key: record[key] for key in ("steps", "calls", "seconds", "compile_seconds", "repeats")},
        **{key: _rounded(record[key]) for key in ("residual", "tolerance", "noise")},
        "value": _rounded(next((v for v in reversed(values) if v is not None), None), 9),
        "counts": record["counts"],
        "history": {
            "steps": history["steps"],
            "calls": history["calls"],
            "seconds": [_rounded(second) for second in history["seconds"]],
            "residual": [_rounded(residual) for residual in history["residual"]],
            "gap": [_rounded(gap) for gap in gaps],
            "held_out": [_rounded(loss) for loss in history.get("held_out", [])],
            **{name: [_rounded(x) for x in history[name]] for name in _own(standings, record)},
        },
    }


def _own(standings: Standings, record: Record) -> list[str]:
    """The measures of a problem that others do not have, such as a duality gap."""
    # Of an objective the gap is that to its optimum, which the page finds from the values.
    shown = (*_SHOWN, "gap") if standings.aims[record["problem"]].best is not None else _SHOWN
    return [name for name in record["history"] if name not in shown]


def _ratios(standings: Standings, methods: list[str]) -> dict[str, list[list[float | None]]]:
    """Costs over the best by unit, problem and method; None where a method did not solve it."""
    rows = [standings.methods.index(method) for method in methods]
    return {
        unit: [
            [_rounded(ratio) for ratio in column]
            for column in best_ratios(standings.table(unit))[rows].T
        ]
        for unit in ("calls", "seconds", "steps")
    }


def _profiles(standings: Standings, methods: list[str]) -> dict[str, dict[str, Any]]:
    rows = [standings.methods.index(method) for method in methods]

    def curves(profile: Iterable[tuple[np.ndarray, np.ndarray]]) -> list[list[list[float]]]:
        return [[[_rounded(x) for x in xs], [_rounded(y) for y in ys]] for xs, ys in profile]

    return {
        unit: {
            "performance": curves(performance_profile(standings.table(unit)[rows])),
            "data": curves(data_profile(standings.table(unit, to_target=True)[rows])),
        }
        for unit in ("calls", "seconds", "steps")
    }


def _distinct(items: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({json.dumps(item, sort_keys=True): item for item in items}.values())


def _rounded(x: Any, digits: int = 4) -> Any:
    """A number short enough for a page; None where it is not finite."""
    x = _finite(x)
    return None if x is None else float(f"{x:.{digits}g}")


def _finite(x: Any) -> Any:
    return x if isinstance(x, int | float | np.number) and math.isfinite(x) else None
