"""CenterOfGravity against clipping by lists of corners, bisection, and areas drawn at random."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.problems import quadratic
from raphson.smooth import CenterOfGravity
from tests.smooth.paths import path

RNG = np.random.default_rng(0)
SLOPES, MINIMIZER = RNG.normal(size=(9, 2)), np.array([0.7, -1.2])


def kinked(y, _=None):
    """Least, with the value 0, at MINIMIZER."""
    return jnp.sum(jnp.abs(SLOPES @ (y - MINIMIZER)))


def clipped(polygon, c, g):
    """The corners of the polygon where <g, y - c> <= 0, and those that the cut makes."""
    out = []
    for a, b in zip(polygon, [*polygon[1:], polygon[0]]):
        s, t = g @ (a - c), g @ (b - c)
        if s <= 0:
            out.append(a)
        if (s <= 0) != (t <= 0):
            out.append(a + s / (s - t) * (b - a))
    return out


def gravity(polygon):
    """The formula for the center of gravity of a polygon, about the origin, and its area."""
    (x, y), (u, v) = np.array(polygon).T, np.roll(polygon, -1, axis=0).T
    twice = x * v - u * y
    return np.array([(x + u) @ twice, (y + v) @ twice]) / (3 * twice.sum()), twice.sum() / 2


def test_steps_are_those_of_clipping():
    polygon = [np.array(p, float) for p in [(-4, -4), (4, -4), (4, 4), (-4, 4)]]
    ys, states = path(rp.Minimize(kinked, jnp.zeros(2)), CenterOfGravity(4.0), 25)
    centers, areas = [], []
    for t in range(26):
        c, area = gravity(polygon)
        centers.append(c)
        areas.append(area)
        np.testing.assert_allclose(states.center[t], c, rtol=1e-7, atol=1e-9)
        values = [float(kinked(c)) for c in centers]
        np.testing.assert_allclose(ys[t], centers[np.argmin(values)], rtol=1e-7, atol=1e-9)
        different = np.any(states.corners[t] != np.roll(states.corners[t], -1, axis=0), axis=1)
        np.testing.assert_allclose(states.corners[t][different], polygon, rtol=1e-7, atol=1e-9)
        polygon = clipped(polygon, c, np.sign(SLOPES @ (c - MINIMIZER)) @ SLOPES)
    # Of a convex set in the plane a line through its center of gravity leaves 5/9 at most.
    assert max(np.array(areas[1:]) / areas[:-1]) <= 5 / 9 + 1e-9


def test_the_center_is_that_of_points_drawn_from_the_polygon():
    _, states = path(rp.Minimize(kinked, jnp.zeros(2)), CenterOfGravity(4.0), 3)
    points = RNG.uniform(-4, 4, (200_000, 2))
    for c in states.center[:3]:
        points = points[(points - c) @ (np.sign(SLOPES @ (c - MINIMIZER)) @ SLOPES) <= 0]
    error = points.std(0) / len(points) ** 0.5
    assert np.all(np.abs(points.mean(0) - states.center[3]) < 4 * error)


def test_with_one_unknown_it_bisects():
    problem = rp.Minimize(lambda y, _: jnp.abs(y - 0.3), jnp.array(0.0))
    _, states = path(problem, CenterOfGravity(8.0), 20)
    low, high = -8.0, 8.0
    for t in range(20):
        middle = (low + high) / 2
        np.testing.assert_allclose(states.center[t], [middle, 0], atol=1e-15)
        low, high = (low, middle) if middle > 0.3 else (middle, high)


def test_a_smooth_minimum_is_found():
    problem = quadratic([0.01, 1.0])
    solution = rp.solve(problem, CenterOfGravity(), rtol=0.0, atol=1e-7)
    np.testing.assert_allclose(solution.value, problem.facts.minimizer, atol=1e-5)


def test_without_a_minimizer_in_the_square_it_ends_at_the_border():
    problem = rp.Minimize(lambda y, _: y @ jnp.array([3.0, 4.0]), jnp.zeros(2))
    solution = rp.solve(problem, CenterOfGravity(10.0), throw=False)
    assert rp.status_name(solution.status) == "stalled"
    np.testing.assert_allclose(solution.value, [-10, -10], rtol=1e-7)


def test_trees_under_jit_and_vmap_in_single_precision():
    def solved(one, start):
        fn = lambda y, a: (y["u"] - a) ** 2 + 2 * jnp.sum((y["v"] - a) ** 2)
        problem = rp.Minimize(fn, {"u": start, "v": start[None]}, one)
        return rp.solve(problem, CenterOfGravity(), throw=False).value

    ones, starts = jnp.array([1.0, 1.25], jnp.float32), jnp.array([0.5, -0.5], jnp.float32)
    together = jax.jit(jax.vmap(solved))(ones, starts)
    assert together["u"].dtype == together["v"].dtype == jnp.float32
    np.testing.assert_allclose(together["u"], ones, atol=1e-3)
    np.testing.assert_allclose(together["v"][:, 0], ones, atol=1e-3)


def test_a_run_resumes_bit_for_bit(tmp_path):
    problem = rp.Minimize(kinked, jnp.zeros(2))
    whole = rp.trace(problem, CenterOfGravity(), max_steps=9).solution
    rp.trace(problem, CenterOfGravity(), max_steps=4, checkpoint=tmp_path / "run")
    resumed = rp.trace(
        problem, CenterOfGravity(), max_steps=9, checkpoint=tmp_path / "run"
    ).solution
    np.testing.assert_array_equal(whole.state.corners, resumed.state.corners)


def test_refuses():
    with pytest.raises(ValueError, match="`radius` of CenterOfGravity must be"):
        CenterOfGravity(0.0)
    with pytest.raises(ValueError, match="one or two unknowns, got 3"):
        rp.solve(quadratic([1.0, 2.0, 3.0]), CenterOfGravity())
