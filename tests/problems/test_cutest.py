import math
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from raphson.problems.cutest import _sif2jax_problem, cutest, cutest_best, cutest_names
from raphson.roots.problem import BoundedRootFind, RootFind
from raphson.smooth.problem import Minimize


def run(code: str) -> str:
    """The output of a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# Counted from the registries of sif2jax 0.0.8: 200 and 185 entries, three of the former repeated.
def test_counts():
    assert len(cutest_names("unconstrained")) == 197
    assert len(cutest_names("unconstrained", max_size=100)) == 118
    assert len(cutest_names("unconstrained", min_size=101)) == 197 - 118
    free, bounded = cutest_names("nonlinear_equations"), cutest_names("bounded_equations")
    assert len(free) + len(bounded) == 185
    kinds = ["unconstrained", "bounded", "quadratic", "constrained"]
    everything = free + bounded + sum(map(cutest_names, kinds), [])
    assert len(everything) == len(set(everything)) == 842


def test_sizes_include_both_ends():
    assert "ROSENBR" in cutest_names(min_size=2, max_size=2)
    assert "ROSENBR" not in cutest_names(min_size=3)
    assert "ROSENBR" not in cutest_names(max_size=1)


def rosenbrock(y):
    return 100 * (y[1] - y[0] ** 2) ** 2 + (1 - y[0]) ** 2


def beale(y):
    i = np.arange(1, 4)
    return np.sum((np.array([1.5, 2.25, 2.625]) - y[0] * (1 - y[1] ** i)) ** 2)


def bard(y):
    # Moré, Garbow, Hillstrom (1981), problem 8.
    u = np.arange(1, 16)
    v = 16 - u
    w = np.minimum(u, v)
    data = [14, 18, 22, 25, 29, 32, 35, 39, 37, 58, 73, 96, 134, 210, 439]
    return np.array(data) / 100 - (y[0] + u / (v * y[1] + w * y[2]))


def powell_badly_scaled(y):
    # Moré, Garbow, Hillstrom (1981), problem 3.
    return np.array([1e4 * y[0] * y[1] - 1, np.sum(np.exp(-y)) - 1.0001])


@pytest.mark.parametrize(
    "name, start, formula, sort",
    [
        ("ROSENBR", [-1.2, 1.0], rosenbrock, Minimize),
        ("BEALE", [1.0, 1.0], beale, Minimize),
        ("BARDNE", [1.0, 1.0, 1.0], bard, RootFind),
        ("POWELLBS", [0.0, 1.0], powell_badly_scaled, RootFind),
        (
            "HS1NE",
            [-2.0, 1.0],
            lambda y: np.array([10 * (y[1] - y[0] ** 2), 1 - y[0]]),
            BoundedRootFind,
        ),
    ],
)
def test_value_at_start_is_the_published_formula(name, start, formula, sort):
    problem = cutest(name)
    assert type(problem) is sort
    np.testing.assert_array_equal(problem.y0, start)
    assert problem.y0.dtype == jnp.float64
    elsewhere = problem.y0 + jnp.linspace(0.1, 0.3, problem.y0.size)
    for y in (problem.y0, elsewhere):
        got, wanted = np.asarray(problem.fn(y, problem.args)), formula(np.asarray(y))
        # The sign of a residual is a matter of convention.
        np.testing.assert_allclose(np.abs(got), np.abs(wanted), rtol=1e-13)


# Certified by NIST's Statistical Reference Datasets, and a global minimum known in closed form.
@pytest.mark.parametrize(
    "name, least",
    [
        ("ROSENBR", 0.0),
        ("MISRA1ALS", 1.2455138894e-01),
        ("CHWIRUT1LS", 2.3844771393e03),
        ("KIRBY2LS", 3.9050739624e00),
        ("MGH17LS", 5.4648946975e-05),
        ("EGGCRATE", 0.0),
    ],
)
def test_best_values_agree_with_published_ones(name, least):
    np.testing.assert_allclose(cutest_best(name), least, rtol=1e-9, atol=1e-20)


@pytest.mark.parametrize("name", ["BEALE", "JENSMP", "JUDGE", "KOWOSB", "BROWNDEN"])
def test_a_solver_reaches_the_best_value(name):
    problem = cutest(name)
    both = jax.jit(jax.value_and_grad(problem.fn))
    found = scipy.optimize.minimize(
        lambda y: tuple(np.asarray(out) for out in both(y, problem.args)),
        np.asarray(problem.y0),
        jac=True,
        method="BFGS",
        options={"gtol": 1e-9},
    )
    np.testing.assert_allclose(found.fun, cutest_best(name), rtol=1e-9, atol=1e-14)
    assert problem.facts.optimum == cutest_best(name)


def test_best_value_where_there_is_none():
    assert cutest_best("INDEF") == -math.inf
    assert cutest("INDEF").facts.optimum is None
    # What is bounded but far from solved is a best value and no optimum.
    assert cutest_best("NONMSQRT") < 900
    assert cutest("NONMSQRT").facts.optimum is None
    assert cutest_best("HS76") is None


def test_bounds_are_the_published_ones_and_the_start_is_within():
    # Hock, Schittkowski (1981), problem 2: from (-2, 1) where y_2 >= 1.5.
    problem = cutest("HS2NE")
    np.testing.assert_array_equal(problem.lower, [-np.inf, 1.5])
    np.testing.assert_array_equal(problem.upper, [np.inf, np.inf])
    np.testing.assert_array_equal(problem.y0, [-2.0, 1.5])


def test_variables_that_bounds_fix_are_no_unknowns():
    # Of the eight variables of the aircraft its three controls are fixed.
    problem = cutest("AIRCRFTA")
    assert problem.y0.shape == problem.lower.shape == (5,)
    assert not np.any(np.isfinite(problem.lower))
    source = _sif2jax_problem("AIRCRFTA", 0, "float64")
    lower, upper = map(np.asarray, source.bounds)
    whole, y = np.where(lower == upper, lower, 0), np.arange(5.0)
    whole[lower < upper] = y
    expected = source.constraint(jnp.asarray(whole))[0]
    np.testing.assert_array_equal(problem.fn(jnp.asarray(y), None), jnp.asarray(expected))
    assert np.sum(lower == upper) == 3 and np.any(whole[lower == upper] != 0)
    assert cutest("AIRCRFTA").fn == problem.fn != cutest("HS1NE").fn
    assert pickle.loads(pickle.dumps(problem.fn)) == problem.fn
    single = problem.fn(jnp.zeros(5, jnp.float32), None)
    assert single.dtype == jnp.float32


def test_second_start():
    first, second = cutest("RAT42LS"), cutest("RAT42LS:1")
    # NIST's two starts for Rat42.
    np.testing.assert_array_equal(first.y0, [100, 1, 0.1])
    np.testing.assert_array_equal(second.y0, [75, 2.5, 0.07])
    assert first.fn == second.fn
    np.testing.assert_array_equal(cutest("RAT42LS:0").y0, first.y0)


def test_loading_again_compiles_nothing():
    traces = 0

    def counted(fn, y, args):
        nonlocal traces
        traces += 1
        return fn(y, args)

    value = jax.jit(counted, static_argnums=0)
    for problem in (cutest("BEALE"), cutest("BEALE")):
        value(problem.fn, problem.y0, problem.args)
    assert traces == 1
    assert cutest("BEALE").fn != cutest("ROSENBR").fn


def test_iterate_keeps_its_precision():
    problem = cutest("BARD")
    value, gradient = jax.value_and_grad(problem.fn)(problem.y0.astype(jnp.float32), problem.args)
    assert value.dtype == gradient.dtype == jnp.float32
    np.testing.assert_allclose(value, problem.fn(problem.y0, problem.args), rtol=1e-6)


def test_precision_follows_jax_from_load_to_load():
    with jax.enable_x64(False):
        single = cutest("PALMER1C")
        assert {leaf.dtype.name for leaf in (single.y0, *single.args)} == {"float32"}
    double = cutest("PALMER1C")
    assert {leaf.dtype.name for leaf in (double.y0, *double.args)} == {"float64"}


def test_strict_promotion_of_the_user_is_no_obstacle(strict_dtypes):
    problem = cutest("PALMER1C")
    with jax.numpy_rank_promotion("raise"):
        assert jnp.isfinite(problem.fn(problem.y0, problem.args))
        with pytest.raises(jax.dtypes.TypePromotionError):
            jnp.ones(2, jnp.float32) + jnp.ones(2, jnp.float64)


def test_loading_one_problem_leaves_sif2jax_alone():
    loaded = run(
        "import sys\n"
        "from raphson.problems.cutest import cutest, cutest_names\n"
        "cutest_names()\n"
        "assert not any('sif2jax' in (getattr(m, '__file__', None) or '')"
        " for m in sys.modules.values())\n"
        "cutest('ROSENBR')\n"
        "files = [getattr(m, '__file__', None) or '' for m in sys.modules.values()]\n"
        "print(sorted(f.rsplit('/', 1)[1] for f in files if '/sif2jax/' in f))\n"
        "import jax\n"
        "print(jax.config.jax_enable_x64, any(name.startswith('sif2jax') for name in sys.modules))"
    )
    assert loaded.split("\n")[:2] == ["['_problem.py', 'rosenbr.py']", "False False"]


def test_single_precision_without_x64():
    out = run(
        "import warnings\n"
        "warnings.simplefilter('error')\n"
        "import jax\n"
        "from raphson.problems.cutest import cutest\n"
        "for name in ('ROSENBR', 'GULFNE'):\n"
        "    p = cutest(name)\n"
        "    print(p.y0.dtype, jax.jit(p.fn)(p.y0, p.args).dtype)\n"
        "p = cutest('ROSENBR')\n"
        "print(float(p.fn(p.y0, p.args)))"
    ).split("\n")
    assert out[0] == out[1] == "float32 float32"
    assert float(out[2]) == pytest.approx(24.2, rel=1e-6)


def test_function_travels_by_name_and_wakes_under_a_trace():
    sent = pickle.dumps(cutest("GENROSE").fn)
    assert len(sent) < 200
    out = run(
        "import pickle, jax, jax.numpy as jnp\n"
        f"fn = pickle.loads({sent!r})\n"
        "print(jax.jit(fn)(jnp.ones(500), None), jax.jit(jax.grad(fn))(jnp.ones(500), None)[0])"
    )
    assert out.split() == ["1.0", "0.0"]


@pytest.mark.slow
def test_sif2jax_still_imports_after_a_problem():
    out = run(
        "from raphson.problems.cutest import cutest\n"
        "ours = cutest('ROSENBR')\n"
        "import sif2jax, jax.numpy as jnp\n"
        "theirs = next(p for p in sif2jax.problems if p.name == 'ROSENBR')\n"
        "assert isinstance(theirs, sif2jax.AbstractUnconstrainedMinimisation)\n"
        "assert sif2jax.cutest._unconstrained_minimisation.rosenbr.ROSENBR is type(theirs)\n"
        "y = jnp.array([0.3, 0.4])\n"
        "print(len(sif2jax.problems), bool(theirs.objective(y, None) == ours.fn(y, None)))"
    )
    assert out.split() == ["849", "True"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unconstrained", "nonlinear_equations", "bounded_equations"])
def test_every_problem_loads_alone_and_is_as_the_index_says(kind):
    for name in cutest_names(kind):
        problem = cutest(name)
        out = jax.eval_shape(problem.fn, problem.y0, problem.args)
        assert out.dtype == problem.y0.dtype == jnp.float64, name
        # Of bounded equations the index counts the fixed variables, too.
        most = None if kind == "bounded_equations" else problem.y0.size
        assert name in cutest_names(kind, min_size=problem.y0.size, max_size=most)
        assert (out.shape == ()) == (kind == "unconstrained"), name


@pytest.mark.parametrize(
    "name, message",
    [
        ("ROSENBROCK", "CUTEst problem, got 'ROSENBROCK'; did you mean ROSENBR"),
        ("beale", "did you mean BEALE"),
        ("QQQQQQQQQ", "`cutest_names` lists them"),
        ("ROSENBR:1", "ROSENBR has the starts 0, got 'ROSENBR:1'"),
        ("MISRA1ALS:x", "MISRA1ALS has the starts 0, 1, got"),
        (3, "got 3"),
    ],
)
def test_unknown_names_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        cutest(name)
    with pytest.raises(ValueError, match=message):
        cutest_best(name)


@pytest.mark.parametrize("name", ["HS76", "HS1", "HS6"])
def test_bounds_and_constraints_are_refused_for_now(name):
    with pytest.raises(NotImplementedError, match=f"{name} is of the kind"):
        cutest(name)


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="`kind` must be one of bounded, .* got 'convex'"):
        cutest_names("convex")
