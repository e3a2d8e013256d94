"""`rp.implicit` on the conditions of `rp.conditions`, against closed forms."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
import scipy.optimize
from jax.flatten_util import ravel_pytree

import raphson as rp
from raphson import conditions

RNG = np.random.default_rng(0)
X, TARGET = jnp.asarray(RNG.normal(size=(12, 4))), jnp.asarray(RNG.normal(size=12))


def both(fn, a):
    """The Jacobian by forward mode, once reverse mode is found to agree."""
    forward, reverse = jax.jit(lambda a: (jax.jacfwd(fn)(a), jax.jacrev(fn)(a)))(a)
    np.testing.assert_allclose(forward, reverse, rtol=1e-9, atol=1e-12)
    return forward


def ridge(y, a):
    return (jnp.sum((X @ y - TARGET) ** 2) + a * jnp.sum(y**2)) / 2


def ridge_answer(y0, a):
    return jnp.linalg.solve(X.T @ X + a * jnp.eye(4), X.T @ TARGET)


RIDGE = conditions.stationary(ridge)


@pytest.mark.parametrize(
    ("linear_solver", "tags"),
    [
        (None, ()),
        (lx.CG(1e-12, 1e-12), lx.positive_semidefinite_tag),
        (lx.GMRES(1e-12, 1e-12), ()),
        (lx.Cholesky(), lx.positive_semidefinite_tag),
    ],
)
def test_ridge_by_any_linear_solver(linear_solver, tags):
    solve = rp.implicit(RIDGE, linear_solver=linear_solver, tags=tags)(ridge_answer)
    found = both(lambda a: solve(jnp.zeros(4), a), 0.7)
    inverse = np.linalg.inv(np.asarray(X.T @ X) + 0.7 * np.eye(4))
    np.testing.assert_allclose(found, -inverse @ ridge_answer(None, 0.7), rtol=1e-8)


def test_solver_is_not_differentiated():
    """Its iterations are a loop that reverse mode cannot pass, and its start does not count."""

    def descent(y0, a):
        step = lambda y: y - 0.02 * RIDGE(y, a)
        return jax.lax.while_loop(lambda y: jnp.linalg.norm(RIDGE(y, a)) > 1e-10, step, y0)

    solve = rp.implicit(RIDGE)(descent)
    total = lambda y0, a: jnp.sum(solve(y0, a))
    by_start, by_data = jax.grad(total, argnums=(0, 1))(jnp.ones(4), 0.7)
    np.testing.assert_array_equal(by_start, 0.0)
    exact = jax.grad(lambda a: jnp.sum(ridge_answer(None, a)))(0.7)
    np.testing.assert_allclose(by_data, exact, rtol=1e-8)
    again = jax.grad(jax.grad(total, argnums=1), argnums=1)(jnp.ones(4), 0.7)
    np.testing.assert_allclose(
        again, jax.grad(jax.grad(lambda a: jnp.sum(ridge_answer(None, a))))(0.7), rtol=1e-7
    )


def test_solver_may_be_another_library():
    objective = lambda y, a: jnp.sum((y - a) ** 4 + y**2)
    value_and_grad = jax.jit(jax.value_and_grad(objective))

    @rp.implicit(conditions.stationary(objective))
    def solve(y0, a):
        call = lambda y: tuple(map(np.asarray, value_and_grad(y, a)))
        found = scipy.optimize.minimize(call, y0, jac=True, options={"gtol": 1e-10})
        return jnp.asarray(found.x)

    a = jnp.array([1.0, 2.0])
    y = np.asarray(solve(jnp.zeros(2), a))
    curvature = 12 * (y - np.asarray(a)) ** 2
    expected = np.diag(curvature / (curvature + 2))
    # SciPy wants numbers: not under `jit`.
    np.testing.assert_allclose(
        jax.jacrev(lambda a: solve(jnp.zeros(2), a))(a), expected, rtol=1e-6, atol=1e-12
    )


def soft(y, a, s):
    return jnp.sign(y) * jnp.maximum(jnp.abs(y) - s * a, 0.0)


@pytest.mark.parametrize("step_size", [0.3, 0.01])
def test_lasso_moves_on_its_support_alone(step_size):
    smooth = lambda y, a: jnp.sum((X @ y - TARGET) ** 2) / 2

    @rp.implicit(conditions.proximal_gradient(smooth, soft, step_size))
    def lasso(y0, a):
        gradient = jax.grad(smooth)
        step = lambda _, y: soft(y - 0.03 * gradient(y, a), a, 0.03)
        return jax.lax.fori_loop(0, 3000, step, y0)

    a = 2.0
    y = np.asarray(lasso(jnp.zeros(4), a))
    active = y != 0
    assert 0 < active.sum() < 4
    A = np.asarray(X)[:, active]
    expected = np.zeros(4)
    expected[active] = -np.linalg.solve(A.T @ A, np.sign(y[active]))
    found = both(lambda a: lasso(jnp.zeros(4), a), a)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def simplex_multiplier(v):
    """t such that the positive parts of v - t have the sum 1."""
    ordered = jnp.sort(v)[::-1]
    excess = (jnp.cumsum(ordered) - 1) / jnp.arange(1, v.size + 1)
    return excess[jnp.sum(ordered > excess) - 1]


POINT = jnp.array([0.5, 0.9, -1.0, 0.4])
# The projection's derivative is that onto vectors of sum 0 on the support.
SUPPORT = np.array([1.0, 1.0, 0.0, 1.0])
PROJECTION_JACOBIAN = np.diag(SUPPORT) - np.outer(SUPPORT, SUPPORT) / SUPPORT.sum()


def test_kkt_of_the_projection_onto_the_simplex():
    condition = conditions.kkt(
        lambda y, a: jnp.sum((y - a) ** 2) / 2,
        equality=lambda y, a: jnp.sum(y) - 1,
        inequality=lambda y, a: -y,
    )

    @rp.implicit(condition)
    def project(y0, a):
        t = simplex_multiplier(a)
        y = jnp.maximum(a - t, 0)
        return y, t, y - (a - t)

    start = (jnp.zeros(4), jnp.array(0.0), jnp.zeros(4))
    for part in jax.tree.leaves(condition(project(start, POINT), POINT)):
        np.testing.assert_allclose(part, 0.0, atol=1e-12)
    found = both(lambda a: project(start, a)[0], POINT)
    np.testing.assert_allclose(found, PROJECTION_JACOBIAN, atol=1e-12)


def test_projected_gradient_over_the_simplex():
    project = lambda y, a: jnp.maximum(y - simplex_multiplier(y), 0)
    condition = conditions.projected_gradient(
        lambda y, a: jnp.sum((y - a) ** 2) / 2, project, step_size=0.4
    )
    solve = rp.implicit(condition)(lambda y0, a: project(a, None))
    found = both(lambda a: solve(jnp.zeros(4), a), POINT)
    np.testing.assert_allclose(found, PROJECTION_JACOBIAN, atol=1e-12)


@pytest.mark.parametrize("step_size", [1.0, 0.1])
def test_mirror_descent_over_the_simplex(step_size):
    # With linear costs and an entropy the answer is a softmax, whose Jacobian is known; with
    # squares it is the projection, while all its entries are positive.
    entropic = lambda y, a: y @ a + 0.5 * jnp.sum(y * jnp.log(y))
    squares = lambda y, a: jnp.sum((y - a) ** 2) / 2
    onto = lambda z, _: jax.nn.softmax(z)
    inner = jnp.array([0.5, 0.3, 0.1, 0.4])

    def found(objective, answer):
        condition = conditions.mirror_descent(objective, jnp.log, onto, step_size)
        np.testing.assert_allclose(condition(answer(inner), inner), 0.0, atol=1e-15)
        y = np.array([0.1, 0.2, 0.3, 0.4])
        moved = y * np.exp(-step_size * np.asarray(jax.grad(objective)(jnp.array(y), inner)))
        step = condition(jnp.array(y), inner)
        np.testing.assert_allclose(step, moved / np.sum(moved) - y, atol=1e-15)
        solve = rp.implicit(condition)(lambda y0, a: answer(a))
        return both(lambda a: solve(jnp.zeros(4), a), inner)

    soft = np.exp(-2 * np.asarray(inner)) / np.sum(np.exp(-2 * np.asarray(inner)))
    expected = -2 * (np.diag(soft) - np.outer(soft, soft))
    np.testing.assert_allclose(
        found(entropic, lambda a: jax.nn.softmax(-2 * a)), expected, atol=1e-12
    )
    projected = found(squares, lambda a: a - (jnp.sum(a) - 1) / 4)
    np.testing.assert_allclose(projected, np.eye(4) - 0.25, atol=1e-12)


@pytest.mark.parametrize("step_sizes", [0.3, {"w": 0.3, "b": (0.05, 0.7)}])
def test_blocks_by_a_proximal_map_each(step_sizes):
    """The lasso for w beside ridge regression for one block of b and a free one."""
    Z = jnp.asarray(np.random.default_rng(1).normal(size=(12, 4)))
    residual = lambda y: X @ y["w"] + Z @ jnp.concatenate(y["b"]) - TARGET
    smooth = lambda y, a: jnp.sum(residual(y) ** 2) / 2
    proxes = {"w": soft, "b": (lambda y, a, s: y / (1 + s * a), lambda y, a, s: y)}
    condition = conditions.block_proximal_gradient(smooth, proxes, step_sizes)

    @rp.implicit(condition)
    def solve(y0, a):
        step = lambda _, y: jax.tree.map(jnp.add, y, shrunk(y, a))
        return jax.lax.fori_loop(0, 4000, step, y0)

    shrunk = conditions.block_proximal_gradient(smooth, proxes, 0.015)
    start = {"w": jnp.zeros(4), "b": (jnp.zeros(3), jnp.zeros(1))}
    of = lambda a: ravel_pytree(solve(start, a))[0]  # b stands before w
    y = np.asarray(of(2.0))
    signs = np.append(np.zeros(4), np.sign(y[4:]))
    active = (np.arange(8) < 4) | (signs != 0)
    assert 4 < active.sum() < 8
    A = np.concatenate([Z, X], axis=1)[:, active]
    ridge = np.array([1.0, 1, 1, 0, 0, 0, 0, 0])
    # A' (A y - target) + a (ridge y + sign) = 0 on what is active.
    expected = np.zeros(8)
    inverse = np.linalg.inv(A.T @ A + 2.0 * np.diag(ridge[active]))
    expected[active] = -inverse @ (ridge * y + signs)[active]
    np.testing.assert_allclose(both(of, 2.0), expected, rtol=1e-8, atol=1e-10)


def test_newton_steps_differ_by_the_identity_alone():
    G = lambda y, a: {"p": y["u"] ** 3 - a, "q": y["v"] + y["u"][0] * y["v"] - 1}
    condition = conditions.newton_step(G, 0.5)

    def answer(a):
        u = jnp.cbrt(jnp.stack([a, a]))
        return {"u": u, "v": 1 / (1 + u[0])}

    a = jnp.array(8.0)
    J = jax.jit(jax.jacfwd(lambda flat: ravel_pytree(condition(unravel(flat), a))[0]))
    flat, unravel = ravel_pytree(answer(a))
    np.testing.assert_allclose(J(flat), -0.5 * np.eye(3), atol=1e-14)
    # One Newton step from elsewhere, by hand: u - (u^3 - a) / (3 u^2) with the factor 1 / 2.
    moved = jax.jit(condition)({"u": jnp.array([1.0, 4.0]), "v": jnp.array(0.5)}, a)
    np.testing.assert_allclose(moved["u"], [7 / 6, -56 / 96], rtol=1e-13)
    solve = rp.implicit(condition)(lambda y0, a: answer(a))
    found = both(lambda a: ravel_pytree(solve(answer(a), a))[0], a)
    slope = 8.0 ** (-2 / 3) / 3
    np.testing.assert_allclose(found, [slope, slope, -slope / 9], rtol=1e-12)


def test_fixed_point_over_a_tree_under_vmap_and_in_single_precision():
    mapping = lambda y, a: {"u": 0.5 * jnp.cos(y["v"]) * a, "v": 0.5 * jnp.sin(y["u"])}
    condition = conditions.fixed_point(mapping)

    @rp.implicit(condition)
    def solve(y0, a):
        return jax.lax.fori_loop(0, 60, lambda _, y: mapping(y, a), y0)

    start = {"u": jnp.zeros(()), "v": jnp.zeros(())}
    total = lambda a: jnp.sum(solve(start, a)["u"])
    points = jnp.array([0.3, 0.9])
    found = jax.vmap(jax.grad(total))(points)
    step = 1e-6
    numeric = (jax.vmap(total)(points + step) - jax.vmap(total)(points - step)) / (2 * step)
    np.testing.assert_allclose(found, numeric, rtol=1e-7)
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), start)
    slope = jax.grad(lambda a: solve(single, a)["u"])(jnp.float32(0.3))
    assert slope.dtype == jnp.float32
    np.testing.assert_allclose(slope, found[0], rtol=1e-5)


def test_what_is_no_function_is_refused():
    with pytest.raises(ValueError, match="`optimality` must be a function"):
        rp.implicit(3.0)
