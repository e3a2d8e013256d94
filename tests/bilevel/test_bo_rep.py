"""BO-REP against its steps written out in NumPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.bilevel import BORep

C, START = np.array([0.8, -1.5]), (np.array([0.3, -0.9]), np.array([2.0, 1.0]))


def upper(x, y, _):
    return jnp.sum(jnp.cosh(y - C)) + jnp.sum(x**2) * y[0]


def lower(x, y, _):
    return jnp.sum((y - x) ** 2) + y[0] ** 2 * x[1] ** 2 / 2 - y[0] * y[1] / 2


PROBLEM = rp.Bilevel(upper, lower, *START)


def derivatives(x, y):
    """F_x, F_y, f_y, f_xy and f_yy by hand."""
    F_x, F_y = 2 * x * y[0], np.sinh(y - C) + np.array([x @ x, 0.0])
    f_y = 2 * (y - x) + np.array([y[0] * x[1] ** 2 - y[1] / 2, -y[0] / 2])
    f_xy = np.array([[-2.0, 0.0], [2 * y[0] * x[1], -2.0]])
    f_yy = np.array([[2 + x[1] ** 2, -0.5], [-0.5, 2.0]])
    return F_x, F_y, f_y, f_xy, f_yy


def limited(step, scale, length):
    return step * min(scale, length / np.linalg.norm(step))


def transcription(steps, s, r, a, N, period, refinement, radius, nu, beta):
    x, y = START
    z, m, rows = derivatives(x, y)[1], np.zeros(2), []
    for k in range(steps):
        for _ in range(refinement if k == 0 else int(k % period == 0)):
            center, path = y, []
            for _ in range(N):
                y = y - a * derivatives(x, y)[2]
                if k > 0:
                    y = center + limited(y - center, 1, radius)
                path.append(y)
            y = np.mean(path, axis=0)
        F_x, F_y, _, f_xy, f_yy = derivatives(x, y)
        m = beta * m + (1 - beta) * (F_x - f_xy @ z)
        z = z - nu * (f_yy @ z - F_y)
        x = x - limited(m, s, r)
        rows.append((x, y, z, m))
    return rows


@pytest.mark.parametrize(
    "settings",
    [
        (math.inf, 0.1, 0.05, 4, 2, 3, math.inf, 0.1, 0.9),
        (0.2, 0.05, 0.1, 3, 3, 1, 0.02, 0.2, 0.0),
        (0.05, math.inf, 0.1, 2, 1, 2, math.inf, 0.2, 0.5),
    ],
    ids=["normalized", "limited", "free"],
)
def test_steps_are_those_written_out(settings):
    problem, method = PROBLEM, BORep(*settings)
    z, state = problem.y0, method.init(problem, problem.y0, None)
    step = jax.jit(lambda z, state: method.step(problem, z, state))
    for row in transcription(9, *settings):
        z, state = step(z, state)
        for ours, theirs in zip((*z, state.z, state.momentum), row, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12)


def test_normalized_steps_are_all_as_long():
    problem, method = PROBLEM, BORep(math.inf, 0.07)
    z, state = problem.y0, method.init(problem, problem.y0, None)
    for _ in range(4):
        after, state = method.step(problem, z, state)
        np.testing.assert_allclose(np.linalg.norm(after[0] - z[0]), 0.07, rtol=1e-12)
        z = after


def test_nothing_moves_where_nothing_pulls():
    flat = rp.Bilevel(lambda x, y, _: 0 * x, lambda x, y, _: (y - x) ** 2, 1.0, 1.0)
    method = BORep(math.inf, 0.1)
    z, _ = method.step(flat, flat.y0, method.init(flat, flat.y0, None))
    assert [float(leaf) for leaf in z] == [1.0, 1.0]


def test_periods_save_lower_gradients():
    def spent(period):
        problem, method = rp.Counted(PROBLEM), BORep(inner_steps=5, period=period, refinement=3)
        run = rp.solve(problem, method, rtol=0, atol=0, max_steps=12, throw=False)
        return int(run.stats.counts["lower_gradient"]), int(run.stats.counts["product"])

    # After step 0 there are 11, of which 5 are with a round of every second and 3 of every third.
    assert spent(2) == (5 * (3 + 5), 12)
    assert spent(3) == (5 * (3 + 3), 12)


def test_batches_are_drawn_at_every_lower_step():
    samples = jnp.asarray(np.random.default_rng(0).normal(size=(9, 2)))
    above = lambda x, y, a, _: (y - a[0] * x) ** 2
    below = lambda x, y, a, _: (jnp.exp(a[0]) * (y - x) ** 2 + a[1] * y) / 2
    sampled = rp.BilevelSum(above, below, 0.5, 0.2, samples, samples, batch_size=2)
    method, key = BORep(0.1, math.inf, 0.1, 2, 1, 2, 0.5, 0.2, 0.0), jax.random.key(3)
    z, state = sampled.y0, method.init(sampled, sampled.y0, key)
    follows = state.z
    for k in range(3):
        (x, y), follow = z, follows
        key, down, now = jax.random.split(key, 3)
        for i in range(2 if k == 0 else 1):
            path = [y]
            for each in jax.random.split(jax.random.fold_in(down, i), 2):
                _, f_y = sampled.lower_gradient(x, path[-1], sampled.sample(each)[1])
                path.append(path[-1] - 0.1 * f_y)
            y = (path[1] + path[2]) / 2
        first, second = sampled.sample(now)
        F_x, F_y = sampled.upper_gradient(x, y, first)
        f_xz, f_yyz = sampled.lower_product(x, y, follow, second)
        z, state = method.step(sampled, z, state)
        np.testing.assert_allclose(z, (x - 0.1 * (F_x - f_xz), y), rtol=1e-12)
        follows = follow - 0.2 * (f_yyz - F_y)
        np.testing.assert_allclose(state.z, follows, rtol=1e-12)


def test_a_limit_without_normalization_settles():
    upper = lambda x, y, _: (y - 1.0) ** 2 + x**2
    lower = lambda x, y, _: (y - 2.0 * x) ** 2
    problem, tracked = rp.Bilevel(upper, lower, 9.0, 0.0), {"tracking": 0.3, "momentum": 0.5}
    settled = rp.solve(problem, BORep(0.02, 0.1, 0.3, **tracked), max_steps=2000, throw=False)
    np.testing.assert_allclose(settled.value, (0.4, 0.8), atol=1e-6)
    around = rp.solve(problem, BORep(math.inf, 0.1, 0.3, **tracked), max_steps=2000, throw=False)
    # As long as ever: it has come and gone, and steps on the spot or around it.
    before = rp.solve(problem, BORep(math.inf, 0.1, 0.3, **tracked), max_steps=1999, throw=False)
    np.testing.assert_allclose(abs(float(around.value[0] - before.value[0])), 0.1, rtol=1e-12)
    assert abs(float(around.value[0]) - 0.4) < 0.3


def test_x_is_kept_in_its_set_and_a_set_of_y_is_refused():
    box = rp.composite.Box(-1.0, 0.1)
    held = rp.Bilevel(upper, lower, *START, sets=(rp.composite.Box(-1.0, -0.5), None))
    x, _ = rp.solve(held, BORep(), max_steps=50, throw=False).value
    assert np.all(np.asarray(x) <= -0.5)
    below = rp.Bilevel(upper, lower, *START, sets=(None, box))
    with pytest.raises(ValueError, match="`sets` must leave y free for BORep"):
        rp.solve(below, BORep())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"upper_step_size": 0.0}, r"`upper_step_size` of BORep must be a number in \(0, inf\]"),
        ({"length": 0.0}, r"`length` of BORep must be a number in \(0, inf\]"),
        ({"lower_step_size": math.inf}, r"`lower_step_size` of BORep must be .* \(0, inf\)"),
        ({"radius": 0.0}, "`radius` of BORep must be"),
        ({"tracking": 0.0}, "`tracking` of BORep must be"),
        ({"momentum": 1.0}, r"`momentum` of BORep must be a number in \[0, 1\)"),
        ({"inner_steps": 0}, "`inner_steps` must be a whole number of at least 1"),
        ({"period": 0}, "`period` must be a whole number of at least 1"),
        ({"refinement": 0}, "`refinement` must be a whole number of at least 1"),
    ],
)
def test_unfit_hyperparameters_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        BORep(**options)
