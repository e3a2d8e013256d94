import os
import signal

import pytest

from raphson.race import pool as pools
from raphson.race.entrants import entrant
from raphson.race.pool import ClusterPool, LocalPool
from raphson.race.questions import Question
from raphson.race.run import Case, Settings

EASY = """
import jax.numpy as jnp
import raphson as rp
problem = rp.Minimize(lambda y, _: jnp.sum((y - 1) ** 2), jnp.zeros(2))
"""
DIES = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"


def case(name: str, source: str, seed: int = 0, **settings) -> Case:
    question = Question(name, f"/nowhere/{name}.py", source, "problem")
    return Case.of(question, entrant("GradientDescent"), seed, Settings(**settings))


def raced(pool, cases):
    records = [record for _, record in pool.race(cases)]
    return {(r["problem"], r["seed"]): (r["status"], r["error"]) for r in records}


@pytest.mark.slow
def test_no_run_is_lost_to_a_process_that_dies(tmp_path):
    mark = tmp_path / "died"
    dies_once = f"from pathlib import Path\nmark = Path({str(mark)!r})\n"
    dies_once += "if not mark.exists():\n    mark.touch()\n    "
    dies_once += "import os; os._exit(1)\n" + EASY
    cases = [
        case("easy", EASY, seed=0),
        case("dies", DIES),
        case("easy", EASY, seed=1),
        case("dies_once", dies_once),
        case("raises", "problem = 1 / 0"),
        case("exits", "raise SystemExit(3)"),
        case("easy", EASY, seed=2),
    ]
    with LocalPool(2) as pool:
        found = raced(pool, cases)
    assert found == {
        ("easy", 0): ("converged", ""),
        ("easy", 1): ("converged", ""),
        ("easy", 2): ("converged", ""),
        ("dies", 0): ("error", "its process died, twice"),
        ("dies_once", 0): ("converged", ""),
        ("raises", 0): ("error", "ZeroDivisionError: division by zero"),
        ("exits", 0): ("error", "SystemExit: 3"),
    }


@pytest.mark.slow
def test_a_run_that_hangs_is_ended(monkeypatch):
    with LocalPool(2) as pool:
        assert raced(pool, [case("easy", EASY)]) == {("easy", 0): ("converged", "")}
        monkeypatch.setattr(pools, "GRACE_SECONDS", 20.0)
        hangs = case("hangs", "import time\ntime.sleep(600)\n", time_limit=0.1)
        found = raced(pool, [hangs, case("easy", EASY, seed=1), case("easy", EASY, seed=2)])
    status, error = found.pop(("hangs", 0))
    assert status == "error"
    assert error.startswith("did not end")
    assert set(found.values()) == {("converged", "")}


@pytest.mark.slow
# Dask warns of what a worker that was killed leaves behind.
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_loses_a_worker_loses_no_run(monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    slow = "import time\ntime.sleep(0.3)\n" + EASY
    cases = [case(f"slow{i}", slow, seed=i) for i in range(10)]
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        ClusterPool(cluster.scheduler_address) as pool,
    ):
        found, victim = {}, None
        for raced_case, record in pool.race(cases):
            found[raced_case.seed] = record
            if victim is None:
                victim = next(iter(cluster.workers.values())).process.process.pid
                os.kill(victim, signal.SIGKILL)
    assert sorted(found) == list(range(10))
    assert {record["status"] for record in found.values()} == {"converged"}


def test_a_scheduler_that_does_not_answer_is_refused():
    pytest.importorskip("distributed")
    with pytest.raises(ValueError, match="`nonsense` is no address|no Dask scheduler answers"):
        ClusterPool("nonsense")


def test_a_key_is_all_that_a_run_depends_on():
    first = case("easy", EASY)
    assert first.key == case("easy", EASY).key
    others = [
        case("easy", EASY + "\n"),
        case("other", EASY),
        case("easy", EASY, seed=1),
        case("easy", EASY, rtol=1e-3),
        Case.of(first.question, entrant("Nesterov"), 0, first.settings),
    ]
    assert len({first.key, *(other.key for other in others)}) == 6
