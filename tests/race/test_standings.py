import math

from raphson.race.standings import Standings


def test_cost_is_that_of_the_first_look_within_tolerance(record):
    run = record(calls=100)
    run["history"]["residual"] = [1.0, 1e-7, 1e-12]
    standings = Standings([run])
    assert standings.cost(run, "calls") == 50
    assert standings.cost(run, "seconds") == 0.05


def test_certificate_decides_whatever_the_history_shows(record):
    run = record(solved=False, status="stalled")
    run["history"]["residual"] = [1.0, 1e-9, 1e-2]
    standings = Standings([run])
    assert not standings.solved(run)
    assert math.isinf(standings.cost(run, "calls"))
    assert standings.lines()[0].stopped_short == 1


def test_errors_are_shown_and_never_averaged(record):
    runs = [
        record(seed=0, calls=10),
        record(seed=1, calls=30),
        {**record(seed=2), "status": "error", "solved": False, "error": "ValueError: no"},
    ]
    runs[2].pop("history")
    [line] = Standings(runs).lines()
    # The median of 10, 30 and infinity: two of three seeds solved it.
    assert Standings(runs).table("calls").tolist() == [[30.0]]
    assert (line.solved, line.errors) == (1, 1)
    assert Standings(runs[1:]).table("calls").tolist() == [[math.inf]]


def test_sampled_objectives_are_judged_by_the_value_they_reach(record):
    # Best known 0 and start 100, so that the target is 1: reached at the second look, by both.
    runs = [
        record(method="A", stochastic=True, solved=False, status="time_limit", calls=40),
        record(method="B", stochastic=True, calls=20),
    ]
    standings = Standings(runs)
    assert standings.aims["p"].target == 1.0
    assert [standings.solved(run) for run in runs] == [True, True]
    assert standings.table("calls").tolist() == [[20.0], [10.0]]


def test_without_an_objective_the_certificate_decides_even_of_what_is_sampled(record):
    runs = [
        record(method="A", stochastic=True, valued=False, rate=0.1, calls=40),
        record(method="B", stochastic=True, valued=False, rate=0.1, solved=False),
    ]
    standings = Standings(runs)
    assert standings.aims["p"].target is None
    assert [standings.solved(run) for run in runs] == [True, False]
    assert standings.table("calls").tolist() == [[40.0], [math.inf]]
    assert standings.ranks() == []


def test_least_value_known_is_of_facts_and_runs(record):
    assert Standings([record(optimum=-5.0)]).aims["p"].best == -5.0
    assert Standings([record(optimum=3.0)]).aims["p"].best == 0.0
    assert Standings([record(status="unbounded")]).aims["p"].best is None


def test_no_value_is_aimed_at_from_where_it_is_infinite(record):
    runs = [record(method="A"), record(method="B")]
    for run in runs:
        run["history"]["value"][0] = None  # as JSON has it
    standings = Standings(runs)
    assert standings.aims["p"].target is None
    assert [standings.solved(run) for run in runs] == [True, True]


def test_a_problem_not_raced_is_not_solved(record):
    standings = Standings([record("p", "A"), record("q", "A"), record("p", "B")])
    assert [(line.method, line.solved, line.entered) for line in standings.lines()] == [
        ("A", 2, 2),
        ("B", 1, 1),
    ]


def test_headline(record):
    runs = [
        record("p", "A", 10),
        record("q", "A", 10),
        record("p", "B", 5),
        record("q", "B", solved=False),
        record("r", "A", solved=False),
    ]
    assert Standings(runs).headline() == [
        "A solved most: 2 of 3 problems.",
        "B needed the fewest oracle calls on 1, and the least time on 1.",
        "1 was solved by none.",
    ]
