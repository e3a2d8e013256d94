"""The groups of preconditioners against dense matrices and derivatives of the criterion."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from raphson.train._lie_groups import Kron, LowRankGroup, TriangularGroup, XMatGroup, first_scale

RNG = np.random.default_rng(0)
KEY = jax.random.key(1)
RATE = 0.3
H, V = RNG.normal(size=(2, 6))


def preconditioner(group, q, shape):
    """The matrix of P, from what it does."""
    n = int(np.prod(shape))
    columns = [group.apply(q, jnp.asarray(e).reshape(shape)).ravel() for e in np.eye(n)]
    return np.array(columns).T


@functools.partial(jax.jit, static_argnums=0)
def fit(group, q, h, v, rate, key):
    return group.fit(q, h, v, rate, key)


def walked(group, shape, pairs, rate=RATE):
    q = group.scaled(group.start(shape, jnp.float64, KEY), jnp.array(0.7))
    path = [q]
    for h, v in pairs:
        q = fit(group, q, h, v, rate, KEY)
        path.append(q)
    return path


def pairs(shape, count=20):
    return [tuple(RNG.normal(size=(2, *shape))) for _ in range(count)]


def test_triangular_is_the_algorithm():
    given = pairs((6,))
    path = walked(TriangularGroup(), (6,), given)
    q, bound = 0.7 * np.eye(6), 0.0
    for (h, v), ours in zip(given, path[1:], strict=True):
        a, b = q @ h, np.linalg.inv(q).T @ v
        size = a @ a + b @ b
        bound = max(0.9 * bound + 0.1 * size, size)
        q = q - RATE / bound * np.triu(np.outer(a, a) - np.outer(b, b)) @ q
        np.testing.assert_allclose(ours.q, q, rtol=0, atol=1e-12)
    p = preconditioner(TriangularGroup(), ours, (6,))
    np.testing.assert_allclose(p, q.T @ q, atol=1e-12)


@pytest.mark.parametrize("n", [6, 7])
def test_xmat_is_the_algorithm(n):
    # By dense matrices: the step's part on the cross, where Q and its inverse are too.
    given = pairs((n,))
    path = walked(XMatGroup(), (n,), given)
    cross = np.eye(n) + np.eye(n)[::-1] > 0
    q = 0.7 * np.eye(n)
    for (h, v), ours in zip(given, path[1:], strict=True):
        a, w = q @ h, np.linalg.inv(q).T @ v
        step = np.where(cross, np.outer(a, a) - np.outer(w, w), 0)
        q = q - RATE / np.max(a**2 + w**2) * step @ q
        p = preconditioner(XMatGroup(), ours, (n,))
        np.testing.assert_allclose(p, q.T @ q, rtol=0, atol=1e-11)
    assert np.all((np.abs(q) > 1e-3) == cross)


def test_low_rank_descends_on_the_criterion():
    group = LowRankGroup(2)

    def criterion(u, v, d, h, x):
        q = (jnp.eye(6) + u @ v.T) @ jnp.diag(d)
        qh, w = q @ h, jnp.linalg.solve(q.T, x)
        return (qh @ qh + w @ w) / 2

    slope = jax.jit(jax.grad(criterion, (0, 1, 2)))
    q = group.scaled(group.start((6,), jnp.float64, KEY), jnp.array(0.7))
    np.testing.assert_allclose(jnp.linalg.norm(q.u), 0.1**0.5)
    given = pairs((6,), 12)
    seen = set()
    for index, (h, x) in enumerate(given):
        after = fit(group, q, h, x, 1e-2, jax.random.key(index))
        # As the factors are balanced first, P is the same.
        ratio = jnp.sqrt(jnp.linalg.norm(q.u) / jnp.linalg.norm(q.v))
        u, v, d = q.u / ratio, q.v * ratio, q.d
        slopes = slope(u, v, d, h, x)
        dense = (jnp.eye(6) + u @ v.T) @ jnp.diag(d)
        a, b = dense @ h, jnp.linalg.solve(dense.T, x)
        small = jnp.eye(2) + v.T @ u
        moved_u = bool(jnp.linalg.norm(after.u - u) > 1e-10)
        seen.add(moved_u)
        big = jnp.eye(6) + v @ u.T
        norm = jnp.linalg.norm
        if moved_u:
            size = norm(a) * norm(v @ (v.T @ a)) + norm(b) * norm(v @ (v.T @ b))
            step, bounds = slopes[0] @ small.T @ small, (size, 0.0)
        else:
            size = norm(a) * norm(u @ (u.T @ a)) + norm(b) * norm(u @ (u.T @ b))
            step, bounds = big @ big.T @ slopes[1], (0.0, size)
        of_d = jnp.max(jnp.abs(dense.T @ a * h)) + jnp.max(jnp.abs(x * jnp.linalg.solve(dense, b)))
        now = jnp.array([*bounds, of_d])
        bound = jnp.where(now > 0, jnp.maximum(0.9 * q.bounds + 0.1 * now, now), q.bounds)
        moved, still = (after.u - u, after.v - v) if moved_u else (after.v - v, after.u - u)
        which = 0 if moved_u else 1
        np.testing.assert_allclose(moved, -1e-2 / bound[which] * step, rtol=0, atol=1e-12)
        np.testing.assert_allclose(still, 0, atol=1e-14)
        np.testing.assert_allclose(after.d, d - 1e-2 / bound[2] * slopes[2] * d**2, atol=1e-12)
        np.testing.assert_allclose(after.bounds, bound, rtol=1e-10)
        q = after
    assert seen == {True, False}
    full = (np.eye(6) + q.u @ q.v.T) @ np.diag(q.d)
    np.testing.assert_allclose(preconditioner(group, q, (6,)), full.T @ full, atol=1e-12)


@pytest.mark.parametrize("whiten", [True, False])
def test_kron_is_the_algorithm(whiten):
    # With "QEQ" and whatever rotation, P sees (I - s X) on both sides; one axis has a diagonal.
    given = [(h, None if whiten else v) for h, v in pairs((3, 5))]
    group = Kron("QEQ")
    path = walked(group, (3, 5), given)
    assert [factor.shape for factor in path[0].factors] == [(3, 3), (5,)]
    factors, bounds = [0.7**0.5 * np.eye(3), 0.7**0.5 * np.eye(5)], [0.0, 0.0]
    for (h, v), ours in zip(given, path[1:], strict=True):
        p = [factor.T @ factor for factor in factors]
        a = p[0] @ h @ p[1]
        for axis, (left, right) in enumerate([(a, v), (a.T, None if v is None else v.T)]):
            first = left @ left.T
            second = (15 / len(left)) * np.eye(len(left)) if whiten else right @ right.T
            if axis == 1:
                first, second = np.diag(np.diag(first)), np.diag(np.diag(second))
                size = np.max(np.diag(first + second))
            else:
                # The estimate of the norm: from the longest column.
                both = first + second
                column = both[:, np.argmax(np.linalg.norm(both, axis=0))]
                size = np.linalg.norm(both @ column) / np.linalg.norm(column)
                assert 0.5 * np.linalg.norm(both, 2) < size <= np.linalg.norm(both, 2) * (1 + 1e-12)
            bounds[axis] = max(0.9 * bounds[axis] + 0.1 * size, size)
            factors[axis] = factors[axis] - RATE / bounds[axis] * factors[axis] @ (first - second)
        sizes = [np.max(np.abs(factor)) for factor in factors]
        factors = [
            factor * np.sqrt(sizes[0] * sizes[1]) / size for factor, size in zip(factors, sizes)
        ]
        np.testing.assert_allclose(ours.factors[0], factors[0], rtol=0, atol=1e-11)
        np.testing.assert_allclose(ours.factors[1], np.diag(factors[1]), rtol=0, atol=1e-11)
        np.testing.assert_allclose(ours.bounds, bounds, rtol=1e-10)
    expected = np.kron(factors[0].T @ factors[0], factors[1].T @ factors[1])
    np.testing.assert_allclose(preconditioner(group, ours, (3, 5)), expected, atol=1e-10)


def test_the_recommended_coordinates_keep_q_near_the_root_of_p():
    # There Q = P^1/2, and a step takes it to (I - s X) Q before the rotation, which leaves P alone
    # to the fourth order of its angle.
    group = Kron("Q0.5EQ1.5", full=True)
    given = pairs((6,), 100)
    path = [walk.factors[0] for walk in walked(group, (6,), given, 0.1)]
    bound = 0.0
    for (h, v), q, ours in zip(given, path, path[1:]):
        a = q.T @ q @ h
        size = np.outer(a, a) + np.outer(v, v)
        column = size[:, np.argmax(np.linalg.norm(size, axis=0))]
        size = np.linalg.norm(size @ column) / np.linalg.norm(column)
        bound = max(0.9 * bound + 0.1 * size, size)
        moved = q - 0.1 / bound * (np.outer(a, a) - np.outer(v, v)) @ q
        scale = np.max(np.abs(moved.T @ moved))
        np.testing.assert_allclose(ours.T @ ours, moved.T @ moved, rtol=0, atol=1e-4 * scale)
        assert np.linalg.norm(ours - ours.T) <= np.linalg.norm(moved - moved.T)
    assert np.linalg.norm(ours - ours.T) < 0.05 * np.linalg.norm(ours)


@pytest.mark.parametrize("shape", [(4,), (3, 3), (2, 3, 4), (1, 5), (3, 1)])
def test_axes_have_matrices_no_larger_than_what_they_precondition(shape):
    q = Kron("QEQ").start(shape, jnp.float64, KEY)
    entries = np.prod(shape)
    for factor, length in zip(q.factors, shape, strict=True):
        assert factor.shape == ((length, length) if 1 < length**2 <= entries else (length,))
    q = fit(Kron("QEQ"), q, *pairs(shape, 1)[0], RATE, KEY)
    dense = [np.diag(factor) if factor.ndim == 1 else factor for factor in q.factors]
    expected = functools.reduce(np.kron, [factor.T @ factor for factor in dense])
    np.testing.assert_allclose(preconditioner(Kron("QEQ"), q, shape), expected, atol=1e-12)


@functools.partial(jax.jit, static_argnums=(0, 2))
def fitted(group, matrix, newton):
    """Q after pairs (v, matrix v), at falling rates, with v or without."""

    def step(q, index):
        draw, key = jax.random.split(jax.random.fold_in(KEY, index))
        v = jax.random.normal(draw, (2,))
        rate = 0.3 * jnp.minimum(1, 100 / (index + 1))
        return group.fit(q, matrix @ v, v if newton else None, rate, key), None

    return jax.lax.scan(step, group.start((2,), jnp.float64, KEY), jnp.arange(10_000))[0]


@pytest.mark.parametrize(
    "group",
    [
        Kron("Q0.5EQ1.5", full=True), Kron("QEQ", full=True), TriangularGroup(), XMatGroup(),
        LowRankGroup(2),
    ],
)  # fmt: skip
def test_p_tends_to_the_inverse_of_the_absolute_hessian(group):
    # In two variables, or with rank 2, every group has it: exactly if H is definite.
    for corner, atol in ((1.0, 1e-6), (-1.0, 0.05)):
        hessian = np.array([[3.0, 1.0], [1.0, corner]])
        eigenvalues, vectors = np.linalg.eigh(hessian)
        expected = vectors / np.abs(eigenvalues) @ vectors.T
        p = preconditioner(group, fitted(group, hessian, True), (2,))
        np.testing.assert_allclose(p, expected, rtol=0, atol=atol)


@pytest.mark.parametrize(
    "group", [Kron("Q0.5EQ1.5", full=True), TriangularGroup(), XMatGroup(), LowRankGroup(2)]
)
def test_p_whitens_gradients(group):
    root = np.array([[2.0, 1.0], [0.0, 0.3]])
    p = preconditioner(group, fitted(group, root, False), (2,))
    np.testing.assert_allclose(p @ root @ root.T @ p, np.eye(2), rtol=0, atol=0.15)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e25])
def test_the_first_scale_fits_pairs_of_any_size(size):
    h = jnp.asarray(size, jnp.float32) * jnp.array([1.0, -1.0, 1.0], jnp.float32)
    v = jnp.full(3, 2.0, jnp.float32)
    np.testing.assert_allclose(first_scale(h, v) ** 2 * size, 2, rtol=1e-5)
    np.testing.assert_allclose(first_scale(h, None) ** 2 * size, 1, rtol=1e-5)
    assert first_scale(jnp.zeros(3), None) == 1
