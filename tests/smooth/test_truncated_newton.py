"""Truncated Newton against Steihaug's algorithm in NumPy, closed forms, and counts by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.problems import cutest, cutest_best, rosenbrock
from raphson.smooth import TruncatedNewton
from tests.smooth.paths import path
from tests.smooth.trust_region import START, chain, iterates

CHAIN = rosenbrock(6)
UNITS = np.array([1e3, 1.0, 1e-4, 1e2, 1e-2, 10.0])


def separable(y):
    """A function whose Hessian is diagonal, its gradient and that: random signs tell all of it."""
    y = y / UNITS
    slope = (4 * (y - 1) ** 3 + y) / UNITS
    return np.sum((y - 1) ** 4 + y**2 / 2), slope, np.diag((12 * (y - 1) ** 2 + 1) / UNITS**2)


SEPARABLE = lambda y, _: jnp.sum((y / UNITS - 1) ** 4 + (y / UNITS) ** 2 / 2)


@pytest.mark.parametrize("radius", [None, 0.1, 50.0])
def test_steps_are_those_of_steihaug(radius):
    problem = rp.Minimize(CHAIN.fn, START).without_facts
    method = TruncatedNewton(radius)
    y, state = problem.y0, method.init(problem, problem.y0, None)
    step = jax.jit(lambda y, state: method.step(problem, y, state))
    ratios = []
    for right, right_radius, ratio in iterates(START, radius, 14, 0.1):
        y, state = step(y, state)
        np.testing.assert_allclose(y, right, rtol=1e-8)
        np.testing.assert_allclose(state.region.radius, right_radius, rtol=1e-8)
        ratios.append(ratio)
    np.testing.assert_allclose(state.region.value, chain(right)[0], rtol=1e-8)
    assert max(ratios) > 0.75 and (radius != 50.0 or min(ratios) < 0.1)


@pytest.mark.parametrize("radius", [None, 0.3])
def test_scaled_steps_are_those_of_steihaug_in_scaled_unknowns(radius):
    start = START * UNITS
    problem = rp.Minimize(SEPARABLE, start)
    y, state = path(problem, TruncatedNewton(radius, scaled_after=0), 5)
    scale = lambda H: np.sqrt(np.diag(H))
    right = list(iterates(start, radius, 5, 0.1, scale, separable))
    points = np.array([point for point, _, _ in right])
    np.testing.assert_allclose(y[1:] / UNITS, points / UNITS, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(state.region.radius[1:], [r for _, r, _ in right], rtol=1e-8)


def test_scaling_begins_anew_where_it_begins():
    start = START * UNITS
    plain, late = (
        path(rp.Minimize(SEPARABLE, start), TruncatedNewton(scaled_after=after), 7)[0]
        for after in (1000, 3)
    )
    np.testing.assert_array_equal(late[:4], plain[:4])
    anew = path(rp.Minimize(SEPARABLE, plain[3]), TruncatedNewton(scaled_after=0), 4)[0]
    np.testing.assert_allclose(late[3:], anew, rtol=1e-12)
    assert np.max(np.abs(late[4] - plain[4]) / UNITS) > 0.1


def test_a_step_below_the_rounding_of_the_point_is_rest():
    bend = lambda y, _: jnp.sum(jnp.cosh(y - 0.3) + y**4 / 3)
    problem = rp.Minimize(bend, jnp.array([1.0, -1.0, 2.0])).without_facts
    run = rp.iterate(problem, TruncatedNewton(), problem.y0, rtol=0.0, atol=0.0, max_steps=100)
    assert rp.status_name(run.status) == "stalled"
    # Without looking at the point, fifty steps that win nothing would tell.
    assert int(run.step) <= 12


def test_scaled_unknowns_bear_bad_units():
    units = 10 ** np.random.default_rng(0).uniform(-4, 4, 20)
    fn = lambda y, _: rosenbrock(20).fn(y / units, None)
    problem = rp.Minimize(fn, jnp.asarray(-units)).without_facts

    def reached(after):
        method = TruncatedNewton(scaled_after=after)
        run = rp.iterate(problem, method, problem.y0, rtol=0.0, atol=0.0, max_steps=200)
        return fn(run.y, None)

    assert reached(0) <= 1e-20 and reached(200) >= 1


def test_linear_objective_is_followed_to_the_border_of_a_region_that_doubles():
    slope = jnp.array([3.0, 4.0])
    problem = rp.Counted(rp.Minimize(lambda y, _: jnp.vdot(slope, y), jnp.zeros(2)))
    for steps, length in ((1, 0.5), (2, 1.5), (3, 3.5)):
        solution = rp.solve(problem, TruncatedNewton(0.5), max_steps=steps, throw=False)
        np.testing.assert_allclose(solution.value, -length * slope / 5, rtol=1e-14)
    # One product shows that p has no curvature.
    assert {k: int(v) for k, v in solution.stats.counts.items() if v} == {
        "gradient": 4,
        "product": 3,
        "value": 4,
    }


def test_quadratic_takes_a_product_for_each_of_its_curvatures():
    curvature = jnp.array([1.0, 1.0, 30.0, 30.0, 900.0])
    problem = rp.Minimize(lambda y, _: jnp.vdot(curvature, y**2) / 2, jnp.ones(5))
    method = TruncatedNewton(1e3)
    solution = rp.solve(rp.Counted(problem), method, rtol=0.0, atol=1e-12)
    # Conjugate gradients are exact after three products, one for each curvature, and the forcing
    # ends the first steps before.
    products, steps = int(solution.stats.counts["product"]), int(solution.stats.steps)
    assert steps <= products <= 3 * steps
    np.testing.assert_allclose(solution.value, 0.0, atol=1e-12)


def test_step_that_falls_much_farther_than_promised_is_doubled():
    # y^2 / 2 with a narrow dip of curvature 1e4 around the start, which is all the model sees.
    fn = lambda y, _: jnp.vdot(y, y) / 2 - 1e-4 * jnp.exp(-((y[0] - 10) ** 2) * 1e8) * 0.5
    problem = rp.Counted(rp.Minimize(fn, jnp.array([10.0 - 1e-5])))
    solution = rp.solve(problem, TruncatedNewton(), max_steps=1, throw=False)
    # y - t h with t a power of 2 and h of the model, doubled as long as f falls.
    assert abs(float(solution.value[0])) < 6
    assert 5 < int(solution.stats.counts["value"]) < 40


def test_rest_where_the_gradient_cannot_fall_farther():
    # Rounding of f and of its gradient keeps |g| from 1e-30.
    problem = rp.Minimize(lambda y, _: jnp.sum(jnp.cosh(y - 1.0 / 3.0)) + 1e3, jnp.full(3, 2.0))
    solution = rp.solve(problem, TruncatedNewton(), rtol=0.0, atol=1e-30, throw=False)
    assert int(solution.stats.steps) < 100


def test_saddle_is_left():
    fn = lambda y, _: y[0] ** 2 / 2 - y[1] ** 2 / 2 + y[1] ** 4 / 4
    solution = rp.minimize(fn, jnp.array([1.0, 1e-3]), method=TruncatedNewton())
    np.testing.assert_allclose(solution.value, [0.0, 1.0], atol=1e-6)
    assert int(solution.stats.steps) <= 30


def test_where_there_is_no_hessian_it_is_gradient_descent():
    nothing = lambda y, v, _: jnp.full_like(v, jnp.nan)
    fn = lambda y, _: jnp.vdot(jnp.array([1.0, 3.0]), y**2) / 2
    problem = rp.Minimize(fn, jnp.ones(2), hvp=nothing)
    solution = rp.solve(problem, TruncatedNewton(0.1), max_steps=1, throw=False)
    slope = np.array([1.0, 3.0])
    np.testing.assert_allclose(solution.value, 1 - 0.1 * slope / np.sqrt(10), rtol=1e-14)
    assert bool(rp.solve(problem, TruncatedNewton(0.1), atol=1e-3).converged)


def test_no_more_products_than_allowed():
    problem = rp.Counted(rp.Minimize(CHAIN.fn, START))
    solution = rp.solve(problem, TruncatedNewton(max_products=2), max_steps=9, throw=False)
    assert 9 < int(solution.stats.counts["product"]) <= 18


@pytest.mark.parametrize("name", ["ROSENBR", "HAIRY", "EXPFIT", "DIXMAANB"])
def test_real_problems(name):
    problem = cutest(name)
    solution = rp.solve(problem, TruncatedNewton(), rtol=1e-9)
    best = cutest_best(name)
    assert float(problem.value(solution.value)) - best <= 1e-9 * max(1, abs(best))


def test_memory_is_a_handful_of_vectors():
    n = 100_000
    fn = lambda y, _: jnp.sum((y[1:] - y[:-1] ** 2) ** 2 + (1 - y[:-1]) ** 4)
    problem = rp.Minimize(fn, jnp.zeros(n)).without_facts
    method = TruncatedNewton()
    run = lambda y: rp.iterate(problem, method, y, rtol=0.0, atol=1e-6, max_steps=100).y
    memory = jax.jit(run).lower(problem.y0).compile().memory_analysis()
    assert 0 < memory.temp_size_in_bytes <= 20 * 8 * n


def test_trees_and_single_precision():
    tree = rp.Minimize(
        lambda y, _: CHAIN.fn(jnp.append(y["u"], y["v"]), None), {"u": START[:4], "v": START[4:]}
    )
    flat = rp.solve(rp.Minimize(CHAIN.fn, START), TruncatedNewton()).value
    split = rp.solve(tree, TruncatedNewton()).value
    np.testing.assert_allclose(jnp.append(split["u"], split["v"]), flat, rtol=1e-9)
    single = rp.solve(rp.Minimize(CHAIN.fn, START.astype(np.float32)), TruncatedNewton())
    assert single.value.dtype == jnp.float32
    np.testing.assert_allclose(single.value, 1.0, rtol=1e-2)
