"""SOR and SSOR against sweeps written out in NumPy and Young's closed forms."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import raphson as rp
from raphson.linear import SOR, SSOR
from raphson.problems import poisson

METHODS = pytest.mark.parametrize("method", [SOR, SSOR])


def dominant(n=7, seed=0):
    """A nonsymmetric, diagonally dominant system, and a start."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(n, n)) + 2 * n * np.diag(rng.choice([-1, 1], n))
    return A, rng.normal(size=n), rng.normal(size=n)


def sweep(A, b, y, omega, rows):
    """Each equation solved for its own unknown, the newest values of the others in place."""
    y = y.copy()
    for i in rows:
        own = (b[i] - sum(A[i, j] * y[j] for j in range(len(y)) if j != i)) / A[i, i]
        y[i] = (1 - omega) * y[i] + omega * own
    return y


@eqx.filter_jit
def iterates(problem, method, y, count):
    """The iterates and the norms of the residuals that the state holds."""
    state = method.init(problem, y, None)

    def step(carry, _):
        y, state = method.step(problem, *carry)
        return (y, state), (y, jnp.linalg.norm(state.residual))

    return jax.lax.scan(step, (y, state), length=count)[1]


@eqx.filter_jit
def iteration_matrix(problem, method):
    """How one step maps errors, column by column."""
    still = rp.LinearSystem(problem.A, jnp.zeros_like(problem.vector))
    return jax.vmap(lambda e: iterates(still, method, e, 1)[0][0])(jnp.eye(len(still.vector))).T


@METHODS
@pytest.mark.parametrize("omega", [0.6, 1.0, 1.3])
def test_steps_are_sweeps_through_the_equations(method, omega):
    A, b, y = dominant()
    problem = rp.LinearSystem(jnp.array(A), jnp.array(b))
    ys, norms = iterates(problem, method(jnp.array(omega)), jnp.array(y), 4)
    for got, norm in zip(ys, norms):
        y = sweep(A, b, y, omega, range(len(b)))
        if method is SSOR:
            y = sweep(A, b, y, omega, reversed(range(len(b))))
        np.testing.assert_allclose(got, y, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(norm, np.linalg.norm(b - A @ y), rtol=1e-10)


def test_the_rate_is_youngs():
    n = 12
    jacobi = np.cos(np.pi / (n + 1))
    problem = poisson((n,), rhs=jnp.zeros(n))
    start = jnp.array(np.random.default_rng(0).normal(size=n))
    for omega in (1.0, 1.3):
        root = (omega * jacobi + np.sqrt(omega**2 * jacobi**2 - 4 * (omega - 1))) / 2
        _, norms = iterates(problem, SOR(jnp.array(omega)), start, 300)
        assert (norms[-1] / norms[-101]) ** 0.01 == pytest.approx(root**2, rel=1e-8)


def test_the_optimal_omega_has_spectral_radius_omega_minus_one():
    n = 12
    best = 2 / (1 + np.sin(np.pi / (n + 1)))

    def radius(omega):
        matrix = iteration_matrix(poisson((n,)), SOR(jnp.array(omega)))
        return np.abs(np.linalg.eigvals(matrix)).max()

    # The matrix is defective there: its eigenvalues are known to the root of the rounding.
    assert radius(best) == pytest.approx(best - 1, abs=1e-5)
    assert radius(best - 0.1) > best - 1 + 0.05
    assert radius(best + 0.1) == pytest.approx(best - 0.9)


def test_ssor_is_symmetric_and_sor_is_not():
    problem = poisson((3, 4), shift=0.3)
    A = np.asarray(problem.matrix())

    def preconditioner(method):
        return np.linalg.solve(A.T, (np.eye(12) - iteration_matrix(problem, method)).T).T

    symmetric = preconditioner(SSOR(1.4))
    np.testing.assert_allclose(symmetric, symmetric.T, atol=1e-13)
    assert np.linalg.eigvalsh(symmetric).min() > 0
    lopsided = preconditioner(SOR(1.4))
    assert np.abs(lopsided - lopsided.T).max() > 0.01


@METHODS
def test_another_omega_compiles_nothing(method):
    problem = poisson((4, 4))
    traces = []

    def matrix(args):
        traces.append(1)
        return problem.A.as_matrix()

    counted = rp.LinearSystem(problem.A, problem.vector, matrix=matrix)
    steps = [int(rp.solve(counted, method(omega)).stats.steps) for omega in (1.0, 1.2)]
    assert steps[0] != steps[1]
    first = len(traces)
    rp.solve(counted, method(1.5))
    assert len(traces) == first > 0


@METHODS
def test_vmap_over_omega_is_one_run_each(method):
    problem = poisson((4, 4), shift=0.2)

    def steps(omega):
        return rp.solve(problem, method(omega)).stats.steps

    omegas = jnp.array([1.0, 1.25, 1.9])
    together = jax.jit(jax.vmap(steps))(omegas)
    assert together.tolist() == [int(steps(float(omega))) for omega in omegas]
    assert len(set(together.tolist())) == 3


@METHODS
def test_single_precision_and_trees(method):
    problem = poisson((6,), rhs=jnp.ones(6, jnp.float32))
    solution = rp.solve(problem, method(jnp.array(1.2)), rtol=1e-4)
    assert solution.value.dtype == jnp.float32 and solution.converged

    dense = problem.A.as_matrix().astype(jnp.float64)

    def mv(tree):
        out = dense @ jnp.append(tree["u"], tree["v"])
        return {"u": out[:5], "v": out[5]}

    like = {"u": jnp.ones(5), "v": jnp.ones(())}
    operator = lx.FunctionLinearOperator(mv, jax.eval_shape(lambda: like))
    value = rp.solve(rp.LinearSystem(operator, like), method(1.2), rtol=1e-9, atol=0.0).value
    np.testing.assert_allclose(
        jnp.append(value["u"], value["v"]), np.linalg.solve(dense, np.ones(6))
    )


@METHODS
def test_a_zero_on_the_diagonal_is_a_breakdown(method):
    problem = rp.LinearSystem(jnp.array([[0.0, 1.0], [1.0, 1.0]]), jnp.ones(2))
    solution = rp.solve(problem, method(), throw=False)
    assert rp.status_name(solution.status) == "breakdown"
    assert solution.stats.steps == 1 and jnp.isfinite(solution.value).all()


@METHODS
@pytest.mark.parametrize("omega", [0, 2, -0.5, jnp.nan, "one", jnp.array([1.0, 2.5])])
def test_bad_omega_is_refused(method, omega):
    with pytest.raises(ValueError, match=r"`omega` of S?SOR must be a number in \(0, 2\), got"):
        method(omega)


@METHODS
def test_a_system_that_is_not_square_is_refused(method):
    problem = rp.LinearSystem(jnp.ones((3, 2)), jnp.ones(3))
    with pytest.raises(ValueError, match=rf"must be square for {method.__name__}, got \(3, 2\)"):
        rp.solve(problem, method())


@pytest.mark.parametrize("shape", [(9,), (4, 3), (2, 3, 4)])
def test_poisson_facts_and_stencil(shape):
    n = int(np.prod(shape))
    rhs = jnp.array(np.random.default_rng(0).normal(size=shape))
    problem = poisson(shape, shift=0.1, rhs=rhs)
    grid = np.random.default_rng(1).normal(size=shape)
    padded = np.pad(grid, 1)
    inner = tuple(slice(1, -1) for _ in shape)
    neighbors = sum(np.roll(padded, s, axis)[inner] for axis in range(len(shape)) for s in (1, -1))
    expected = (2 * len(shape) + 0.1) * grid - neighbors
    np.testing.assert_allclose(problem.mv(jnp.array(grid.ravel())), expected.ravel(), atol=1e-12)

    A = np.asarray(problem.matrix())
    spectrum = np.linalg.eigvalsh(A)
    np.testing.assert_allclose(problem.facts.strong_convexity, spectrum[0])
    np.testing.assert_allclose(problem.facts.lipschitz, spectrum[-1])
    solution = np.linalg.solve(A, np.asarray(rhs).ravel())
    np.testing.assert_allclose(problem.facts.minimizer, solution, rtol=1e-9)
    assert problem.y0.shape == (n,) and lx.is_positive_semidefinite(problem.A)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": 10}, "`shape` must be a tuple of 1 to 3 whole numbers, got 10"),
        ({"shape": (2, 2, 2, 2)}, "`shape` must be a tuple"),
        ({"shape": (3, 0)}, "`shape` must be a whole number of at least 1, got 0"),
        ({"shape": (3,), "shift": -1.0}, "`shift` must be more than -0.585786, got -1"),
        ({"shape": (3,), "shift": jnp.ones(3)}, r"`shift` must be one number, .* shape \(3,\)"),
        ({"shape": (3,), "rhs": jnp.ones(4)}, r"`rhs` must have the shape \(3,\) .*got \(4,\)"),
    ],
)
def test_poisson_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        poisson(**arguments)
