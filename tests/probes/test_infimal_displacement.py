"""The infimal displacement against closed forms, and its bound against fixed points that exist."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.probes import infimal_displacement
from raphson.roots import Halpern, KrasnoselskiiMann

RUNS = {"Picard": (KrasnoselskiiMann(), 1.0), "Mann": (KrasnoselskiiMann(0.3), 0.3)}
RUNS |= {"Halpern": (Halpern(), 0.5), "plain Halpern": (Halpern(0.0), 0.5)}
runs = pytest.mark.parametrize("name", RUNS)


def probed(problem, name, steps):
    """The probe after so many steps, also where the method would end."""
    method, speed = RUNS[name]

    @jax.jit
    def run():
        start = problem.y0, method.init(problem, problem.y0, None)
        return jax.lax.fori_loop(0, steps, lambda _, carry: method.step(problem, *carry), start)[0]

    y = run()
    return infimal_displacement(problem, y, steps, speed=speed)


def half(y, _):
    return jnp.stack([y[0] / 2, y[1] - 0.25])


@runs
def test_a_translation_is_told_at_once(name):
    problem = rp.FixedPoint(lambda y, _: {"u": y["u"] - 0.3}, {"u": jnp.array([1.0, 2.0])})
    probe = probed(problem, name, 7)
    np.testing.assert_allclose(probe.residual["u"], 0.3, rtol=1e-12)
    np.testing.assert_allclose(probe.difference["u"], 0.3, rtol=1e-12)
    assert float(probe.disagreement) < 1e-12 and bool(probe.infeasible)


@runs
def test_a_drift_is_found_behind_a_contraction(name):
    probe = probed(rp.FixedPoint(half, jnp.ones(2)), name, 2000)
    np.testing.assert_allclose(probe.residual, [0, 0.25], atol=2e-3)
    assert bool(probe.infeasible)
    # Of a fixed point it is said that it would be past all that was walked.
    walked = 2000 * 0.25 * RUNS[name][1]
    np.testing.assert_allclose(float(probe.distance), walked, rtol=0.01)


@runs
@pytest.mark.parametrize("steps", [10, 100, 1000])
def test_what_converges_is_not_called_infeasible(name, steps):
    # Linear, and sublinear: a disc and a line that touch.
    def touching(y, _):
        on_line = y.at[1].set(1.0)
        return on_line / jnp.maximum(1, jnp.linalg.norm(on_line))

    for fn in (lambda y, _: 1 - y[::-1] / 2, touching):
        probe = probed(rp.FixedPoint(fn, jnp.array([3.0, 2.0])), name, steps)
        assert not bool(probe.infeasible)


def test_the_bound_holds_at_every_point_and_is_attained_on_a_reflection():
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    fixed, start = rng.normal(size=(2, 4))
    for factor in (1.0, 0.5, -1.0):
        fn = lambda y, _: fixed + factor * Q @ (y - fixed)  # noqa: B023
        problem = rp.FixedPoint(fn, jnp.array(start))
        points = jnp.array(fixed + rng.normal(size=(200, 4)) * rng.uniform(0, 9, (200, 1)))
        probe = jax.vmap(lambda y: infimal_displacement(problem, y, 1))(points)  # noqa: B023
        distance = np.linalg.norm(start - fixed)
        assert np.all((probe.distance >= 0) & (probe.distance <= distance * (1 + 1e-12)))
        assert np.min(probe.distance) == 0  # points on the far side say nothing
        assert np.max(probe.distance) > 0.2 * distance
    reflection = rp.FixedPoint(lambda y, _: 2 * fixed - y, jnp.array(start))
    probe = infimal_displacement(reflection, reflection.y0, 1)
    np.testing.assert_allclose(probe.distance, np.linalg.norm(start - fixed), rtol=1e-12)


def test_the_figures_are_those_of_their_definitions():
    problem = rp.FixedPoint(half, jnp.array([1.0, 3.0]))
    y, steps, speed = np.array([0.25, -2.0]), 4, 0.5
    probe = infimal_displacement(problem, jnp.array(y), steps, speed=speed, rtol=0.2)
    r = y - np.array([0.125, -2.25])
    d = (np.array([1.0, 3.0]) - y) / (speed * steps)
    np.testing.assert_allclose(probe.residual, r, rtol=1e-14)
    np.testing.assert_allclose(probe.difference, d, rtol=1e-14)
    size = np.linalg.norm(r)
    np.testing.assert_allclose(probe.disagreement, np.linalg.norm(r - d) / size, rtol=1e-14)
    bound = (r @ (np.array([1.0, 3.0]) - y) + size**2 / 2) / size
    np.testing.assert_allclose(probe.distance, bound, rtol=1e-14)
    assert float(probe.rtol) == 0.2 and not bool(probe.infeasible)


def test_at_a_fixed_point_nothing_is_said():
    problem = rp.FixedPoint(lambda y, _: y / 2, jnp.array(1.0))
    probe = infimal_displacement(problem, jnp.array(0.0), 5)
    assert float(probe.distance) == 0 and not bool(probe.infeasible)


def test_single_precision_and_jit():
    problem = rp.FixedPoint(lambda y, _: y - 0.25, jnp.zeros(2, jnp.float32))
    at = eqx.filter_jit(lambda y, k: infimal_displacement(problem, y, k))
    probe = at(jnp.full(2, -2.5, jnp.float32), 10)
    assert {leaf.dtype for leaf in jax.tree.leaves(probe)} == {jnp.dtype("float32")}
    assert bool(probe.infeasible)


def test_refuses():
    problem = rp.Minimize(lambda y, _: y**2, jnp.array(1.0))
    with pytest.raises(ValueError, match="`problem` must be a FixedPoint, got a Minimize"):
        infimal_displacement(problem, problem.y0, 1)
    problem = rp.FixedPoint(lambda y, _: y / 2, jnp.array(1.0))
    with pytest.raises(ValueError, match=r"`steps` must be a number in \[1, inf\), got 0"):
        infimal_displacement(problem, problem.y0, 0)
    with pytest.raises(ValueError, match="`speed` must be"):
        infimal_displacement(problem, problem.y0, 1, speed=0.0)
    with pytest.raises(ValueError, match="`rtol` must be"):
        infimal_displacement(problem, problem.y0, 1, rtol=-1.0)
