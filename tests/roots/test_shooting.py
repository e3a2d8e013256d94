"""Shooting against SciPy's integrator, an orbit in closed form, and what is known of Lorenz's."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
import scipy.integrate

import raphson as rp
from raphson.problems import lorenz_orbit, van_der_pol_orbit
from raphson.roots import floquet_multipliers, periodic_orbit

NEWTON = optx.Newton(rtol=1e-12, atol=1e-12)
SHARP = {"rtol": 0.0, "atol": 1e-10}


def turn(u, args):
    """A limit cycle of radius 1 and period 2 pi / w, approached at the rate 2 k."""
    w, k = args
    return w * jnp.stack([-u[1], u[0]]) + k * (1 - u @ u) * u


def lorenz(_, u):
    return [10 * (u[1] - u[0]), u[0] * (28 - u[2]) - u[1], u[0] * u[1] - 8 / 3 * u[2]]


def test_the_residual_and_its_jacobian_are_those_of_scipy():
    fn = lambda u, m: jnp.stack([u[1], m * (1 - u[0] ** 2) * u[1] - u[0]])
    u0, T0 = np.array([1.8, 0.4]), 6.5
    problem = periodic_orbit(fn, u0, T0, 1.0)
    anchor = np.array([0.4, (1 - 1.8**2) * 0.4 - 1.8])
    y = u0 + [0.1, -0.2], T0 + 0.05

    def shot(flat):
        field = lambda _, u: [u[1], (1 - u[0] ** 2) * u[1] - u[0]]
        run = scipy.integrate.solve_ivp(
            field, (0, flat[2]), flat[:2], "DOP853", rtol=1e-12, atol=1e-12
        )
        return np.append(run.y[:, -1] - flat[:2], anchor @ (flat[:2] - u0))

    flat = np.append(*y)
    got = jnp.append(*problem.residual((jnp.asarray(y[0]), jnp.asarray(y[1]))))
    np.testing.assert_allclose(got, shot(flat), atol=1e-9)
    J = problem.jacobian((jnp.asarray(y[0]), jnp.asarray(y[1]))).as_matrix()
    differences = [(shot(flat + d) - shot(flat - d)) / 2e-5 for d in 1e-5 * np.eye(3)]
    np.testing.assert_allclose(J, np.transpose(differences), atol=1e-5)


def test_the_limit_cycle_of_van_der_pol():
    u, period = rp.solve(van_der_pol_orbit(), NEWTON, **SHARP).value
    np.testing.assert_allclose([u[0], period], [2.00861986, 6.6632868593], rtol=1e-8)


def test_an_orbit_in_closed_form():
    problem = periodic_orbit(turn, [1.1, 0.2], 2.8, (jnp.array(2.0), jnp.array(0.1)))
    solution = rp.solve(problem, NEWTON, **SHARP)
    u, period = solution.value
    np.testing.assert_allclose([u @ u, period], [1, np.pi], rtol=1e-10)
    # On the line through the start that the field crosses at a right angle.
    np.testing.assert_allclose(
        turn(problem.y0[0], problem.args[0]) @ (u - problem.y0[0]), 0, atol=1e-9
    )
    multipliers = floquet_multipliers(problem, solution.value)
    np.testing.assert_allclose(multipliers, [1, np.exp(-0.2 * np.pi)], rtol=1e-8)


def test_the_period_has_derivatives_in_forward_mode():
    def period(w):
        args = (w, jnp.array(0.5))
        problem = periodic_orbit(turn, [1.0, 0.0], 3.0, args, tolerance=1e-10)
        return rp.solve(problem, NEWTON, throw=False, **SHARP).value[1]

    value, slope = jax.jvp(period, (2.0,), (1.0,))
    np.testing.assert_allclose([value, slope], [np.pi, -np.pi / 2], rtol=1e-7)


def test_the_orbit_of_lorenz():
    problem = lorenz_orbit()
    solution = rp.solve(problem, rp.roots.LevenbergMarquardt(), **SHARP)
    u, period = solution.value
    # Viswanath (2003)
    np.testing.assert_allclose(period, 1.5586522107161747, rtol=1e-11)
    multipliers = floquet_multipliers(problem, solution.value)
    np.testing.assert_allclose(multipliers[1], 1, atol=1e-9)
    # Its exponent, and Liouville: volumes shrink by the divergence -(10 + 1 + 8/3).
    np.testing.assert_allclose(np.log(multipliers[0].real) / period, 0.9946, atol=1e-3)
    volume = np.exp(-(11 + 8 / 3) * period)
    np.testing.assert_allclose(np.prod(multipliers).real, volume, rtol=1e-2)
    # The orbit is its own image under the symmetry (x, y, z) -> (-x, -y, z), half a turn later.
    half = scipy.integrate.solve_ivp(lorenz, (0, period / 2), u, rtol=1e-12, atol=1e-12).y[:, -1]
    np.testing.assert_allclose(half, u * jnp.array([-1, -1, 1]), atol=1e-7)


def lorenz_in_segments(turns, points):
    """As many turns as asked from the start of `lorenz_orbit`, by so many points each."""
    once = lorenz_orbit()
    (u, period), times = once.y0, np.arange(points) / points
    run = scipy.integrate.solve_ivp(lorenz, (0, period), u, t_eval=times * period, rtol=1e-9)
    u0 = np.tile(run.y.T, (turns, 1))
    return periodic_orbit(once.fn.field, u0, turns * period, once.args[0])


def test_several_points_find_the_orbit_that_one_finds():
    once, multiple = lorenz_orbit(), lorenz_in_segments(1, 4)
    u, period = rp.solve(once, NEWTON, **SHARP).value
    points, also = rp.solve(multiple, NEWTON, **SHARP).value
    np.testing.assert_allclose(also, period, rtol=1e-11)
    np.testing.assert_allclose(points[0], u, rtol=1e-9)
    run = scipy.integrate.solve_ivp(
        lorenz, (0, period), u, "DOP853", rtol=1e-12, atol=1e-12, t_eval=np.arange(4) * period / 4
    )
    np.testing.assert_allclose(points, run.y.T, atol=1e-7)
    np.testing.assert_allclose(
        floquet_multipliers(multiple, (points, also)),
        floquet_multipliers(once, (u, period)),
        rtol=1e-8,
        atol=1e-11,
    )


@pytest.mark.slow
def test_several_points_follow_an_orbit_for_ten_turns():
    multiple = lorenz_in_segments(10, 2)
    y = rp.solve(multiple, NEWTON, **SHARP).value
    np.testing.assert_allclose(y[1], 10 * 1.5586522107161747, rtol=1e-10)
    single = periodic_orbit(multiple.fn.field, multiple.y0[0][0], multiple.y0[1], multiple.args[0])
    condition = lambda problem, y: np.linalg.cond(problem.jacobian(y).as_matrix())
    assert 1e3 * condition(multiple, y) < condition(single, (y[0][0], y[1]))
    failed = rp.solve(single, NEWTON, **SHARP, max_steps=20, throw=False)
    assert not failed.converged


def test_an_integration_that_is_cut_short_is_no_answer():
    problem = periodic_orbit(turn, [1.0, 0.0], 3.0, (2.0, 0.1), max_steps=2)
    solution = rp.solve(problem, NEWTON, throw=False)
    assert rp.status_name(solution.status) == "nonfinite_start"


def test_single_precision():
    args = tuple(map(jnp.float32, (2.0, 0.5)))
    problem = periodic_orbit(turn, np.array([1.1, 0.0], np.float32), 3.0, args, tolerance=1e-5)
    solution = rp.solve(problem, rp.roots.LevenbergMarquardt())
    assert solution.value[1].dtype == jnp.float32
    np.testing.assert_allclose(solution.value[1], np.pi, rtol=1e-3)


def test_other_data_compile_nothing():
    traces = []

    def field(u, w):
        traces.append(1)
        return turn(u, (w, 0.5))

    problem = periodic_orbit(field, [1.0, 0.0], 3.0, jnp.array(2.0), tolerance=1e-6)
    rp.solve(problem, rp.roots.LevenbergMarquardt(), throw=False)
    first = len(traces)
    other = eqx.tree_at(lambda p: p.args[0], problem, jnp.array(2.1))
    rp.solve(other, rp.roots.LevenbergMarquardt(), throw=False)
    assert len(traces) == first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"field": 3}, "`field` must be a function"),
        ({"u0": "here"}, "`u0` must be made of real floating-point"),
        ({"u0": 1.0}, "`u0` must be a point or have points in its rows"),
        ({"u0": np.ones((0, 2))}, "`u0` must be a point or have points in its rows"),
        ({"period": -1.0}, "`period` must be a number in"),
        ({"tolerance": 0.0}, "`tolerance` must be a number in"),
        ({"max_steps": 0}, "`max_steps` must be a whole number"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        periodic_orbit(**({"field": turn, "u0": [1.0, 0.0], "period": 3.0} | arguments))


def test_multipliers_of_another_problem_are_refused():
    with pytest.raises(ValueError, match="must be made by `periodic_orbit`"):
        floquet_multipliers(rp.problems.shear_flow9(), None)
