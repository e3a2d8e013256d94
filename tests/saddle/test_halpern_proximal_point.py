"""Halpern's iteration of the resolvent against NumPy, inner steps and all, and closed forms."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.problems.monotone import monotone_sum
from raphson.saddle import Extragradient, HalpernProximalPoint, VarianceReducedExtragradient
from raphson.saddle.halpern_proximal_point import ProximalStep

ENDLESS = {"rtol": 0.0, "atol": 0.0, "throw": False}


def affine(radius=None, n=4, seed=0):
    """A random monotone affine inequality, its M and q with F(z) = M z - q, and its projection."""
    rng = np.random.default_rng(seed)
    A, R, q, z0 = rng.normal(size=(n, n)), rng.normal(size=(n, 1)), *rng.normal(size=(2, n))
    M = A - A.T + 0.1 * R @ R.T
    box = None if radius is None else rp.composite.Box(-radius, radius)
    fn = lambda z, a: a[0] @ z - a[1]
    problem = rp.VariationalInequality(fn, z0, (M, q), nonsmooth=box)
    clip = (lambda z: z) if radius is None else (lambda z: np.clip(z, -radius, radius))
    return problem, M, q, clip


@pytest.mark.parametrize("radius", [None, 0.5])
@pytest.mark.parametrize("inner_steps", [3, 40])
def test_iterates_are_those_of_the_paper_inner_steps_and_all(radius, inner_steps):
    problem, M, q, clip = affine(radius)
    s, t = 2.0, 0.1
    F = lambda z: M @ z - q
    u_0 = u = np.asarray(problem.y0)
    taken, calls = 0, 1
    for k in range(8):
        P = lambda z, t, u=u: clip((s * z + t * u) / (s + t))
        left = lambda z, P=P: np.linalg.norm(z - P(z - F(z), 1.0))
        z, steps = u, 0
        limit = np.ceil(inner_steps * np.log2(k + 2))
        while left(z) > left(u) / (k + 2) ** 2 and steps < limit:
            z = P(z - t * F(P(z - t * F(z), t)), t)
            steps += 1
        taken, calls = taken + steps, calls + 1 + 2 * steps + 1
        u = u_0 / (k + 2) + (k + 1) / (k + 2) * z
    method = HalpernProximalPoint(s, Extragradient(t), inner_steps, restart=0.0)
    solution = rp.solve(rp.Counted(problem), method, max_steps=8, **ENDLESS)
    np.testing.assert_allclose(solution.value, u, rtol=0, atol=1e-12)
    assert int(solution.stats.counts["operator"]) == calls and 8 < taken


@pytest.mark.parametrize("method", [Extragradient(), Extragradient(0.1, "past")])
def test_the_proximal_step_has_the_answer_of_its_closed_form(method):
    problem, M, q, _ = affine()
    u, s = np.arange(4.0), 3.0
    step = ProximalStep(problem, jnp.asarray(u), s)
    found = rp.solve(step, method, rtol=1e-12, atol=1e-12).value
    np.testing.assert_allclose(found, np.linalg.solve(np.eye(4) + s * M, u + s * q), atol=1e-10)


def test_the_proximal_step_takes_pairs_of_steps_and_other_parts_than_sets():
    fn = lambda x, y, _: x @ y + jnp.sum(x**2)
    parts = rp.composite.L1(0.3), rp.composite.L1(0.2)
    problem = rp.Saddle(fn, jnp.ones(2), -jnp.ones(2), nonsmooth=parts)
    u = jnp.array([2.0, -0.1]), jnp.array([0.4, -1.5])
    step = ProximalStep(problem, u, 0.7)
    z = jnp.array([1.0, 0.05]), jnp.array([-0.8, 0.3])
    for w, z_of, u_of, t, c in zip(
        step.resolvent(z, (0.2, 0.5)), z, u, (0.2, 0.5), (0.3, 0.2), strict=True
    ):
        # The least point of |w - z|^2 / 2t + |w - u|^2 / 2s + c |w|, by its subgradients.
        slope = (w - z_of) / t + (w - u_of) / 0.7
        np.testing.assert_allclose(jnp.where(w != 0, slope + c * jnp.sign(w), 0), 0, atol=1e-12)
        assert np.all(np.abs(slope) <= c + 1e-12)
    pair = rp.solve(step, Extragradient((0.2, 0.3)), rtol=1e-12, atol=1e-12).value
    for a, b in zip(pair, rp.solve(step, rtol=1e-12, atol=1e-12).value, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10)


def test_the_bound_of_halperns_iteration_holds_at_every_step():
    problem = rp.problems.bilinear([1.0, 0.3, 0.01])
    z0, solution = (np.concatenate(z) for z in (problem.y0, problem.facts.minimizer))
    A, s = np.asarray(problem.args[0]), 2.0
    M = np.block([[np.zeros((3, 3)), A], [-A.T, np.zeros((3, 3))]])
    J = np.linalg.inv(np.eye(6) + s * M)
    method = HalpernProximalPoint(s, Extragradient(0.5), 1000, restart=0.0)
    y, state = problem.y0, method.init(problem, problem.y0, None)
    step = eqx.filter_jit(method.step)
    for k in range(1, 40):
        y, state = step(problem, y, state)
        u = np.concatenate(y) - solution
        # What the inner method leaves costs a few hundredths of it.
        assert np.linalg.norm(u - J @ u) <= 1.1 * 2 * np.linalg.norm(z0 - solution) / (k + 1)


def test_solves_bilinear_saddles_and_restarts_make_it_linear():
    problem = rp.problems.bilinear([1.0, 0.5, 0.2])
    solution = rp.solve(problem, HalpernProximalPoint(2.0), rtol=1e-10, atol=0.0)
    assert int(solution.stats.steps) < 500
    for a, b in zip(solution.value, problem.facts.minimizer, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-8)
    endless = rp.solve(problem, HalpernProximalPoint(2.0, restart=0.0), max_steps=500, **ENDLESS)
    assert float(endless.certificate.residual) > 1e-5


def test_a_restart_begins_anew_from_the_iterate():
    problem = rp.problems.bilinear([1.0, 0.5])
    method = HalpernProximalPoint(2.0)
    y, state = problem.y0, method.init(problem, problem.y0, None)
    step = eqx.filter_jit(method.step)
    restarts = 0
    for _ in range(20):
        before, anchor = y, state.anchor
        y, state = step(problem, y, state)
        if int(state.count) == 1:
            restarts += 1
            for a, b in zip(state.anchor, before, strict=True):
                np.testing.assert_array_equal(a, b)
        else:
            assert jax.tree.all(jax.tree.map(np.array_equal, state.anchor, anchor))
    assert 2 <= restarts <= 8


def test_a_sampled_problem_is_solved_by_batches():
    problem = monotone_sum(100, 4, batch_size=5)
    inner = VarianceReducedExtragradient(0.9 * 0.1**0.5)
    method = HalpernProximalPoint(10.0, inner, 50)
    solution = rp.solve(problem, method, key=jax.random.key(0), max_steps=40, throw=False)
    assert float(solution.certificate.residual) < 1e-4 * float(solution.certificate.scale)
    np.testing.assert_allclose(solution.value, problem.facts.minimizer, atol=1e-3)
    with pytest.raises(ValueError, match="`step_size` of Extragradient must be given where the"):
        rp.solve(problem, HalpernProximalPoint(), key=jax.random.key(0))


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: HalpernProximalPoint(0.0), "`step_size` of HalpernProximalPoint must be a number"),
        (lambda: HalpernProximalPoint(inner_steps=0), "`inner_steps` must be a whole number"),
        (lambda: HalpernProximalPoint(restart=1.0), "`restart` of HalpernProximalPoint must be"),
        (lambda: HalpernProximalPoint(inner=3), "`inner` of HalpernProximalPoint must be a method"),
        (
            lambda: HalpernProximalPoint(inner=rp.saddle.CompetitiveGradient()),
            "`inner` of HalpernProximalPoint must be a method",
        ),
    ],
)
def test_unfit_hyperparameters_are_refused(build, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        build()
