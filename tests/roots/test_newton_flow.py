"""NewtonFlow against the closed form F(y(t)) = e^-t F(y_0), and where the flow ends."""

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import raphson as rp
from raphson.roots import NewtonFlow

SHARP = {"rtol": 0.0, "atol": 1e-11, "throw": False}


def coupled(y, _=None):
    return jnp.stack([jnp.arctan(y[0]) + y[1] / 4, jnp.tanh(y[1]) - y[0] / 4])


@eqx.filter_jit
def path(problem, method, steps):
    """Iterates and states after 0, 1, ..., steps."""

    def step(carry, _):
        return method.step(problem, *carry), carry

    start = problem.y0, method.init(problem, problem.y0, None)
    return jax.lax.scan(step, start, length=steps + 1)[1]


@pytest.mark.parametrize(
    "method",
    [
        NewtonFlow(time=3.5),
        NewtonFlow(dfx.Dopri8(), lx.AutoLinearSolver(well_posed=True), time=3.5),
    ],
)
def test_the_residual_falls_as_the_exponential(method):
    problem = rp.RootFind(coupled, jnp.array([2.0, -1.5]))
    ys, states = path(problem, method, 6)
    t = np.array([0, 1, 2, 3, 3.5])
    np.testing.assert_allclose(states.time, [*t, 3.5, 3.5])
    first = np.asarray(coupled(problem.y0))
    np.testing.assert_allclose(
        states.residual[:5], np.exp(-t)[:, None] * first, rtol=1e-3, atol=1e-6
    )
    # Then Newton's steps.
    J = np.asarray(jax.jacobian(coupled)(ys[4]))
    np.testing.assert_allclose(ys[5], ys[4] - np.linalg.solve(J, coupled(ys[4])), rtol=1e-6)
    assert np.linalg.norm(states.residual[6]) < 1e-9


def test_the_path_of_one_unknown_in_closed_form():
    # arctan y(t) = e^-t arctan y_0
    problem = rp.RootFind(lambda y, _: jnp.arctan(y), jnp.array(20.0))
    ys, _ = path(problem, NewtonFlow(tolerance=1e-9), 4)
    np.testing.assert_allclose(ys, np.tan(np.exp(-np.arange(5.0)) * np.arctan(20)), rtol=1e-6)


def test_the_flow_ends_where_the_jacobian_is_singular():
    # From -2 the flow reaches the fold of y^3 - 3 y - 3 at -1 when e^-t = 1 / 5.
    problem = rp.RootFind(lambda y, _: y**3 - 3 * y - 3, jnp.array([-2.0]))
    solution = rp.solve(problem, NewtonFlow(), **SHARP)
    assert rp.status_name(solution.status) == "breakdown"
    assert float(solution.state.time) == 1.0
    np.testing.assert_allclose(solution.certificate.residual, 5 * np.exp(-1.0), rtol=1e-4)


def test_where_no_digits_are_left_the_run_stalls():
    problem = rp.RootFind(lambda y, _: jnp.exp(y) - 3, jnp.array(4.0))
    solution = rp.solve(problem, NewtonFlow(), rtol=0.0, atol=0.0, throw=False)
    assert rp.status_name(solution.status) in ("converged", "stalled", "precise")
    np.testing.assert_allclose(solution.value, np.log(3), rtol=1e-15)


def test_single_precision_and_trees():
    fn = lambda y, _: dict(zip("qp", coupled(jnp.append(y["b"], y["a"]) - 1)))
    start = {"a": jnp.float32(-2.0), "b": jnp.full(1, 3, jnp.float32)}
    solution = rp.solve(rp.RootFind(fn, start), NewtonFlow(tolerance=1e-4))
    assert solution.value["a"].dtype == jnp.float32
    np.testing.assert_allclose(jnp.append(solution.value["b"], solution.value["a"]), 1, atol=1e-4)


def test_a_system_that_is_not_square_is_refused():
    problem = rp.RootFind(lambda y, _: jnp.append(y, y), jnp.zeros(2))
    with pytest.raises(ValueError, match="as many equations .* for NewtonFlow, got 4 for 2"):
        rp.solve(problem, NewtonFlow())


@pytest.mark.parametrize("bad", [{"tolerance": 0.0}, {"time": -1.0}])
def test_refuses(bad):
    with pytest.raises(ValueError, match=f"`{next(iter(bad))}`"):
        NewtonFlow(**bad)
