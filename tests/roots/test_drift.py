"""Maps without a fixed point are told from those whose iterations are slow to find it."""

import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.roots import Halpern, KrasnoselskiiMann

METHODS = {
    "Picard": (KrasnoselskiiMann(), 1.0),
    "Mann": (KrasnoselskiiMann(0.5), 0.5),
    "Halpern": (Halpern(), 0.5),
    "plain Halpern": (Halpern(0.0), 0.5),
}
FALLING = KrasnoselskiiMann(lambda t: 1 / (1 + t / 1000))
methods = pytest.mark.parametrize("name", METHODS)


def solved(problem, method, max_steps=10_000):
    """Without tolerances: what slow runs come to is not to pass for an answer."""
    method = METHODS[method][0] if isinstance(method, str) else method
    return rp.solve(problem, method, rtol=0.0, atol=0.0, max_steps=max_steps, throw=False)


def ended(problem, method):
    return rp.status_name(solved(problem, method).status)


def douglas_rachford(z, gap):
    """For the unit disc and the half-plane y_1 >= 1 + gap."""
    in_disc = z / jnp.maximum(1, jnp.linalg.norm(z))
    return z + (2 * in_disc - z).at[0].max(1 + gap) - in_disc


@methods
@pytest.mark.parametrize(("start", "ways"), [(0.0, 1000), (64.0, 2560)])
def test_a_translation_is_given_up_at_the_step_that_is_said(name, start, ways):
    # By 1/4 each time, over 1000 of them and ten times the length of the start.
    problem = rp.FixedPoint(lambda y, _: {"u": y["u"] - 0.25}, {"u": jnp.array([-start, 0.0])})
    # Two coordinates drift: the way is sqrt(2) times as long.
    ways = ways if start == 0 else ways / np.sqrt(2)
    solution = solved(problem, name)
    assert rp.status_name(solution.status) == "infeasible"
    assert abs(int(solution.stats.steps) - np.ceil(ways / METHODS[name][1])) <= 1
    y, image = solution.value["u"], solution.state.image["u"]
    np.testing.assert_allclose(y - image, 0.25, rtol=1e-9)


def test_weights_that_fall_go_a_way_of_their_sum():
    problem = rp.FixedPoint(lambda y, _: y - 0.25, jnp.array(0.0))
    weights = np.cumsum(1 / (1 + np.arange(10_000) / 1000))
    solution = solved(problem, FALLING)
    assert rp.status_name(solution.status) == "infeasible"
    assert abs(int(solution.stats.steps) - np.argmax(weights >= 1000) - 1) <= 1


@methods
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_sets_that_do_not_meet_are_told_from_those_that_touch(name, dtype):
    start = jnp.array([0.3, 2.0], dtype)
    apart = rp.FixedPoint(douglas_rachford, start, jnp.array(0.3, dtype))
    solution = solved(apart, name)
    assert rp.status_name(solution.status) == "infeasible"
    assert solution.value.dtype == dtype
    gap = solution.value - apart.apply(solution.value)
    np.testing.assert_allclose(gap, [-0.3, 0.0], atol=3e-3)
    with pytest.raises(rp.SolveError, match="the map has no fixed point anywhere near"):
        rp.solve(apart, METHODS[name][0])
    touching = rp.FixedPoint(douglas_rachford, start, jnp.array(0.0, dtype))
    assert ended(touching, name) != "infeasible"


def turned(z, angles):
    """Half way to the image under rotations about 1, one in each plane."""
    return 1 + (z - 1) * (1 + jnp.exp(1j * angles)) / 2


@methods
def test_slow_rotations_are_not_given_up(name):
    angles = jnp.geomspace(1e-5, 1, 50)

    def fn(y, angles):
        z = turned(y[0] + 1j * y[1], angles)
        return jnp.stack([z.real, z.imag])

    assert ended(rp.FixedPoint(fn, jnp.zeros((2, 50)), angles), name) == "max_steps"
    alone = rp.FixedPoint(fn, jnp.zeros((2, 1)), angles[:1])
    assert ended(alone, name) == "max_steps"


@pytest.mark.parametrize(("dtype", "rates"), [("float64", (1e-4, 2e-6)), ("float32", (1e-3, 5e-5))])
@pytest.mark.parametrize("method", [*METHODS, FALLING], ids=[*METHODS, "falling"])
def test_slow_contractions_are_not_given_up(method, dtype, rates):
    for rate in rates:
        fn = lambda y, rate: y + rate * (1 - y)
        problem = rp.FixedPoint(fn, jnp.zeros(3, dtype), jnp.array(rate, dtype))
        assert ended(problem, method) != "infeasible"


@methods
def test_what_is_far_but_reached_in_time_is_found(name):
    # By 1 each time up to 900, where T(y) = 900.
    problem = rp.FixedPoint(lambda y, _: jnp.minimum(y + 1, 900.0), jnp.array(0.0))
    solution = solved(problem, name)
    assert rp.status_name(solution.status) != "infeasible"
    np.testing.assert_allclose(solution.value, 900, rtol=1e-3)
