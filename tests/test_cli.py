import json

import pytest
from typer.testing import CliRunner

from raphson import papers
from raphson.claims import Paper, Verdict, claim
from raphson.cli import app
from raphson.families import methods

PAPER = Paper("a-paper", "A Paper", "Author", 2020, ("raphson.smooth.LazyNewton",), "a note")


@claim(PAPER, "one is at most two")
def stands(budget):
    return Verdict(1.0, 2.0, float("inf"), "by hand")


@claim(PAPER, "three is at most two")
def fails(budget):
    return Verdict(3.0, 2.0, float("nan"), "by hand")


@claim(PAPER, "a check that raises", reproduces=False)
def raises(budget):
    raise RuntimeError("no memory")


def call(*arguments):
    return CliRunner().invoke(app, list(arguments))


def answer(*arguments, status=0):
    """What a command prints with `--json`."""
    result = call(*arguments, "--json")
    assert result.exit_code == status, result.output
    return json.loads(result.stdout)


def catalogue(monkeypatch, *found):
    monkeypatch.setattr(papers, "catalogue", lambda: [papers.Entry(PAPER, found)])


def test_methods():
    everything = answer("methods")
    assert set(everything[0]) == {"method", "family", "question", "summary", "ours"}
    assert {row["method"] for row in everything if row["ours"]} >= set(methods())
    smooth = answer("methods", "smooth")
    assert {row["method"] for row in smooth} == set(methods("smooth"))
    assert "LazyNewton" in call("methods", "smooth").stdout
    assert {row["family"] for row in answer("methods", "scipy")} == {"scipy"}


def test_problems():
    sets = answer("problems")
    assert len(sets["main"]) == 14
    assert answer("problems", "saddle") == sets["saddle"]
    assert call("problems", "saddle").stdout.split() == sets["saddle"]
    assert "generators" in call("problems").stdout


def test_solve():
    found = answer("solve", "quadratic", "--method", "LazyNewton", "--rtol", "1e-8")
    assert found["problem"] == "quadratic"
    assert found["status"] == "converged"
    assert found["usable"] is True
    assert found["residual"] <= found["tolerance"]
    assert found["counts"]["hessian"] >= 1
    assert len(found["value"]) == 20
    shown = call("solve", "quadratic", "-m", "LazyNewton", "--rtol", "1e-8")
    assert shown.exit_code == 0
    assert "converged" in shown.stdout


def test_a_solve_without_an_answer_ends_with_status_1():
    found = answer("solve", "rosenbrock", "-m", "GradientDescent", "--max-steps", "2", status=1)
    assert (found["status"], found["usable"], found["steps"]) == ("max_steps", False, 2)


def test_papers(monkeypatch):
    catalogue(monkeypatch, stands, fails)
    assert answer("papers") == [
        {
            "paper": "a-paper",
            "title": "A Paper",
            "year": 2020,
            "implements": ["raphson.smooth.LazyNewton"],
            "claims": ["stands", "fails"],
            "note": "a note",
        }
    ]
    assert "A Paper" in call("papers").stdout


def test_claims_that_stand(monkeypatch):
    catalogue(monkeypatch, stands)
    [row] = answer("claims", "--quick", "a-paper")
    assert row.pop("seconds") >= 0
    assert row.pop("case") == "by hand"
    assert row == {
        "claim": "stands",
        "paper": "a-paper",
        "says": "one is at most two",
        "measured": 1.0,
        "threshold": 2.0,
        "control": None,  # infinite, which JSON cannot say
        "holds": True,
        "control_fails": True,
        "reproduces": True,
    }


def test_claims_that_do_not_stand(monkeypatch):
    catalogue(monkeypatch, stands, fails, raises)
    rows = answer("claims", status=1)
    assert [row["holds"] for row in rows] == [True, False, False]
    assert [row["reproduces"] for row in rows] == [True, True, False]
    assert rows[2]["case"] == "RuntimeError: no memory"
    shown = call("claims")
    assert shown.exit_code == 1
    assert "fails DOES NOT STAND" in shown.stderr


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["solve", "quadratc"], "got 'quadratc'; did you mean quadratic"),
        (["solve", "quadratic", "-m", "LazyNewto"], "did you mean LazyNewton"),
        (["solve", "saddle"], "`saddle` holds several problems"),
        (["solve", "quadratic", "-m", "SOR"], "SOR answers LinearSystem, got a Minimize"),
        (["solve", "quadratic", "--rtol", "-1"], "`rtol`"),
        (["solve", "nowhere.py"], "cannot read the file nowhere.py"),
        (["methods", "rough"], "no family is called `rough`; there are raphson, linear, "),
        (["problems", "saddles"], "did you mean saddle"),
        (["claims", "lazy-hessian"], "no paper `lazy-hessian` in the catalogue"),
        (["report", "nowhere.sqlite"], "there is no store nowhere.sqlite"),
        (["race", "quadratic", "-m", "SOR"], "SOR answers LinearSystem, which none of"),
        (["race", "quadratic", "-m", "LazyNewto"], "did you mean LazyNewton"),
        (["race", "--set", "mian"], "did you mean main"),
        (["race", "cutest/HS1"], "only equations and minimization without bounds"),
    ],
)
def test_bad_arguments_are_refused_in_a_sentence(arguments, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_version_and_help():
    assert call("--version").stdout.startswith("raphson ")
    commands = ("race", "solve", "methods", "problems", "papers", "claims", "report")
    assert all(command in call("--help").stdout for command in commands)
