"""BrentLine's lines against SciPy's Brent, its directions against NumPy, and what it counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import raphson as rp
from raphson.problems import quadratic, rosenbrock
from raphson.smooth import BrentLine
from raphson.smooth._line_minimum import brent, line_minimum
from tests.smooth.paths import chain, path

LINES = {
    "wavy": (lambda t: (t - 2) ** 2 * (1 + 0.3 * jnp.sin(3 * t)), (0.5, 1.5, 4.0)),
    "skewed": (lambda t: 0.1 * t - 1 / (1 + (t - 1) ** 2), (0.1, 1.2, 3.0)),
    "kinked": (lambda t: jnp.abs(t - 1.3) + 0.1 * t**2, (0.0, 1.0, 3.0)),
}


@pytest.mark.parametrize("rtol", [1e-2, 1e-8])
@pytest.mark.parametrize("name", LINES)
def test_brent_is_that_of_scipy(name, rtol):
    f, bracket = LINES[name]
    x, value, _, calls = scipy.optimize.brent(f, brack=bracket, tol=rtol, full_output=True)
    seen = []

    def counted(t):
        jax.debug.callback(seen.append, t)
        return f(t)

    low, middle, high = map(jnp.array, bracket)
    found, least = jax.jit(lambda: brent(counted, low, middle, f(middle), high, rtol))()
    jax.effects_barrier()
    np.testing.assert_allclose([found, least], [x, value], rtol=1e-6)
    assert len(seen) == calls - 3  # SciPy asks the three points of the bracket as well


@pytest.mark.parametrize("length", [1e-6, 0.3, 50.0])
def test_a_line_is_minimized_whatever_is_tried_first(length):
    f = lambda t: jnp.cosh(t - 2)
    t, value = jax.jit(lambda s: line_minimum(f, f(0.0), s, 1e-6))(jnp.array(length))
    np.testing.assert_allclose([t, value], [2, 1], rtol=1e-6)


def test_where_f_falls_nowhere_nothing_moves():
    t, value = line_minimum(lambda t: t, jnp.array(0.0), jnp.array(1.0), 0.1)
    assert float(t) == float(value) == 0


@pytest.mark.parametrize("conjugate", [True, False])
def test_directions_are_those_of_polak_and_ribiere(conjugate):
    problem = rosenbrock(4)
    ys, states = path(problem, BrentLine(conjugate, 1e-9), 8)
    y = np.asarray(problem.y0)
    g = chain(y)[1]
    d = -g
    for t in range(8):
        np.testing.assert_allclose(states.direction[t], d, rtol=1e-5, atol=1e-6)
        length = (ys[t + 1] - y) @ d / (d @ d)
        np.testing.assert_allclose(ys[t + 1], y + length * d, rtol=1e-5, atol=1e-7)
        y, before = ys[t + 1], g
        g = chain(y)[1]
        # The minimum of a line is where f is level along it.
        assert abs(g @ d) < 1e-5 * np.linalg.norm(before) * np.linalg.norm(d)
        weight = max(g @ (g - before) / (before @ before), 0) if conjugate else 0
        d = -g + weight * d
        np.testing.assert_allclose(states.value[t + 1], chain(y)[0], rtol=1e-12)
    assert conjugate == np.any(np.abs(states.direction + states.gradient) > 1e-3)


def test_conjugate_directions_solve_a_quadratic_in_as_many_steps_as_unknowns():
    problem = quadratic(np.geomspace(0.01, 1, 6))
    gaps = {}
    for conjugate in (True, False):
        ys, _ = path(problem, BrentLine(conjugate, 1e-8), 6)
        gaps[conjugate] = float(problem.value(ys[6]) - problem.facts.optimum)
    assert gaps[True] < 1e-9 < 1e-4 < gaps[False]


def test_a_step_asks_for_one_gradient_and_for_values():
    problem = rp.Counted(rosenbrock(4))
    counts = rp.solve(problem, BrentLine(), rtol=0.0, atol=0.0, max_steps=4, throw=False)
    counts = counts.stats.counts
    assert int(counts["gradient"]) == 5 and 5 < int(counts["value"]) < 80


def test_refuses_a_tolerance_outside_its_range():
    with pytest.raises(ValueError, match="`line_rtol` of BrentLine must be"):
        BrentLine(line_rtol=0.0)
