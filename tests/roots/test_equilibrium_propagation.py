"""Equilibrium propagation against implicit differentiation, homeostasis against the Jacobian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import raphson as rp
from raphson.roots import holomorphic_gradient, jacobian_homeostasis

RNG = np.random.default_rng(0)
MATRIX = RNG.normal(size=(5, 5)) / 4
INPUTS = RNG.normal(size=5) / 2


def field(u, args):
    s = jnp.tanh(u)
    return ((1 - s**2) * (args["W"] @ s + args["b"]) - u) / 2


def loss(u, args):
    return jnp.mean((u[:2] - 0.5) ** 2) / 4 + jnp.sum(args["b"] * u) / 50


@jax.jit
def equilibrium(args):
    rest = rp.roots.KrasnoselskiiMann()
    problem = rp.FixedPoint(lambda u, args: u + field(u, args), jnp.zeros(5, INPUTS.dtype), args)
    return rp.solve(problem, rest, rtol=0.0, atol=1e-13).value


@jax.jit
def exact(args):
    return jax.grad(lambda args: loss(equilibrium(args), args))(args)


def net(symmetric=True):
    W = (MATRIX + MATRIX.T) / 2 if symmetric else MATRIX
    return {"W": jnp.asarray(W), "b": jnp.asarray(INPUTS)}


def estimate(args, **options):
    options = {"steps": 150} | options
    run = jax.jit(lambda u, args: holomorphic_gradient(field, loss, u, args, **options))
    return run(equilibrium(args), args)


def distance(a, b):
    a, b = ravel_pytree(a)[0], ravel_pytree(b)[0]
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def test_many_nudges_give_the_gradient_of_symmetric_weights():
    assert distance(estimate(net(), points=12, radius=0.25), exact(net())) < 1e-8


def test_nudges_of_odd_and_even_number_converge_as_their_powers():
    errors = [distance(estimate(net(), points=N), exact(net())) for N in (1, 2, 3, 4)]
    assert all(after < before / 3 for before, after in zip(errors, errors[1:], strict=False))
    halved = distance(estimate(net(), points=4, radius=0.25), exact(net()))
    np.testing.assert_allclose(errors[3] / halved, 2**4, rtol=0.3)


def test_without_symmetry_the_inverse_is_not_transposed():
    args = net(symmetric=False)
    u = equilibrium(args)
    J = jax.jit(jax.jacobian(field))(u, args)
    response = np.linalg.solve(J, jax.grad(loss)(u, args))
    direct = jax.grad(loss, argnums=1)(u, args)
    by_args = jax.vjp(lambda args: field(u, args), args)[1](jnp.asarray(response))[0]
    expected = jax.tree.map(lambda a, b: a - b, direct, by_args)
    found = estimate(args, points=12, radius=0.25)
    assert distance(found, expected) < 1e-8
    assert distance(found, exact(args)) > 0.05


def test_one_nudge_is_a_forward_difference():
    # u_b = (a + 2 b) / (1 + 2 b) in closed form, the same for both units.
    slope = holomorphic_gradient(
        lambda u, a: {"x": (a - u["x"]) / 2},
        lambda u, a: jnp.sum((u["x"] - 1) ** 2) / 2,
        {"x": jnp.array([3.0, 3.0])},
        jnp.array(3.0),
        points=1,
        radius=0.1,
    )
    nudged = (3 + 2 * 0.1) / (1 + 2 * 0.1)
    np.testing.assert_allclose(slope, -(nudged - 3) / 0.1, rtol=1e-9)


def test_homeostasis_is_the_asymmetry_of_the_jacobian():
    args, u = net(symmetric=False), jnp.asarray(INPUTS)

    @jax.jit
    def by_samples(args):
        key = jax.random.key(0)
        return jax.value_and_grad(
            lambda args: jacobian_homeostasis(field, u, args, key, samples=20_000)
        )(args)

    def by_jacobian(args):
        J = jax.jacobian(field)(u, args)
        return jnp.sum((J - J.T) ** 2) / (2 * 5)

    (found, slope), expected = by_samples(args), jax.jit(jax.value_and_grad(by_jacobian))(args)
    np.testing.assert_allclose(found, expected[0], rtol=0.03)
    assert distance(slope["W"], expected[1]["W"]) < 0.05
    symmetric = jacobian_homeostasis(field, u, net(), jax.random.key(1))
    np.testing.assert_allclose(symmetric, 0.0, atol=1e-15)


def test_stays_in_single_precision():
    args = jax.tree.map(jnp.float32, net())
    u = equilibrium(net()).astype(jnp.float32)
    run = jax.jit(lambda u, args: holomorphic_gradient(field, loss, u, args, points=4))
    found = run(u, args)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(jnp.float32)}
    assert distance(found, exact(net())) < 1e-2
    uneven = jacobian_homeostasis(field, u, args, jax.random.key(0))
    assert uneven.dtype == jnp.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"field": 3}, "`field` must be a function"),
        ({"loss": 3}, "`loss` must be a function"),
        ({"u": "here"}, "`u` must be made of real floating-point"),
        ({"points": 0}, "`points` must be a whole number"),
        ({"radius": 0.0}, "`radius` must be a number in"),
        ({"steps": 0}, "`steps` must be a whole number"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    fine = {"field": field, "loss": loss, "u": INPUTS, "args": net()}
    with pytest.raises(ValueError, match=message):
        holomorphic_gradient(**(fine | arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"field": 3}, "`field` must be a function"),
        ({"u": "here"}, "`u` must be made of real floating-point"),
        ({"samples": 0}, "`samples` must be a whole number of at least 1"),
        ({"samples": 1.5}, "`samples` must be a whole number of at least 1"),
    ],
)
def test_homeostasis_refuses(arguments, message):
    fine = {"field": field, "u": INPUTS, "args": net(), "key": jax.random.key(0)}
    with pytest.raises(ValueError, match=message):
        jacobian_homeostasis(**(fine | arguments))
