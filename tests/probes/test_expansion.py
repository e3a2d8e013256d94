"""The greatest stretch of a map against Lipschitz constants that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.probes import expansion

KEY = jax.random.key(0)


def of(fn, start, args=None, **options):
    problem = rp.FixedPoint(fn, start, args)
    return float(expansion(problem, problem.y0, KEY, **options))


def affine(y, A):
    return A @ y + 3


def sine(y, factor):
    return factor * jnp.sin(y)


def test_similarities_have_their_factor():
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    for factor, radius in ((0.0, 1.0), (0.5, 1e-3), (1.0, 1.0), (7.0, 1e5)):
        found = of(affine, jnp.ones(5), factor * Q, radius=radius)
        assert found == pytest.approx(factor, rel=1e-6)


def test_a_linear_map_is_between_its_singular_values():
    A = np.random.default_rng(1).normal(size=(2, 2))
    found, largest = of(affine, jnp.ones(2), A), np.linalg.norm(A, 2)
    assert 0.99 * largest < found <= largest * (1 + 1e-9)
    assert found > of(affine, jnp.ones(2), A, pairs=1)


def test_projections_are_nonexpansive_and_what_is_not_is_refuted():
    onto_disc = lambda y, _: y / jnp.maximum(1, jnp.linalg.norm(y))
    assert of(onto_disc, jnp.array([2.0, 0.0]), radius=3.0) <= 1 + 1e-9
    # sin stretches as much as its slope: by 1 at 0, and by less about pi / 2.
    assert 0.99 < of(sine, jnp.array(0.0), 1.0, radius=0.1) <= 1
    assert of(sine, jnp.array(np.pi / 2), 1.0, radius=0.1) < 0.2
    assert of(sine, jnp.array(0.0), 1.01, radius=0.1) > 1 + 1e-6


@pytest.mark.parametrize(("step_size", "nonexpansive"), [(0.5, True), (0.51, False)])
def test_steps_of_gradient_descent_stretch_beyond_two_over_the_curvature(step_size, nonexpansive):
    step = jnp.eye(2) - step_size * jnp.diag(jnp.array([1.0, 4.0]))
    assert (of(affine, jnp.zeros(2), step) <= 1 + 1e-6) is nonexpansive


def test_trees_single_precision_and_jit():
    problem = rp.FixedPoint(
        lambda y, _: {"u": 2 * y["v"], "v": 2 * y["u"]},
        {"u": jnp.zeros(2, jnp.float32), "v": jnp.ones(2, jnp.float32)},
    )
    found = jax.jit(lambda y: expansion(problem, y, KEY, pairs=10))(problem.y0)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, 2, rtol=1e-3)


def test_refuses():
    problem = rp.Minimize(lambda y, _: y**2, jnp.array(1.0))
    with pytest.raises(ValueError, match="`problem` must be a FixedPoint, got a Minimize"):
        expansion(problem, problem.y0, KEY)
    with pytest.raises(ValueError, match=r"`radius` must be a number in \(0, inf\), got 0"):
        of(lambda y, _: y, jnp.zeros(2), radius=0.0)
    with pytest.raises(ValueError, match="`pairs` must be a whole number of at least 1"):
        of(lambda y, _: y, jnp.zeros(2), pairs=0)
