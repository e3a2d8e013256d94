"""Bounded systems and their trust region: a transcription in NumPy, SciPy, known roots."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import raphson as rp
from raphson.problems import (
    brown_almost_linear,
    himmelblau_box,
    nonnegative_fit,
    propane_combustion,
    rosenbrock_wall,
)
from raphson.roots import BoundedTrustRegion, HagerMairZhang, KanzowKlug

SCALINGS = ("coleman_li", "heinkenschloss", "kanzow_klug", "hager_mair_zhang", "combination")
INF = jnp.inf


def status(solution):
    return rp.status_name(solution.status)


# --- The step against a transcription ----------------------------------------------------------


def distance(scaling, below, above, g, parameter=1.0):
    """d of one unknown and its derivative as the unknown rises, by the formulas."""
    if scaling == "combination":
        return np.mean([distance(s, below, above, g) for s in SCALINGS[:4]], axis=0)
    near, sign = (below, 1) if g > 0 else (above, -1)
    if scaling == "kanzow_klug":
        down, up = below + parameter * max(0, -g), above + parameter * max(0, g)
        if min(down, up) == np.inf:
            return 1.0, 0.0
        return (down, 1) if down < up else (up, -1)
    if scaling == "hager_mair_zhang":
        if near == np.inf:
            return 1 / parameter, 0.0
        whole = parameter * near + abs(g)
        return near / whole, sign * abs(g) / whole**2
    if scaling == "heinkenschloss":
        least = min(below, above)
        if not (abs(g) < least**2 or least < g**2):
            return 1.0, 0.0
    return (1.0, 0.0) if near == np.inf else (near, sign)


def shortest(A, b, radius):
    """argmin |A p + b| where |p| <= radius, by the eigenvalues of A^T A."""
    eigenvalues, V = np.linalg.eigh(A.T @ A)
    c = V.T @ (A.T @ b)
    mu = max(0, np.max(np.abs(c) / radius - eigenvalues))
    while np.linalg.norm(p := -c / (eigenvalues + mu)) > 1.01 * radius:
        size = np.linalg.norm(p)
        mu += (size / radius - 1) * size**2 / np.sum(p**2 / (eigenvalues + mu))
    return V @ p


def transcribed(problem, scaling, steps, parameter=1.0):
    y, l, u = (np.asarray(a, float) for a in (problem.y0, problem.lower, problem.upper))
    both = jax.jit(lambda y: (problem.residual(y), jax.jacfwd(problem.residual)(y)))
    F, J = (lambda y, i=i: np.asarray(both(jnp.asarray(y))[i]) for i in range(2))
    radius, path = 1.0, []
    for _ in range(steps):
        h, jac = F(y), J(y)
        g = jac.T @ h
        distances = [distance(scaling, *each, parameter) for each in zip(y - l, u - y, g)]
        d, slope = np.array(distances).T
        D = np.diag(np.sqrt(d))
        candidates = []
        newton = []
        for C in (np.zeros_like(y), np.maximum(0, slope * g)):
            A = np.vstack([jac @ D, np.diag(np.sqrt(C))])
            newton.append(D @ shortest(A, np.append(h, np.zeros_like(y)), radius))
            p = np.clip(y + newton[-1], l, u) - y
            candidates.append(max(0.99995, 1 - np.linalg.norm(p)) * p)
        descent = -d * g
        along = jac @ descent
        t = min(d @ g**2 / (along @ along), radius / np.linalg.norm(D @ g))
        for p in [*newton, t * descent]:
            share = min([(u - y if move > 0 else y - l)[i] / abs(move) for i, move in enumerate(p)])
            theta = max(0.99995, 1 - np.linalg.norm(p))
            candidates.append((1 if share > 1 else theta * share) * p)
        models = [h @ h / 2 - np.sum((h + jac @ p) ** 2) / 2 for p in candidates]
        p = candidates[np.argmax(models)]
        ratio = (h @ h - F(y + p) @ F(y + p)) / 2 / max(models)
        length = np.linalg.norm(p / np.sqrt(d))
        if ratio < 0.25:
            radius_next = min(radius, length) / 4
        elif ratio >= 0.75 and np.linalg.norm(newton[0] / np.sqrt(d)) > 0.9 * radius:
            radius_next = 2 * radius
        else:
            radius_next = radius
        y, radius = (y + p if ratio >= 1e-4 else y), radius_next
        path.append(y)
    return np.array(path)


def followed(problem, method, steps):
    y, path = problem.y0, []
    state, step = method.init(problem, y, None), eqx.filter_jit(method.step)
    for _ in range(steps):
        y, state = step(problem, y, state)
        path.append(np.asarray(y))
    return np.array(path)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_follows_the_formulas(scaling):
    for problem, steps in ((propane_combustion(), 12), (rosenbrock_wall(), 8)):
        got = followed(problem, BoundedTrustRegion(scaling), steps)
        expected = transcribed(problem, scaling, steps)
        np.testing.assert_allclose(got, expected, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize(
    "scaling, of, parameter",
    [("kanzow_klug", KanzowKlug, 1e-3), ("hager_mair_zhang", HagerMairZhang, 1e4)],
)
def test_follows_the_formulas_with_other_parameters(scaling, of, parameter):
    problem = himmelblau_box()
    got = followed(problem, BoundedTrustRegion(of(parameter)), 6)
    expected = transcribed(problem, scaling, 6, parameter)
    np.testing.assert_allclose(got, expected, rtol=1e-7, atol=1e-10)
    assert not np.allclose(expected, transcribed(problem, scaling, 6), rtol=1e-3)


# --- Answers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", rp.problems.names("bounded_systems"))
def test_finds_the_answer_known(name):
    problem = rp.problems.load(name)
    solution = rp.solve(problem, rtol=0.0, atol=1e-9)
    assert solution.stats.method == "BoundedTrustRegion"
    np.testing.assert_allclose(solution.value, problem.facts.minimizer, rtol=1e-5, atol=1e-8)


def test_stays_strictly_inside_where_the_function_is_defined():
    # F is NaN beyond the bounds, has no derivative on them, and there is its root.
    fn = lambda y, _: jnp.stack([jnp.sqrt(y[0]) - jnp.sqrt(y[1]), jnp.log(2 - y[1]) - jnp.log(2.0)])
    problem = rp.BoundedRootFind(fn, jnp.array([1.0, 1.9]), 0.0, jnp.array([INF, 2.0]))
    path = followed(problem, BoundedTrustRegion(), 15)
    assert np.all((path > 0) & (path[:, 1:] < 2))
    assert path[-1].max() < 1e-4


@pytest.mark.parametrize("scaling", SCALINGS)
def test_leaves_a_bound_that_the_gradient_pushes_against(scaling):
    matrix = jnp.linalg.cholesky(jnp.array([[1.0, 1.5], [1.5, 4.0]])).T
    y0 = jnp.array([0.0, 1.0])
    problem = rp.BoundedRootFind(lambda y, _: matrix @ (y - 0.5), y0, 0.0, 1.0)
    gradient = problem.vjp(y0, problem.residual(y0))
    assert float(gradient[0]) > 0
    assert followed(problem, BoundedTrustRegion(scaling), 1)[0, 0] > 0
    solution = rp.solve(problem, BoundedTrustRegion(scaling), rtol=0.0, atol=1e-10)
    np.testing.assert_allclose(solution.value, 0.5, atol=1e-9)


def test_jacobians_of_deficient_rank():
    circle = rp.problems.circle_of_roots()
    bounded = rp.BoundedRootFind(circle.fn, jnp.array([0.3, 0.8]), 0.2, 1.0)
    solution = rp.solve(bounded, rtol=0.0, atol=1e-12)
    np.testing.assert_allclose(jnp.linalg.norm(solution.value), 1.0, atol=1e-10)
    singular = rp.problems.powell_singular()
    bounded = rp.BoundedRootFind(singular.fn, singular.y0, -2.0, 4.0)
    assert bool(rp.solve(bounded, rtol=0.0, atol=1e-12).converged)
    # Twice the same unknown, and more equations than unknowns.
    twice = lambda y, _: jnp.stack([jnp.sum(y) - 1, 2 * jnp.sum(y) - 2, y[0] + y[1] - 1])
    bounded = rp.BoundedRootFind(twice, jnp.array([0.1, 0.1]), 0.0, 1.0)
    np.testing.assert_allclose(jnp.sum(rp.solve(bounded).value), 1.0, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_fits_are_scipys(seed):
    rng = np.random.default_rng(seed)
    A, b, upper = rng.standard_normal((9, 5)), rng.standard_normal(9), rng.random(5)
    fn = lambda y, data: data[0] @ y - data[1]
    data = (jnp.asarray(A), jnp.asarray(b))
    got = rp.least_squares(fn, upper / 2, data, bounds=(-0.1, upper), rtol=0.0, atol=1e-10)
    expected = scipy.optimize.lsq_linear(A, b, (-0.1, upper), tol=1e-14)
    assert np.any(expected.active_mask)
    np.testing.assert_allclose(got.value, expected.x, atol=1e-8)


def test_pytrees_in_single_precision():
    y0 = {"a": jnp.ones(2, jnp.float32), "b": jnp.float32(1.0)}
    lower = {"a": jnp.array([0.0, -INF]), "b": -2.0}
    fn = lambda y, _: [y["a"] - jnp.array([-1.0, -3.0], jnp.float32), y["b"] ** 2 - 1.5]
    solution = rp.least_squares(fn, y0, bounds=(lower, 5.0))
    assert solution.value["a"].dtype == jnp.float32
    np.testing.assert_allclose(solution.value["a"], [0.0, -3.0], atol=1e-4)
    np.testing.assert_allclose(solution.value["b"], 1.5**0.5, rtol=1e-4)


# --- The questions -----------------------------------------------------------------------------


def curve(y, a):
    return jnp.stack([y[0] - a[0] * y[1], y[1] - a[1], y[0] * y[1] - a[0]])


def test_derivatives_of_a_fit_with_an_active_and_an_inactive_bound():
    def fitted(data):
        a, lower = data
        bounds = (jnp.stack([lower, -9.0]), 9.0)
        solution = rp.least_squares(
            curve, jnp.array([4.0, 1.0]), a, bounds=bounds, rtol=0.0, atol=1e-11, throw=False
        )
        return solution.value

    data = (jnp.array([1.3, 0.7]), jnp.array(2.0))
    value = fitted(data)
    np.testing.assert_allclose(value[0], 2.0, atol=1e-9)
    assert abs(float(value[1])) < 8
    by_a, by_lower = jax.jacrev(fitted)(data)
    step = 1e-5
    moved = lambda i, s: (data[0].at[i].add(s), data[1])
    differences = [
        (fitted(moved(i, step)) - fitted(moved(i, -step))) / (2 * step) for i in range(2)
    ]
    np.testing.assert_allclose(by_a, np.transpose(differences), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(by_a[0], 0.0, atol=1e-12)
    up, down = fitted((data[0], data[1] + step)), fitted((data[0], data[1] - step))
    np.testing.assert_allclose(by_lower, (up - down) / (2 * step), rtol=1e-5)
    assert abs(float(by_lower[1])) > 0.1
    np.testing.assert_allclose(jax.jacfwd(fitted)(data)[0], by_a, rtol=1e-9, atol=1e-12)


def test_derivatives_of_a_root():
    def root(a):
        bounds = (jnp.array([0.0, -1.0]), 3.0)
        fn = lambda y, a: jnp.stack([y[0] * y[1] - a, y[0] - y[1] ** 2])
        return rp.root(fn, jnp.ones(2), a, bounds=bounds, rtol=0.0, atol=1e-11, throw=False).value

    # y_1 = a^(2/3), y_2 = a^(1/3).
    np.testing.assert_allclose(
        jax.jacrev(root)(0.5), [2 / 3 * 0.5 ** (-1 / 3), 0.5 ** (-2 / 3) / 3]
    )


def test_a_root_beyond_the_bounds_is_no_answer():
    problem = rp.BoundedRootFind(lambda y, _: y**2 - 4, jnp.array([1.5]), 0.0, 1.75)
    assert np.all(np.isinf(problem.optimality(jnp.array([2.0]))))
    solution = rp.solve(problem, throw=False)
    assert status(solution) == "not_a_root"
    np.testing.assert_allclose(solution.value, 1.75, atol=1e-6)
    # Rounding beyond a bound is none.
    on = jnp.nextafter(jnp.array([1.75]), jnp.array([2.0]))
    assert np.all(np.isfinite(problem.optimality(on)))


def test_bounds_are_of_the_units_of_the_unknown():
    scaled = rp.Scaled(himmelblau_box(), jnp.array([-2.0, 0.5]))
    np.testing.assert_array_equal(scaled.lower, [-2.5, 2.0])
    np.testing.assert_array_equal(scaled.upper, [-0.5, 10.0])
    solution = rp.solve(scaled, rtol=0.0, atol=1e-9)
    np.testing.assert_allclose(solution.value, [-1.5, 4.0], rtol=1e-9)


def test_projected_gradient_is_that_of_the_definition():
    problem = nonnegative_fit()
    y, g = jnp.linspace(0, 3, 8), jnp.linspace(-2, 4, 8)
    expected = y - jnp.clip(y - g, problem.lower, problem.upper)
    np.testing.assert_allclose(problem.projected_gradient(y, g), expected, atol=1e-15)
    at_answer = problem.optimality(problem.facts.minimizer)
    np.testing.assert_allclose(at_answer, 0.0, atol=1e-12)
    measures = problem.measures(problem.facts.minimizer)
    np.testing.assert_allclose(measures["gap"], 0.0, atol=1e-12)


def test_what_knows_of_no_bounds_refuses_them():
    for problem in (himmelblau_box(), nonnegative_fit()):
        for method in (rp.roots.LevenbergMarquardt(), rp.smooth.LazyNewton(), rp.SciPyRoot("hybr")):
            with pytest.raises(ValueError, match="answers Abstract.*, got a Bounded"):
                rp.solve(problem, method)
    with pytest.raises(ValueError, match="answers AbstractBounded, got a RootFind"):
        rp.solve(rp.problems.circle_of_roots(), BoundedTrustRegion())


@pytest.mark.parametrize("question", [rp.BoundedRootFind, rp.BoundedLeastSquares])
@pytest.mark.parametrize(
    "lower, upper, message",
    [
        (1.0, -1.0, "`lower` must be below `upper` in every entry of the bounds, got 1 and -1"),
        (jnp.array([-1.0, 1.0]), 1.0, "got 1 and 1; what is fixed is no unknown"),
        (jnp.array([0.0, jnp.nan]), 1.0, "`lower` must not hold NaN"),
        (0.0, [1.0, 1.0], r"`upper` must be one number or shaped as the start, float64\[2\]"),
        ("low", 1.0, "`lower` must be one number or shaped as the start"),
        (0.25, 1.0, r"`y0` must be within the bounds \[0.25, 1\], got 0"),
        (True, 1.0, "`lower` must be one number"),
    ],
)
def test_unfit_bounds_are_refused(question, lower, upper, message):
    with pytest.raises(ValueError, match=message):
        question(lambda y, _: y, jnp.zeros(2), lower, upper)


def test_a_start_outside_that_is_not_known_yet_is_told_by_the_status():
    def ended(start):
        return rp.root(lambda y, _: y - 0.5, start, bounds=(0.0, 1.0), throw=False).status._value

    code = int(jax.jit(ended)(2.0))
    assert code == int(rp.Status.nonfinite_start._value)


@pytest.mark.parametrize("solver", ["trf", "dogbox"])
def test_scipys_methods_are_scipys(solver):
    problem = rp.Counted(brown_almost_linear())
    got = rp.solve(problem, rp.SciPyLeastSquares(solver), rtol=0.0, atol=1e-6)
    expected = scipy.optimize.least_squares(
        lambda y: np.asarray(problem.residual(jnp.asarray(y))),
        np.asarray(problem.y0),
        lambda y: np.asarray(problem.jacobian(jnp.asarray(y)).as_matrix()),
        (0, 1),
        solver,
        *([np.finfo(float).eps] * 3),
    )
    np.testing.assert_allclose(got.value, expected.x, rtol=1e-12)
    assert int(got.stats.counts["jacobian"]) == expected.njev
    assert int(got.stats.steps) == expected.njev
    with pytest.raises(ValueError, match="`solver` must be one of trf, dogbox, got 'lm'"):
        rp.SciPyLeastSquares("lm")
