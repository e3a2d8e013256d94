"""Bent steps and the choice between two models, against NumPy, closed forms and certified fits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.problems import cutest
from raphson.roots import AdaptiveLevenbergMarquardt

SHARP = {"rtol": 0.0, "atol": 1e-10, "throw": False}
RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(2, 5, 3))
b = 3 * RNG.normal(size=5)


# Five equations for three unknowns that contradict each other, and their derivatives by hand.
def curved(y, _=None, xp=jnp):
    return A @ y + (B @ y) ** 2 - b


def transcription(y, count, bend, switch, fade):
    """The iterates, the factors and which model each step took, by normal equations."""
    y, c, D, S, augmented, rows = np.array(y), 1.0, np.zeros(3), np.zeros((3, 3)), False, []
    jacobian = lambda y: A + 2 * (B @ y)[:, None] * B
    for _ in range(count):
        h, J = curved(y, xp=np), jacobian(y)
        D = np.maximum(D, np.sqrt(np.sum(J**2, axis=0) + np.abs(np.diag(S))))
        H = J.T @ J + S
        mu, D2 = c * np.linalg.norm(h), np.diag(D**2)
        M = H if augmented else J.T @ J
        v = -np.linalg.solve(M + mu * D2, J.T @ h)
        a = -np.linalg.solve(J.T @ J + mu * D2, J.T @ (2 * (B @ v) ** 2))
        bent = not augmented and 2 * np.linalg.norm(D * a) <= bend * np.linalg.norm(D * v)
        d = v + a / 2 if bent else v
        new, J_new = curved(y + d, xp=np), jacobian(y + d)
        ratio = (h @ h - new @ new) / (v @ M @ v + 2 * mu * v @ D2 @ v)
        if np.any(np.linalg.eigvalsh(M + mu * D2) <= 0):
            ratio = np.nan
        g, slope = J.T @ h, J_new.T @ new
        steeper = ratio >= 1e-3 and np.linalg.norm(slope / D) > np.linalg.norm(g / D)
        grown = 2 if ratio < 0.01 else 1 / 3 if ratio >= 0.75 else 1
        c *= 16 if np.isnan(ratio) else 300 if ratio < 0.25 and steeper else grown
        rows.append((y, c, augmented))
        if ratio >= 1e-3:
            errors = [np.linalg.norm((g + P @ v - slope) / D) for P in (H, J.T @ J)]
            augmented = errors[0] < (1 if augmented else switch) * errors[1]
            # Dennis, Gay, Welsch (1981): tau S, and then the least change in a norm that scales.
            change, turned = slope - g, (J_new - J).T @ new
            S = S * (min(1, abs(d @ turned) / abs(d @ S @ d)) if np.any(S) else 1)
            r, w = turned - S @ d, change / (change @ d)
            S = S + np.outer(r, w) + np.outer(w, r) - (d @ r) * np.outer(w, w)
            np.testing.assert_allclose(S @ d, turned, rtol=1e-8)
            y, D = y + d, fade * D
    return map(np.array, zip(*rows))


@pytest.mark.parametrize(
    ("bend", "switch", "fade"),
    [(0.75, 0.0, 1.0), (0.0, 0.0, 0.8), (0.75, 0.1, 0.8), (0.3, 0.9, 0.8), (0.3, 0.5, 0.0)],
)
def test_steps_are_those_of_a_transcription(bend, switch, fade):
    start = jnp.array([1.0, -0.5, 0.8])
    method = AdaptiveLevenbergMarquardt(bend, switch, fade)
    problem = rp.LeastSquares(curved, start)

    def step(carry, _):
        y, state = carry
        return method.step(problem, y, state), (y, state.factor, state.augmented)

    begun = start, method.init(problem, start, None)
    ys, factors, augmented = jax.jit(lambda: jax.lax.scan(step, begun, length=14)[1])()
    expected, changed, models = transcription(start, 14, bend, switch, fade)
    np.testing.assert_allclose(ys, expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(factors, np.append(1.0, changed[:-1]), rtol=1e-12)
    np.testing.assert_array_equal(augmented, models)
    assert np.any(models) == (switch > 0)


def test_the_second_derivative_along_a_direction():
    problem = rp.LeastSquares(curved, jnp.ones(3))
    y, v = jnp.array([0.3, -1.0, 2.0]), jnp.array([1.0, 0.5, -2.0])
    np.testing.assert_allclose(problem.curvature(y, v), 2 * (B @ v) ** 2, rtol=1e-12)
    straight = AdaptiveLevenbergMarquardt(switch=0.0)
    counts = rp.solve(rp.Counted(problem), straight, **SHARP).stats.counts
    assert int(counts["product"]) == 2 * (int(counts["residual"]) - 1)  # two a step


def test_bent_steps_follow_curved_valleys():
    problem = cutest("MGH09")
    fit = rp.LeastSquares(problem.fn, problem.y0, problem.args)
    bent, straight = (
        int(rp.solve(fit, AdaptiveLevenbergMarquardt(bend, fade=1.0), **SHARP).stats.steps)
        for bend in (0.75, 0.0)
    )
    assert bent < 0.75 * straight


def test_large_residuals_are_left_quadratically():
    # Brown and Dennis (1972): at the least value, which is known, Gauss and Newton's steps crawl.
    t = jnp.arange(1, 21) / 5
    brown_dennis = lambda y, _: (
        (y[0] + t * y[1] - jnp.exp(t)) ** 2 + (y[2] + y[3] * jnp.sin(t) - jnp.cos(t)) ** 2
    )
    problem = rp.LeastSquares(brown_dennis, jnp.array([25.0, 5.0, -5.0, -1.0]))
    options = {"rtol": 1e-10, "atol": 0.0, "throw": False}
    solution = rp.solve(problem, AdaptiveLevenbergMarquardt(), **options)
    np.testing.assert_allclose(2 * problem.value(solution.value), 85822.2016263563, rtol=1e-12)
    without = rp.solve(problem, AdaptiveLevenbergMarquardt(switch=0.0), **options)
    assert int(solution.stats.steps) <= 40 < int(without.stats.steps) / 3


@pytest.mark.parametrize(
    ("name", "optimum", "steps"),
    [("MGH17", 5.4648946975e-5, 300), ("BENNETT5", 5.2404744073e-4, 60)],
)
def test_certified_fits(name, optimum, steps):
    problem = cutest(name)
    fit = rp.LeastSquares(problem.fn, problem.y0, problem.args)
    solution = rp.solve(fit, AdaptiveLevenbergMarquardt(), rtol=0.0, atol=1e-8)
    assert bool(solution.usable) and int(solution.stats.steps) <= steps
    np.testing.assert_allclose(2 * fit.value(solution.value), optimum, rtol=1e-6)


def test_columns_that_were_long_once_are_forgotten():
    # On the way to the optimum of MGH10 a column grows to 1e20 times its length, and shrinks again.
    problem = cutest("MGH10")
    fit = rp.LeastSquares(problem.fn, problem.y0, problem.args)
    solution, held = (
        rp.solve(fit, AdaptiveLevenbergMarquardt(fade=fade), **SHARP, max_steps=2000)
        for fade in (0.8, 1.0)
    )
    np.testing.assert_allclose(2 * fit.value(solution.value), 87.945855171, rtol=1e-9)
    assert fit.value(held.value) > 1e3


def test_units_of_the_unknowns_change_nothing():
    fits = [
        rp.solve(
            rp.LeastSquares(lambda y, u: curved(y / u), jnp.array([1.0, -0.5, 0.8]) * u, u),
            AdaptiveLevenbergMarquardt(),
            **SHARP | {"max_steps": 12},
        ).value
        / u
        for u in (jnp.ones(3), jnp.array([1e4, 1.0, 1e-3]))
    ]
    np.testing.assert_allclose(fits[1], fits[0], rtol=1e-9)


def test_a_decay_over_time_needs_scaled_unknowns():
    # Of eight unknowns the columns differ by factors up to 1e4: unscaled it takes over 2,000 steps.
    problem = cutest("VESUVIO")
    fit = rp.LeastSquares(problem.fn, problem.y0, problem.args)
    assert int(rp.solve(fit, AdaptiveLevenbergMarquardt()).stats.steps) <= 30


def test_roots_and_fixed_points():
    root = rp.solve(rp.RootFind(lambda y, _: jnp.exp(y) - 2, jnp.zeros(2)), **SHARP)
    fixed = rp.solve(rp.FixedPoint(lambda y, _: jnp.cos(y), jnp.array(0.5)), **SHARP)
    assert root.stats.method == fixed.stats.method == "AdaptiveLevenbergMarquardt"
    np.testing.assert_allclose(root.value, np.log(2), rtol=1e-12)
    np.testing.assert_allclose(fixed.value, 0.7390851332151607, rtol=1e-12)


def test_trees_single_precision_and_bounds_of_the_settings():
    tree = {"a": jnp.array([1.0, 2.0], jnp.float32), "b": jnp.array(0.5, jnp.float32)}
    residual = lambda y, _: [jnp.exp(y["a"]) - 2, y["a"][0] * y["b"] - 1]
    solution = rp.solve(rp.LeastSquares(residual, tree), AdaptiveLevenbergMarquardt(), atol=1e-5)
    np.testing.assert_allclose(solution.value["a"], np.log(2), rtol=1e-4)
    assert solution.value["b"].dtype == jnp.float32
    with pytest.raises(ValueError, match=r"`switch` of AdaptiveLevenbergMarquardt must be"):
        AdaptiveLevenbergMarquardt(switch=2.0)
    with pytest.raises(ValueError, match=r"`bend` of AdaptiveLevenbergMarquardt must be"):
        AdaptiveLevenbergMarquardt(bend=-0.1)
    with pytest.raises(ValueError, match=r"`fade` of AdaptiveLevenbergMarquardt must be"):
        AdaptiveLevenbergMarquardt(fade=1.1)


def test_where_residuals_end_the_run_ends():
    solution = rp.solve(
        rp.LeastSquares(lambda y, _: jnp.log(y), jnp.array([10.0, 0.1])),
        AdaptiveLevenbergMarquardt(),
        **SHARP,
    )
    np.testing.assert_allclose(solution.value, 1.0, atol=1e-9)
    away = rp.LeastSquares(lambda y, _: jnp.where(y > 0, jnp.nan, y - 1), jnp.array([1.0]))
    start = rp.solve(away, AdaptiveLevenbergMarquardt(), throw=False)
    assert rp.status_name(start.status) == "nonfinite_start"
