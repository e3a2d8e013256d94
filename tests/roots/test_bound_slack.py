"""The slack of a bound on time averages, where it is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.problems import lorenz_orbit
from raphson.roots import bound_slack, periodic_orbit


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
