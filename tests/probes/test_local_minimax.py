"""The restricted Schur complement against NumPy by subsets of columns, and against dynamics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.probes import local_minimax
from raphson.problems import saddles


def blocks(seed, n, m, rank, *, positive=False):
    """Random f_xx, f_yy of the given rank, and f_xy."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(n, n))
    Q = np.linalg.qr(rng.normal(size=(m, m)))[0]
    b = np.zeros(m)
    b[:rank] = -rng.uniform(0.5, 1.5, rank)
    b[:1] *= -1 if positive else 1
    return A + A.T, (Q * b) @ Q.T, rng.normal(size=(n, m))


def form(x, y, args):
    A, B, C = args
    return x @ A @ x / 2 + x @ C @ y + y @ B @ y / 2


def quadratic(A, B, C):
    return rp.Saddle(form, np.zeros(len(A)), np.zeros(len(B)), (A, B, C))


def transcription(A, B, C):
    """Schur complement restricted to the kernel of C2', and the least step size."""
    b, Q = np.linalg.eigh(B)
    on_range = np.abs(b) > 1e-8
    C1, C2 = C @ Q[:, on_range], C @ Q[:, ~on_range]
    S = A - C1 @ np.diag(1 / b[on_range]) @ C1.T
    W, s, _ = np.linalg.svd(C2)
    k = int(np.sum(s > 1e-8))
    U = W[:, k:]
    schur = np.linalg.eigvalsh(U.T @ S @ U)[0] if U.size else np.inf
    steps = [-W[:, j] @ S @ W[:, j] / s[j] ** 2 for j in range(k)]
    return schur, max([0.0, *steps])


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("n, m", [(3, 3), (4, 2), (2, 4), (1, 1)])
def test_against_subsets_of_columns(n, m, positive):
    for rank in range(positive, m + 1):
        A, B, C = blocks(rank, n, m, rank, positive=positive)
        problem = quadratic(A, B, C)
        probe = local_minimax(problem, problem.y0)
        schur, step = transcription(A, B, C)
        assert int(probe.rank) == rank
        assert bool(probe.concave) == (not positive)
        np.testing.assert_allclose(probe.schur, schur, atol=1e-10)
        np.testing.assert_allclose(probe.least_step_size, step, rtol=1e-9, atol=1e-10)
        assert bool(probe.necessary) == (schur >= 0 and not positive)


def test_is_the_schur_complement_where_f_yy_is_regular():
    A, B, C = blocks(1, 3, 2, 2)
    problem = quadratic(A, B, C)
    probe = local_minimax(problem, problem.y0)
    expected = np.linalg.eigvalsh(A - C @ np.linalg.solve(B, C.T))[0]
    np.testing.assert_allclose(probe.schur, expected, rtol=1e-12)
    assert float(probe.least_step_size) == 0


def test_of_trees_at_a_point_with_curvature():
    # f_xx = 12 x^2, f_yy = -2, f_xy = (1, 0): at x = 1 the Schur complement is 12 + 1/2 and 4.
    def fn(x, y, _):
        return x["a"] ** 4 + 2 * x["b"] ** 2 + x["a"] * y - y**2

    problem = rp.Saddle(fn, {"a": jnp.array(1.0), "b": jnp.array(0.0)}, jnp.array(0.0))
    probe = local_minimax(problem, problem.y0)
    np.testing.assert_allclose(probe.schur, 4, rtol=1e-12)


def test_a_rounded_kernel_is_a_kernel():
    # Near the stationary point f_yy = 12 y^2 is not zero, and positive.
    fn = lambda x, y, _: x * y - x**2 / 10 + y**4
    near = jnp.array(0.0), jnp.array(1e-6)
    probe = local_minimax(rp.Saddle(fn, *near), near)
    assert (int(probe.rank), bool(probe.necessary)) == (0, True)
    strict = local_minimax(rp.Saddle(fn, *near), near, rtol=0.0)
    assert (int(strict.rank), bool(strict.necessary)) == (1, False)


@pytest.mark.parametrize("eta", [0.15, 0.25, 0.5])
def test_least_step_size_separates_what_converges(eta):
    problem = saddles.local_minimax()
    least = float(local_minimax(problem, problem.facts.minimizer).least_step_size)
    np.testing.assert_allclose(least, 0.2, rtol=1e-12)
    method = rp.saddle.Extragradient((eta / 10, eta))
    solution = rp.solve(problem, method, max_steps=100_000, throw=False)
    assert bool(solution.converged) == (eta > least)


def test_jit_and_vmap():
    stacked = jax.tree.map(
        lambda *leaf: np.stack(leaf), *(blocks(s, 3, 3, s % 3) for s in range(6))
    )
    probe = jax.jit(
        jax.vmap(lambda args: local_minimax(quadratic(*args), (jnp.zeros(3), jnp.zeros(3))))
    )(stacked)
    assert probe.rank.tolist() == [0, 1, 2, 0, 1, 2]
    expected = [transcription(*blocks(s, 3, 3, s % 3))[0] for s in range(6)]
    np.testing.assert_allclose(probe.schur, expected, atol=1e-10)


def test_refuses_other_problems():
    problem = rp.Minimize(lambda y, _: y**2, jnp.array(1.0))
    with pytest.raises(ValueError, match="`problem` must be a Saddle, got a Minimize"):
        local_minimax(problem, problem.y0)
