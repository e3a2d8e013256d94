"""Levenberg-Marquardt against steps in NumPy, rates in closed form, SciPy and certified fits."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import raphson as rp
from raphson.problems import cutest
from raphson.roots import LevenbergMarquardt
from raphson.solution import Status

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(2, 5, 3))
A[:3] += 3 * np.eye(3)
b = RNG.normal(size=5)


# Residuals for JAX and NumPy alike, and their Jacobians by hand: five equations for three unknowns
# that contradict each other, the valley of Rosenbrock, and one that long steps leave for NaN.
def curved(y, _=None, xp=jnp):
    return A @ y + (B @ y) ** 2 - b


def valley(y, _=None, xp=jnp):
    return xp.stack([10 * (y[1] - y[0] ** 2), 1 - y[0]])


def logs(y, _=None, xp=jnp):
    return xp.log(y)


STARTS = {curved: [1.0, -0.5, 0.8], valley: [-1.2, 1.0], logs: [10.0, 0.1]}
JACOBIANS = {
    curved: lambda y: A + 2 * (B @ y)[:, None] * B,
    valley: lambda y: np.array([[-20 * y[0], 10.0], [-1.0, 0.0]]),
    logs: lambda y: np.diag(1 / y),
}
WEIGHTS = [(1.0, 1.0, 0.0), (2.0, 0.1, 0.0), (0.5, 0.0, 2.0), (1.3, 0.3, 0.05)]


def transcription(fn, eta, xi, omega, globalized, count):
    """The iterates, the factors, and whether each step was taken, by the normal equations."""
    y, c, rows = np.array(STARTS[fn]), 1.0, []
    for _ in range(count):
        h, J = fn(y, xp=np), JACOBIANS[fn](y)
        g = J.T @ h
        mu = c * (xi * np.linalg.norm(h) ** eta + omega * np.linalg.norm(g) ** eta)
        d = np.linalg.solve(J.T @ J + mu * np.eye(len(y)), -g)
        with np.errstate(invalid="ignore"):
            fallen = h @ h - np.sum(fn(y + d, xp=np) ** 2)
        ratio = fallen / (h @ h - np.sum((h + J @ d) ** 2))
        if globalized:
            c *= 16 if np.isnan(ratio) else 2 if ratio < 0.01 else 1 / 3 if ratio >= 0.75 else 1
        taken = not globalized or ratio >= 1e-3
        y = y + d if taken else y
        rows.append((y, c, taken))
    return map(np.array, zip(*rows))


@eqx.filter_jit
def iterates(problem, method, count):
    """The iterates and factors of so many steps, and what is then known of the problem."""

    def step(carry, _):
        y, state = method.step(problem, *carry)
        return (y, state), (y, state.factor, method.known(problem, y, state))

    start = problem.y0, method.init(problem, problem.y0, None)
    return jax.lax.scan(step, start, length=count)[1]


def weighed(eta, xi, omega, globalized=False):
    """The method, its hyperparameters arrays so that one compilation serves all."""
    return LevenbergMarquardt(*map(jnp.array, (eta, xi, omega)), globalized)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_local_steps_are_those_of_the_paper(weights):
    problem = rp.LeastSquares(curved, jnp.array(STARTS[curved]))
    ys, factors, known = iterates(problem, weighed(*weights), 8)
    expected, ones, _ = transcription(curved, *weights, False, 8)
    np.testing.assert_allclose(ys, expected, rtol=0, atol=1e-11)
    np.testing.assert_array_equal(factors, ones)
    for y, value, gradient in zip(expected, known.value, known.residual):
        h = curved(y, xp=np)
        np.testing.assert_allclose(value, h @ h / 2, rtol=1e-10)
        np.testing.assert_allclose(gradient, JACOBIANS[curved](y).T @ h, rtol=0, atol=1e-9)


@pytest.mark.parametrize("weights", [*WEIGHTS, (1.0, 1e-3, 0.0)])
@pytest.mark.parametrize("fn", [valley, logs])
def test_globalized_steps_adapt_the_factor(fn, weights):
    problem = rp.RootFind(fn, jnp.array(STARTS[fn]))
    ys, factors, _ = iterates(problem, weighed(*weights, globalized=True), 8)
    expected, changed, _ = transcription(fn, *weights, True, 8)
    np.testing.assert_allclose(ys, expected, rtol=0, atol=1e-11)
    np.testing.assert_array_equal(factors, changed)


def test_a_step_is_judged_by_what_it_promised():
    # From 0 at |h| = 1 and c = 1 the step is d = 1/2, which promises a fall of |h|^2 by 3/4.
    def fallen(ratio):
        a = 4 * (jnp.sqrt(1 - 0.75 * ratio) - 0.5)
        bent = lambda y, _: 1 - y + jnp.where(y > 0, a, 0.0) * y**2
        problem, method = rp.RootFind(bent, jnp.array(0.0)), LevenbergMarquardt()
        y, state = method.step(problem, problem.y0, method.init(problem, problem.y0, None))
        return y, state.factor, state.residual[0]

    ratios = jnp.array([jnp.nan, -2.0, 9e-4, 1.1e-3, 9.9e-3, 1.01e-2, 0.749, 0.751, 1.0])
    y, factor, residual = jax.jit(jax.vmap(fallen))(ratios)
    np.testing.assert_allclose(y, [0, 0, 0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5], atol=1e-15)
    assert factor.tolist() == [16, 2, 2, 2, 2, 1, 1, 1 / 3, 1 / 3]
    np.testing.assert_allclose(residual**2, np.where(y > 0, 1 - 0.75 * ratios, 1))


@pytest.mark.parametrize("p", [2, 3, 5])
def test_rates_on_powers_are_the_closed_forms(p):
    problem = rp.RootFind(lambda y, p: y**p, jnp.array(1.0), jnp.array(float(p)))

    def ratio(*weights):
        ys = np.asarray(iterates(problem, weighed(*weights), 60)[0])
        return ys[1:] / ys[:-1]

    # h = y^p takes J'J = p^2 y^(2p-2): this power makes mu a fixed share of it.
    critical, of_gradient = 2 * (p - 1) / p, (2 * p - 2) / (2 * p - 1)
    for xi in (1.0, 0.3):
        np.testing.assert_allclose(ratio(critical, xi, 0.0), 1 - p / (p**2 + xi), rtol=1e-10)
    share = 1 - p / (p**2 + 0.7 * p**of_gradient)
    np.testing.assert_allclose(ratio(of_gradient, 0.0, 0.7), share, rtol=1e-10)
    assert ratio(critical + 0.5, 1.0, 0.0)[-1] == pytest.approx(1 - 1 / p, rel=1e-3)
    # Below it mu wins, here by a power: y' is nearly y - p y^2, so that p k y_k tends to 1.
    ys = np.asarray(iterates(problem, weighed(critical - 1 / p, 1.0, 0.0), 20_000)[0])
    assert p * 20_000 * ys[-1] == pytest.approx(1, rel=1e-2)


@pytest.mark.parametrize("globalized", [False, True])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 0.0), (2.0, 1.0, 1.0), (1.0, 0.2, 0.4)])
def test_convergence_to_a_regular_root_is_quadratic(weights, globalized):
    # For h = P y + (Q y)^2 Newton's error is P^-1 (Q e)^2, and damping adds (P'P)^-1 mu e.
    P, Q = A[:3], B[:3] / 2
    eta, xi, omega = weights
    problem = rp.RootFind(lambda y, _: P @ y + (Q @ y) ** 2, jnp.array([0.2, -0.1, 0.15]))
    ys, factors = map(np.asarray, iterates(problem, weighed(*weights, globalized), 8)[:2])
    last = np.flatnonzero(np.linalg.norm(ys, axis=1) > 1e-7)[-1]
    e = ys[last]  # small, and what follows is not yet the rounding of it
    h = P @ e
    mu = xi * np.linalg.norm(h) ** eta + omega * np.linalg.norm(P.T @ h) ** eta
    expected = np.linalg.solve(P, (Q @ e) ** 2)
    expected += factors[last] * mu * np.linalg.solve(P.T @ P, e)
    np.testing.assert_allclose(ys[last + 1], expected, atol=1e-2 * np.linalg.norm(expected))


def test_a_power_below_one_is_the_order_less_one():
    problem = rp.RootFind(lambda y, _: y + y**2, jnp.array(0.1))
    ys = iterates(problem, weighed(0.5, 0.3, 0.4), 8)[0]
    assert ys[-1] / ys[-2] ** 1.5 == pytest.approx(0.7, rel=1e-3)


def test_a_fit_is_that_of_scipy():
    t = np.linspace(0, 3, 20)
    data = 2 * np.exp(-0.7 * t) + np.sin(t) + np.random.default_rng(1).normal(0, 0.1, 20)

    def misfit(y, _=None, xp=jnp):
        return y[0] * xp.exp(-y[1] * t) + y[2] * xp.sin(t) - data

    start, theirs = np.array([1.0, 0.2, 0.0]), functools.partial(misfit, xp=np)
    fit = scipy.optimize.least_squares(theirs, start, xtol=1e-15, ftol=1e-15, gtol=1e-13)
    assert fit.cost > 0.01
    problem = rp.LeastSquares(misfit, jnp.array(start))
    for method in (LevenbergMarquardt(), LevenbergMarquardt(2.0, 0.1, 0.1, globalized=False)):
        solution = rp.solve(problem, method, rtol=0.0, atol=1e-10)
        np.testing.assert_allclose(solution.value, fit.x, rtol=1e-7)
        np.testing.assert_allclose(problem.value(solution.value), fit.cost, rtol=1e-12)
        last = rp.solve(problem, method, rtol=0.0, atol=0.0)
        assert rp.status_name(last.status) == "precise"


def test_a_run_ends_where_the_gradient_is_rounding():
    # The best fit is at 0, near which steps of rounding still move y.
    rest = b - A @ np.linalg.lstsq(A, b)[0]
    problem = rp.LeastSquares(lambda y, _: A @ y + 0.02 * (A @ y) ** 2 + rest, jnp.ones(3))
    solution = rp.solve(problem, LevenbergMarquardt(), rtol=0.0, atol=0.0, throw=False)
    np.testing.assert_allclose(solution.value, 0, atol=1e-14)
    assert int(solution.stats.steps) < 50


def test_dependent_columns_are_fitted_by_least_norm():
    matrix = A @ np.array([[1.0, 0.0, 1.0], [0.0, 1.0, -2.0], [0.0, 0.0, 0.0]])
    problem = rp.LeastSquares(lambda y, _: matrix @ y - b, jnp.zeros(3))
    solution = rp.solve(problem, LevenbergMarquardt(), rtol=0.0, atol=1e-11)
    np.testing.assert_allclose(solution.value, np.linalg.pinv(matrix) @ b, rtol=1e-9)


def test_small_gradients_beside_a_large_residual_are_followed():
    # The last digits of y no longer show in |h|^2, of which 1e12 stays.
    problem = rp.LeastSquares(lambda y, _: jnp.stack([1e6 + 0 * y, y**3 + y - 1]), jnp.array(0.0))
    solution = rp.solve(problem, LevenbergMarquardt(), rtol=0.0, atol=1e-9)
    [root] = [z.real for z in np.roots([1, 0, 1, -1]) if z.imag == 0]
    assert float(solution.value) == pytest.approx(root, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "root"),
    [
        ("POWELLBS", [1.098159e-5, 9.106147]),  # Moré, Garbow, Hillstrom (1981), problem 3
        ("HELIXNE", [1.0, 0.0, 0.0]),  # problem 7
        ("BEALENE", [3.0, 0.5]),  # problem 5: three equations for two unknowns
    ],
)
def test_systems_of_cutest(name, root):
    solution = rp.solve(cutest(name), LevenbergMarquardt(), rtol=0.0, atol=1e-10)
    np.testing.assert_allclose(solution.value, root, rtol=2e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "fit", "squares"),
    [
        ("MISRA1A", [2.3894212918e02, 5.5015643181e-04], 1.2455138894e-01),
        ("RAT42", [7.2462237576e01, 2.6180768402e00, 6.7359200066e-02], 8.0565229338e00),
    ],
)
def test_fits_certified_by_nist(name, fit, squares):
    system = cutest(name)
    problem = rp.LeastSquares(system.fn, system.y0)
    solution = rp.solve(problem, LevenbergMarquardt(), rtol=0.0, atol=1e-4)
    np.testing.assert_allclose(solution.value, fit, rtol=1e-8)
    np.testing.assert_allclose(2 * problem.value(solution.value), squares, rtol=1e-9)
    # As a system of equations it has no solution, and the run says so where the fit is best.
    rootless = rp.solve(system, LevenbergMarquardt(), throw=False)
    assert rp.status_name(rootless.status) == "not_a_root"
    np.testing.assert_allclose(rootless.value, fit, rtol=1e-6)


def test_where_newton_cannot_start():
    fn = lambda y, xp: xp.stack([y[0] ** 2 + y[1] - 2, y[0] * y[1] ** 2 - 1])
    start = jnp.array([2.0, 0.0])  # where the Jacobian has rank 1
    solution = rp.root(lambda y, _: fn(y, jnp), start, method=LevenbergMarquardt(), atol=1e-12)
    np.testing.assert_allclose(fn(np.asarray(solution.value), np), 0, atol=1e-12)


@pytest.mark.parametrize("globalized", [False, True])
def test_at_a_singular_root_a_step_stays(globalized):
    problem, method = (
        rp.RootFind(lambda y, _: y**2, jnp.zeros(2)),
        weighed(1.0, 1.0, 0.0, globalized),
    )
    np.testing.assert_array_equal(iterates(problem, method, 3)[0], 0)


def test_one_equation_is_solved_along_its_gradient():
    fit = rp.least_squares(
        lambda y, _: jnp.sum(y**2) - 1, jnp.array([3.0, 4.0]), method=LevenbergMarquardt(), rtol=0.0
    )
    np.testing.assert_allclose(fit.value, [0.6, 0.8], rtol=1e-6)
    np.testing.assert_allclose(fit.value[0] / fit.value[1], 0.75, rtol=1e-14)


def test_fixed_points_that_repel():
    M, c = np.array([[1.5, 2.0], [-0.3, 1.2]]), np.array([1.0, -2.0])
    assert np.abs(np.linalg.eigvals(M)).min() > 1
    affine = rp.FixedPoint(lambda y, _: M @ y + c, jnp.zeros(2))
    np.testing.assert_allclose(affine.residual(jnp.ones(2)), M @ np.ones(2) + c - 1)
    solution = rp.solve(affine, LevenbergMarquardt(), atol=1e-11)
    np.testing.assert_allclose(solution.value, np.linalg.solve(np.eye(2) - M, c), rtol=1e-9)
    chaos = rp.FixedPoint(lambda y, r: r * y * (1 - y), jnp.array(0.6), jnp.array(3.9))
    assert float(rp.solve(chaos).value) == pytest.approx(1 - 1 / 3.9, rel=1e-6)


def test_trees_are_flat_vectors():
    def fn(y, _):
        out = curved(jnp.append(y["u"], y["v"]))
        return {"q": out[:1].reshape(1, 1), "p": (out[1:], 2 + 0 * y["u"][0])}

    y = jnp.array(STARTS[curved])
    problem = rp.LeastSquares(fn, {"v": y[1:], "u": y[:1]})
    ours = iterates(problem, weighed(1.0, 1.0, 0.0, True), 5)[0]
    flat = rp.LeastSquares(lambda y, _: jnp.append(curved(y), 2.0), y)
    expected = iterates(flat, weighed(1.0, 1.0, 0.0, True), 5)[0]
    np.testing.assert_allclose(np.hstack([ours["u"], ours["v"]]), expected, rtol=1e-12)


def test_oracle_calls_by_hand():
    *_, taken = transcription(valley, 1.0, 1.0, 0.0, True, 12)
    assert 0 < sum(taken) < 12
    start, local = jnp.array(STARTS[valley]), LevenbergMarquardt(globalized=False)
    for problem, method, jacobians in (
        (rp.LeastSquares(valley, start), LevenbergMarquardt(), 1 + sum(taken)),
        (rp.LeastSquares(valley, start), local, 13),
        (rp.FixedPoint(lambda y, _: jnp.cos(y) ** 2 + y**3 / 9, start), local, 13),
    ):
        options = {"rtol": 0.0, "atol": 0.0, "max_steps": 12, "throw": False}
        counts = rp.solve(rp.Counted(problem), method, **options).stats.counts
        called = {name: int(count) for name, count in counts.items() if count}
        assert called == {"residual": 13, "jacobian": jacobians}


def test_another_power_compiles_nothing_and_maps():
    traces = []
    problem = rp.RootFind(lambda y, _: traces.append(1) or valley(y), jnp.array(STARTS[valley]))

    def steps(eta):
        return rp.solve(problem, LevenbergMarquardt(eta), throw=False).stats.steps

    alone = [int(steps(0.5))]
    first = len(traces)
    alone.append(int(steps(1.0)))
    assert len(traces) == first and alone[0] != alone[1]
    assert jax.vmap(steps)(jnp.array([0.5, 1.0])).tolist() == alone


def test_some_weight_there_must_be():
    with pytest.raises(ValueError, match="`xi` and `omega` .* must not both be 0"):
        LevenbergMarquardt(xi=0.0)


@pytest.mark.parametrize(
    ("fn", "start", "status", "value"),
    [
        (lambda y, _: y**2 + 1, 1.0, "not_a_root", 0.0),
        (lambda y, _: jnp.stack([y - 1, y - 2]), 0.0, "not_a_root", 1.5),
        (lambda y, _: y**2 - 2, 0.0, "not_a_root", 0.0),  # no slope at the start
        (lambda y, _: jnp.log(y), -1.0, "nonfinite_start", -1.0),
        (lambda y, _: 5 + jnp.sqrt(y - 1), 2.0, "stalled", 1.0),  # not defined further down
    ],
)
def test_runs_without_an_answer_say_why(fn, start, status, value):
    solution = rp.root(fn, start, method=LevenbergMarquardt(), throw=False)
    assert rp.status_name(solution.status) == status
    assert int(solution.stats.steps) < 300
    assert float(solution.value) == pytest.approx(value, abs=1e-4)


def test_rest_is_told_from_slowness():
    problem = rp.RootFind(lambda y, _: y**2 + 1, jnp.array([1.0]))
    for status in (Status.stalled, Status.max_steps):
        assert problem.diagnosed(jnp.array([1e-5]), status) == Status.not_a_root
        assert problem.diagnosed(jnp.array([1e-2]), status) == status
    for status in (Status.converged, Status.precise, Status.nonfinite):
        assert problem.diagnosed(jnp.array([0.0]), status) == status
    # Flat is where a move by the size of y, or by 1 near 0, promises next to nothing.
    slanted = rp.RootFind(lambda y, _: 1 + y + 1e-6 * y**2, jnp.zeros(1))
    assert slanted.diagnosed(jnp.zeros(1), Status.stalled) == Status.stalled
    wide = rp.RootFind(lambda y, _: 1 + 1e-6 * y**2, jnp.zeros(1))
    for y, status in ((3.0, Status.not_a_root), (30.0, Status.stalled)):
        assert wide.diagnosed(jnp.array([y]), Status.stalled) == status
    # A Jacobian of many unknowns costs too much for a diagnosis.
    assert problem.diagnosed(jnp.zeros(500), Status.stalled) == Status.not_a_root
    assert problem.diagnosed(jnp.zeros(501), Status.stalled) == Status.stalled


def test_other_units_of_the_unknowns_only_take_longer():
    solution = rp.root(lambda y, _: y / 1e5 - 1, jnp.float32(1e4), throw=False)
    np.testing.assert_allclose(solution.value, 1e5, rtol=2e-3)


def test_a_best_fit_from_which_gauss_newton_is_repelled():
    # At 0 the curvature is 3/4 and J'J is 1/4: an undamped step goes from y to -2 y.
    bent = lambda y, _: 100 * jnp.stack([1 + y**2 / 4, y / 2])
    assert bool(rp.least_squares(bent, 1.0, throw=False).converged)
    rootless = rp.RootFind(lambda y, _: 3 + jnp.sum(y**2) + y, jnp.ones(2))
    # By default paths are followed after it.
    rested = rp.solve(rootless, rp.roots.AdaptiveLevenbergMarquardt(), throw=False)
    assert int(rested.stats.steps) < 500


def test_a_slope_beside_a_huge_residual_is_not_flat():
    problem = rp.RootFind(lambda y, _: jnp.exp(y) - 1, jnp.ones(1, jnp.float32))
    y = jnp.full(1, 50, jnp.float32)
    assert problem.diagnosed(y, Status.stalled) == Status.stalled


def test_weights_leave_single_precision_single():
    problem = rp.RootFind(valley, jnp.array(STARTS[valley], jnp.float32))
    assert rp.solve(problem, LevenbergMarquardt(xi=np.float64(1.0))).value.dtype == jnp.float32
