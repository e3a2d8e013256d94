"""The nine-mode shear flow against the Navier-Stokes equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.problems import shear_flow9


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
