"""Krasnoselskii-Mann against a transcription in NumPy, closed forms of rotations, and Kepler."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
import scipy.optimize

import raphson as rp
from raphson.roots import KrasnoselskiiMann

A = np.array([[0.2, -0.5, 0.1], [0.4, 0.3, -0.2], [0.0, 0.6, 0.1]])
START = np.array([2.0, -1.0, 0.5])


def curved(y, _=None, xp=jnp):
    return xp.sin(A @ y) + 0.3


def falling(t):
    return 2 / (t + 2)


@eqx.filter_jit
def iterates(problem, method, count):
    """The iterates after 1, ..., `count` steps, and the residuals that are known of them."""

    def step(carry, _):
        y, state = method.step(problem, *carry)
        return (y, state), (y, method.known(problem, y, state).residual)

    start = problem.y0, method.init(problem, problem.y0, None)
    return jax.lax.scan(step, start, length=count)[1]


def rotation(angle, start=(1.0, 0.0)):
    turn = jnp.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return rp.FixedPoint(lambda y, turn: turn @ y, jnp.array(start), turn)


@pytest.mark.parametrize("weight", [1.0, 0.3, 1.6, falling])
def test_steps_are_those_of_the_paper(weight):
    problem = rp.FixedPoint(curved, jnp.array(START))
    ys, residuals = iterates(problem, KrasnoselskiiMann(weight), 6)
    y = START
    for t, (got, residual) in enumerate(zip(ys, residuals)):
        a = weight(t) if callable(weight) else weight
        y = (1 - a) * y + a * curved(y, xp=np)
        np.testing.assert_allclose(got, y, rtol=1e-13)
        np.testing.assert_allclose(residual, curved(y, xp=np) - y, rtol=0, atol=1e-14)


def test_weight_one_is_the_map_itself():
    # To the last bit, also where y is far greater than T(y).
    problem = rp.FixedPoint(lambda y, _: y / 3e17 + 0.1, jnp.array(1e17))
    ys, _ = iterates(problem, KrasnoselskiiMann(), 3)
    expected = [1e17 / 3e17 + 0.1]
    for _ in range(2):
        expected.append(expected[-1] / 3e17 + 0.1)
    np.testing.assert_array_equal(ys, expected)


@pytest.mark.parametrize("weight", [1.0, 0.5, 0.2])
def test_the_rate_on_a_rotation_is_exact(weight):
    # In the complex plane each step multiplies by 1 - a + a e^iw.
    angle, steps = 0.7, np.arange(1, 41)
    ys, _ = iterates(rotation(angle), KrasnoselskiiMann(weight), 40)
    factor = 1 - weight + weight * np.exp(1j * angle)
    np.testing.assert_allclose(np.asarray(ys) @ [1, 1j], factor**steps, rtol=0, atol=1e-13)
    np.testing.assert_allclose(abs(factor) < 1 - 1e-9, weight < 1)


@pytest.mark.parametrize("weight", [0.5, 0.8])
def test_the_residual_keeps_its_bound_where_the_map_only_does_not_expand(weight):
    # a (1 - a) (k + 1) |r_k|^2 <= |y_0 - y*|^2; with weight 1 the residual of a rotation stays.
    for angle in (0.01, 0.1, 1.0, 3.0):
        problem = rotation(angle)
        _, residuals = iterates(problem, KrasnoselskiiMann(jnp.array(weight)), 500)
        square = np.sum(np.asarray(residuals) ** 2, axis=1)
        k = np.arange(1, 501)
        assert np.all(weight * (1 - weight) * (k + 1) * square <= 1 + 1e-12)
    _, residuals = iterates(problem, KrasnoselskiiMann(jnp.array(1.0)), 500)
    assert 0.25 * 501 * np.sum(np.asarray(residuals[-1]) ** 2) > 100


def test_one_call_of_the_map_a_step():
    problem = rp.Counted(rp.FixedPoint(curved, jnp.array(START)))
    solution = rp.solve(problem, KrasnoselskiiMann())
    steps, counts = int(solution.stats.steps), solution.stats.counts
    assert steps > 3 and int(counts["apply"]) == 1 + steps and int(counts["residual"]) == 0


def test_weights_above_one_suit_projections():
    # The nearest point of a line: an average with weight 1/2 of the identity and a reflection.
    line = jnp.array([0.6, 0.8])
    onto = lambda y, line: line * (line @ y)
    problem = rp.FixedPoint(onto, jnp.array([1.0, -2.0]), line)
    for weight in (0.5, 1.5, 1.9):
        ys, _ = iterates(problem, KrasnoselskiiMann(weight), 10)
        across = np.asarray(ys) @ [0.8, -0.6]
        np.testing.assert_allclose(across, 2.0 * (1 - weight) ** np.arange(1, 11), atol=1e-14)


def test_keplers_equation_for_five_planets():
    eccentricity = np.array([0.2056, 0.0068, 0.0167, 0.0934, 0.0485])
    anomaly = np.array([1.0, 2.0, -0.5, 3.0, 0.1])
    problem = rp.FixedPoint(
        lambda E, args: args[0] + args[1] * jnp.sin(E), anomaly, (anomaly, eccentricity)
    )
    solution = rp.solve(problem, KrasnoselskiiMann(), rtol=0.0, atol=1e-13)
    for E, M, e in zip(solution.value, anomaly, eccentricity):
        root = scipy.optimize.brentq(lambda E: E - e * np.sin(E) - M, -4, 4, xtol=1e-14)  # noqa: B023
        assert float(E) == pytest.approx(root, abs=1e-12)
    peer = rp.solve(problem, optx.FixedPointIteration(1e-13, 1e-13), rtol=0.0, atol=1e-13)
    assert abs(int(solution.stats.steps) - int(peer.stats.steps)) <= 2


def test_ends_where_a_step_moves_nothing():
    problem = rp.FixedPoint(lambda y, _: jnp.cos(y), 1.0)
    solution = rp.solve(problem, KrasnoselskiiMann(0.1), rtol=0.0, atol=0.0, throw=False)
    assert rp.status_name(solution.status) == "stalled"
    assert int(solution.stats.steps) < 1000 and float(solution.certificate.residual) < 1e-15


def test_single_precision_and_trees():
    one = jnp.ones((), jnp.float32)
    problem = rp.FixedPoint(
        lambda y, _: {"u": y["v"] / 2 + jnp.zeros((2, 1), jnp.float32), "v": 1 - y["u"].sum() / 4},
        {"u": jnp.zeros((2, 1), jnp.float32), "v": 0 * one},
    )
    for weight in (0.7, falling):
        ys, residuals = iterates(problem, KrasnoselskiiMann(weight), 3)
        assert {leaf.dtype for leaf in jax.tree.leaves((ys, residuals))} == {jnp.dtype("float32")}
        u, v = np.zeros(2), 0.0
        for t in range(3):
            a = weight(t) if callable(weight) else weight
            u, v = (1 - a) * u + a * v / 2, (1 - a) * v + a * (1 - u.sum() / 4)
        np.testing.assert_allclose(ys["u"][-1, :, 0], u, rtol=1e-6)
        np.testing.assert_allclose(ys["v"][-1], v, rtol=1e-6)


def test_another_weight_compiles_nothing():
    traces = []

    def fn(y, _):
        traces.append(1)
        return jnp.cos(y)

    problem = rp.FixedPoint(fn, 0.5)
    steps = [int(rp.solve(problem, KrasnoselskiiMann(w)).stats.steps) for w in (1.0, 0.6)]
    assert steps[0] != steps[1] and len(traces) <= 2


@pytest.mark.parametrize("weight", [0, 2, -0.5, jnp.nan, "one"])
def test_bad_weight_is_refused(weight):
    message = r"`weight` of KrasnoselskiiMann must be a number in \(0, 2\), got"
    with pytest.raises(ValueError, match=message):
        KrasnoselskiiMann(weight)
