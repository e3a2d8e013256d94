"""Derivatives of answers, held against central differences and closed forms."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx
import pytest
from jax.flatten_util import ravel_pytree

import raphson as rp

SHARP = {"rtol": 1e-12, "atol": 1e-12, "throw": False}
A0 = jnp.array([0.7, 1.3])
CURVATURE = jnp.array([1.0, 4.0])


def quartic(y, a):
    """Minimized where CURVATURE y + y^3 = a + sin(a) b, for a and b its two halves."""
    return jnp.sum(CURVATURE * y**2 / 2 + y**4 / 4 - y * (a + jnp.sin(a[::-1])))


def by_args(a):
    return rp.Minimize(quartic, jnp.zeros(2), a)


def by_closure(a):
    return rp.Minimize(lambda y, _: quartic(y, a), jnp.zeros(2))


def by_oracle(a):
    gradient = lambda y, a: jax.grad(quartic)(y, a)
    return rp.Minimize(quartic, jnp.zeros(2), a, gradient=gradient)


def tree(a):
    fn = lambda y, a: quartic(jnp.stack([y["u"], y["v"][0]]), jnp.stack([a["p"], a["q"]]))
    return rp.Minimize(fn, {"u": 0.0, "v": jnp.zeros(1)}, {"p": a[0], "q": a[1]})


def root(a):
    fn = lambda y, a: jnp.stack([y[0] ** 3 + a[0] * y[1] - 1, y[1] + jnp.exp(-a[1] * y[0])])
    return rp.RootFind(fn, jnp.array([1.0, -0.5]), a)


def consistent(a):
    """Three equations for two unknowns, all of which hold at the answer."""
    fn = lambda y, a: jnp.stack(
        [y[0] - a[0] ** 2, y[1] - a[0] * a[1], y[0] * y[1] - a[0] ** 3 * a[1]]
    )
    return rp.RootFind(fn, jnp.ones(2), a)


def fit(a):
    """Residuals that stay: their curvature counts."""
    t = jnp.linspace(0.0, 2.0, 6)
    fn = lambda y, a: y[0] * jnp.exp(-y[1] * t) - (a[0] * jnp.cos(t) + a[1])
    return rp.LeastSquares(fn, jnp.array([1.0, 0.3]), a)


def fixed_point(a):
    fn = lambda y, a: 0.5 * jnp.tanh(y[::-1] * a) + a
    return rp.FixedPoint(fn, jnp.zeros(2), a)


def saddle(a):
    fn = lambda x, y, a: (
        jnp.sum((x - a) ** 2) / 2 + x @ y * a[0] + jnp.sum(x**4) / 4 - jnp.sum((y + a) ** 2)
    )
    return rp.Saddle(fn, jnp.zeros(2), jnp.zeros(2), a)


def boxed_saddle(a):
    """x[1] rests at its bound, x[0] and y do not."""
    fn = lambda x, y, a: jnp.sum((x - a**2) ** 2) + 0.5 * x[0] * y - y**2
    return rp.Saddle(
        fn, jnp.zeros(2), jnp.array(0.0), a, nonsmooth=(rp.composite.Box(-1.0, 1.0), None)
    )


def lasso(a):
    """Of the three the last is 0 and stays so; the data are in f and in h."""
    target = jnp.stack([3.0, -2.0, 0.1]) * a[1]
    fn = lambda y, target: jnp.sum((y - target) ** 2) + jnp.sum(y[:2]) ** 2 / 2
    return rp.Composite(rp.Minimize(fn, jnp.zeros(3), target), rp.composite.L1(a[0]))


def on_a_simplex(a):
    fn = lambda y, a: jnp.sum((y - jnp.append(a, -3.0)) ** 2) + y[0] * y[1]
    return rp.Composite(rp.Minimize(fn, jnp.zeros(3), a), rp.composite.Simplex(a[0]))


def finite_sum_data(a):
    data = jnp.stack([a, 2 * a[::-1], a**2])
    return rp.FiniteSum(lambda y, s, _: jnp.sum((y - s) ** 2 + (y - s) ** 4), jnp.zeros(2), data)


def linear_operator(a):
    matrix = jnp.array([[4.0, 1.0], [-0.5, 3.0]]).at[0, 0].add(a[0]).at[1, 0].add(a[1] ** 2)
    return rp.LinearSystem(matrix, jnp.array([1.0, 2.0]))


def linear_vector(a):
    operator = lx.MatrixLinearOperator(jnp.array([[4.0, 1.0], [-0.5, 3.0]]))
    return rp.LinearSystem(operator, jnp.stack([a[0] * a[1], jnp.sin(a[0])]))


def linear_diagonal(a):
    return rp.LinearSystem(lx.DiagonalLinearOperator(1 + a**2), a)


CASES = {
    "minimize_by_args": (by_args, None),
    "minimize_by_closure": (by_closure, None),
    "minimize_by_a_gradient_by_hand": (by_oracle, None),
    "minimize_trees": (tree, None),
    "minimize_scipy": (by_args, rp.SciPyMinimize("trust-exact")),
    "root": (root, None),
    "root_overdetermined": (consistent, None),
    "root_lifted": (root, optx.Newton(1e-12, 1e-12)),
    "least_squares": (fit, None),
    "fixed_point": (fixed_point, None),
    "saddle": (saddle, None),
    "saddle_at_a_bound": (boxed_saddle, None),
    "composite": (lasso, None),
    "composite_on_a_simplex": (on_a_simplex, None),
    "finite_sum_by_data": (finite_sum_data, None),
    "linear_by_operator": (linear_operator, None),
    "linear_by_vector": (linear_vector, None),
    "linear_by_diagonal": (linear_diagonal, lx.AutoLinearSolver(well_posed=True)),
    "linear_by_sweeps": (linear_operator, rp.linear.SOR()),
}


def answer(build, method, options=SHARP):
    return lambda a: ravel_pytree(rp.solve(build(a), method, **options).value)[0]


def central_differences(fn, a, step=1e-5):
    """The Jacobian of `fn` at `a`, from one compiled call."""
    moves = step * jnp.eye(a.size)
    values = jax.jit(jax.vmap(fn))(a[None] + jnp.concatenate([moves, -moves]))
    return np.asarray((values[: a.size] - values[a.size :]).T / (2 * step))


DIRECTION = jnp.array([1.0, -2.0])


def derivatives(fn, a):
    """The Jacobian by reverse mode, and a directional derivative by forward mode."""
    return jax.jit(lambda a: (jax.jacrev(fn)(a), jax.jvp(fn, (a,), (DIRECTION,))[1]))(a)


def check(fn, a=A0):
    expected = central_differences(fn, a)
    largest = np.max(np.abs(expected))
    assert largest > 0.01, "nothing depends on the data"
    reverse, forward = derivatives(fn, a)
    np.testing.assert_allclose(reverse, expected, rtol=0, atol=1e-5 * max(1, largest))
    np.testing.assert_allclose(forward, expected @ DIRECTION, rtol=0, atol=3e-5 * max(1, largest))


SLOW = pytest.mark.slow
MARKS = {
    "minimize_by_a_gradient_by_hand": SLOW,
    "minimize_scipy": SLOW,
    "root_lifted": SLOW,
    "linear_by_diagonal": SLOW,
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=MARKS[n]) if n in MARKS else n for n in CASES]
)
def test_derivatives_are_those_of_central_differences(name):
    check(answer(*CASES[name]))


@pytest.mark.parametrize(
    "build",
    [root, pytest.param(by_closure, marks=SLOW), pytest.param(saddle, marks=SLOW)],
)
def test_derivatives_by_products_where_there_are_many_unknowns(build, monkeypatch):
    monkeypatch.setattr("raphson.derivatives.DENSE_LIMIT", 1)
    jax.clear_caches()  # nothing traced with the other limit may be used again
    check(answer(build, None))
    monkeypatch.undo()
    jax.clear_caches()


def test_start_has_no_say():
    total = lambda start: jnp.sum(rp.minimize(quartic, start, A0, **SHARP).value)
    np.testing.assert_array_equal(jax.grad(total)(jnp.array([0.3, -0.2])), 0.0)


def test_equations_apart_from_the_data_are_no_obstacle():
    # u = a and v = 1, each by an equation of its own.
    fn = lambda y, a: {"u": y["u"] - a, "v": y["v"] - 1}
    value = lambda a: rp.root(fn, {"u": 0.0, "v": 0.0}, a, **SHARP).value
    tangent = jax.jvp(value, (0.5,), (1.0,))[1]
    np.testing.assert_allclose([tangent["u"], tangent["v"]], [1.0, 0.0], atol=1e-12)


def test_float32_derivatives_stay_float32():
    fn = answer(by_args, None, {"throw": False})
    jacobian = jax.jacrev(fn)(A0.astype(jnp.float32))
    problem = rp.Minimize(quartic, jnp.zeros(2, jnp.float32), A0.astype(jnp.float32))
    exact = rp.solve(problem).value
    assert exact.dtype == jnp.float32
    y = np.asarray(answer(by_args, None)(A0))
    right = (np.eye(2) + np.diag(np.cos(A0[::-1]))[:, ::-1]) / (CURVATURE + 3 * y**2)[:, None]
    np.testing.assert_allclose(jacobian, right, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("dense_limit", [1000, pytest.param(1, marks=SLOW)])
def test_second_and_third_derivatives(dense_limit, monkeypatch):
    # y + y^3 = a: y' = 1 / (1 + 3 y^2), y" = -6 y y'^3, and once more 108 y^2 y'^5 - 6 y'^4.
    monkeypatch.setattr("raphson.derivatives.DENSE_LIMIT", dense_limit)
    jax.clear_caches()  # nothing traced with the other limit may be used again
    fn = lambda y, a: y + y**3 - a
    total = lambda a: jnp.sum(rp.root(fn, jnp.zeros(2), a, **SHARP).value)
    a = jnp.array([0.8, -2.0])
    y = np.asarray(rp.root(fn, jnp.zeros(2), a, **SHARP).value)
    slope = 1 / (1 + 3 * y**2)
    np.testing.assert_allclose(jax.grad(total)(a), slope, rtol=1e-9)
    curvature = np.diag(-6 * y * slope**3)
    for outer in (jax.jacfwd, jax.jacrev):
        for inner in (jax.jacfwd, jax.jacrev):
            found = jax.jit(outer(inner(total)))(a)
            np.testing.assert_allclose(found, curvature, rtol=1e-9, atol=1e-12)
    third = np.einsum("iii->i", jax.jit(jax.jacfwd(jax.jacfwd(jax.jacrev(total))))(a))
    np.testing.assert_allclose(third, 108 * y**2 * slope**5 - 6 * slope**4, rtol=1e-9)
    monkeypatch.undo()
    jax.clear_caches()


# --- Where there is no answer -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["minimize_by_args", "root", "linear_by_sweeps"])
def test_derivatives_of_an_unfinished_run_are_nan(name):
    fn = answer(*CASES[name], SHARP | {"max_steps": 1})
    assert np.all(np.isfinite(jax.jit(fn)(A0)))
    reverse, forward = derivatives(fn, A0)
    assert np.all(np.isnan(reverse)) and np.all(np.isnan(forward))


def test_derivatives_of_a_singular_system_are_nan():
    fn = lambda b: rp.linear_solve(jnp.ones((2, 2)), b, throw=False).value
    assert np.all(np.isnan(jax.jacrev(fn)(jnp.array([1.0, 2.0]))))


def test_only_the_lane_that_failed_is_nan():
    # From 0 the answer for a = 0 is met at once; the others have no step to take.
    fn = lambda a: rp.minimize(quartic, jnp.zeros(2), a, max_steps=0, throw=False).value
    total = lambda a: jnp.sum(fn(a))
    lanes = jax.vmap(jax.grad(total))(jnp.array([[0.0, 0.0], [0.7, 1.3]]))
    # There CURVATURE dy = da + cos(0) da', so that the sum of dy is (1 + 1/4) (da_i + da_j).
    np.testing.assert_allclose(lanes[0], 1.25, rtol=1e-9)
    assert np.all(np.isnan(lanes[1]))


def test_precise_answers_have_derivatives():
    fn = lambda y, a: 1e8 * (y**2 - a)
    solved = lambda a: rp.root(fn, 1.0, a, rtol=0.0, atol=0.0)
    assert rp.status_name(solved(2.0).status) == "precise"
    slope = jax.grad(lambda a: solved(a).value)(2.0)
    np.testing.assert_allclose(slope, 1 / (2 * np.sqrt(2)), rtol=1e-9)


# --- Under transformations --------------------------------------------------------------------


def test_derivatives_under_vmap():
    total = lambda a: jnp.sum(answer(root, None)(a) ** 2)
    points = jnp.stack([A0, A0 + 0.1])
    by_lane = jax.jit(jax.vmap(jax.grad(total)))(points)
    one_by_one = jax.jit(lambda points: jax.lax.map(jax.grad(total), points))(points)
    np.testing.assert_allclose(by_lane, one_by_one, rtol=1e-9)


def test_answers_inside_an_objective():
    """A bilevel problem: the outer objective holds the answer of an inner solve."""

    def inner(x):
        return rp.root(lambda y, x: y + y**3 - x, 0.0, x, **SHARP).value

    # The inner answer is b = 1 where x = 2.
    outer = lambda x, b: (inner(x) - b) ** 2
    solution = rp.minimize(outer, 1.0, 1.0, method=rp.smooth.GradientDescent(1.0), **SHARP)
    np.testing.assert_allclose(solution.value, 2.0, rtol=1e-6)


def test_raising_inside_a_derivative():
    fn = lambda a: jnp.sum(rp.minimize(quartic, jnp.zeros(2), a).value)
    assert np.all(np.isfinite(jax.grad(fn)(A0)))
    failing = lambda a: jnp.sum(rp.minimize(quartic, jnp.zeros(2), a, max_steps=1).value)
    with pytest.raises(Exception, match="used all of `max_steps`"):
        jax.block_until_ready(jax.grad(failing)(A0))


# --- Many unknowns: solvers by products, and what they cannot solve ---------------------------

MANY = 1002


def linear(product, solver=None, tags=(), dtype=float, scale=1.0):
    """a in (MANY,) to A^-1 (scale a) by the condition A y = scale a; its values play no part."""
    condition = lambda y, a: product(y) - scale * a
    answer = rp.implicit(condition, linear_solver=solver, tags=tags)(lambda y0, a: y0)
    return lambda a: answer(jnp.zeros(MANY, dtype), a)


@jax.jit(static_argnums=0)
def forward_and_reverse(fn, direction):
    """J d and J^T d."""
    zero = jnp.zeros_like(direction)
    return jax.jvp(fn, (zero,), (direction,))[1], jax.vjp(fn, zero)[1](direction)[0]


def unit(dtype=float):
    return jnp.zeros(MANY, dtype).at[0].set(1)


def paired(a, b, c, d):
    """y to A y, with the same block [[a, b], [c, d]] for each pair of entries."""
    return lambda y: (y.reshape(-1, 2) @ jnp.array([[a, c], [b, d]], y.dtype)).ravel()


def laplacian(y):
    return 2 * y - jnp.append(y[1:], 0) - jnp.append(0, y[:-1])


def test_what_gmres_cannot_solve_is_nan_and_may_be_another_solvers():
    # The powers of a cyclic shift leave e_1 alone until the last: no residual falls before.
    shift = lambda y: jnp.roll(y, 1)
    for found in forward_and_reverse(linear(shift), unit()):
        assert np.all(np.isnan(found))
    forward, reverse = forward_and_reverse(linear(shift, lx.LSMR(1e-12, 1e-12)), unit())
    np.testing.assert_allclose(forward, np.roll(unit(), -1), atol=1e-12)
    np.testing.assert_allclose(reverse, np.roll(unit(), 1), atol=1e-12)


@pytest.mark.parametrize(
    ("dtype", "scale"), [("float64", 1.0), ("float32", 1e-30), ("float32", 1e30)]
)
def test_zeros_and_any_size_of_the_right_hand_side(dtype, scale):
    block = np.array([[3.0, 1.0], [-2.0, 4.0]])
    fn = linear(paired(*block.ravel()), None, (), dtype, scale)
    forward, reverse = forward_and_reverse(fn, unit(dtype))
    assert forward.dtype == reverse.dtype == dtype
    inverse, rtol = np.linalg.inv(block), 1e-10 if dtype == "float64" else 1e-5
    for found, column in ((forward, inverse[:, 0]), (reverse, inverse[0])):
        np.testing.assert_allclose(found[:2] / scale, column, rtol=rtol)
        np.testing.assert_array_equal(found[2:], 0)
    for found in forward_and_reverse(fn, jnp.zeros(MANY, dtype)):
        np.testing.assert_array_equal(found, 0)


def test_a_definite_system_is_given_to_conjugate_gradients():
    # The first column of the inverse of the Laplacian falls on a line.
    fn = linear(lambda y: -laplacian(y), None, lx.negative_semidefinite_tag)
    column = 1 - np.arange(1, MANY + 1) / (MANY + 1)
    for found in forward_and_reverse(fn, unit()):
        np.testing.assert_allclose(found, -column, rtol=0, atol=1e-7)


def test_a_system_with_more_equations_is_definite_by_its_normal_equations():
    product = lambda y: {"u": y + jnp.roll(y, 1), "v": 2 * y}
    condition = lambda y, a: {"u": product(y)["u"] - 2 * a, "v": 2 * (y - a)}
    answer = rp.implicit(condition)(lambda y0, a: y0 + a)
    found = jax.jit(jax.grad(lambda a: answer(jnp.zeros(MANY), a * jnp.ones(MANY))[0]))(1.0)
    np.testing.assert_allclose(found, 1.0, rtol=1e-9)


def test_a_condition_need_not_be_shaped_as_its_answer():
    fn = lambda y, a: jnp.append(3 * y["u"] - a, y["v"] + y["u"][0])
    answer = rp.implicit(fn)(lambda y0, a: y0)
    start = {"u": jnp.zeros(MANY), "v": jnp.zeros(())}
    moved = jax.jit(lambda a: jax.jvp(lambda a: answer(start, a), (a,), (1.0,))[1])(0.0)
    np.testing.assert_allclose(moved["u"], 1 / 3, rtol=1e-9)
    np.testing.assert_allclose(moved["v"], -1 / 3, rtol=1e-9)


INDEFINITE, NOT_SYMMETRIC = paired(0.0, 1.0, 1.0, 0.0), paired(2.0, 1.0, -1.0, 2.0)
DEFINITE = lx.positive_semidefinite_tag


@pytest.mark.parametrize(
    ("product", "solver", "tag"),
    [
        (INDEFINITE, None, DEFINITE),
        (INDEFINITE, lx.CG(1e-9, 1e-9), DEFINITE),
        (INDEFINITE, lx.Cholesky(), DEFINITE),
        (NOT_SYMMETRIC, None, DEFINITE),
        (NOT_SYMMETRIC, lx.GMRES(1e-9, 1e-9), lx.symmetric_tag),
        (NOT_SYMMETRIC, lx.Cholesky(), DEFINITE),
    ],
)
def test_a_false_tag_gives_no_false_derivative(product, solver, tag):
    for found in forward_and_reverse(linear(product, solver, tag), unit()):
        assert np.all(np.isnan(found))


def test_a_false_tag_that_is_not_made_use_of_does_no_harm():
    # Forward the default does not transpose.
    fn = linear(NOT_SYMMETRIC, None, lx.symmetric_tag)
    forward, reverse = forward_and_reverse(fn, unit())
    np.testing.assert_allclose(forward[:2], [0.4, 0.2], rtol=1e-10)
    assert np.all(np.isnan(reverse))


def test_a_solver_that_reports_failure_gives_nan():
    few = lx.CG(1e-12, 1e-12, max_steps=3)
    for found in forward_and_reverse(linear(laplacian, few, DEFINITE), unit()):
        assert np.all(np.isnan(found))


def test_integers_and_truth_values_among_the_data():
    def condition(y, args):
        picked = args["values"][args["index"]]
        return jnp.where(args["keep"], y**3 - picked, y) * args["times"]

    args = {
        "values": jnp.array([2.0, 3.0, 5.0]),
        "index": jnp.array([2, 0, 0]),
        "keep": np.array([True, True, False]),
        "times": 2,
    }
    solver = lambda y0, args: jnp.where(args["keep"], jnp.cbrt(args["values"][args["index"]]), 0)
    answer = rp.implicit(condition)(solver)
    expected = np.zeros((3, 3))
    expected[[0, 1], [2, 0]] = np.array([5.0, 2.0]) ** (-2 / 3) / 3

    def of(values):
        return answer(jnp.zeros(3), args | {"values": values})

    for jacobian in (jax.jacfwd, jax.jacrev):
        np.testing.assert_allclose(jax.jit(jacobian(of))(args["values"]), expected, rtol=1e-12)
    total = eqx.filter_grad(lambda args: jnp.sum(answer(jnp.zeros(3), args)))
    total = eqx.filter_jit(total)(args)
    np.testing.assert_allclose(total["values"], expected.sum(0), rtol=1e-12)
