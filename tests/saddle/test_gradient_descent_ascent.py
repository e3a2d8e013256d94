"""Gradient descent ascent against a transcription in NumPy and the spectra of linear operators."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import raphson as rp
from raphson.problems import saddles
from raphson.saddle.gradient_descent_ascent import GradientDescentAscent

RADIUS = 0.7


def affine(seed=0, n=3, boxed=False):
    """A random strongly monotone saddle and its operator as M z - q."""
    rng = np.random.default_rng(seed)
    A, b, z0 = rng.normal(size=(n, n)), rng.normal(size=2 * n), rng.normal(size=2 * n)
    M = np.block([[np.eye(n), A], [-A.T, np.eye(n)]])

    def fn(x, y, args):
        A, b = args
        return x @ x / 2 + x @ (A @ y) - y @ y / 2 - b[:n] @ x + b[n:] @ y

    box = rp.composite.Box(-RADIUS, RADIUS) if boxed else None
    return rp.Saddle(fn, z0[:n], z0[n:], (A, b), nonsmooth=(box, box)), M, b


@pytest.mark.parametrize("boxed", [False, True])
@pytest.mark.parametrize("step", [0.1, (0.05, 0.2), lambda t: (0.5 / (t + 9), 1 / (t + 9))])
@pytest.mark.parametrize("clip", [None, 0.5])
def test_iterates_are_those_of_the_formula(step, boxed, clip):
    problem, M, b = affine(boxed=boxed)
    z, total = np.concatenate(problem.y0), 0.0
    for t in range(12):
        s = np.broadcast_to(step(t) if callable(step) else step, 2)
        F = M @ z - b
        F = F * min(1, clip / np.linalg.norm(F)) if clip else F
        z = z - np.repeat(s, 3) * F
        z = np.clip(z, -RADIUS, RADIUS) if boxed else z
        total = total + z
    options = {"max_steps": 12, "rtol": 0.0, "atol": 0.0, "throw": False}
    for average, expected in ((False, z), (True, total / 12)):
        method = GradientDescentAscent(step, average, clip)
        solution = rp.solve(rp.Counted(problem), method, **options)
        np.testing.assert_allclose(np.concatenate(solution.value), expected, rtol=0, atol=1e-13)
        assert int(solution.stats.counts["operator"]) == 13


def test_sampled_steps_are_answered_on_their_batch():
    batches = []

    def answered(z, batch, _):
        batches.append(np.asarray(batch))
        return z - jnp.mean(batch)

    problem = rp.VariationalSum(
        lambda z, a, _: z - a, 0.5, jnp.arange(100.0), batch_size=3, batch_operator=answered
    )
    method = GradientDescentAscent(lambda t: 1 / (t + 2))
    y, state = problem.y0, method.init(problem, problem.y0, jax.random.key(0))
    expected = 0.5
    for t in range(6):
        y, state = method.step(problem, y, state)
        expected -= (expected - batches[t].mean()) / (t + 2)
    np.testing.assert_allclose(y, expected, rtol=1e-13)
    assert len(batches) == 6 and len({tuple(batch) for batch in batches}) == 6


def test_sampled_run_ends_at_max_steps_near_the_solution():
    fn = lambda x, y, a, _: x**2 / 2 + (x - a) * y - y**2 / 2
    problem = rp.SaddleSum(fn, 3.0, 0.0, jnp.arange(3.0), batch_size=1)
    method = GradientDescentAscent(optax.exponential_decay(0.1, 300, 0.5))
    solution = rp.solve(
        rp.Counted(problem), method, key=jax.random.key(0), max_steps=2000, throw=False
    )
    assert rp.status_name(solution.status) == "max_steps"
    assert int(solution.stats.counts["operator"]) == 2000
    np.testing.assert_allclose(solution.value, (0.5, -0.5), atol=0.1)


@pytest.mark.parametrize("share", [0.98, 1.02])
def test_converges_up_to_the_step_that_the_spectrum_allows(share):
    # The eigenvalues of I - s (mu I + skew) are 1 - s mu +- i s a.
    mu, a = 0.5, 1.0
    problem = saddles.strongly_monotone([a, 0.3], mu)
    limit = 2 * mu / (mu**2 + a**2)
    solution = rp.solve(problem, GradientDescentAscent(share * limit), throw=False)
    assert bool(solution.converged) == (share < 1)


def test_spirals_outward_on_a_bilinear_saddle_by_the_factor_of_its_spectrum():
    problem = saddles.bilinear([2.0])
    method = GradientDescentAscent(0.1)
    far = rp.solve(problem, method, max_steps=50, throw=False).certificate.residual
    start = rp.solve(problem, method, max_steps=0, throw=False).certificate.residual
    np.testing.assert_allclose(far / start, (1 + 0.2**2) ** 25, rtol=1e-10)


def test_forward_backward_steps_solve_lasso():
    rng = np.random.default_rng(0)
    A, b = rng.normal(size=(20, 5)), rng.normal(size=20)
    smooth = rp.Minimize(lambda y, _: jnp.sum((A @ y - b) ** 2) / 2, jnp.zeros(5))
    expected = rp.solve(rp.Composite(smooth, rp.composite.L1(3.0)), rtol=1e-12, atol=1e-12).value
    problem = rp.VariationalInequality(
        lambda z, _: A.T @ (A @ z - b), jnp.zeros(5), nonsmooth=rp.composite.L1(3.0)
    )
    method = GradientDescentAscent(1 / np.linalg.norm(A, 2) ** 2)
    found = rp.solve(problem, method, rtol=1e-12, atol=1e-12).value
    np.testing.assert_allclose(found, expected, atol=1e-10)
    assert 0 < np.sum(np.asarray(found) == 0) < 5


def test_single_precision_and_pairs_of_trees():
    fn = lambda x, y, _: x["a"] @ y[0] + jnp.sum(x["a"] ** 2) - jnp.sum(y[0] ** 2)
    ones = jnp.ones(2, jnp.float32)
    schedule = optax.constant_schedule(jnp.float64(0.3))
    for step in ((0.2, np.float64(0.3)), schedule):
        solution = rp.solve(rp.Saddle(fn, {"a": ones}, [ones]), GradientDescentAscent(step))
        for leaf in jax.tree.leaves(solution.value):
            assert leaf.dtype == jnp.float32
            np.testing.assert_allclose(leaf, 0, atol=1e-3)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: GradientDescentAscent(0.0), "`step_size` of GradientDescentAscent must be a"),
        (lambda: GradientDescentAscent(None), "`step_size` of GradientDescentAscent must be a"),
        (lambda: GradientDescentAscent((0.1, -1.0)), "`step_size` of GradientDescentAscent must"),
        (lambda: GradientDescentAscent((0.1,)), "must be one number or a pair"),
        (lambda: GradientDescentAscent(clip=-1.0), "`clip` of GradientDescentAscent must be a"),
    ],
)
def test_unfit_hyperparameters_are_refused(build, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        build()


def test_a_pair_of_steps_needs_two_players():
    problem = rp.VariationalInequality(lambda z, _: z, jnp.ones(2))
    with pytest.raises(ValueError, match="`step_size` .* only for a Saddle"):
        rp.solve(problem, GradientDescentAscent((0.1, 0.2)))
