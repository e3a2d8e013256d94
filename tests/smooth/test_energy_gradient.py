"""EnergyGradient against a transcription in NumPy and the paper's identity of energies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.problems import quadratic, rosenbrock
from raphson.smooth import EnergyGradient, GradientDescent, hessian_riemannian
from tests.smooth.paths import chain, path

START = np.array([-1.2, 1.0, 0.3, 0.8])
WEIGHTS = np.array([1.0, 3.0, 0.5, 2.0])


def weighted(y, v):
    return jnp.array(WEIGHTS) * v


def steps(y, count, eta, c, A, restart, elementwise):
    value, g = chain(y)
    r = np.sqrt(value + c)
    for _ in range(count):
        v = g / (2 * np.sqrt(value + c))
        r = r / (1 + 2 * eta * (A * v**2 if elementwise else v @ (A * v)))
        y = y - 2 * eta * r * A * v
        value, g = chain(y)
        r = np.where(r < restart * np.sqrt(value + c), np.sqrt(value + c), r)
        yield y, r


@pytest.mark.parametrize("elementwise", [False, True])
@pytest.mark.parametrize("restart", [0.0, 0.6])
@pytest.mark.parametrize("eta", [1e-4, 3e-3])
@pytest.mark.parametrize(("A", "preconditioner"), [(np.ones(4), None), (WEIGHTS, weighted)])
def test_steps_are_those_of_the_paper(A, preconditioner, eta, restart, elementwise):
    problem = rosenbrock(4)
    problem = rp.Minimize(problem.fn, START)
    method = EnergyGradient(jnp.array(eta), 2.0, preconditioner, restart, elementwise)
    ys, states = path(problem, method, 15)
    expected = list(steps(START, 15, eta, 2.0, A, restart, elementwise))
    np.testing.assert_allclose(ys[1:], [y for y, _ in expected], rtol=1e-10)
    np.testing.assert_allclose(states.energy[1:], [r for _, r in expected], rtol=1e-10)
    np.testing.assert_allclose(states.gradient[7], chain(ys[7])[1])
    if restart and eta > 1e-3:
        assert np.any(np.diff(states.energy) > 0)


def test_energies_of_their_own_obey_it_one_by_one():
    # What one unknown does reaches the others only through the values of f.
    method = EnergyGradient(jnp.array(0.1), preconditioner=weighted, elementwise=True)
    tree = rp.Minimize(
        lambda y, _: rosenbrock(4).fn(jnp.append(y["u"], y["v"]), None),
        {"u": START[:3], "v": START[3]},
    )
    ys, states = path(rp.Minimize(rosenbrock(4).fn, START), method, 30)
    r, moved = states.energy, np.diff(ys, axis=0) ** 2 / WEIGHTS
    left = r[:-1] ** 2 - np.diff(r, axis=0) ** 2 - moved / 0.1
    np.testing.assert_allclose(r[1:] ** 2, left, atol=1e-12)
    assert np.all(np.diff(r, axis=0) <= 0) and np.ptp(r[-1]) > 0.1
    plain = EnergyGradient(jnp.array(0.1), elementwise=True)
    trees, of_trees = path(tree, plain, 5)
    ys, states = path(rp.Minimize(rosenbrock(4).fn, START), plain, 5)
    np.testing.assert_allclose(np.c_[trees["u"], trees["v"]], ys, rtol=1e-12)
    np.testing.assert_allclose(np.c_[of_trees.energy["u"], of_trees.energy["v"]], states.energy)


@pytest.mark.parametrize("eta", [1e-3, 1.0, 1e3])
def test_energies_obey_the_papers_identity(eta):
    method = EnergyGradient(jnp.array(eta), preconditioner=weighted)
    ys, states = path(rp.Minimize(rosenbrock(4).fn, START), method, 50)
    r, moved = states.energy, np.sum(np.diff(ys, axis=0) ** 2 / WEIGHTS, axis=1)
    np.testing.assert_allclose(r[1:] ** 2, r[:-1] ** 2 - np.diff(r) ** 2 - moved / eta, atol=1e-12)
    assert np.all(np.diff(r) <= 0)


def test_with_a_great_c_is_gradient_descent():
    problem = rp.Minimize(rosenbrock(4).fn, START)
    ys = path(problem, EnergyGradient(jnp.array(1e-3), 1e12), 20)[0]
    np.testing.assert_allclose(ys, path(problem, GradientDescent(1e-3), 20)[0], rtol=1e-6)


def test_an_energy_that_underflows_does_not_return():
    problem = quadratic(np.geomspace(1, 100, 10))
    _, states = path(problem, EnergyGradient(jnp.array(1e6)), 100)
    assert states.energy[-1] == 0 or states.energy[-1] < 1e-200
    assert np.all(np.diff(states.energy) <= 0)


def test_restarts_mend_what_used_up_the_energy():
    problem = quadratic(np.geomspace(1, 100, 10))
    worn, mended = (
        rp.solve(problem, EnergyGradient(0.03, restart=s), max_steps=2000, throw=False)
        for s in (0.0, 0.01)
    )
    assert rp.status_name(worn.status) == "stalled" and float(worn.state.energy) < 1e-10
    assert bool(mended.converged)


@pytest.mark.parametrize("shift", [-50.0, -1.0, -1e6])
def test_solves_where_f_is_negative(shift):
    # c is raised on the way down, at any height.
    problem = rp.Minimize(lambda y, a: a + jnp.sum(jnp.cosh(y - 1)), jnp.zeros(3), shift)
    solution = rp.solve(problem, EnergyGradient(), max_steps=2000)
    np.testing.assert_allclose(solution.value, 1.0, atol=1e-5)


def test_entropy_keeps_to_the_orthant():
    problem = rp.Minimize(lambda y, _: jnp.sum((y - jnp.array([2.0, 1e-3])) ** 2), jnp.ones(2))
    method = EnergyGradient(jnp.array(0.3), preconditioner=lambda y, v: y * v)
    ys, states = path(problem, method, 3000)
    assert np.all(ys > 0) and states.value[-1] < 1e-7
    # Gradient descent leaves it on its way.
    assert np.any(path(problem, GradientDescent(0.6), 10)[0] < 0)


def test_hessian_riemannian_is_the_inverse_of_the_hessian():
    rng = np.random.default_rng(0)
    A = rng.normal(size=(4, 4))
    H, v = A @ A.T + np.eye(4), rng.normal(size=4)
    linear = jax.jit(hessian_riemannian(lambda y: y @ jnp.asarray(H) @ y / 2))
    np.testing.assert_allclose(linear(jnp.ones(4), jnp.array(v)), np.linalg.solve(H, v), rtol=1e-10)
    # On a tree, where phi binds its leaves together.
    bound = jax.jit(
        hessian_riemannian(lambda y: jnp.sum(y["a"] ** 2) + jnp.exp(y["a"][0] + y["b"]))
    )
    y, v = {"a": jnp.array([0.2, 3.0]), "b": jnp.array(-0.5)}, np.array([1.0, 2.0, 3.0])
    expected = np.linalg.solve(
        np.exp(-0.3) * np.outer([1, 0, 1], [1, 0, 1]) + np.diag([2, 2, 0]), v
    )
    found = bound(y, {"a": jnp.array(v[:2]), "b": jnp.array(v[2])})
    np.testing.assert_allclose(np.append(found["a"], found["b"]), expected, rtol=1e-10)


def test_hessian_riemannian_of_the_entropy_takes_the_steps_of_y_v():
    problem = rp.Minimize(lambda y, _: jnp.sum((y - jnp.array([2.0, 1e-3])) ** 2), jnp.ones(2))
    entropy = hessian_riemannian(lambda y: jnp.sum(y * jnp.log(y) - y))
    ys, known = (
        path(problem, EnergyGradient(jnp.array(0.3), preconditioner=A), 200)[0]
        for A in (entropy, lambda y, v: y * v)
    )
    np.testing.assert_allclose(ys, known, rtol=1e-10)
    with pytest.raises(ValueError, match="`phi` must be a function"):
        hessian_riemannian(3)  # pyright: ignore


def test_a_phi_that_is_not_convex_is_not_passed_over():
    assert np.all(np.isnan(hessian_riemannian(lambda y: -jnp.sum(y**2))(jnp.ones(2), jnp.ones(2))))


def test_a_metric_that_is_not_positive_ends_the_run():
    problem = rp.Minimize(lambda y, _: jnp.sum((y - 1) ** 2), jnp.zeros(2))
    method = EnergyGradient(preconditioner=lambda y, v: -v)
    solution = rp.solve(problem, method, throw=False)
    assert rp.status_name(solution.status) == "breakdown" and int(solution.stats.steps) == 1


@pytest.mark.parametrize(
    "bad", [{"eta": 0.0}, {"c": -1.0}, {"restart": 1.0}, {"preconditioner": 3}]
)
def test_refuses(bad):
    with pytest.raises(ValueError, match=f"`{next(iter(bad))}`"):
        EnergyGradient(**bad)
