"""Ellipsoid against its formulas in NumPy, bisection, and what the ellipsoids must hold."""

import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.problems import quadratic
from raphson.smooth import Ellipsoid
from tests.smooth.paths import path

RNG = np.random.default_rng(0)
SLOPES, MINIMIZER = RNG.normal(size=(12, 3)), RNG.uniform(-2, 2, 3)


def kinked(y, _=None):
    """Least, with the value 0, at MINIMIZER."""
    return jnp.sum(jnp.abs(SLOPES @ (y - MINIMIZER)))


def test_steps_are_the_formula_of_the_ellipsoids_matrix():
    n, c, P = 3, np.zeros(3), 16 * np.eye(3)
    ys, states = path(rp.Minimize(kinked, jnp.zeros(3)), Ellipsoid(4.0), 30)
    centers = [c]
    for t in range(1, 31):
        g = np.sign(SLOPES @ (c - MINIMIZER)) @ SLOPES
        b = P @ g / np.sqrt(g @ P @ g)
        c, P = c - b / (n + 1), n**2 / (n**2 - 1) * (P - 2 / (n + 1) * np.outer(b, b))
        centers.append(c)
        np.testing.assert_allclose(states.center[t], c, rtol=1e-9)
        np.testing.assert_allclose(states.axes[t] @ states.axes[t].T, P, rtol=1e-8, atol=1e-10)
        values = [float(kinked(c)) for c in centers]
        np.testing.assert_allclose(states.value[t], min(values), rtol=1e-12)
        np.testing.assert_allclose(ys[t], centers[np.argmin(values)], rtol=1e-9)


def test_the_minimizer_stays_inside_and_the_volume_falls_as_the_theory_says():
    _, states = path(rp.Minimize(kinked, jnp.zeros(3)), Ellipsoid(4.0), 200)
    inside = [np.linalg.solve(B, MINIMIZER - c) for B, c in zip(states.axes, states.center)]
    assert np.max(np.linalg.norm(inside, axis=1)) <= 1 + 1e-9
    _, volumes = np.linalg.slogdet(states.axes)
    # Along the cut n / (n + 1) remains of a half axis, and the others grow.
    expected = np.log(3 / 4) + 2 * np.log(3 / 8**0.5)
    np.testing.assert_allclose(np.diff(volumes), expected, rtol=1e-8)
    assert expected < -1 / (2 * 4)


def test_with_one_unknown_it_bisects():
    problem = rp.Minimize(lambda y, _: jnp.abs(y - 0.3), jnp.array(0.0))
    _, states = path(problem, Ellipsoid(8.0), 20)
    low, high = -8.0, 8.0
    for t in range(20):
        middle = (low + high) / 2
        np.testing.assert_allclose(states.center[t], [middle])
        low, high = (low, middle) if middle > 0.3 else (middle, high)


def test_a_direction_that_is_never_cut_does_no_harm():
    # By symmetry no subgradient has a part along (1, -1), along which the ellipsoid grows.
    problem = rp.Minimize(lambda y, _: (y[0] + y[1] - 2) ** 2 + (y[2] - 1) ** 2, jnp.zeros(3))
    solution = rp.solve(problem, Ellipsoid(), rtol=0.0, atol=1e-9)
    np.testing.assert_allclose([solution.value[:2].sum(), solution.value[2]], [2, 1], atol=1e-8)


def test_a_smooth_minimum_is_found():
    problem = quadratic(np.geomspace(0.01, 1, 5))
    solution = rp.solve(problem, Ellipsoid(10.0), rtol=0.0, atol=1e-6)
    np.testing.assert_allclose(solution.value, problem.facts.minimizer, atol=1e-4)


def test_at_a_kink_it_ends_by_itself_and_single_precision_is_kept():
    problem = rp.Minimize(lambda y, _: jnp.sum(jnp.abs(y - 1)), jnp.zeros(2, jnp.float32))
    solution = rp.solve(problem, Ellipsoid(10.0), throw=False)
    assert rp.status_name(solution.status) == "stalled"
    assert solution.value.dtype == jnp.float32
    np.testing.assert_allclose(solution.value, 1, atol=1e-5)


def test_a_tree_takes_the_same_steps():
    tree = rp.Minimize(
        lambda y, _: kinked(jnp.append(y["u"], y["v"])), {"u": jnp.zeros(2), "v": jnp.zeros(())}
    )
    ys, _ = path(rp.Minimize(kinked, jnp.zeros(3)), Ellipsoid(4.0), 40)
    trees, _ = path(tree, Ellipsoid(4.0), 40)
    np.testing.assert_allclose(jnp.column_stack([trees["u"], trees["v"]]), ys, rtol=1e-10)


@pytest.mark.parametrize("radius", [0.0, -1.0, jnp.nan])
def test_refuses_a_radius_that_is_not_positive(radius):
    with pytest.raises(ValueError, match="`radius` of Ellipsoid must be"):
        Ellipsoid(radius)
