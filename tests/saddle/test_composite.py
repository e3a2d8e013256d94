"""A saddle with its parts apart: the same saddle, counted part by part."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.composite import SquaredNorm
from raphson.problems import least_squares_saddle
from raphson.saddle import Extragradient

START = jnp.array([1.0, -2.0]), jnp.array([0.5, 1.0, 2.0])
MATRIX = jnp.arange(6.0).reshape(2, 3) / 5


def smooth(x, c):
    return jnp.sum((x - c) ** 4)


def coupling(x, y, c):
    return jnp.sin(x) @ (MATRIX @ y) + c * jnp.sum(y)


def whole(x, y, c):
    return smooth(x, c) + coupling(x, y, c)


def apart(**more):
    return rp.CompositeSaddle(smooth, coupling, *START, 0.3, **more)


def test_is_the_saddle_of_the_sum():
    problem, together = apart(), rp.Saddle(whole, *START, 0.3)
    for ask in ("value", "operator", "optimality"):
        ours, theirs = (getattr(p, ask)(START) for p in (problem, together))
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-14)
    ours, theirs = problem.mixed(START, START), together.mixed(START, START)
    np.testing.assert_allclose(np.concatenate(ours), np.concatenate(theirs), rtol=1e-14)


def test_gradients_are_those_of_the_parts():
    x, y = START
    problem = apart()
    np.testing.assert_allclose(problem.gradient(START), 4 * (x - 0.3) ** 3, rtol=1e-14)
    np.testing.assert_allclose(problem.coupling_x(START), jnp.cos(x) * (MATRIX @ y), rtol=1e-14)
    np.testing.assert_allclose(problem.coupling_y(START), MATRIX.T @ jnp.sin(x) + 0.3, rtol=1e-14)


def test_parts_are_counted_apart():
    problem = rp.Counted(least_squares_saddle([1.0, 2.0], 2))
    method = Extragradient(0.3, "past")
    counts = rp.solve(problem, method, max_steps=7, rtol=0, atol=0, throw=False).stats.counts
    assert (int(counts["gradient"]), int(counts["coupling"])) == (8, 16)
    assert "operator" not in counts


def test_parts_may_be_written_by_hand_and_the_whole_may_not():
    problem = apart(coupling_y=lambda z, c: jnp.full(3, c))
    assert problem.operator(START)[1].tolist() == [-0.3] * 3
    with pytest.raises(ValueError, match="CompositeSaddle has no oracle or argument `operator`"):
        apart(operator=lambda z, c: z)


def test_scaled_in_either_player():
    scaled = rp.Scaled(apart(), (jnp.array([2.0, 3.0]), jnp.array([1.0, 4.0, 5.0])), 7.0)
    ours = np.concatenate(scaled.operator(scaled.y0))
    expected = 7 * np.array([2, 3, 1, 4, 5]) * np.concatenate(apart().operator(START))
    np.testing.assert_allclose(ours, expected, rtol=1e-13)


def test_scaled_with_its_parts():
    base = least_squares_saddle([1.0, 2.0], 2)
    z = rp.solve(rp.Scaled(base, 2.0, 3.0), Extragradient(), rtol=1e-10, atol=0.0).value
    for ours, exact in zip(z, base.facts.minimizer, strict=True):
        np.testing.assert_allclose(2 * ours, exact, rtol=1e-8)


@pytest.mark.parametrize(
    ("fn", "coupled", "says"),
    [
        (3.0, coupling, "`fn` must be a function"),
        (smooth, None, "`coupling` must be a function"),
        (lambda x, c: x, coupling, "`fn` must return one real scalar"),
        (smooth, lambda x, y, c: y, "`coupling` must return one real scalar"),
        (smooth, lambda x, y: 0.0, "`coupling` is called with 3 arguments"),
        (lambda x: 0.0, coupling, "`fn` is called with 2 arguments"),
    ],
)
def test_unfit_parts_are_refused(fn, coupled, says):
    with pytest.raises(ValueError, match=says):
        rp.solve(rp.CompositeSaddle(fn, coupled, *START, 0.3), Extragradient(0.1))


def test_answers_have_derivatives():
    def answer(c):
        f = lambda x, c: x**2 / 2 - c * x
        problem = rp.CompositeSaddle(
            f, lambda x, y, c: x * y, 0.0, 0.0, c, nonsmooth=(None, SquaredNorm(1.0))
        )
        return rp.solve(problem, Extragradient(0.4), rtol=1e-12, atol=1e-12).value[0]

    # x = c / 2 = y.
    np.testing.assert_allclose(jax.grad(answer)(1.0), 0.5, rtol=1e-9)


def test_facts_of_the_generator_are_exact():
    problem = least_squares_saddle([0.1, 1.0, 4.0], 2, coupling=3.0, strong_concavity=0.5)
    Q, c, A, b, x, mu = (np.asarray(a) for a in problem.args)
    np.testing.assert_allclose(np.linalg.eigvalsh(Q), [0.1, 1, 4])
    np.testing.assert_allclose(np.linalg.norm(A, 2), 3.0)
    least = np.linalg.solve(Q + A.T @ A / mu, c + A.T @ b / mu)
    np.testing.assert_allclose(problem.facts.minimizer[0], least, rtol=1e-9)
    np.testing.assert_allclose(problem.facts.minimizer[1], (A @ least - b) / mu, rtol=1e-9)
    for part in problem.optimality(problem.facts.minimizer):
        np.testing.assert_allclose(part, 0, atol=1e-12)
    F = lambda z: jnp.concatenate(problem.operator((z[:3], z[3:])))
    lipschitz = np.linalg.norm(jax.jacobian(F)(jnp.zeros(5)), 2)
    np.testing.assert_allclose(problem.facts.lipschitz, lipschitz, rtol=1e-12)

    def primal(x):
        return x @ Q @ x / 2 - c @ x + np.sum((A @ x - b) ** 2) / (2 * mu)

    gap = problem.metrics["suboptimality"](problem.y0, problem.args)
    np.testing.assert_allclose(gap, primal(np.asarray(problem.y0[0])) - primal(least), rtol=1e-10)
    away = np.linalg.norm(problem.y0[0] - problem.facts.minimizer[0])
    np.testing.assert_allclose((np.linalg.norm(x), away), 10.0, rtol=1e-12)


@pytest.mark.parametrize("unfit", [{"spectrum": [0.0]}, {"rows": 0}, {"coupling": -1.0}])
def test_unfit_constants_are_refused(unfit):
    with pytest.raises(ValueError, match=f"`{next(iter(unfit))}` must be"):
        least_squares_saddle(**unfit)
