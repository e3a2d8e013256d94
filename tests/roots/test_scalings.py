"""Scalings within bounds against their formulas in NumPy, and what each of them must satisfy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.roots import (
    BoundedTrustRegion,
    ColemanLi,
    ConvexCombination,
    HagerMairZhang,
    Heinkenschloss,
    KanzowKlug,
)
from raphson.roots.scalings import SCALINGS, as_scaling

INF = np.inf


def coleman_li(a, b, g):
    near = a if g > 0 else b if g < 0 else min(a, b)
    return 1.0 if near == INF else near


def heinkenschloss(a, b, g, p):
    near = min(a, b)
    return coleman_li(a, b, g) if abs(g) < near**p or near < abs(g) ** p else 1.0


def kanzow_klug(a, b, g, gamma):
    near = min(a + gamma * max(0, -g), b + gamma * max(0, g))
    return 1.0 if near == INF else near


def hager_mair_zhang(a, b, g, alpha):
    near = a if g > 0 else b if g < 0 else min(a, b)
    return 1 / alpha if near == INF else near / (alpha * near + abs(g))


def combined(a, b, g):
    each = coleman_li(a, b, g), kanzow_klug(a, b, g, 3.0), heinkenschloss(a, b, g, 2.0)
    return np.dot((0.5, 0.2, 0.3), each)


def mean(a, b, g):
    rest = [rule(a, b, g, p) for rule, p in zip(RULES, (2.0, 1.0, 1.0), strict=True)]
    return np.mean([coleman_li(a, b, g), *rest])


RULES = heinkenschloss, kanzow_klug, hager_mair_zhang
CASES = {
    "coleman_li": (ColemanLi(), coleman_li),
    "heinkenschloss": (Heinkenschloss(), lambda *at: heinkenschloss(*at, 2.0)),
    "heinkenschloss_1.2": (Heinkenschloss(1.2), lambda *at: heinkenschloss(*at, 1.2)),
    "kanzow_klug": (KanzowKlug(), lambda *at: kanzow_klug(*at, 1.0)),
    "kanzow_klug_5": (KanzowKlug(5.0), lambda *at: kanzow_klug(*at, 5.0)),
    "hager_mair_zhang": (HagerMairZhang(), lambda *at: hager_mair_zhang(*at, 1.0)),
    "hager_mair_zhang_0.2": (HagerMairZhang(0.2), lambda *at: hager_mair_zhang(*at, 0.2)),
    "combination": (ConvexCombination(), mean),
    "combination_weighted": (
        ConvexCombination(
            ("coleman_li", KanzowKlug(3.0), Heinkenschloss()), weights=(0.5, 0.2, 0.3)
        ),
        combined,
    ),
}
each_scaling = pytest.mark.parametrize("scaling, formula", CASES.values(), ids=CASES)


def inside():
    """Distances to the bounds, some infinite, and gradients, some 0: 300 triples."""
    rng = np.random.default_rng(0)
    a, b = 10 ** rng.uniform(-3, 1, (2, 300))
    g = rng.choice([-1, 0, 1], 300) * 10 ** rng.uniform(-3, 1, 300)
    a[:40] = b[20:60] = INF
    return a, b, g


@each_scaling
def test_are_those_of_the_formulas(scaling, formula):
    a, b, g = inside()
    got = jax.jit(scaling)(*map(jnp.asarray, (a, b, g)))
    np.testing.assert_allclose(got, [formula(*at) for at in zip(a, b, g, strict=True)], rtol=1e-13)


@each_scaling
def test_are_zero_exactly_where_descent_pushes_against_a_bound(scaling, formula):
    a, b, g = inside()
    assert np.all(np.isfinite(d := np.asarray(scaling(a, b, g)))) and np.all(d > 0)
    # On either bound, with the gradient that holds it there and with the one that leaves it.
    zero, size = np.zeros(300), np.abs(g) + 1e-3
    for at in ((zero, b, size), (a, zero, -size)):
        np.testing.assert_array_equal(scaling(*at), 0)
    for at in ((zero, b, -size), (a, zero, size)):
        assert np.all(np.asarray(scaling(*at)) > 0)


@each_scaling
def test_have_the_slope_that_the_method_asks_for(scaling, formula):
    a, b, g = inside()
    at = lambda move: scaling(a + move, b - move, g)
    slope = jax.jvp(at, (jnp.zeros(300),), (jnp.ones(300),))[1]
    step = 1e-7
    plus, minus = (
        np.array([formula(*each) for each in zip(a + move, b - move, g, strict=True)])
        for move in (step, -step)
    )
    np.testing.assert_allclose(slope, (plus - minus) / (2 * step), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SCALINGS)
def test_a_name_is_the_scaling_with_its_defaults(name):
    assert eqx.tree_equal(as_scaling(name), CASES[name][0])


def test_a_function_is_a_scaling():
    # Hager, Mair and Zhang's with no bound above.
    plain = lambda below, above, g: below / (below + jnp.abs(g))
    problem = rp.BoundedRootFind(lambda y, _: y**2 - 2, jnp.ones(1), 0.0, jnp.inf)
    solution = rp.solve(problem, BoundedTrustRegion(plain), rtol=0.0, atol=1e-12)
    np.testing.assert_allclose(solution.value, 2**0.5)


def test_another_parameter_compiles_nothing():
    traced = 0

    def fn(y, _):
        nonlocal traced
        traced += 1
        return y**2 - 2

    problem = rp.BoundedRootFind(fn, jnp.ones(2), 0.0, 3.0)
    rp.solve(problem, BoundedTrustRegion(KanzowKlug(1.0)))
    first = traced
    rp.solve(problem, BoundedTrustRegion(KanzowKlug(2.0)))
    assert traced == first


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Heinkenschloss(1.0), "`p` of Heinkenschloss must be a number in .1, inf"),
        (lambda: KanzowKlug(0.0), "`gamma` of KanzowKlug must be"),
        (lambda: HagerMairZhang(-1.0), "`alpha` of HagerMairZhang must be"),
        (lambda: BoundedTrustRegion("newton"), "`scaling` of .* must be a scaling or one of 'col"),
        (lambda: BoundedTrustRegion(2.0), "`scaling` of BoundedTrustRegion .* got 2.0"),
        (lambda: ConvexCombination(()), "`scalings` of .* at least one scaling"),
        (lambda: ConvexCombination("coleman_li"), "`scalings` of .* tuple"),
        (lambda: ConvexCombination(("coleman_li", 3)), "`scalings` of .* got 3"),
        (lambda: ConvexCombination(weights=(0.5, 0.5)), "`weights` of .* one for each"),
        (lambda: ConvexCombination(weights=(0.5, 0.5, 0.5, -0.5)), "`weights` of .* at least 0"),
        (lambda: ConvexCombination(weights=(1.0, 1.0, 0.0, 0.0)), "`weights` of .* sum 1"),
        (lambda: ConvexCombination(weights=(1.0, "a", 0.0, 0.0)), "`weights` of ConvexComb"),
    ],
)
def test_bad_parameters_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
