"""FullyFirstOrder against a transcription in NumPy, closed forms, and the rate of its bias."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.bilevel import FullyFirstOrder
from raphson.problems import valleys

KEY = jax.random.key(3)


def sampled(batch_size=3):
    """f has the samples (c'y - d - s x)^2 / 2 + |y|^2 / 20, F has (c'y - d)^2 / 2 + x^2 / 10."""
    rng = np.random.default_rng(0)

    def upper(x, y, sample, _):
        c, d, _ = sample
        return (c @ y - d) ** 2 / 2 + x**2 / 10

    def lower(x, y, sample, _):
        c, d, s = sample
        return (c @ y - d - s * x) ** 2 / 2 + y @ y / 20

    data = [(rng.normal(size=(20, 2)), rng.normal(size=20), rng.normal(size=20)) for _ in range(2)]
    return rp.BilevelSum(upper, lower, 0.5, jnp.ones(2), *data, batch_size=batch_size)


def upper_gradient(x, y, batch):
    c, d, _ = batch
    return x / 5, (c @ y - d) @ c / len(d)


def lower_gradient(x, y, batch):
    c, d, s = batch
    left = c @ y - d - s * x
    return -np.mean(s * left), left @ c / len(d) + y / 10


def transcription(problem, method, powers, count):
    """The algorithm box, each gradient on a batch of its own; x, y and z after each step."""
    p, q = powers
    x, (y, z), key, path = 0.5, np.ones((2, 2)), KEY, []
    full = jax.tree.map(np.asarray, (problem.upper_data, problem.lower_data))
    held = {"y": None, "x": None}

    def asked(level, point, m, key):
        batches = full[0], full[1], full[1]
        if problem.stochastic:
            first, second = map(problem.sample, jax.random.split(key))
            batches = jax.tree.map(np.asarray, (*first, second[1]))

        def gradients(x, y, z):
            F, f, apart = batches
            of = upper_gradient(x, y, F), lower_gradient(x, y, f), lower_gradient(x, z, apart)
            return [each["xy".index(level)] for each in of]

        new = gradients(*point)
        if method.momentum and held[level] is not None:
            estimate, before = held[level]
            old = gradients(*before)
            new = [n + (1 - m) * (e - o) for n, e, o in zip(new, estimate, old, strict=True)]
        held[level] = new, point
        return new

    for k in range(count):
        keys = [None] * (method.inner_steps + 2)
        if problem.stochastic:
            key, *keys = jax.random.split(key, method.inner_steps + 2)
        last, *inner = keys
        t = k + method.offset
        a, b = method.step_size * t**-p, method.lower_step_size * t**-q
        w, m = b / (2 * a), 1 if k == 0 else t ** (-2 * q)
        for each in inner[: method.inner_steps]:
            F_y, f_y, f_z = asked("y", (x, y, z), m, each)
            y, z = y - a * (F_y + w * f_y), z - b * f_z
        F_x, f_x, f_z = asked("x", (x, y, z), m, last)
        x = x - method.ratio * a * (F_x + w * (f_x - f_z))
        path.append(np.array([x, *y, *z]))
    return np.array(path)


def path(problem, method, count):
    @jax.jit
    def step(carry, _):
        (x, y), state = carry = method.step(problem, *carry)
        return carry, jnp.concatenate([x[None], y, state.z])

    start = problem.y0, method.init(problem, problem.y0, KEY)
    return np.asarray(jax.lax.scan(step, start, length=count)[1])


@pytest.mark.parametrize(
    ("options", "batch_size", "powers"),
    [
        ({}, 3, (5 / 7, 4 / 7)),
        ({"noise": "upper", "ratio": 0.5, "inner_steps": 2}, 3, (3 / 5, 2 / 5)),
        ({"inner_steps": 3, "offset": 4.0}, None, (1 / 3, 0)),
        ({"momentum": True, "inner_steps": 1}, 3, (3 / 5, 2 / 5)),
        ({"momentum": True, "noise": "upper", "inner_steps": 3}, 3, (1 / 2, 1 / 4)),
        ({"momentum": True}, None, (1 / 3, 0)),
    ],
)
def test_steps_are_the_algorithm(options, batch_size, powers):
    problem, method = sampled(batch_size), FullyFirstOrder(0.05, 0.15, **options)
    expected = transcription(problem, method, powers, 6)
    np.testing.assert_allclose(path(problem, method, 6), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("momentum", [False, True])
def test_the_error_falls_as_the_penalty_grows(momentum):
    problem, method = valleys.quartic_levels(), FullyFirstOrder(momentum=momentum)
    exact = problem.facts.minimizer[0]
    errors = [
        abs(float(rp.solve(problem, method, max_steps=n, throw=False).value[0] - exact))
        for n in (1250, 10_000)
    ]
    np.testing.assert_allclose(errors[1] / errors[0], 0.5, rtol=0.05)  # 8^(-1/3)


def test_no_bias_where_the_upper_gradient_by_y_vanishes():
    # At the answer x = y = 2 the level above is at its own minimum.
    upper = lambda x, y, _: (x - 2) ** 2 + (y["v"] - 2) ** 2
    lower = lambda x, y, _: (y["v"] - x) ** 2
    problem = rp.Bilevel(upper, lower, 0.0, {"v": 1.0})
    x, y = rp.solve(problem, FullyFirstOrder(), max_steps=3000).value
    np.testing.assert_allclose((x, y["v"]), 2, atol=1e-6)


@pytest.mark.parametrize("momentum", [False, True])
def test_single_precision_stays_single(momentum):
    one = jnp.ones((), jnp.float32)
    upper = lambda x, y, _: (x["a"] - 2) ** 2 + (y[0] - 2) ** 2
    lower = lambda x, y, _: (y[0] - x["a"]) ** 2
    problem = rp.Bilevel(upper, lower, {"a": one}, [one])
    method = FullyFirstOrder(*np.array([0.1, 0.2, 1.0]), offset=np.float64(10), momentum=momentum)
    run = rp.solve(problem, method, max_steps=1000, throw=False)
    leaves = jax.tree.leaves((run.value, run.state.z, run.state.estimates))
    assert {leaf.dtype for leaf in leaves} == {one.dtype}
    np.testing.assert_allclose(jax.tree.leaves(run.value), 2, atol=1e-4)


def test_sets_hold_both_copies():
    box = rp.composite.Box(-0.5, 0.5)
    problem = rp.Bilevel(lambda x, y, _: (y - 3) ** 2, lambda x, y, _: (y - x) ** 2, 0.0, 0.0)
    boxed = rp.Bilevel(problem.upper, problem.lower_fn, 0.0, 2.0, sets=(box, box))
    run = rp.solve(boxed, FullyFirstOrder(), max_steps=500, throw=False)
    np.testing.assert_allclose(run.value[0], 0.5, atol=1e-12)
    assert all(abs(float(copy)) <= 0.5 for copy in (run.value[1], run.state.z))


def test_gradients_alone_are_asked():
    problem = rp.Counted(valleys.quartic_levels())
    counts = rp.solve(problem, FullyFirstOrder(), max_steps=7, throw=False).stats.counts
    assert int(counts["product"]) == 0
    assert int(counts["upper_gradient"]) == 7 * (5 + 1)
    assert int(counts["lower_gradient"]) == 2 * 7 * (5 + 1)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: FullyFirstOrder(0.0), "`step_size` of FullyFirstOrder must be a number in"),
        (lambda: FullyFirstOrder(0.1, -1.0), "`lower_step_size` of FullyFirstOrder must be"),
        (lambda: FullyFirstOrder(ratio=0.0), "`ratio` of FullyFirstOrder must be a number in"),
        (lambda: FullyFirstOrder(offset=0.0), "`offset` of FullyFirstOrder must be a number in"),
        (lambda: FullyFirstOrder(inner_steps=0), "`inner_steps` must be a whole number of at"),
        (lambda: FullyFirstOrder(noise="lower"), "`noise` of FullyFirstOrder must be one of"),
    ],
)
def test_unfit_hyperparameters_are_refused_in_one_sentence(build, says):
    with pytest.raises(ValueError, match=re.escape(says)) as refusal:
        build()
    assert "\n" not in str(refusal.value)
