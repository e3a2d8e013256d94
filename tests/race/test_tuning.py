import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import raphson as rp
from raphson.race.entrants import Rated, entrant
from raphson.race.questions import Question
from raphson.race.report import write_report
from raphson.race.run import Case, Settings
from raphson.race.standings import Standings
from raphson.race.tuning import RATES, TRIAL_SEED, trials, tuned

SAMPLED = rp.FiniteSum(
    lambda y, a, _: jnp.sum((y - a) ** 2), jnp.zeros(2), jnp.ones((8, 2)), batch_size=2
)
QUESTION = Question("training/logistic")


def case(method, seed=0):
    return Case.of(QUESTION, entrant(method), seed, Settings(max_steps=3))


def record(problem, method, seed, value, held_out=0.0, status="max_steps", rate=0.1):
    history = {"steps": [0, 3], "seconds": [0.0, 0.3], "calls": [1, 4]}
    history |= {"value": [9.0, value], "held_out": [9.0, held_out], "residual": [1.0, 1.0]}
    return {
        "problem": problem,
        "method": method,
        "seed": seed,
        "rate": rate,
        "status": status,
        "question": "FiniteSum",
        "stochastic": True,
        "optimum": None,
        "solved": False,
        "seconds": 0.3,
        "steps": 3,
        "history": history,
    }


def test_each_optimizer_is_tried_at_every_rate_and_others_at_none():
    cases = [case("adan", seed) for seed in range(3)] + [case("GradientDescent")]
    tried = trials(cases)
    assert [(t.method, t.seed) for t in tried] == [("adan", TRIAL_SEED)] * len(RATES)
    assert [t.rate for t in tried] == list(RATES)
    np.testing.assert_allclose(RATES, np.logspace(-4, 0, 9))


def test_the_rate_that_ends_lowest_is_raced_and_lost_runs_are_not():
    cases = [case("adan", seed) for seed in range(2)] + [case("GradientDescent")]
    tried = trials(cases)
    values = [5.0, 4.0, 3.0, 2.0, 2.0, 1.0, None, 0.5, 0.1]
    records = [record("training/logistic", "adan", -1, value) for value in values]
    records[-2]["status"] = "nonfinite"
    records[-1] = {"status": "error"}
    chosen = tuned(cases, tried, records)
    assert [c.rate for c in chosen] == [RATES[5], RATES[5], None]
    assert [c.seed for c in chosen] == [0, 1, 0]
    equal = [record("training/logistic", "adan", -1, 2.0) for _ in RATES]
    assert tuned(cases, tried, equal)[0].rate == RATES[0]


def test_without_an_objective_the_rate_that_solves_first_is_raced():
    cases = [case("GradientDescentAscent"), case("Extragradient")]
    tried = trials(cases, 0.5)
    # What extragradient steps by it finds by itself.
    assert [t.method for t in tried] == ["GradientDescentAscent"] * len(RATES)
    assert {t.settings.max_steps for t in tried} == {2}
    assert {t.settings.time_limit for t in tried} == {5.0}

    def ended(residual, steps=100, solved=False):
        found = record("p", "GradientDescentAscent", -1, 0.0) | {"valued": False}
        found["history"] = found["history"] | {"residual": [1.0, residual]}
        return found | {"solved": solved, "steps": steps}

    records = [ended(0.5), ended(1e-9), ended(0.1, 90, True), ended(0.2, 40, True)]
    records += [ended(None), {"status": "error"}] + [ended(2.0)] * 3
    assert [c.rate for c in tuned(cases, tried, records)] == [RATES[3], None]
    unsolved = [ended(r) for r in (3.0, 2.0, 1.0, 0.5, 0.1, 0.2, None, None, None)]
    assert tuned(cases, tried, unsolved)[0].rate == RATES[4]


def test_a_rate_is_part_of_what_a_run_depends_on():
    tried = trials([case("adan")])
    assert len({t.key for t in tried}) == len(RATES)


def test_another_rate_takes_the_path_of_that_rate_and_recompiles_nothing():
    calls = []

    def made(rate):
        calls.append(rate)
        return optax.adam(rate)

    for rate in (0.1, 0.01):
        ours = rp.solve(
            SAMPLED, Rated(made, jnp.asarray(rate)), key=jax.random.key(0), max_steps=5, throw=False
        )
        theirs = rp.solve(
            SAMPLED, optax.adam(rate), key=jax.random.key(0), max_steps=5, throw=False
        )
        np.testing.assert_allclose(ours.value, theirs.value, rtol=1e-6)
        if rate == 0.1:
            traced = len(calls)
    assert len(calls) == traced


def ranks(records):
    return {rank.method: rank for rank in Standings(records).ranks()}


def test_ranks_are_means_over_problems_with_intervals_over_seeds_and_problems():
    records = [
        record(problem, method, seed, base + 0.1 * seed, held_out=-base)
        for problem in ("a", "b", "c")
        for method, base in (("adan", 1.0), ("optax.adam", 2.0), ("lion_k", 3.0))
        for seed in range(3)
    ]
    found = ranks(records)
    assert found["adan"].loss == (1, 1, 1) and found["lion_k"].loss == (3, 3, 3)
    assert found["adan"].held_out == (3, 3, 3)
    assert found["adan"].seconds == 1
    head = Standings(records).headline()
    assert head[0].startswith("adan has the least mean rank by loss: 1.0 of 3 on 3 problems")
    assert head[1] == "No other interval reaches into its own."


def test_where_seeds_disagree_no_winner_is_claimed():
    rng = np.random.default_rng(0)
    records = [
        record(problem, method, seed, float(rng.normal()))
        for problem in "abcde"
        for method in ("adan", "optax.adam")
        for seed in range(3)
    ]
    found = ranks(records)
    for rank in found.values():
        mean, low, high = rank.loss
        assert low <= mean <= high and high - low >= 0.2
    assert Standings(records).headline()[1].startswith("No winner is claimed: ")


def test_a_run_that_was_lost_has_the_last_rank():
    records = [record("a", "adan", 0, None), record("a", "optax.adam", 0, 5.0)]
    records[0]["status"] = "nonfinite"
    assert ranks(records)["adan"].loss[0] == 2


def test_a_race_that_all_lost_still_has_its_report(tmp_path):
    records = [
        {"problem": "a", "method": m, "seed": 0, "rate": 0.1, "status": "error", "error": "lost"}
        | {"settings": {}, "solved": False}
        for m in ("adan", "optax.adam")
    ]
    assert "Ranks of the optimizers" in write_report(records, tmp_path / "lost.html").read_text()


def test_races_without_tuned_rates_have_no_ranks():
    assert ranks([record("a", m, 0, 1.0, rate=None) for m in ("adan", "optax.adam")]) == {}


@pytest.mark.slow
def test_every_optimizer_of_the_training_race_takes_a_step():
    from raphson.race.runner import TRAINING_METHODS

    for name in TRAINING_METHODS:
        method = entrant(name).method(1e-3)
        solution = rp.solve(SAMPLED, method, key=jax.random.key(0), max_steps=2, throw=False)
        assert np.all(np.isfinite(solution.value)), name
