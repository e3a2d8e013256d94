"""The optimal brain surgeon against dense inverses and constrained minimization in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from raphson.train import magnitude_mask, obs_scores, obs_update

RNG = np.random.default_rng(0)
ROWS, W = RNG.normal(size=(7, 10)), RNG.normal(size=10)


def split(x):
    """As a tree of two leaves."""
    x = jnp.asarray(x)
    return [x[..., :6].reshape(*x.shape[:-1], 2, 3), x[..., 6:]]


def joined(tree):
    return np.concatenate([np.ravel(leaf) for leaf in tree])


def fisher(damping):
    return damping * np.eye(10) + ROWS.T @ ROWS / 7


@pytest.mark.parametrize("damping", [1e-3, 0.1, 10.0])
def test_scores_are_by_the_diagonal_of_the_inverse(damping):
    expected = W**2 / (2 * np.diag(np.linalg.inv(fisher(damping))))
    ours = jax.jit(obs_scores)(split(W), split(ROWS), damping)
    np.testing.assert_allclose(joined(ours), expected, rtol=1e-9)


@pytest.mark.parametrize("damping", [1e-3, 0.1, 10.0])
def test_update_is_the_constrained_minimizer(damping):
    kept = RNG.random(10) < 0.6
    ours = joined(jax.jit(obs_update)(split(W), split(kept), split(ROWS), damping))
    # min d'F d over d with d_P = -w_P, by its linear system.
    f = fisher(damping)
    d = -W.copy()
    d[kept] = -np.linalg.solve(f[np.ix_(kept, kept)], f[np.ix_(kept, ~kept)] @ d[~kept])
    np.testing.assert_allclose(ours, W + d, rtol=0, atol=1e-10)
    assert np.all(ours[~kept] == 0)


def test_one_at_a_time_is_the_surgeons_formula():
    inverse = np.linalg.inv(fisher(0.1))
    scores = joined(obs_scores(split(W), split(ROWS), 0.1))
    for j in range(10):
        kept = np.arange(10) != j
        d = joined(obs_update(split(W), split(kept), split(ROWS), 0.1)) - W
        np.testing.assert_allclose(d, -W[j] * inverse[j] / inverse[j, j], rtol=0, atol=1e-12)
        np.testing.assert_allclose(d @ fisher(0.1) @ d / 2, scores[j], rtol=1e-10)


def test_large_damping_prunes_by_magnitude():
    params = split(W)
    by_score, by_size = (
        magnitude_mask(x, 0.5, 0, True) for x in (obs_scores(params, split(ROWS), 1e6), params)
    )
    jax.tree.map(np.testing.assert_array_equal, by_score, by_size)
    ours = obs_update(params, by_size, split(ROWS), 1e6)
    expected = np.where(joined(by_size), W, 0)
    np.testing.assert_allclose(joined(ours), expected, rtol=0, atol=1e-5)


def test_keeping_all_or_none_changes_nothing_or_leaves_nothing():
    params = split(W)
    for value, expected in ((True, W), (False, np.zeros(10))):
        kept = jax.tree.map(lambda leaf, value=value: jnp.full(leaf.shape, value), params)
        np.testing.assert_array_equal(joined(obs_update(params, kept, split(ROWS))), expected)


def test_half_precision_is_computed_in_single():
    params, rows = (
        jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), split(x)) for x in (W, ROWS)
    )
    kept = jax.tree.map(lambda leaf: leaf > 0, params)
    scores, pruned = obs_scores(params, rows, 0.1), obs_update(params, kept, rows, 0.1)
    assert all(leaf.dtype == jnp.float32 and np.all(leaf >= 0) for leaf in scores)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in pruned)


def test_scores_stay_positive_where_rounding_leaves_nothing():
    # More gradients than parameters, and damping below what single precision can tell.
    rows = jnp.asarray(RNG.normal(size=(50, 4)), jnp.float32)
    scores = obs_scores(jnp.ones(4, jnp.float32), rows, 1e-9)
    assert np.all(scores > 0) and np.all(np.isfinite(scores))


def test_damping_that_is_not_positive_is_refused():
    for prune, given in ((obs_scores, ()), (obs_update, (jnp.ones(3, bool),))):
        says = f"^`damping` of {prune.__name__} must be a number in .0, inf., got 0.0.$"
        with pytest.raises(ValueError, match=says):
            prune(jnp.ones(3), *given, jnp.ones((2, 3)), 0.0)
