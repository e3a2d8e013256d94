"""Layer sampling against momentum in NumPy, and as the step of both copies of ScaleBiO."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import raphson as rp
from raphson.train import layer_sampling

KEY = jax.random.key(3)


def rows_of(count, period, layers, number):
    """The draw of a period, which is all that is not computed anew."""
    return np.asarray(jax.random.permutation(jax.random.fold_in(KEY, count // period), number))[
        :layers
    ]


def test_chosen_layers_have_momentum_of_their_own_and_the_others_rest():
    optimizer = layer_sampling(optax.sgd(0.1, momentum=0.9), 2, 3, KEY)
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(5, 4)), "b": rng.normal(size=5)}
    x, state = jax.tree.map(jnp.asarray, params), optimizer.init(params)
    update, sets = jax.jit(optimizer.update), []
    for k in range(9):
        rows = rows_of(k, 3, 2, 5)
        sets.append(frozenset(rows.tolist()))
        g = {name: rng.normal(size=leaf.shape) for name, leaf in params.items()}
        if k % 3 == 0:
            m = {name: np.zeros_like(leaf[rows]) for name, leaf in params.items()}
        for name, leaf in params.items():
            m[name] = 0.9 * m[name] + g[name][rows]
            leaf[rows] -= 0.1 * m[name]
        updates, state = update(g, state, x)
        x = optax.apply_updates(x, updates)
        for name in params:
            np.testing.assert_allclose(x[name], params[name], rtol=0, atol=1e-14)
    assert len(set(sets)) == 3 and len(set(sets[:3])) == 1


def test_all_layers_in_one_long_period_are_the_inner_optimizer():
    x = jnp.arange(6.0).reshape(3, 2)
    ends = []
    for optimizer in (layer_sampling(optax.adam(0.1), 3, 100), optax.adam(0.1)):
        y, state = x, optimizer.init(x)
        for _ in range(5):
            updates, state = optimizer.update(y - 1, state, y)
            y = optax.apply_updates(y, updates)
        ends.append(y)
    np.testing.assert_allclose(*ends, rtol=1e-6)


def test_memory_is_that_of_the_chosen_layers():
    x = jnp.zeros((24, 1000), jnp.float32)
    held = lambda optimizer: sum(leaf.size for leaf in jax.tree.leaves(optimizer.init(x)))
    assert held(optax.adam(0.1)) > 48_000 and held(layer_sampling(optax.adam(0.1), 2, 5)) < 4010


def test_both_copies_of_a_penalty_train_the_same_layers():
    # f = |y - A x|^2 / 2 by rows of y, F = |y - B|^2 / 2 + |x|^2 / 2.
    rng = np.random.default_rng(1)
    A, B = rng.normal(size=(4, 3, 2)), rng.normal(size=(4, 3))
    upper = lambda x, y, a: jnp.sum((y - a[1]) ** 2) / 2 + x @ x / 2
    lower = lambda x, y, a: jnp.sum((y - a[0] @ x) ** 2) / 2
    problem = rp.Bilevel(upper, lower, jnp.ones(2), jnp.zeros((4, 3)), (A, B))
    inner = layer_sampling(optax.sgd(0.02), 2, 3, KEY)
    method = rp.bilevel.MinimaxPenalty(0.02, inner, 20.0)
    step = jax.jit(lambda z, state: method.step(problem, z, state))
    z, state = problem.y0, method.init(problem, problem.y0, None)
    for k in range(6):
        before = z[1], state.z
        z, state = step(z, state)
        for old, new in zip(before, (z[1], state.z), strict=True):
            moved = np.flatnonzero(np.any(np.asarray(old != new), axis=1))
            assert set(moved) == set(rows_of(k, 3, 2, 4))
    run = rp.solve(problem, method, max_steps=5000, throw=False)
    # The minimum of F + w (f - min f), which is quadratic.
    w, flat = 20.0, A.reshape(12, 2)
    matrix = np.block(
        [[np.eye(2) + w * flat.T @ flat, -w * flat.T], [-w * flat, (1 + w) * np.eye(12)]]
    )
    exact = np.linalg.solve(matrix, np.concatenate([np.zeros(2), B.ravel()]))
    np.testing.assert_allclose(run.value[0], exact[:2], atol=1e-8)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: layer_sampling(optax.sgd(0.1), 0, 5), "`layers` must be a whole number of at"),
        (lambda: layer_sampling(optax.sgd(0.1), 1, 0), "`period` must be a whole number of at"),
        (lambda: layer_sampling(optax.sgd(0.1), 1, 1, 7), "`key` must be one random key"),
        (lambda: layer_sampling(optax.sgd(0.1), 3, 1).init(jnp.ones((2, 4))), "at least 3, got"),
        (lambda: layer_sampling(optax.sgd(0.1), 1, 1).init(jnp.array(1.0)), "one number of layers"),
        (
            lambda: layer_sampling(optax.sgd(0.1), 1, 1).init([jnp.ones(2), jnp.ones(3)]),
            "must have one number of layers",
        ),
        (
            lambda: layer_sampling(optax.sgd(0.1), 1, 1).update(jnp.ones(2), None),
            "`params` must be given to the update of layer_sampling, got None.",
        ),
    ],
)
def test_unfit_arguments_are_refused_in_one_sentence(call, says):
    with pytest.raises(ValueError, match=re.escape(says)) as refusal:
        call()
    assert "\n" not in str(refusal.value)
