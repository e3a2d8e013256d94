"""The SQLite file that holds every finished run, so that a race that was killed resumes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from .tuning import TRIAL_SEED

_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    key TEXT PRIMARY KEY,
    problem TEXT NOT NULL,
    method TEXT NOT NULL,
    seed INTEGER NOT NULL,
    status TEXT NOT NULL,
    solved INTEGER NOT NULL,
    residual REAL,
    tolerance REAL,
    steps INTEGER,
    calls INTEGER,
    seconds REAL,
    compile_seconds REAL,
    error TEXT NOT NULL,
    finished TEXT NOT NULL,
    record TEXT NOT NULL
)
"""
# Columns beside the whole record, for whoever asks the file by SQL.
_COLUMNS = (
    "problem",
    "method",
    "seed",
    "status",
    "solved",
    "residual",
    "tolerance",
    "steps",
    "calls",
    "seconds",
    "compile_seconds",
    "error",
    "finished",
)


class Store:
    """Finished runs by their key; each is on disk when `add` returns.

    Args:
        path: the file, made with its folder if it does not exist.

    Raises:
        ValueError: if the file is not a store of runs.
    """

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        try:
            self._file = sqlite3.connect(path, timeout=30)
            self._file.execute("PRAGMA journal_mode=WAL")
            with self._file:
                self._file.execute(_SCHEMA)
        except sqlite3.Error as error:
            raise ValueError(f"cannot keep runs in {path}: {error}.") from None

    def add(self, key: str, record: dict[str, Any]) -> None:
        """Write a run down, in place of an earlier one of its key."""
        row = [key, *(record.get(name) for name in _COLUMNS), json.dumps(record)]
        marks = ", ".join("?" * len(row))
        with self._file:
            self._file.execute(f"INSERT OR REPLACE INTO runs VALUES ({marks})", row)

    def get(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The records that exist of these keys."""
        found = {}
        for key in keys:
            row = self._file.execute("SELECT record FROM runs WHERE key = ?", [key]).fetchone()
            if row is not None:
                found[key] = json.loads(row[0])
        return found

    def latest(self) -> list[dict[str, Any]]:
        """The last finished run of each problem, method and seed; trials of rates are left out."""
        rows = self._file.execute("SELECT record FROM runs ORDER BY finished, rowid")
        records = [json.loads(row[0]) for row in rows]
        raced = (r for r in records if r["seed"] != TRIAL_SEED)
        return list({(r["problem"], r["method"], r["seed"]): r for r in raced}.values())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()
