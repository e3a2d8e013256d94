import json
import re
import shutil
import subprocess

import pytest

from raphson.race.report import write_report

CHROMIUM = shutil.which("chromium")


@pytest.fixture
def page(tmp_path, record):
    failure = {k: record("q", "C")[k] for k in ("problem", "method", "seed", "settings")}
    failure |= {"status": "error", "solved": False, "error": "ValueError: </script> is no number"}
    runs = [
        record("p", "LazyNewton", 10),
        record("p", "scipy.BFGS", 20),
        record("q", "LazyNewton", solved=False),
        record("q", "scipy.BFGS", 5),
        record("s", "optax.adam", stochastic=True, seed=0),
        record("s", "optax.adam", stochastic=True, seed=1),
        failure,
    ]
    return write_report(runs, tmp_path / "new" / "race.html")


def test_nothing_is_loaded_from_elsewhere(page):
    text = page.read_text()
    # Plotly's own text names addresses, which it opens only for maps and when it is asked to.
    ours = re.sub(r"<script>/\*\*?\s*\* plotly\.js.*?</script>", "", text, count=1, flags=re.DOTALL)
    assert len(ours) < 200_000 < 4_000_000 < len(text)
    assert "http" not in ours
    assert not re.search(r"@import|url\(", ours)
    loads = re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"([^\"]*)", ours)
    assert loads == ["data:,"]


def test_data_of_the_page(page):
    [data] = re.findall(r'id="race">(.*?)</script>', page.read_text(), flags=re.DOTALL)
    race = json.loads(data)
    assert [problem["name"] for problem in race["problems"]] == ["p", "q", "s"]
    names = [method["name"] for method in race["methods"]]
    assert names == ["LazyNewton", "optax.adam", "scipy.BFGS", "C"]
    # LazyNewton solved p at half of BFGS's calls and did not solve q; only Adam was raced on s.
    assert race["ratios"]["calls"] == [
        [1, None, 2, None],
        [None, None, 1, None],
        [None, 1, None, None],
    ]
    assert race["profiles"]["calls"]["performance"][0] == [[1.0], [0.3333]]
    assert [run["error"] for run in race["runs"] if run["status"] == "error"] == [
        "ValueError: </script> is no number"
    ]
    assert race["seeds"] == [0, 1]
    assert race["versions"] == [{"raphson": "0"}]


def test_lower_bound_of_the_class(tmp_path, record):
    constants = {"lipschitz": 2.0, "strong_convexity": 0.0, "distance": 3.0}
    known = record("p", "LazyNewton", 10) | {"size": 9, "constants": constants}
    path = write_report([known, record("q", "LazyNewton", 10)], tmp_path / "race.html")
    [data] = re.findall(r'id="race">(.*?)</script>', path.read_text(), flags=re.DOTALL)
    p, q = json.loads(data)["problems"]
    assert q["bound"] is None
    calls, gaps = p["bound"]
    # It holds for up to half of the 9 unknowns.
    assert calls == [1, 2, 3, 4]
    assert gaps == pytest.approx([3 / 32 * 2 * 9 / (t + 1) ** 2 for t in calls], rel=1e-3)


def test_a_report_needs_a_run(tmp_path):
    with pytest.raises(ValueError, match="at least one finished run"):
        write_report([], tmp_path / "race.html")


@pytest.mark.slow
def drawn(page, tmp_path):
    """The page as a browser has it once its scripts have run."""
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1400,2600",
        "--virtual-time-budget=8000",
        "--enable-logging=stderr",
    ]
    done = subprocess.run(
        [CHROMIUM, *flags, "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "Uncaught" not in done.stderr
    return done.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_draws_it(page, tmp_path):
    dom = drawn(page, tmp_path)
    # A panel for each problem, a large plot and two profiles, with lines in each.
    assert len(re.findall(r'class="[^"]*js-plotly-plot', dom)) == 3 + 3
    assert len(re.findall(r'class="trace scatter', dom)) >= 3 + 3 + 2
    assert dom.index('id="convergence"') < dom.index('id="profiles"')


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_of_many_problems_the_profiles_come_first(tmp_path, record):
    runs = [record(f"p{i}", "LazyNewton", 10) for i in range(25)]
    dom = drawn(write_report(runs, tmp_path / "race.html"), tmp_path)
    assert dom.index('id="profiles"') < dom.index('id="convergence"')


def test_measures_of_a_problems_own_are_on_the_page(tmp_path, record):
    runs = [record("game", "Extragradient", valued=False), record("p", "LazyNewton", optimum=0.0)]
    for run in runs:
        run["history"]["gap"] = [3.0, 2.0, 1.0]
    page = write_report(runs, tmp_path / "race.html").read_text()
    [data] = re.findall(r'id="race">(.*?)</script>', page, flags=re.DOTALL)
    race = json.loads(data)
    # Of an objective the gap is that of its value, which the page has anyway.
    assert [problem["more"] for problem in race["problems"]] == [["gap"], []]
    assert [run["history"]["gap"] for run in race["runs"]] == [[3.0, 2.0, 1.0], [100.0, 1.0, 0.0]]
    assert [problem["best"] for problem in race["problems"]] == [None, 0.0]
