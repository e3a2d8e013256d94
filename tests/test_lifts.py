"""Lifts: other libraries' solvers step here as they do at home, and Raphson's methods at theirs."""

import pickle
from collections import Counter

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optax
import optimistix as optx
import pytest
from scipy import optimize

import raphson as rp

START = jnp.array([-1.2, 1.0])
FOREVER = {"rtol": 0.0, "atol": 0.0, "throw": False}
TINY = (1e-14, 1e-14)  # tolerances that no solver meets within a few steps
STEPS = 8


def quickly(names, some):
    """The names as parameters, those that are not among `some` for the full suite only."""
    return [n if n in some else pytest.param(n, marks=pytest.mark.slow) for n in names]


def rosenbrock(y, a):
    return (a - y[0]) ** 2 + 100 * (y[1] - y[0] ** 2) ** 2


def residuals(y, a):
    return jnp.stack([10 * (y[1] - y[0] ** 2), a - y[0]])


def contraction(y, a):
    return a + 0.3 * jnp.sin(y - a)  # with the fixed point a


def objective(**oracles):
    return rp.Minimize(rosenbrock, START, jnp.array(1.0), **oracles)


def system(**oracles):
    return rp.RootFind(residuals, START, jnp.array(1.0), **oracles)


# --- Optimistix, inbound ----------------------------------------------------------------------

MINIMIZERS = {
    "BFGS": optx.BFGS(*TINY),
    "LBFGS": optx.LBFGS(*TINY),
    "NonlinearCG": optx.NonlinearCG(*TINY),
    "GradientDescent": optx.GradientDescent(1e-3, *TINY),
    "NelderMead": optx.NelderMead(*TINY),
    "BestSoFarMinimiser": optx.BestSoFarMinimiser(optx.BFGS(*TINY)),
}
SYSTEM_SOLVERS = {
    "Newton": (optx.Newton(*TINY), optx.root_find),
    "Chord": (optx.Chord(*TINY), optx.root_find),
    "Dogleg": (optx.Dogleg(*TINY), optx.least_squares),
    "LevenbergMarquardt": (optx.LevenbergMarquardt(*TINY), optx.least_squares),
    "GaussNewton": (optx.GaussNewton(*TINY), optx.least_squares),
}


@pytest.mark.parametrize("name", quickly(MINIMIZERS, ("BFGS", "GradientDescent", "NelderMead")))
def test_optimistix_minimizer_steps_as_at_home(name):
    solver = MINIMIZERS[name]
    ours = rp.solve(objective(), solver, max_steps=STEPS, **FOREVER)
    theirs = optx.minimise(rosenbrock, solver, START, jnp.array(1.0), max_steps=STEPS, throw=False)
    assert int(ours.stats.steps) == STEPS and ours.stats.method == f"optimistix.{name}"
    np.testing.assert_allclose(ours.value, theirs.value, rtol=1e-9, atol=1e-12)
    if name != "GradientDescent":
        answer = rp.solve(objective(), solver, rtol=0.0, atol=1e-5, max_steps=2000)
        np.testing.assert_allclose(answer.value, 1.0, atol=1e-4)


@pytest.mark.parametrize("name", quickly(SYSTEM_SOLVERS, ("Newton", "Dogleg")))
def test_optimistix_system_solver_steps_as_at_home(name):
    solver, at_home = SYSTEM_SOLVERS[name]
    start = jnp.array([0.8, 0.9])
    problem = rp.RootFind(residuals, start, jnp.array(1.0))
    ours = rp.solve(problem, solver, max_steps=2, **FOREVER)
    theirs = at_home(residuals, solver, start, jnp.array(1.0), max_steps=2, throw=False)
    np.testing.assert_allclose(ours.value, theirs.value, rtol=1e-9, atol=1e-12)
    answer = rp.solve(problem, solver, rtol=0.0, atol=1e-8)
    np.testing.assert_allclose(answer.value, 1.0, atol=1e-7)


def test_optimistix_fixed_point_steps_as_at_home():
    solver = optx.FixedPointIteration(*TINY)
    problem = rp.FixedPoint(contraction, jnp.zeros(2), jnp.array([1.0, -2.0]))
    ours = rp.solve(problem, solver, max_steps=STEPS, **FOREVER)
    theirs = optx.fixed_point(
        contraction, solver, jnp.zeros(2), problem.args, max_steps=STEPS, throw=False
    )
    np.testing.assert_allclose(ours.value, theirs.value, rtol=1e-14)
    answer = rp.solve(problem, solver, rtol=0.0, atol=1e-10)
    np.testing.assert_allclose(answer.value, [1.0, -2.0], atol=1e-9)


def test_what_optimistix_calls_converged_is_the_problems_to_judge():
    # Its own test is met at once with these tolerances; the gradient is nowhere near zero.
    solution = rp.solve(objective(), optx.BFGS(1e3, 1e3), rtol=0.0, atol=1e-6, throw=False)
    assert rp.status_name(solution.status) == "stalled"
    assert float(solution.certificate.residual) > 1e-3


# --- Optax, inbound ---------------------------------------------------------------------------

TRANSFORMATIONS = {"adam": optax.adam(0.05), "sgd": optax.sgd(1e-3), "lbfgs": optax.lbfgs()}


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_optax_steps_as_in_a_loop_of_its_own(name):
    transformation, a = TRANSFORMATIONS[name], jnp.array(1.0)
    ours = rp.solve(objective(), transformation, max_steps=STEPS, **FOREVER)

    @jax.jit
    def step(y, state):
        value, gradient = jax.value_and_grad(rosenbrock)(y, a)
        more = {"value": value, "grad": gradient, "value_fn": lambda y: rosenbrock(y, a)}
        extra = optax.with_extra_args_support(transformation)
        updates, state = extra.update(gradient, state, y, **more)
        return optax.apply_updates(y, updates), state

    y, state = START, transformation.init(START)
    for _ in range(STEPS):
        y, state = step(y, state)
    np.testing.assert_allclose(ours.value, y, rtol=1e-9)
    if name != "sgd":
        answer = rp.solve(objective(), transformation, rtol=0.0, atol=1e-5, max_steps=5000)
        np.testing.assert_allclose(answer.value, 1.0, atol=1e-4)


def test_optax_on_batches_averages_to_the_mean():
    data = jax.random.normal(jax.random.key(0), (64,)) + 3
    problem = rp.FiniteSum(lambda y, s, _: (y - s) ** 2 / 2, jnp.array(0.0), data, batch_size=8)
    schedule = optax.sgd(lambda t: 1 / (t + 1.0))
    run = rp.solve(problem, schedule, key=jax.random.key(1), max_steps=500, throw=False)
    # The iterate is the mean of 4000 draws of the data.
    assert abs(float(run.value) - float(data.mean())) < 4 * float(data.std()) / np.sqrt(4000)


# --- Lineax, inbound --------------------------------------------------------------------------

MATRIX = jnp.array([[4.0, 1.0, 0.0], [1.0, 3.0, 1.0], [0.0, 1.0, 5.0]])
VECTOR = jnp.array([1.0, -2.0, 3.0])
LINEAR_SOLVERS = {
    "AutoLinearSolver": lx.AutoLinearSolver(well_posed=None),
    "LU": lx.LU(),
    "CG": lx.CG(1e-12, 1e-12),
    "GMRES": lx.GMRES(1e-12, 1e-12),
}


@pytest.mark.parametrize("name", LINEAR_SOLVERS)
def test_lineax_solves_as_at_home(name):
    operator = lx.MatrixLinearOperator(MATRIX, lx.positive_semidefinite_tag)
    solver = LINEAR_SOLVERS[name]
    ours = rp.solve(rp.LinearSystem(operator, VECTOR), solver, rtol=1e-9, atol=0.0)
    theirs = lx.linear_solve(operator, VECTOR, solver)
    np.testing.assert_allclose(ours.value, theirs.value, rtol=1e-14)
    np.testing.assert_allclose(ours.value, np.linalg.solve(MATRIX, VECTOR), rtol=1e-9)
    assert int(ours.stats.steps) == 1


# --- SciPy, inbound ---------------------------------------------------------------------------


def numpy_rosenbrock(y):
    return float(rosenbrock(y, 1.0))


def numpy_gradient(y):
    c = y[1] - y[0] ** 2
    return np.array([-2 * (1 - y[0]) - 400 * y[0] * c, 200 * c])


def numpy_hessian(y):
    return np.array([[2 - 400 * (y[1] - 3 * y[0] ** 2), -400 * y[0]], [-400 * y[0], 200.0]])


SCIPY_MINIMIZERS = {
    "Nelder-Mead": {},
    "Powell": {},
    "CG": {"jac": numpy_gradient},
    "BFGS": {"jac": numpy_gradient},
    "L-BFGS-B": {"jac": numpy_gradient},
    "SLSQP": {"jac": numpy_gradient},
    "Newton-CG": {"jac": numpy_gradient, "hessp": lambda y, v: numpy_hessian(y) @ v},
    "trust-exact": {"jac": numpy_gradient, "hess": numpy_hessian},
    "trust-ncg": {"jac": numpy_gradient, "hessp": lambda y, v: numpy_hessian(y) @ v},
    "trust-krylov": {"jac": numpy_gradient, "hessp": lambda y, v: numpy_hessian(y) @ v},
}


@pytest.mark.parametrize(
    "name",
    quickly(SCIPY_MINIMIZERS, ("Nelder-Mead", "BFGS", "L-BFGS-B", "trust-exact", "trust-ncg")),
)
def test_scipy_minimizer_steps_as_at_home(name):
    options = {"maxiter": STEPS}
    theirs = optimize.minimize(
        numpy_rosenbrock, np.array(START), method=name, options=options, **SCIPY_MINIMIZERS[name]
    )
    ours = rp.solve(objective(), rp.SciPyMinimize(name), max_steps=STEPS, **FOREVER)
    if name != "Nelder-Mead":  # which counts its simplex as an iteration
        assert int(ours.stats.steps) == theirs.nit == STEPS
    np.testing.assert_allclose(ours.value, theirs.x, rtol=1e-7, atol=1e-9)
    if name != "Powell":
        reached = 1e-3 if name in ("Nelder-Mead", "SLSQP") else 1e-5
        answer = rp.solve(objective(), rp.SciPyMinimize(name), rtol=0.0, atol=reached, throw=False)
        np.testing.assert_allclose(answer.value, 1.0, atol=1e-3)


@pytest.mark.parametrize("name", ["hybr", "lm", "broyden1"])
def test_scipy_root_finder_ends_as_at_home(name):
    function = lambda y: np.asarray(residuals(y, 1.0))
    jacobian = lambda y: np.array([[-20 * y[0], 10.0], [-1.0, 0.0]])
    more = {"jac": jacobian} if name in ("hybr", "lm") else {"options": {"fatol": 1e-6}}
    theirs = optimize.root(function, np.array(START), method=name, **more)
    ours = rp.solve(system(), rp.SciPyRoot(name), rtol=0.0, atol=1e-6)
    assert theirs.success
    np.testing.assert_allclose(ours.value, theirs.x, atol=1e-6)
    np.testing.assert_allclose(ours.value, 1.0, atol=1e-4)


def test_scipy_runs_inside_jit_and_under_vmap():
    def solved(a):
        problem = rp.Minimize(rosenbrock, START, a)
        return rp.solve(problem, rp.SciPyMinimize("BFGS"), atol=1e-4, throw=False).value

    inside = jax.jit(solved)(jnp.array(1.0))
    np.testing.assert_allclose(inside, 1.0, atol=1e-3)
    lanes = jax.vmap(solved)(jnp.array([1.0, 0.5]))
    np.testing.assert_allclose(lanes, [[1.0, 1.0], [0.5, 0.25]], atol=1e-3)


def test_scipy_shows_its_steps_to_a_trace():
    history = rp.trace(objective(), rp.SciPyMinimize("BFGS"), rtol=0.0, atol=1e-6)
    assert history.steps[0] == 0 and history.steps[-1] == int(history.solution.stats.steps) > 5
    assert history.measures["value"][-1] < 1e-10 < history.measures["value"][0]


@pytest.mark.parametrize("name", ["L-BFGS-B", "trust-exact", "hybr"])
def test_scipy_takes_no_steps_if_none_are_allowed(name):
    if name == "hybr":
        problem, method = system(), rp.SciPyRoot(name)
    else:
        problem, method = objective(), rp.SciPyMinimize(name)
    solution = rp.solve(problem, method, max_steps=0, throw=False)
    np.testing.assert_array_equal(solution.value, START)
    assert rp.status_name(solution.status) == "max_steps"


def test_scipy_root_without_a_callback_has_taken_steps():
    solution = rp.solve(system(), rp.SciPyRoot("hybr"))
    assert int(solution.stats.steps) > 0


@pytest.mark.parametrize("name", ["tnc", "df-sane"])
def test_scipy_solver_is_given_options_that_it_knows(name):
    if name == "tnc":
        rp.solve(objective(), rp.SciPyMinimize(name), max_steps=5, throw=False)
    else:
        rp.solve(system(), rp.SciPyRoot(name), max_steps=5, throw=False)


# --- Oracles written by hand reach the lifted solvers -----------------------------------------

CALLS: Counter[str] = Counter()


def heard(name, fn):
    def call(*inputs):
        jax.debug.callback(lambda: CALLS.update([name]))
        return fn(*inputs)

    return call


def calls_of(problem, method, steps):
    CALLS.clear()
    solution = rp.solve(problem, method, max_steps=steps, **FOREVER)
    jax.block_until_ready(solution.value)
    jax.effects_barrier()
    return Counter(CALLS)


HAND_WRITTEN = {
    "optimistix.BFGS": (optx.BFGS(*TINY), "gradient"),
    "optax.adam": (optax.adam(0.05), "gradient"),
    "scipy.BFGS": (rp.SciPyMinimize("BFGS"), "gradient"),
    "scipy.trust-exact": (rp.SciPyMinimize("trust-exact"), "hessian"),
    "optimistix.Newton": (optx.Newton(*TINY), "jacobian"),
    "scipy.hybr": (rp.SciPyRoot("hybr"), "jacobian"),
}


@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_lifted_solver_asks_the_oracle_written_by_hand(name):
    method, oracle = HAND_WRITTEN[name]
    if oracle == "jacobian":
        by_hand = lambda y, a: lx.MatrixLinearOperator(jax.jacfwd(residuals)(y, a))
        problem = system(jacobian=heard("jacobian", by_hand))
    else:
        hessian = lambda y, a: lx.MatrixLinearOperator(jax.hessian(rosenbrock)(y, a))
        problem = objective(
            gradient=heard("gradient", jax.grad(rosenbrock)), hessian=heard("hessian", hessian)
        )
    steps = 3
    before, after = calls_of(problem, method, 1), calls_of(problem, method, steps)
    if name == "scipy.hybr":  # MINPACK renews the Jacobian only now and then
        assert after[oracle] >= 1
    else:
        assert after[oracle] >= before[oracle] + steps - 1


def test_lifted_solver_believes_a_gradient_that_is_wrong():
    # Gradient descent by an oracle that answers twice the gradient is twice as fast.
    double = objective(gradient=lambda y, a: 2 * jax.grad(rosenbrock)(y, a))
    ours = rp.solve(double, optax.sgd(5e-4), max_steps=STEPS, **FOREVER)
    right = rp.solve(objective(), optax.sgd(1e-3), max_steps=STEPS, **FOREVER)
    np.testing.assert_allclose(ours.value, right.value, rtol=1e-12)


# --- States, resuming -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["BFGS", "adam", "Newton"])
def test_lifted_state_pickles_and_resumes_bit_for_bit(name, tmp_path):
    if name == "Newton":
        problem, method = system(), optx.Newton(*TINY)
    else:
        problem, method = objective(), {"BFGS": optx.BFGS(*TINY), "adam": optax.adam(0.05)}[name]
    whole = rp.trace(problem, method, max_steps=3, every=1, **FOREVER)
    rp.trace(problem, method, max_steps=1, checkpoint=tmp_path / "run", **FOREVER)
    resumed = rp.trace(problem, method, max_steps=3, checkpoint=tmp_path / "run", **FOREVER)
    assert (
        np.asarray(resumed.solution.value).tobytes() == np.asarray(whole.solution.value).tobytes()
    )
    again = pickle.loads(pickle.dumps(whole.solution))
    for a, b in zip(
        jax.tree.leaves(again.state), jax.tree.leaves(whole.solution.state), strict=True
    ):
        np.testing.assert_array_equal(a, b)


# --- Outbound: Optimistix ---------------------------------------------------------------------

CURVATURE = jnp.array([1.0, 4.0])


def bowl(y, a):
    return jnp.sum(CURVATURE * (y - a**2) ** 2) / 2


def quintic(y, a):
    return y**5 + y - a  # whose root has the derivative 1 / (5 y^4 + 1) by a


DESCENT = rp.as_optimistix(rp.smooth.GradientDescent(0.2), rtol=0.0, atol=1e-10)
DAMPED = rp.as_optimistix(rp.roots.LevenbergMarquardt(), rtol=0.0, atol=1e-10)


def test_minimizes_for_optimistix_with_derivatives():
    def answer(a):
        return optx.minimise(bowl, DESCENT, jnp.zeros(2), a).value

    a = jnp.array([1.5, -0.5])
    np.testing.assert_allclose(jax.jit(answer)(a), a**2, rtol=1e-8)
    np.testing.assert_allclose(jax.jacrev(answer)(a), jnp.diag(2 * a), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(jax.jvp(answer, (a,), (jnp.ones(2),))[1], 2 * a, rtol=1e-6)
    many = jnp.array([[1.0, 2.0], [0.5, -1.0]])
    np.testing.assert_allclose(jax.vmap(answer)(many), many**2, rtol=1e-8)


def test_finds_roots_for_optimistix_with_derivatives():
    def answer(a):
        return optx.root_find(quintic, DAMPED, jnp.array(1.0), a).value

    a = jnp.array(34.0)  # 2^5 + 2
    np.testing.assert_allclose(jax.jit(answer)(a), 2.0, rtol=1e-9)
    np.testing.assert_allclose(jax.grad(answer)(a), 1 / 81, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(answer)(jnp.array([34.0, 2.0])), [2.0, 1.0], rtol=1e-9)


def test_fits_least_squares_for_optimistix_with_derivatives():
    t = jnp.linspace(0.0, 1.0, 5)

    def answer(b):
        misfit = lambda y, b: y * t - b
        return optx.least_squares(misfit, DAMPED, jnp.array(0.0), b).value

    b = 3 * t + jnp.array([0.1, -0.2, 0.0, 0.3, -0.1])
    np.testing.assert_allclose(answer(b), t @ b / (t @ t), rtol=1e-8)
    np.testing.assert_allclose(jax.grad(answer)(b), t / (t @ t), rtol=1e-6, atol=1e-9)


def test_finds_fixed_points_for_optimistix_with_derivatives():
    for solver in (
        DAMPED,
        rp.as_optimistix(rp.as_method(optx.FixedPointIteration(*TINY)), rtol=0.0, atol=1e-10),
    ):
        answer = lambda a: optx.fixed_point(contraction, solver, jnp.array(0.0), a).value  # noqa: B023
        np.testing.assert_allclose(answer(jnp.array(0.7)), 0.7, atol=1e-8)
        np.testing.assert_allclose(jax.grad(answer)(jnp.array(0.7)), 1.0, rtol=1e-6)


def test_auxiliary_output_reaches_optimistix():
    fn = lambda y, a: (bowl(y, a), jnp.sum(y))
    solution = optx.minimise(fn, DESCENT, jnp.zeros(2), jnp.ones(2), has_aux=True)
    np.testing.assert_allclose(solution.aux, 2.0, rtol=1e-8)


def test_optimistix_is_told_of_failure():
    few = optx.minimise(bowl, DESCENT, jnp.zeros(2), jnp.ones(2), max_steps=2, throw=False)
    assert few.result == optx.RESULTS.nonlinear_max_steps_reached
    nan = optx.minimise(lambda y, _: jnp.nan * y, DESCENT, jnp.array(1.0), max_steps=9, throw=False)
    assert nan.result == optx.RESULTS.nonfinite
    rootless = lambda y, _: jnp.stack([y[0] + y[1] - 1, y[0] + y[1] + 1])
    none = optx.root_find(rootless, DAMPED, jnp.zeros(2), max_steps=500, throw=False)
    assert none.result != optx.RESULTS.successful


@pytest.mark.parametrize("method", [rp.saddle.Extragradient(), rp.linear.SOR()])
def test_optimistix_has_no_such_question(method):
    with pytest.raises(TypeError, match="which Optimistix has not"):
        rp.as_optimistix(method, rtol=1e-6, atol=1e-6)


# --- Outbound: Lineax -------------------------------------------------------------------------

SWEEPS = rp.as_lineax(rp.linear.SOR(1.1), rtol=1e-12, atol=0.0)


def swept(matrix, vector):
    return lx.linear_solve(lx.MatrixLinearOperator(matrix), vector, SWEEPS).value


def test_solves_for_lineax_with_derivatives():
    skew = MATRIX.at[0, 1].set(-0.5)  # not symmetric, so that a transpose shows
    expected = jnp.linalg.solve(skew, VECTOR)
    np.testing.assert_allclose(jax.jit(swept)(skew, VECTOR), expected, rtol=1e-10)
    w = jnp.array([1.0, 2.0, -1.0])
    by_matrix, by_vector = jax.grad(lambda A, b: w @ swept(A, b), (0, 1))(skew, VECTOR)
    adjoint = jnp.linalg.solve(skew.T, w)
    np.testing.assert_allclose(by_vector, adjoint, rtol=1e-9)
    np.testing.assert_allclose(by_matrix, -jnp.outer(adjoint, expected), rtol=1e-9)
    many = jnp.stack([VECTOR, 2 * VECTOR])
    lanes = jax.vmap(swept, (None, 0))(skew, many)
    np.testing.assert_allclose(lanes, jnp.stack([expected, 2 * expected]), rtol=1e-10)


def test_lineax_is_told_of_failure():
    few = rp.as_lineax(rp.linear.SOR(), rtol=1e-12, atol=0.0, max_steps=2)
    solution = lx.linear_solve(lx.MatrixLinearOperator(MATRIX), VECTOR, few, throw=False)
    assert solution.result == lx.RESULTS.max_steps_reached
    hole = lx.MatrixLinearOperator(MATRIX.at[1, 1].set(0.0))
    solution = lx.linear_solve(hole, VECTOR, SWEEPS, throw=False)
    assert solution.result == lx.RESULTS.breakdown
    with pytest.raises(TypeError, match="not linear systems"):
        rp.as_lineax(rp.smooth.GradientDescent(), rtol=1e-6, atol=0.0)
    wide = lx.MatrixLinearOperator(jnp.ones((2, 3)))
    with pytest.raises(ValueError, match="square"):
        lx.linear_solve(wide, jnp.ones(2), SWEEPS)


# --- What is no solver ------------------------------------------------------------------------


def test_as_method_takes_methods_as_they_are_and_refuses_the_rest():
    method = rp.smooth.GradientDescent()
    assert rp.as_method(method) is method
    for stranger in ("BFGS", optx.BFGS, None, lambda y: y):
        with pytest.raises(TypeError, match="`method` must be a Raphson method"):
            rp.as_method(stranger)
