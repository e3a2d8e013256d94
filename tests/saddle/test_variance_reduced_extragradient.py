"""Variance-reduced extragradient against a transcription in NumPy of what its batches say."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.problems.monotone import cocoercive_sum, monotone_sum
from raphson.saddle import Extragradient, VarianceReducedExtragradient

ENDLESS = {"rtol": 0.0, "atol": 0.0, "throw": False}


@pytest.mark.parametrize("radius", [None, 0.6])
def test_iterates_are_those_of_the_paper(radius):
    plain = monotone_sum(12, 4)
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
        batch_size=2,
        nonsmooth=None if radius is None else rp.composite.Box(-radius, radius),
        operator=whole,
        batch_operator=part,
    )
    s, p, method, count = 0.3, 2 * 2 / 12, VarianceReducedExtragradient(0.3), 8
    iterates = []
    with jax.disable_jit():  # so that only the branch that is taken asks
        y, state = problem.y0, method.init(problem, problem.y0, jax.random.key(1))
        for _ in range(count):
            y, state = method.step(problem, y, state)
            iterates.append(y)

    P = (lambda z: z) if radius is None else (lambda z: np.clip(z, -radius, radius))
    A, b = (np.asarray(leaf) for leaf in problem.data)
    F = lambda z: A.mean(0) @ z - b.mean(0)
    z = w = np.asarray(problem.y0)
    assert asked.pop(0)[0] == "whole"
    kinds = set()
    for t in range(count):
        m = (1 - p) * z + p * w
        ahead = P(m - s * F(w))
        (_, at, batch), (_, at_w, again) = asked.pop(0), asked.pop(0)
        assert all(map(np.array_equal, batch, again)) and len(batch[0]) == 2
        np.testing.assert_allclose((at, at_w), (ahead, w), atol=1e-12)
        z = P(m - s * (F(w) + batch[0].mean(0) @ (ahead - w)))
        np.testing.assert_allclose(iterates[t], z, atol=1e-12)
        if asked and asked[0][0] == "whole":
            np.testing.assert_allclose(asked.pop(0)[1], z, atol=1e-12)
            w = z
        kinds.add(w is z)
    assert not asked and kinds == {True, False}


@pytest.mark.parametrize("boxed", [False, True])
def test_not_sampled_it_is_extragradient(boxed):
    plain = monotone_sum(12, 4)
    box = rp.composite.Box(-0.6, 0.6) if boxed else None
    problem = rp.Counted(rp.VariationalSum(plain.fn, plain.y0, plain.data, nonsmooth=box))
    ours, theirs = (
        rp.solve(problem, method(0.7), max_steps=20, **ENDLESS)
        for method in (VarianceReducedExtragradient, Extragradient)
    )
    np.testing.assert_allclose(ours.value, theirs.value, rtol=0, atol=1e-13)
    assert ours.stats.counts["operator"] == theirs.stats.counts["operator"]


def test_a_constant_step_leads_to_the_solution_and_the_snapshot_is_renewed_as_said():
    n, b, steps = 100, 5, 4000
    problem = monotone_sum(n, 4, batch_size=b)
    p = 2 * b / n
    method = VarianceReducedExtragradient(0.9 * p**0.5)
    solution = rp.solve(
        rp.Counted(problem), method, key=jax.random.key(0), max_steps=steps, **ENDLESS
    )
    np.testing.assert_allclose(solution.value, problem.facts.minimizer, atol=1e-5)
    renewed = int(solution.stats.counts["operator"]) - 1 - 2 * steps
    assert abs(renewed - p * steps) < 4 * (p * (1 - p) * steps) ** 0.5


def test_players_may_step_apart():
    fn = lambda x, y, a, _: a * x * y + x**2 / 2 - y**2 / 2
    problem = rp.SaddleSum(fn, 3.0, 1.0, jnp.array([0.5, 1.5]), batch_size=1)
    method = VarianceReducedExtragradient((0.1, 0.3))
    solution = rp.solve(problem, method, key=jax.random.key(0), max_steps=500, throw=False)
    np.testing.assert_allclose(solution.value, (0, 0), atol=1e-6)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: VarianceReducedExtragradient(0.0), "`step_size` of VarianceReducedExtragradient"),
        (lambda: VarianceReducedExtragradient((1.0,)), "must be one number or a pair"),
    ],
)
def test_unfit_hyperparameters_are_refused(build, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        build()


def test_a_pair_of_steps_needs_two_players():
    with pytest.raises(ValueError, match="`step_size` .* only for a Saddle"):
        rp.solve(cocoercive_sum(12, 5), VarianceReducedExtragradient((0.1, 0.2)))
