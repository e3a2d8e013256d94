"""The nine-mode shear flow against the Navier-Stokes equations, and bounds known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.problems import lorenz_orbit, shear_flow9
from raphson.problems.flows import bound_slack
from raphson.roots import periodic_orbit


def modes(p, al, ga):
    """The velocities of the nine modes at a point, as Moehlis, Faisst and Eckhardt give them."""
    (x, y, z), be, k = p, np.pi / 2, al**2 + ga**2
    c, s, zero = jnp.cos, jnp.sin, 0 * p[0]
    third = 2 / np.sqrt(4 * ga**2 + np.pi**2)
    sixth, seventh = 4 * np.sqrt(2 / (3 * k)), 2 * np.sqrt(2 / k)
    eighth = 2 * np.sqrt(2 / (k * (4 * k + np.pi**2)))
    wide = c(be * y) ** 2
    rows = [
        [np.sqrt(2) * s(be * y), zero, zero],
        [4 / np.sqrt(3) * wide * c(ga * z), zero, zero],
        [zero, 2 * third * ga * c(be * y) * c(ga * z), third * np.pi * s(be * y) * s(ga * z)],
        [zero, zero, 4 / np.sqrt(3) * c(al * x) * wide],
        [zero, zero, 2 * s(al * x) * s(be * y)],
        [
            -sixth * ga * c(al * x) * wide * s(ga * z),
            zero,
            sixth * al * s(al * x) * wide * c(ga * z),
        ],
        [
            seventh * ga * s(al * x) * s(be * y) * s(ga * z),
            zero,
            seventh * al * c(al * x) * s(be * y) * c(ga * z),
        ],
        [
            eighth * np.pi * al * s(al * x) * s(be * y) * s(ga * z),
            eighth * 2 * k * c(al * x) * c(be * y) * s(ga * z),
            -eighth * np.pi * ga * c(al * x) * s(be * y) * c(ga * z),
        ],
        [np.sqrt(2) * s(3 * be * y), zero, zero],
    ]
    return jnp.stack([jnp.stack(row) for row in rows])


@pytest.mark.parametrize(("length", "width"), [(4 * np.pi, 2 * np.pi), (1.75 * np.pi, 1.2 * np.pi)])
def test_every_coefficient_is_that_of_the_projection(length, width):
    al, ga, re = 2 * np.pi / length, 2 * np.pi / width, 170.0
    # Exact for the trigonometric polynomials downstream and across, to rounding in the gap.
    gap, weights = np.polynomial.legendre.leggauss(30)
    x, z = (np.arange(10) / 10 * side for side in (length, width))
    grid = np.stack(np.meshgrid(x, gap, z, indexing="ij")).reshape(3, -1).T
    weights = np.tile(np.repeat(weights / 200, 10), 10)
    U = np.asarray(jax.vmap(lambda p: modes(p, al, ga))(grid))
    D = np.asarray(jax.vmap(jax.jacfwd(lambda p: modes(p, al, ga)))(grid))
    np.testing.assert_allclose(np.einsum("p,pic,pjc->ij", weights, U, U), np.eye(9), atol=1e-12)
    np.testing.assert_allclose(np.einsum("picc->pi", D), 0, atol=1e-13)

    convection = -np.einsum("p,pic,pkd,pjcd->ijk", weights, U, U, D, optimize=True)
    friction = -np.einsum("p,picd,pjcd->ij", weights, D, D) / re
    problem = shear_flow9(re, length, width)
    for seed in range(3):
        a = np.random.default_rng(seed).normal(size=9)
        expected = convection @ a @ a + friction @ a
        expected[0] += (np.pi / 2) ** 2 / re  # the force that keeps the laminar flow
        np.testing.assert_allclose(problem.residual(jnp.asarray(a)), expected, atol=1e-12)


def test_the_laminar_flow_is_found_and_stable():
    problem = shear_flow9(100.0)
    solution = rp.solve(problem, rtol=0.0, atol=1e-12)
    np.testing.assert_allclose(solution.value, problem.facts.minimizer, atol=1e-10)
    spectrum = np.linalg.eigvals(problem.jacobian(problem.facts.minimizer).as_matrix())
    assert spectrum.real.max() < 0


@pytest.mark.parametrize("name", ["reynolds", "length", "width"])
def test_arguments_that_are_not_positive_are_refused(name):
    with pytest.raises(ValueError, match=f"`{name}` must be a number in"):
        shear_flow9(**{name: 0.0})


def test_the_slack_of_lorenz_is_a_sum_of_squares():
    # Of the mean of z, at most r - 1: with the V below the slack is (x - y)^2 + b (z - r + 1)^2
    # over b (r - 1), and vanishes at the two steady states beside the origin.
    once = lorenz_orbit()
    s, b, r = constants = once.args[0]

    def auxiliary(u, args):
        x, y, z = u
        return (x**2 / s + y**2 + z**2 + 2 * (1 - r) * z) / (2 * b * (r - 1))

    problem = bound_slack(
        once.fn.field, lambda u, _: u[2], auxiliary, r - 1, np.zeros(3), constants
    )
    points = np.random.default_rng(0).normal(size=(10, 3)) * 20
    x, y, z = points.T
    expected = ((x - y) ** 2 + b * (z - r + 1) ** 2) / (b * (r - 1))
    np.testing.assert_allclose(jax.vmap(problem.value)(points), expected, rtol=1e-10)


def test_states_of_least_slack_lead_to_the_extremal_orbit():
    # The mean of r^2 is 1 on the limit cycle, of radius 1 and period pi. With V = r^2 / (2 k) the
    # slack of U = 1 is (1 - r^2)^2.
    rate = jnp.array(0.5)
    field = lambda u, k: 2 * jnp.stack([-u[1], u[0]]) + k * (1 - u @ u) * u

    def guess(u0):
        problem = bound_slack(
            field, lambda u, _: u @ u, lambda u, k: u @ u / (2 * k), 1.0, u0, rate
        )
        solution = rp.solve(problem, rtol=0.0, atol=1e-10, throw=False)
        return solution.value, problem.value(solution.value)

    starts = np.random.default_rng(0).normal(size=(20, 2)) + 0.1
    guesses, slack = jax.vmap(guess)(starts)
    np.testing.assert_allclose(jnp.linalg.norm(guesses, axis=1), 1, atol=1e-8)
    np.testing.assert_allclose(slack, 0, atol=1e-15)
    u, period = rp.solve(periodic_orbit(field, guesses[0], 3.0, rate), rtol=0.0, atol=1e-9).value
    np.testing.assert_allclose([u @ u, period], [1, np.pi], rtol=1e-8)


@pytest.mark.parametrize("name", ["field", "observable", "auxiliary"])
def test_a_slack_of_what_is_no_function_is_refused(name):
    functions = dict.fromkeys(("field", "observable", "auxiliary"), lambda u, _: u[0])
    with pytest.raises(ValueError, match=f"`{name}` must be a function"):
        bound_slack(**(functions | {name: 3}), bound=1.0, u0=[1.0])
