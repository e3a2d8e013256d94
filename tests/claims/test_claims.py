"""Every claim holds and its control fails, and what runs them hides nothing that does not."""

import functools
import importlib
import json
import pkgutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from typer.testing import CliRunner

import raphson as rp
from raphson import claims, papers
from raphson.claims import Budget, Claim, Paper, Verdict, claim
from raphson.claims._history import history
from raphson.cli import app
from raphson.problems import quadratic

ENTRIES = papers.catalogue()
CLAIMS = {found.name: found for entry in ENTRIES for found in entry.claims}
CHEAPEST = (
    "gradient_descent_nonconvex",
    "gradient_descent_polyak_lojasiewicz",
    "learning_pays_from_a_cold_start",
)
FIGURES = ("measured", "threshold", "control")
PAPER = Paper("made-up", "Made Up", "Nobody", 2020)


MARKS = {name: () if name in CHEAPEST else pytest.mark.slow for name in CLAIMS}


@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS[name]) for name in CLAIMS])
def test_claim_holds_and_its_control_fails(name):
    row = CLAIMS[name].run(Budget(quick=True)).as_dict()
    assert row["holds"] is True and row["control_fails"] is True
    words = {"claim": name, "paper": CLAIMS[name].paper, "says": CLAIMS[name].says}
    assert row | words == row and row["case"]
    assert row["reproduces"] is CLAIMS[name].reproduces
    assert set(row) == {*words, *FIGURES, "holds", "control_fails", "reproduces", "seconds", "case"}
    assert row["seconds"] >= 0
    # A control that is NaN fails whatever the claim: one that broke down proves nothing.
    assert all(type(row[figure]) is float and not np.isnan(row[figure]) for figure in FIGURES)
    assert np.isfinite([row["measured"], row["threshold"]]).all()
    # What is said not to reproduce is said in figures.
    assert row["reproduces"] or np.isfinite(row["control"])


def test_figures_come_out_the_same_again():
    first, again = (CLAIMS["gradient_descent_nonconvex"].run().as_dict() for _ in range(2))
    assert [first[figure] for figure in FIGURES] == [again[figure] for figure in FIGURES]


def test_every_claim_is_in_the_catalogue_under_a_name_of_its_own():
    declared = []
    for info in pkgutil.iter_modules(claims.__path__):
        members = vars(importlib.import_module(f"raphson.claims.{info.name}"))
        for name, member in members.items():
            if isinstance(member, Claim):
                assert member.name == name == member.check.__name__
                assert member.says[0].isupper() and member.says.endswith(".")
                declared.append(name)
    assert sorted(declared) == sorted(CLAIMS) and len(set(declared)) == len(declared)
    assert set(CHEAPEST) < set(CLAIMS)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.paper.slug)
def test_a_paper_is_implemented_and_has_claims(entry):
    paper = entry.paper
    assert paper.slug and paper.title and paper.authors and 1900 < paper.year < 2100
    assert paper.implements
    for dotted in paper.implements:
        # Optax's, where they are the paper's to the letter and so are not written again.
        package, *names = dotted.split(".")
        assert callable(functools.reduce(getattr, names, {"raphson": rp, "optax": optax}[package]))
    assert len(entry.claims) >= 2 or paper.note
    if not all(found.reproduces for found in entry.claims):
        assert paper.note


def test_papers_are_found_by_slug():
    slugs = [entry.paper.slug for entry in ENTRIES]
    assert slugs == sorted(set(slugs))
    assert [entry.paper.slug for entry in papers.find([])] == slugs
    assert [entry.paper.slug for entry in papers.find([slugs[2], slugs[0]])] == [slugs[0], slugs[2]]


# --- The mechanism ----------------------------------------------------------------------------


def made_up(*verdict):
    @claim(PAPER, "Something is so.")
    def something(budget):
        return Verdict(*verdict)

    return something


@pytest.mark.parametrize(
    ("measured", "threshold", "control", "at_most", "holds", "control_fails"),
    [
        (1.0, 2.0, 3.0, True, True, True),
        (2.0, 2.0, 2.1, True, True, True),
        (1.0, 2.0, 1.5, True, True, False),
        (1.0, 2.0, 2.0, True, True, False),
        (3.0, 2.0, 4.0, True, False, True),
        (3.0, 2.0, 1.0, True, False, False),
        (np.nan, 2.0, 3.0, True, False, True),
        (1.0, 2.0, np.inf, True, True, True),
        (3.0, 2.0, 1.0, False, True, True),
        (2.0, 2.0, 1.0, False, True, True),
        (3.0, 2.0, 2.5, False, True, False),
        (1.0, 2.0, 0.0, False, False, True),
        (np.nan, 2.0, 1.0, False, False, True),
    ],
)
def test_a_claim_stands_only_if_its_control_fails(
    measured, threshold, control, at_most, holds, control_fails
):
    outcome = made_up(measured, threshold, control, "by hand", at_most).run()
    row = outcome.as_dict()
    assert (row["holds"], row["control_fails"]) == (holds, control_fails)
    assert outcome.stands == (holds and control_fails)


def test_a_row_is_plain_data_whatever_the_figures_are():
    row = made_up(jnp.float32(1), np.float64(2), jnp.array(3), "by hand").run().as_dict()
    assert json.loads(json.dumps(row)) == row
    assert [row[figure] for figure in FIGURES] == [1.0, 2.0, 3.0]


def test_seconds_are_those_of_the_check():
    @claim(PAPER, "Sleep takes time.")
    def sleeps(budget):
        time.sleep(0.05)
        return Verdict(1.0, 2.0, 3.0, "by hand")

    outcome = sleeps.run()
    assert 0.05 <= outcome.seconds < 5 and outcome.as_dict()["seconds"] == round(outcome.seconds, 3)


@claim(PAPER, "Never to be known.")
def raises(budget):
    raise FloatingPointError("broken")


@claim(PAPER, "So on a small budget only.", reproduces=False)
def small(budget):
    return Verdict(budget.pick(1.0, 3.0), 2.0, 4.0, "by hand")


def test_an_error_in_a_check_is_not_caught():
    with pytest.raises(FloatingPointError, match="broken"):
        raises.run()


def test_a_claim_is_named_as_its_check_and_quick_unless_asked():
    assert (small.name, small.paper, small.reproduces) == ("small", "made-up", False)
    assert small.run().holds and small.run().as_dict()["reproduces"] is False
    assert not small.run(Budget(quick=False)).holds


def test_the_command_reports_each_claim_that_does_not_stand(monkeypatch):
    shown = (raises, made_up(1.0, 2.0, 1.5, "by hand"), small)
    monkeypatch.setattr(papers, "catalogue", lambda: [papers.Entry(PAPER, shown)])

    def rows(*options):
        result = CliRunner().invoke(app, ["claims", "--json", *options])
        assert result.exit_code == 1
        return json.loads(result.stdout)

    # What raises ends neither the others nor in silence, and a control that passes is told.
    both = ("holds", "control_fails")
    quick = [tuple(row[key] for key in both) for row in rows("--quick")]
    assert quick == [(False, False), (True, False), (True, True)]
    full = [tuple(row[key] for key in both) for row in rows()]
    assert full == [(False, False), (True, False), (False, True)]


# --- What bounds are held against ---------------------------------------------------------------


class Walk(rp.AbstractMethod):
    """Goes a drawn way at each step and answers twice of where it is."""

    question = rp.Minimize

    def init(self, problem, y, key):
        assert problem.facts.minimizer is None  # methods are told no facts
        return jax.random.normal(key, y.shape)

    def step(self, problem, y, state):
        return y + state, state

    def answer(self, problem, y, state):
        return 2 * y


def test_history_measures_each_answer_of_each_key():
    problem = quadratic([1.0, 4.0])
    keys = jax.random.split(jax.random.key(0), 3)
    seen = history(problem, Walk(), 5, keys)
    assert set(seen) == {"residual", "value", "gap", "distance"}
    for key, distances in zip(keys, seen["distance"], strict=True):
        way = np.asarray(jax.random.normal(key, (2,)))
        answers = 2 * (np.asarray(problem.y0) + np.arange(6)[:, None] * way)
        expected = np.linalg.norm(answers - np.asarray(problem.facts.minimizer), axis=1)
        np.testing.assert_allclose(distances, expected, rtol=1e-12)
    alone = history(problem, Walk(), 5, keys[1])
    np.testing.assert_allclose(alone["gap"], seen["gap"][1], rtol=1e-12)
