import inspect
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest

import raphson.problems
from raphson.bilevel.problem import AbstractLevels
from raphson.composite.problem import Composite
from raphson.linear.problem import LinearSystem
from raphson.problems import load, names, sets
from raphson.roots.problem import AbstractBounded, FixedPoint, LeastSquares, RootFind
from raphson.saddle.problem import AbstractVariational
from raphson.smooth.problem import FiniteSum, Minimize
from raphson.smooth.risk_parity import RiskParity

OWN = [name for name in names() if not name.startswith("cutest/")]
SORT = {
    "data": FiniteSum,
    "generators": Minimize | FiniteSum,
    "composite": Composite,
    "training": FiniteSum,
    "systems": RootFind,
    "bounded_systems": AbstractBounded,
    "linear": LinearSystem,
    "saddle": AbstractVariational,
    "bilevel": AbstractLevels,
    "applications": RiskParity | LeastSquares | RootFind | FixedPoint,
}


def test_the_main_set():
    main = names("main")
    assert main[:2] == ["logistic/breast_cancer", "perceptron/digits"]
    assert len(main) == 14 and len(set(main)) == 14
    assert set(main[2:]) <= set(names("cutest-small"))


@pytest.mark.parametrize("name", names("main")[2:])
def test_of_the_main_set_the_optimum_is_known(name):
    problem = load(name)
    assert isinstance(problem, Minimize) and problem.y0.size <= 100
    assert problem.facts.optimum is not None


def test_sets_partition_what_is_ours_and_hold_all_of_cutest_that_can_be_stated():
    groups = sets()
    assert names() == list(dict.fromkeys(name for group in groups.values() for name in group))
    assert sum(len(groups[name]) for name in SORT) == len(OWN)
    assert set(groups["cutest-small"]) < set(groups["cutest-unconstrained"])
    assert len(groups["cutest-unconstrained"]) == 197
    assert all(name.startswith("cutest/") for name in groups["cutest-equations"])
    assert len(groups["cutest-equations"]) + len(groups["cutest-bounded-equations"]) == 185


@pytest.mark.parametrize("group, name", [(g, name) for g in SORT for name in names(g)])
def test_every_own_name_loads_and_pickles(group, name):
    problem = load(name)
    assert isinstance(problem, SORT[group])
    again = pickle.loads(pickle.dumps(problem))
    for old, new in zip(jax.tree.leaves(problem), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(old, new)
    # The tags of a Lineax operator are known by identity, which a pickle does not keep.
    if group != "linear":
        assert jax.tree.structure(again) == jax.tree.structure(problem)


def test_names_lead_to_their_makers():
    assert load("cutest/ROSENBR").y0.tolist() == [-1.2, 1.0]
    assert load("rosenbrock/chain").y0.size == 50
    assert load("nesterov/strongly_convex").facts.strong_convexity >= 1e-3
    np.testing.assert_array_equal(load("quadratic", spectrum=[2.0, 3.0]).facts.lipschitz, 3.0)
    assert load("ridge/diabetes", batch_size=5).batch_size == 5


@pytest.mark.parametrize(
    "name, meant",
    [
        ("logistic/breastcancer", "logistic/breast_cancer"),
        ("ROSENBROCK", "rosenbrock"),
        ("bilinear", "saddle/bilinear"),
        ("HELIX", "cutest/HELIX"),
        ("cutest/ROSENBRO", "ROSENBR"),
        (3, r"sets\(\)"),
    ],
)
def test_a_misspelt_name_is_refused_with_the_nearest(name, meant):
    with pytest.raises(ValueError, match=f"`name` must be that of a .*problem, got .*{meant}"):
        load(name)


def test_a_misspelt_set_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="got 'generator'; did you mean generators"):
        names("generator")


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError, match="batchsize"):
        load("ridge/diabetes", batchsize=5)


def test_public_functions_have_a_name_in_the_registry():
    listed = {
        getattr(make, "func", make)
        for group in raphson.problems._GROUPS.values()
        for make in group.values()
    }
    public = {
        value
        for name, value in vars(raphson.problems).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }
    registry = {load, names, sets, raphson.problems.first_order_lower_bound}
    cutest = {raphson.problems.cutest, raphson.problems.cutest_names, raphson.problems.cutest_best}
    assert public - registry - cutest == listed


def test_listing_the_problems_imports_nothing_heavy():
    code = (
        "import sys, raphson.problems as p; p.names(); "
        "print([m for m in ('sklearn', 'sif2jax', 'pandas', 'plotly', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
