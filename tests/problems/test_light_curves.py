"""Light curves of an eclipsing binary against the areas counted on a grid, and a NumPy model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.problems import eclipsing_binary, eclipsing_binary_nav
from raphson.problems.light_curves import STAR, eclipsed_magnitude


def counted_magnitude(y, phase, size=2000):
    """The light that is left, by counting the points of the star behind that the other covers."""
    i, R1, R2, l1 = y
    z = np.sqrt(1 - (np.sin(i) * np.cos(2 * np.pi * phase)) ** 2)
    first = np.cos(2 * np.pi * phase) > 0
    behind, front, light = (R1, R2, l1) if first else (R2, R1, 1 - l1)
    x = behind * (2 * (np.arange(size) + 0.5) / size - 1)
    x1, x2 = np.meshgrid(x, x)
    disc = x1**2 + x2**2 < behind**2
    covered = disc & ((x1 - z) ** 2 + x2**2 < front**2)
    return -2.5 * np.log10(1 - light * covered.sum() / disc.sum())


@pytest.mark.parametrize("phase", [0.0, 0.02, 0.045, 0.06, 0.2, 0.48, 0.5, 0.54, 0.97])
def test_magnitudes_are_those_of_counted_areas(phase):
    got = eclipsed_magnitude(jnp.array(STAR), jnp.array([phase]))
    assert float(got[0]) == pytest.approx(counted_magnitude(STAR, phase), abs=2e-4)


def test_derivatives_are_finite_at_the_contacts_and_edge_on():
    # Edge-on, with the discs exactly touching at some phase, concentric at another.
    y = jnp.array([np.pi / 2, 0.25, 0.25, 0.6])
    contact = np.arcsin(0.5) / (2 * np.pi)
    phases = jnp.array([0.0, 0.5, contact, contact + 0.5, 0.25])
    forward, reverse = (jax.jit(jac(eclipsed_magnitude)) for jac in (jax.jacfwd, jax.jacrev))
    assert jnp.isfinite(forward(y, phases)).all() and jnp.isfinite(reverse(y, phases)).all()
    h = 1e-6 * np.eye(4)
    phases = jnp.array([0.03, 0.06, 0.51, 0.55])
    by_differences = [
        (eclipsed_magnitude(STAR + e, phases) - eclipsed_magnitude(STAR - e, phases)) / 2e-6
        for e in h
    ]
    by_autodiff = forward(jnp.array(STAR), phases)
    np.testing.assert_allclose(by_autodiff.T, by_differences, rtol=1e-6, atol=1e-8)


def test_residuals_at_the_truth_are_the_noise():
    problem = eclipsing_binary(noise=0.01, seed=3)
    noise = np.random.default_rng(3).standard_normal(200)
    np.testing.assert_allclose(problem.residual(jnp.array(STAR)), -noise, rtol=1e-9)


def test_the_fit_is_the_truth_within_its_error_bars():
    problem = eclipsing_binary()
    solution = rp.solve(problem, rtol=0.0, atol=1e-6, throw=False)
    jacobian = np.asarray(problem.jacobian(solution.value).as_matrix())
    bars = np.sqrt(np.diag(np.linalg.inv(jacobian.T @ jacobian)))
    assert np.all(np.abs(solution.value - np.array(STAR)) < 4 * bars)
    assert 2 * problem.value(solution.value) < 2 * problem.value(jnp.array(STAR))


def test_nav_is_its_formula():
    problem = eclipsing_binary_nav(noise=0.01)
    y = np.array([0.1, 0.02, -0.03, 0.04, 0.01, 0.5, 0.3, 0.07, 1.6, 2.2])
    phases, magnitudes, _ = map(np.asarray, problem.args)

    def eclipse(z, b):
        z = (z + 0.5) % 1 - 0.5
        return np.maximum(1 - np.abs(z / y[7]) ** b, 0) ** 1.5

    t = 2 * np.pi * phases
    model = y[0] + y[1] * np.cos(t) + y[2] * np.sin(t) + y[3] * np.cos(2 * t)
    model = model + y[4] * np.sin(2 * t) + y[5] * eclipse(phases, y[8])
    model = model + y[6] * eclipse(phases - 0.5, y[9])
    got = problem.residual(jnp.array(y))
    np.testing.assert_allclose(got, (model - magnitudes) / 0.01, rtol=1e-9, atol=1e-9)
    assert jnp.isfinite(problem.jacobian(problem.y0).as_matrix()).all()


@pytest.mark.parametrize("make", [eclipsing_binary, eclipsing_binary_nav])
def test_what_is_no_observation_is_refused(make):
    with pytest.raises(ValueError, match="`n` must be a whole number of at least 10"):
        make(5)
    with pytest.raises(ValueError, match="`noise` must be a positive number"):
        make(noise=0.0)
