"""Composite problems: each prox by Fenchel's equality, and what the problem makes of its parts."""

import jax
import jax.numpy as jnp
import numpy as np
import optax.tree as otu
import pytest

import raphson as rp
from raphson.composite import L1, Ball, Box, Simplex, SquaredNorm

N = 7
WEIGHTS = np.linspace(0.0, 2.0, N)
LOWER, UPPER = np.linspace(-1.0, 0.4, N), np.linspace(0.4, 1.0, N)
INF = float("inf")

# Each with its conjugate, the greatest <z, d> - h(z) over z; that of a norm is 0 or infinite.
PARTS = {
    "l1": (L1(0.7), lambda d: 0.0 if np.max(np.abs(d)) <= 0.7 + 1e-12 else INF),
    "weighted l1": (L1(WEIGHTS), lambda d: 0.0 if np.all(np.abs(d) <= WEIGHTS + 1e-12) else INF),
    "box": (Box(LOWER, UPPER), lambda d: np.sum(np.maximum(d * LOWER, d * UPPER))),
    "orthant": (Box(0.0, INF), lambda d: 0.0 if np.max(d) <= 1e-12 else INF),
    "ball": (Ball(1.3), lambda d: 1.3 * np.linalg.norm(d)),
    "simplex": (Simplex(2.5), lambda d: 2.5 * np.max(d)),
    "squares": (SquaredNorm(0.8, 0.5), lambda d: 0.5 * np.sum(d) + d @ d / 1.6),
    "squares in a box": (SquaredNorm(0.8, WEIGHTS, Box(LOWER, UPPER)), lambda d: squares_in_box(d)),
}


def squares_in_box(d):
    z = np.clip(WEIGHTS + d / 0.8, LOWER, UPPER)
    return z @ d - 0.4 * np.sum((z - WEIGHTS) ** 2)


EACH = pytest.mark.parametrize("name", PARTS)


@EACH
def test_prox_meets_fenchels_equality(name):
    # x is the prox of y just where h(x) + h*(d) = <x, d> with d = (y - x) / s.
    h, conjugate = PARTS[name]
    for y in 2 * np.random.default_rng(0).normal(size=(20, N)):
        for s in (0.3, 2.0):
            x = np.asarray(h.prox(jnp.asarray(y), s))
            d = (y - x) / s
            assert float(h.value(jnp.asarray(x))) + conjugate(d) == pytest.approx(x @ d, abs=1e-12)


@pytest.mark.parametrize("name", ["box", "orthant", "ball", "simplex"])
def test_sets_are_infinite_outside(name):
    h, _ = PARTS[name]
    y = 2 * jnp.asarray(np.random.default_rng(1).normal(size=N))
    inside = h.project(y)
    assert h.value(y) == h.value(inside + 1e-6 * (y - inside)) == INF
    assert h.value(inside) == 0


@EACH
def test_trees_and_single_precision(name):
    # As the flat vector does, each number or array of the tree for its own leaf.
    h, _ = PARTS[name]
    split = lambda flat: {"u": flat[: N - 1].reshape(2, 3), "v": flat[N - 1]}
    of_tree = jax.tree.map(lambda x: split(x) if np.ndim(x) else x, h)
    y = 2 * np.random.default_rng(2).normal(size=N)
    smooth = rp.Minimize(lambda y, _: otu.norm(y, squared=True), split(jnp.asarray(y, jnp.float32)))
    problem = rp.Composite(smooth, of_tree)
    x = problem.prox(problem.y0, 0.5)
    assert {leaf.dtype for leaf in jax.tree.leaves((x, problem.minimized(x)))} == {
        jnp.dtype("float32")
    }
    expected = split(h.prox(jnp.asarray(y), 0.5))
    for leaf, right in zip(jax.tree.leaves(x), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(leaf, right, atol=1e-6)


def least_squares(h):
    """A problem around random least squares, and the gradient of f in NumPy."""
    rng = np.random.default_rng(3)
    A, b = rng.normal(size=(12, N)), rng.normal(size=12)
    smooth = rp.LeastSquares(lambda y, a: a[0] @ y - a[1], rng.normal(size=N), (A, b))
    return rp.Composite(smooth, h, facts=rp.Facts(optimum=1.0)), lambda y: A.T @ (A @ y - b)


@EACH
def test_measures_are_of_the_sum(name):
    problem, gradient = least_squares(PARTS[name][0])
    y = np.asarray(problem.nonsmooth.prox(problem.y0, 1.0))
    x = np.asarray(problem.nonsmooth.prox(y - gradient(y), 1.0))
    f, h = float(problem.smooth.value(y)), float(problem.nonsmooth.value(y))
    measures = {name: float(value) for name, value in problem.measures(jnp.asarray(y)).items()}
    expected = {"residual": np.linalg.norm(y - x), "value": f + h, "gap": f + h - 1}
    assert measures == pytest.approx(expected, rel=1e-12)


@EACH
def test_other_units_change_nothing_but_the_units(name):
    problem, _ = least_squares(PARTS[name][0])
    scaled = rp.Scaled(problem, -4.0, 3.0)
    y = np.random.default_rng(4).normal(size=N)
    value = 3 * problem.minimized(jnp.asarray(problem.prox(y, 1.0)))
    x = scaled.prox(jnp.asarray(y) / -4, 1 / 48)
    np.testing.assert_allclose(-4 * x, problem.prox(y, 1.0), atol=1e-14)
    np.testing.assert_allclose(scaled.minimized(x), value)
    with pytest.raises(ValueError, match="`y_scale` of a Composite must be one number"):
        rp.Scaled(problem, jnp.arange(1.0, N + 1))


def test_facts_are_hidden_with_those_of_the_parts():
    smooth = rp.problems.quadratic()
    problem = rp.Composite(smooth, L1(0.1), facts=smooth.facts)
    assert problem.facts.lipschitz == 1.0
    hidden = problem.without_facts
    assert hidden.facts.lipschitz is hidden.smooth.facts.lipschitz is None


BOWL = rp.Minimize(lambda y, _: jnp.sum(y**2), jnp.ones(2))


class Mistaken(rp.composite.AbstractNonsmooth):
    def value(self, y):
        return jnp.sum(y)

    def prox(self, y, step_size):
        return jnp.sum(y)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rp.Composite(jnp.sum, L1(1.0)), "`smooth` must be an objective"),
        (
            lambda: rp.Composite(BOWL, jnp.abs),
            "`nonsmooth` must be one of .* got a ",
        ),
        (lambda: rp.Composite(rp.Counted(BOWL), L1(1.0)), "`smooth` must be without wrappers"),
        (lambda: rp.Composite(BOWL, L1(jnp.ones(3))), "`nonsmooth` does not take the start: "),
        (lambda: rp.Composite(BOWL, Box({"u": 0.0}, 1.0)), "`nonsmooth` does not take the start: "),
        (
            lambda: rp.Composite(BOWL, Mistaken()),
            r"`prox` must return .* float64\[2\], got float64",
        ),
        (lambda: L1(-1.0), "`weight` of L1 must be at least 0, got -1"),
        (lambda: L1("abc"), "`weight` of L1 must be one number, or numbers shaped as the start"),
        (lambda: L1(jnp.full((3, 3), jnp.nan)), "`weight` of L1 must be one number"),
        (lambda: Box(jnp.array([0.0, 2.0]), 1.0), "`lower` of Box must not be above .* 2 and 1"),
        (lambda: Box(0.0, jnp.nan), "`upper` of Box must be one number"),
        (lambda: Ball(0.0), "`radius` of Ball must be a number in"),
        (lambda: Simplex(-1.0), "`total` of Simplex must be a number in"),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
