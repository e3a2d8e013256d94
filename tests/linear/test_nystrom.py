"""The Nystrom method against dense matrices in NumPy."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from raphson.linear import Nystrom

RNG = np.random.default_rng(0)
ROOT, B = RNG.normal(size=(8, 8)), RNG.normal(size=8)
A = ROOT @ ROOT.T / 8


def solve(matrix, b, solver):
    operator = lx.MatrixLinearOperator(jnp.asarray(matrix), lx.symmetric_tag)
    return lx.linear_solve(operator, jnp.asarray(b), solver).value


def dense(matrix, chosen, damping):
    """(C W^+ C^T + d)^-1 as it is defined."""
    columns = matrix[:, chosen]
    low = columns @ np.linalg.pinv(matrix[np.ix_(chosen, chosen)]) @ columns.T
    return np.linalg.inv(low + damping * np.eye(len(matrix)))


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_is_the_damped_inverse_of_the_approximation(rank):
    expected = dense(A, np.arange(rank), 0.05) @ B
    np.testing.assert_allclose(solve(A, B, Nystrom(rank, 0.05)), expected, rtol=1e-9)


def test_draws_columns_without_repeating():
    key = jax.random.key(3)
    chosen = np.asarray(jax.random.permutation(key, 8))[:4]
    assert not np.array_equal(np.sort(chosen), np.arange(4))
    expected = dense(A, chosen, 0.05) @ B
    np.testing.assert_allclose(solve(A, B, Nystrom(4, 0.05, key)), expected, rtol=1e-9)


@pytest.mark.parametrize("key", [None, jax.random.key(0)])
def test_is_exact_with_the_rank_of_the_matrix_or_all_columns(key):
    low = A[:, :3] @ A[:, :3].T
    exact = np.linalg.solve(low + 0.1 * np.eye(8), B)
    # Three columns span the matrix; with more, those among them repeat each other.
    for rank in (3, 5, 100):
        np.testing.assert_allclose(solve(low, B, Nystrom(rank, 0.1, key)), exact, rtol=1e-8)


def test_asks_for_as_many_products_as_columns():
    seen = []

    def product(v):
        jax.debug.callback(lambda v: seen.append(np.asarray(v)), v)
        return jnp.asarray(A) @ v

    like = jax.eval_shape(lambda: jnp.zeros(8))
    operator = lx.FunctionLinearOperator(product, like, lx.symmetric_tag, closure_convert=False)
    solver = Nystrom(3, 0.1)
    solver.compute(solver.init(operator, {}), jnp.asarray(B), {})
    jax.effects_barrier()
    np.testing.assert_array_equal(sorted(map(np.argmax, seen)), [0, 1, 2])


def test_trees_single_precision_and_derivatives():
    like = {"u": jnp.ones(2, jnp.float32), "v": jnp.ones((), jnp.float32)}
    double = lambda tree: jax.tree.map(lambda leaf: 2 * leaf, tree)
    operator = lx.FunctionLinearOperator(double, jax.eval_shape(lambda: like), lx.symmetric_tag)
    value = lx.linear_solve(operator, like, Nystrom(3, 0.5)).value
    assert value["u"].dtype == jnp.float32
    np.testing.assert_allclose([*value["u"], value["v"]], 0.4, rtol=1e-6)
    gradient = jax.grad(lambda b: solve(A, b, Nystrom(8, 0.1))[0])(jnp.asarray(B))
    np.testing.assert_allclose(gradient, np.linalg.inv(A + 0.1 * np.eye(8))[0], rtol=1e-8)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Nystrom(0, 0.1), "`rank` must be a whole number of at least 1, got 0"),
        (lambda: Nystrom(5, 0.0), r"`damping` of Nystrom must be a number in \(0, inf\)"),
        (
            lambda: lx.linear_solve(
                lx.MatrixLinearOperator(jnp.ones((2, 2))), jnp.ones(2), Nystrom(1, 0.1)
            ),
            "must be symmetric for Nystrom",
        ),
    ],
)
def test_refuses(build, says):
    with pytest.raises(ValueError, match=says):
        build()
