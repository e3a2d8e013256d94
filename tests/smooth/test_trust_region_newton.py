"""Trust-region Newton against NumPy in scaled unknowns, and what units must not change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.problems import cutest, cutest_best, rosenbrock
from raphson.smooth import TrustRegionNewton
from tests.smooth.paths import path
from tests.smooth.trust_region import START, chain, iterates

CHAIN = rosenbrock(6)
UNITS = np.array([1e3, 1.0, 1e-4, 1e2, 1e-2, 10.0])


def scale(H):
    return np.sqrt(np.abs(np.diag(H)))


@pytest.mark.parametrize("radius", [None, 1.0, 500.0])
def test_steps_are_those_of_steihaug_in_scaled_unknowns(radius):
    problem = rp.Minimize(CHAIN.fn, START)
    y, state = path(problem, TrustRegionNewton(radius), 14)
    right = list(iterates(START, radius, 14, 0.5, scale))
    np.testing.assert_allclose(y[1:], [point for point, _, _ in right], rtol=1e-8)
    np.testing.assert_allclose(state.region.radius[1:], [r for _, r, _ in right], rtol=1e-8)
    np.testing.assert_allclose(state.region.value[-1], chain(y[-1])[0], rtol=1e-8)
    ratios = [ratio for _, _, ratio in right]
    assert max(ratios) > 0.75 and (radius != 500.0 or min(ratios) < 0.1)


@pytest.mark.parametrize("start", [START, np.zeros(6)])
def test_units_change_nothing(start):
    fn = lambda y, units: CHAIN.fn(y / units, None)
    steps = [
        path(rp.Minimize(fn, start * units, jnp.asarray(units)), TrustRegionNewton(), 8)[0] / units
        for units in (np.ones(6), UNITS)
    ]
    np.testing.assert_allclose(steps[1], steps[0], rtol=1e-7, atol=1e-9)


def test_hessian_is_asked_for_once_at_each_iterate():
    counted = rp.Counted(rp.Minimize(CHAIN.fn, START))
    solution = rp.solve(counted, TrustRegionNewton(500.0))
    ratios = [
        ratio for _, _, ratio in iterates(START, 500.0, int(solution.stats.steps), 0.5, scale)
    ]
    # Not at the answer.
    accepted = sum(ratio >= 0.1 for ratio in ratios)
    assert accepted < len(ratios)
    assert int(solution.stats.counts["hessian"]) == accepted


@pytest.mark.parametrize("name", ["HUMPS", "NELSONLS", "HAHN1LS", "PALMER1C", "BROWNBS"])
def test_real_problems_that_are_hard_for_newton(name):
    problem = cutest(name)
    best = cutest_best(name)
    solution = rp.solve(problem, TrustRegionNewton(), rtol=0.0, atol=1e-7, throw=False)
    assert int(solution.stats.steps) < 1500
    assert float(problem.value(solution.value)) - best <= 1e-6 * max(1, abs(best))


def test_saddle_is_left():
    fn = lambda y, _: y[0] ** 2 / 2 - y[1] ** 2 / 2 + y[1] ** 4 / 4
    solution = rp.minimize(fn, jnp.array([1.0, 1e-3]), method=TrustRegionNewton())
    np.testing.assert_allclose(solution.value, [0.0, 1.0], atol=1e-6)


def test_where_there_is_no_hessian_it_is_gradient_descent():
    import lineax as lx

    nothing = lambda y, _: lx.MatrixLinearOperator(jnp.full((2, 2), jnp.nan), lx.symmetric_tag)
    fn = lambda y, _: jnp.vdot(jnp.array([1.0, 3.0]), y**2) / 2
    problem = rp.Minimize(fn, jnp.ones(2), hessian=nothing)
    solution = rp.solve(problem, TrustRegionNewton(0.1), max_steps=1, throw=False)
    slope = np.array([1.0, 3.0])
    np.testing.assert_allclose(solution.value, 1 - 0.1 * slope / np.sqrt(10), rtol=1e-14)


def test_trees_and_single_precision():
    tree = rp.Minimize(
        lambda y, _: CHAIN.fn(jnp.append(y["u"], y["v"]), None), {"u": START[:4], "v": START[4:]}
    )
    flat = rp.solve(rp.Minimize(CHAIN.fn, START), TrustRegionNewton()).value
    split = rp.solve(tree, TrustRegionNewton()).value
    np.testing.assert_allclose(jnp.append(split["u"], split["v"]), flat, rtol=1e-9)
    single = rp.solve(rp.Minimize(CHAIN.fn, START.astype(np.float32)), TrustRegionNewton())
    assert single.value.dtype == jnp.float32
    np.testing.assert_allclose(single.value, 1.0, rtol=1e-2)


def test_no_recompilation_where_only_numbers_change():
    traced = 0

    def fn(y, a):
        nonlocal traced
        traced += 1
        return jnp.sum((y - a) ** 4)

    for a in (1.0, 2.0):
        rp.solve(rp.Minimize(fn, jnp.zeros(2), a), TrustRegionNewton(a))
        jax.block_until_ready(a)
    first = traced
    rp.solve(rp.Minimize(fn, jnp.ones(2), 3.0), TrustRegionNewton(3.0))
    assert traced == first
