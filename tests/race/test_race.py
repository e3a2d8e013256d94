import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

MINE = """
import jax.numpy as jnp
import raphson as rp

def problem():
    def fn(y, _):
        return 100 * (y[1] - y[0] ** 2) ** 2 + (1 - y[0]) ** 2
    return rp.Minimize(fn, jnp.array([-1.2, 1.0]))
"""
METHODS = ["GradientDescent", "LazyNewton", "Nesterov", "optimistix.BFGS", "scipy.BFGS"]


def rows(store: Path) -> dict[str, str]:
    """When each method's run was finished, as the store has it on disk."""
    if not store.exists():
        return {}
    with closing(sqlite3.connect(store)) as file:
        try:
            return dict(file.execute("SELECT method, finished FROM runs"))
        except sqlite3.OperationalError:  # not made yet
            return {}


def descendants(pid: int) -> set[int]:
    found = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found |= {int(child)} | descendants(int(child))
    return found


def is_alive(pid: int) -> bool:
    try:
        return "Z" != Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0]
    except FileNotFoundError:
        return False


def test_a_killed_race_of_a_users_file_resumes(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    store, page = tmp_path / "race.sqlite", tmp_path / "out" / "mine.html"
    command = [sys.executable, "-m", "raphson", "race", "mine.py", "--jobs", "1", "--json"]
    command += ["--store", str(store), "--report", str(page), "--repeats", "1"]
    for method in METHODS:
        command += ["--method", method]
    environment = os.environ | {"PYTHONPATH": os.getcwd()}

    first = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    while len(rows(store)) < 2:
        assert first.poll() is None, "the race ended before it could be killed"
        time.sleep(0.02)
    workers = descendants(first.pid)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    finished = rows(store)
    assert 2 <= len(finished) < len(METHODS)
    assert not page.exists()

    # What computed for the race that was killed goes with it.
    deadline = time.monotonic() + 60
    while any(is_alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(is_alive(pid) for pid in workers)

    # Seconds tell the rows of the first race from those of the second.
    time.sleep(1.1)
    second = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert f"{len(finished)} of {len(METHODS)} runs are in" in second.stderr
    result = json.loads(second.stdout)
    assert [run["method"] for run in result["runs"]] == METHODS
    assert {run["problem"] for run in result["runs"]} == {"mine"}
    statuses = {run["method"]: run["status"] for run in result["runs"]}
    assert statuses["LazyNewton"] == "converged"
    assert "error" not in statuses.values()
    after = rows(store)
    assert sorted(after) == METHODS
    assert {m: when for m, when in after.items() if m in finished} == finished
    assert all(when > max(finished.values()) for m, when in after.items() if m not in finished)
    assert Path(result["report"]) == page
    assert "LazyNewton" in page.read_text()
