import sqlite3
from contextlib import closing

import pytest

from raphson.race.store import Store


def test_runs_outlive_the_store_and_are_replaced_by_key(tmp_path, record):
    path = tmp_path / "new" / "race.sqlite"
    with Store(path) as store:
        store.add("a", record(calls=10))
        store.add("b", record(method="B"))
        store.add("a", record(calls=20))
    with Store(path) as store:
        held = store.get(["a", "b", "c"])
        assert sorted(held) == ["a", "b"]
        assert held["a"] == record(calls=20)
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        rows = file.execute("SELECT problem, method, solved, calls FROM runs ORDER BY method")
        assert rows.fetchall() == [("p", "A", 1, 20), ("p", "B", 1, 10)]


def test_latest_is_the_last_of_each_problem_method_and_seed(tmp_path, record):
    with Store(tmp_path / "race.sqlite") as store:
        store.add("old", record(finished="2026-01-01", calls=1))
        store.add("new", record(finished="2026-01-02", calls=2))
        store.add("other", record(finished="2026-01-01", seed=1, calls=3))
        assert sorted(run["calls"] for run in store.latest()) == [2, 3]


def test_a_file_that_is_no_store_is_refused(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not a database, and long enough to be read as the header of one" * 9)
    with pytest.raises(ValueError, match="cannot keep runs in .*notes.txt"):
        Store(path)
