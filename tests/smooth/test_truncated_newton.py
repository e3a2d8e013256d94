"""Truncated Newton against Steihaug's algorithm in NumPy, closed forms, and counts by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.problems import cutest, cutest_best, rosenbrock
from raphson.smooth import TruncatedNewton

CHAIN = rosenbrock(6)
START = np.array([-1.2, 1.0, -1.2, 1.0, 0.3, -0.4])


def chain(y):
    """Rosenbrock's chain, its gradient and Hessian."""
    a, b, n = y[1:] - y[:-1] ** 2, 1 - y[:-1], y.size
    slope = np.zeros(n)
    slope[1:] += 200 * a
    slope[:-1] -= 400 * a * y[:-1] + 2 * b
    diagonal = np.zeros(n)
    diagonal[1:] += 200
    diagonal[:-1] += 1200 * y[:-1] ** 2 - 400 * y[1:] + 2
    beside = np.diag(-400 * y[:-1], 1)
    return np.sum(100 * a**2 + b**2), slope, np.diag(diagonal) + beside + beside.T


def to_border(h, p, radius):
    """The positive root of |h + t p| = r."""
    return np.max(np.roots([p @ p, 2 * h @ p, h @ h - radius**2]).real)


def steihaug(g, H, radius, tolerance):
    h, r, p = np.zeros_like(g), g, -g
    while True:
        curvature = p @ H @ p
        if curvature <= 0:
            return h + to_border(h, p, radius) * p
        alpha = r @ r / curvature
        if np.linalg.norm(h + alpha * p) >= radius:
            return h + to_border(h, p, radius) * p
        h, last, r = h + alpha * p, r, r + alpha * H @ p
        if np.linalg.norm(r) <= tolerance:
            return h
        p = -r + r @ r / (last @ last) * p


def iterates(radius, count):
    y = START
    f, g, H = chain(y)
    first = np.linalg.norm(g)
    for _ in range(count):
        slope = np.linalg.norm(g)
        h = steihaug(g, H, radius, min(0.5, np.sqrt(slope / first)) * slope)
        ratio = (f - chain(y + h)[0]) / -(g @ h + h @ H @ h / 2)
        length = np.linalg.norm(h)
        if ratio < 0.25:
            radius = length / 2
        elif ratio >= 0.75 and length >= 0.99 * radius:
            radius = 2 * radius
        if ratio >= 0.1:
            y = y + h
            f, g, H = chain(y)
        yield y, radius, ratio


@pytest.mark.parametrize("radius", [None, 0.1, 50.0])
def test_steps_are_those_of_steihaug(radius):
    problem = rp.Minimize(CHAIN.fn, START).without_facts
    method = TruncatedNewton(radius)
    y, state = problem.y0, method.init(problem, problem.y0, None)
    step = jax.jit(lambda y, state: method.step(problem, y, state))
    ratios = []
    for right, right_radius, ratio in iterates(radius or np.linalg.norm(START), 14):
        y, state = step(y, state)
        np.testing.assert_allclose(y, right, rtol=1e-8)
        np.testing.assert_allclose(state.radius, right_radius, rtol=1e-8)
        ratios.append(ratio)
    np.testing.assert_allclose(state.value, chain(right)[0], rtol=1e-8)
    assert max(ratios) > 0.75 and (radius != 50.0 or min(ratios) < 0.1)


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
