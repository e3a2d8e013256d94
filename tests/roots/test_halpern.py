"""Halpern against a transcription in NumPy, means of rotations, and bounds that are attained."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.roots import Halpern, KrasnoselskiiMann

A = np.array([[0.2, -0.5, 0.1], [0.4, 0.3, -0.2], [0.0, 0.6, 0.1]])
START = np.array([2.0, -1.0, 0.5])


def curved(y, _=None, xp=jnp):
    return xp.sin(A @ y) + 0.3


def transcription(fn, y, restart, count):
    """The iterates, and the number of steps since the anchor."""
    anchor, k = y, 0
    size = np.linalg.norm(y - fn(y))
    for _ in range(count):
        y = anchor / (k + 2) + (k + 1) / (k + 2) * fn(y)
        k += 1
        residual = np.linalg.norm(y - fn(y))
        if residual < restart * size:
            anchor, k, size = y, 0, residual
        yield y, k


@eqx.filter_jit
def iterates(problem, method, count):
    """Iterates, residuals that are known of them, and states after 1, ..., `count` steps."""

    def step(carry, _):
        y, state = method.step(problem, *carry)
        return (y, state), (y, method.known(problem, y, state).residual, state)

    start = problem.y0, method.init(problem, problem.y0, None)
    return jax.lax.scan(step, start, length=count)[1]


@pytest.mark.parametrize("restart", [0.0, 0.37, 0.8])
def test_steps_are_those_of_the_paper(restart):
    problem = rp.FixedPoint(curved, jnp.array(START))
    ys, residuals, states = iterates(problem, Halpern(jnp.array(restart)), 12)
    expected = list(transcription(lambda y: curved(y, xp=np), START, restart, 12))
    np.testing.assert_array_equal(states.count, [k for _, k in expected])
    for got, residual, (y, _) in zip(ys, residuals, expected):
        np.testing.assert_allclose(got, y, rtol=1e-13)
        np.testing.assert_allclose(residual, curved(y, xp=np) - y, rtol=0, atol=1e-14)
    restarts = sum(k == 0 for _, k in expected)
    assert (restarts == 0) if restart == 0 else (restarts >= 3)


def test_a_rotation_is_averaged():
    # y_k is the mean of the first k + 1 points of the orbit; after a whole turn, the center.
    angle = 2 * np.pi / 12
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    problem = rp.FixedPoint(lambda y, _: turn @ y, jnp.array([1.0, 0.0]))
    ys, _, _ = iterates(problem, Halpern(0.0), 30)
    orbit = np.exp(1j * angle * np.arange(31))
    mean = np.cumsum(orbit) / np.arange(1, 32)
    np.testing.assert_allclose(np.asarray(ys) @ [1, 1j], mean[1:], rtol=0, atol=1e-14)
    np.testing.assert_allclose(ys[10], 0, atol=1e-14)


def test_the_bound_is_attained_on_a_reflection():
    problem = rp.FixedPoint(lambda y, _: -y, jnp.array(1.0))
    _, residuals, _ = iterates(problem, Halpern(0.0), 100)
    k = np.arange(1, 101)
    np.testing.assert_allclose(-residuals, np.where(k % 2, 0, 2 / (k + 1)), rtol=1e-12, atol=1e-15)


def test_the_bound_holds_where_averages_are_slower():
    # The projections onto a disc and a line that touch: sublinear for every method.
    def fn(y, _):
        on_line = y.at[1].set(1.0)
        return on_line / jnp.maximum(1, jnp.linalg.norm(on_line))

    problem = rp.FixedPoint(fn, jnp.array([3.0, 2.0]))
    distance = np.hypot(3.0, 1.0)  # the only fixed point is (0, 1)
    bound = 2 * distance / (np.arange(1, 2001) + 1)
    _, residuals, _ = iterates(problem, Halpern(0.0), 2000)
    assert np.all(np.linalg.norm(residuals, axis=1) <= bound)

    # And slow rotations, where Picard does not converge and its average with 1/2 keeps no such
    # bound.
    angles = jnp.geomspace(1e-3, 3, 50)

    def turned(z, angles):
        c, s = jnp.cos(angles), jnp.sin(angles)
        return {"x": c * z["x"] - s * z["y"], "y": s * z["x"] + c * z["y"]}

    problem = rp.FixedPoint(turned, {"x": jnp.ones(50), "y": jnp.zeros(50)}, angles)

    def sizes(method):
        residual = iterates(problem, method, 2000)[1]
        return np.sqrt(np.sum(residual["x"] ** 2 + residual["y"] ** 2, axis=1))

    bound = 2 * np.sqrt(50) / (np.arange(1, 2001) + 1)
    assert np.all(sizes(Halpern(0.0)) <= bound)
    assert np.any(sizes(KrasnoselskiiMann(0.5)) > bound)


@pytest.mark.parametrize("contraction", [0.5, 0.9, 0.99])
def test_restarts_are_linear_on_a_contraction(contraction):
    # |y - y*| <= |r| / (1 - g), so that the residual falls to `restart` of itself within
    # 2 / (restart (1 - g)) steps.
    problem = rp.FixedPoint(lambda y, g: 1 - g * y[::-1], jnp.zeros(3), jnp.array(contraction))
    for restart in (0.2, 0.37, 0.6):
        method = Halpern(jnp.array(restart))
        solution = rp.solve(problem, method, rtol=1e-9, atol=0.0, max_steps=20_000)
        longest = np.ceil(2 / (restart * (1 - contraction)))
        rounds = np.ceil(np.log(1e-9) / np.log(restart))
        assert int(solution.stats.steps) <= longest * rounds
        np.testing.assert_allclose(solution.value, 1 / (1 + contraction), rtol=1e-6)
    plain = rp.solve(problem, Halpern(0.0), rtol=1e-9, atol=0.0, max_steps=20_000, throw=False)
    assert float(plain.certificate.residual) > 1e-6


def test_where_there_is_no_fixed_point_iterates_drift_at_half_speed():
    v = jnp.array([0.3, -0.1])
    problem = rp.FixedPoint(lambda y, _: y - v, jnp.array([5.0, 1.0]))
    ys, residuals, _ = iterates(problem, Halpern(), 50)
    expected = np.asarray(problem.y0) - np.arange(1, 51)[:, None] * np.asarray(v) / 2
    np.testing.assert_allclose(ys, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(residuals, np.broadcast_to(-v, (50, 2)), rtol=0, atol=1e-12)


def test_one_call_of_the_map_a_step():
    problem = rp.Counted(rp.FixedPoint(curved, jnp.array(START)))
    solution = rp.solve(problem, Halpern())
    steps, counts = int(solution.stats.steps), solution.stats.counts
    assert steps > 3 and int(counts["apply"]) == 1 + steps and int(counts["residual"]) == 0


def test_single_precision():
    problem = rp.FixedPoint(lambda y, _: jnp.cos(y), jnp.array(0.5, jnp.float32))
    solution = rp.solve(problem, Halpern(), rtol=1e-6, atol=0.0)
    assert solution.value.dtype == jnp.float32 and bool(solution.usable)
    np.testing.assert_allclose(solution.value, 0.7390851, rtol=1e-6)


@pytest.mark.parametrize("restart", [1, -0.5, jnp.nan, "one"])
def test_bad_restart_is_refused(restart):
    with pytest.raises(ValueError, match=r"`restart` of Halpern must be a number in \[0, 1\), got"):
        Halpern(restart)
