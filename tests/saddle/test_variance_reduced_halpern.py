"""Variance-reduced Halpern against a transcription in NumPy of what its batches say."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.problems.monotone import cocoercive_sum
from raphson.saddle import VarianceReducedHalpern

ENDLESS = {"rtol": 0.0, "atol": 0.0, "throw": False}


def sampled(batch_size=3, radius=None, n=5):
    """Affine operators to sample, and what is asked, in turn."""
    plain = cocoercive_sum(12, n)
    asked = []

    def whole(z, _):
        asked.append(("whole", np.asarray(z), None))
        return jnp.mean(plain.data[0] @ z - plain.data[1], axis=0)

    def part(z, batch, _):
        asked.append(("part", np.asarray(z), tuple(map(np.asarray, batch))))
        return jnp.mean(batch[0] @ z - batch[1], axis=0)

    problem = rp.VariationalSum(
        plain.fn,
        plain.y0,
        plain.data,
        batch_size=batch_size,
        nonsmooth=None if radius is None else rp.composite.Box(-radius, radius),
        operator=whole,
        batch_operator=part,
    )
    return problem, asked


@pytest.mark.parametrize("radius", [None, 0.6])
def test_iterates_are_those_of_the_paper(radius):
    problem, asked = sampled(radius=radius)
    method, count = VarianceReducedHalpern(0.2, restart=0.0), 10
    iterates = []
    with jax.disable_jit():  # so that only the branch that is taken asks
        y, state = problem.y0, method.init(problem, problem.y0, jax.random.key(1))
        for _ in range(count):
            y, state = method.step(problem, y, state)
            iterates.append(y)

    clip = (lambda z: z) if radius is None else (lambda z: np.clip(z, -radius, radius))
    A, b = map(np.asarray, problem.data)
    u_0 = u = np.asarray(problem.y0)
    V = A.mean(0) @ u - b.mean(0)
    kind, z, _ = asked.pop(0)
    assert kind == "whole" and np.array_equal(z, u)
    kinds = []
    for k in range(1, count + 1):
        share = 2 / (k + 4)
        after = clip(share * u_0 + (1 - share) * u - 0.2 * V)
        kind, z, batch = asked.pop(0)
        kinds.append(kind)
        if kind == "whole":
            np.testing.assert_allclose(z, after, atol=1e-12)
            V = A.mean(0) @ after - b.mean(0)
        else:
            _, ahead, again = asked.pop(0)
            assert all(map(np.array_equal, batch, again)) and len(batch[0]) == 3
            np.testing.assert_allclose((z, ahead), (u, after), atol=1e-12)
            V = V + batch[0].mean(0) @ (after - u)
        u = after
        np.testing.assert_allclose(iterates[k - 1], u, atol=1e-12)
    assert not asked and {"whole", "part"} == set(kinds)


@pytest.mark.parametrize("boxed", [False, True])
def test_not_sampled_it_is_halperns_iteration_of_the_forward_backward_step(boxed):
    box = rp.composite.Box(-0.6, 0.6) if boxed else None
    plain = cocoercive_sum(12, 5)
    problem = rp.VariationalSum(plain.fn, plain.y0, plain.data, nonsmooth=box)
    A, b = (np.asarray(leaf).mean(0) for leaf in plain.data)
    u_0 = u = np.asarray(plain.y0)
    for k in range(1, 21):
        share = 2 / (k + 4)
        u = share * u_0 + (1 - share) * u - 0.2 * (A @ u - b)
        u = np.clip(u, -0.6, 0.6) if boxed else u
    method = VarianceReducedHalpern(0.2, restart=0.0)
    solution = rp.solve(rp.Counted(problem), method, max_steps=20, **ENDLESS)
    np.testing.assert_allclose(solution.value, u, rtol=0, atol=1e-13)
    assert int(solution.stats.counts["operator"]) == 21


def test_asks_for_all_samples_as_often_as_the_paper_says():
    n, steps = 100, 3000
    problem = rp.Counted(cocoercive_sum(n, 3, batch_size=10))
    method = VarianceReducedHalpern(0.25, restart=0.0)
    solution = rp.solve(problem, method, key=jax.random.key(0), max_steps=steps, **ENDLESS)
    # One call at the start, then one of all samples or two of a batch.
    whole = 2 * steps + 1 - int(solution.stats.counts["operator"])
    chances = 4 / (5 + np.minimum(np.arange(1, steps + 1), n**0.5))
    spread = np.sqrt(np.sum(chances * (1 - chances)))
    assert abs(whole - chances.sum()) < 4 * spread


def test_a_restart_makes_the_iterate_the_anchor_and_keeps_the_linear_rate():
    problem = cocoercive_sum(50, 5)
    method = VarianceReducedHalpern(0.5)
    solution = rp.solve(problem, method, rtol=1e-12, atol=0.0)
    assert bool(solution.converged) and int(solution.stats.steps) < 2000
    np.testing.assert_allclose(solution.value, problem.facts.minimizer, atol=1e-9)
    endless = rp.solve(problem, VarianceReducedHalpern(0.5, 0.0), max_steps=2000, **ENDLESS)
    assert float(endless.certificate.residual) > 1e-5
    y, state = problem.y0, method.init(problem, problem.y0, None)
    for _ in range(200):
        y, state = method.step(problem, y, state)
        if int(state.count) == 0:
            break
    np.testing.assert_array_equal(state.anchor, y)
    size = np.linalg.norm(problem.operator(y))
    np.testing.assert_allclose(state.scale, size, rtol=1e-12)
    assert size < 0.37 * np.linalg.norm(problem.operator(problem.y0))


def test_sampled_runs_with_restarts_reach_any_precision():
    problem = cocoercive_sum(100, 5, batch_size=10)
    method = VarianceReducedHalpern(0.25)
    solution = rp.solve(problem, method, key=jax.random.key(3), max_steps=6000, throw=False)
    assert float(solution.certificate.residual) < 1e-9


def test_fails_on_a_bilinear_saddle_as_is_said():
    problem = rp.problems.bilinear([1.0, 0.5])
    solution = rp.solve(problem, VarianceReducedHalpern(0.1, 0.0), max_steps=3000, throw=False)
    assert not bool(solution.converged)


def test_a_pair_of_steps_is_a_metric():
    problem = rp.problems.strongly_monotone([1.0, 0.5], 0.5)
    x, y = problem.y0
    z0 = z = np.concatenate([x, y])
    F = lambda z: np.concatenate(problem.operator((z[:2], z[2:])))
    for k in range(1, 11):
        z = 2 / (k + 4) * z0 + (1 - 2 / (k + 4)) * z - np.repeat([0.1, 0.3], 2) * F(z)
    method = VarianceReducedHalpern((0.1, 0.3), 0.0)
    solution = rp.solve(problem, method, max_steps=10, **ENDLESS)
    np.testing.assert_allclose(np.concatenate(solution.value), z, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: VarianceReducedHalpern(0.0), "`step_size` of VarianceReducedHalpern must be a"),
        (lambda: VarianceReducedHalpern((1.0,)), "must be one number or a pair"),
        (lambda: VarianceReducedHalpern(lambda t: 0.1), "`step_size` of VarianceReducedHalpern"),
        (lambda: VarianceReducedHalpern(0.1, 1.0), "`restart` of VarianceReducedHalpern must be"),
    ],
)
def test_unfit_hyperparameters_are_refused(build, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        build()


def test_a_pair_of_steps_needs_two_players():
    with pytest.raises(ValueError, match="`step_size` .* only for a Saddle"):
        rp.solve(cocoercive_sum(12, 5), VarianceReducedHalpern((0.1, 0.2)))
