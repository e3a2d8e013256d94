"""GradientRegularizedNewton against a transcription in NumPy, thresholds by hand, real problems."""

import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import raphson as rp
from raphson.problems import cutest, cutest_best, logistic
from raphson.smooth import GradientRegularizedNewton
from tests.smooth.paths import path

START = np.array([1.5, -1.0, 0.5])
HESSIANS = pytest.mark.parametrize("hessian", ["exact", "gauss_newton", "zero"])


def bent(y, args):
    A, b = args
    return A @ y + (A @ y) ** 2 / 2 - b


def fit():
    """Four residuals that bend, of three unknowns, and their NumPy oracle."""
    rng = np.random.default_rng(0)
    A, b = rng.normal(size=(4, 3)), rng.normal(size=4)

    def oracle(y):
        r, J = bent(y, (A, b)), (1 + A @ y)[:, None] * A
        exact = J.T @ J + (A.T * r) @ A
        return r @ r / 2, J.T @ r, {"exact": exact, "gauss_newton": J.T @ J, "zero": 0 * exact}

    return rp.LeastSquares(bent, START, (jnp.array(A), jnp.array(b))), oracle


def steps(oracle, y, hessian, radius, count, B=None):
    """Iterates, gamma, and whether the step was accepted."""
    B = np.eye(len(y)) if B is None else B
    value, g, H = oracle(y)
    for _ in range(count):
        shift = np.sqrt(g @ np.linalg.solve(B, g)) / radius
        shifted = H[hessian] + shift * B
        accepted = np.linalg.eigvalsh(shifted)[0] > 0
        if accepted:
            there = y - np.linalg.solve(shifted, g)
            value_there, g_there, H_there = oracle(there)
            accepted = value - value_there >= g_there @ np.linalg.solve(B, g_there) / (8 * shift)
        if accepted:
            y, value, g, H = there, value_there, g_there, H_there
        radius *= 2 if accepted else 0.5
        yield y, radius, accepted


@pytest.mark.parametrize("radius", [0.5, 20.0])
@HESSIANS
def test_steps_are_those_of_the_paper(hessian, radius):
    problem, oracle = fit()
    ys, states = path(problem, GradientRegularizedNewton(hessian, radius), 6)
    verdicts = []
    for t, (y, gamma, accepted) in enumerate(steps(oracle, START, hessian, radius, 6), 1):
        np.testing.assert_allclose(ys[t], y, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(states.radius[t], gamma, rtol=0)
        np.testing.assert_allclose(states.value[t], oracle(y)[0], rtol=1e-9)
        np.testing.assert_allclose(states.gradient[t], oracle(y)[1], rtol=0, atol=1e-10)
        verdicts.append(accepted)
    assert radius == 0.5 or (any(verdicts) and not all(verdicts))


METRIC = np.array([[2.0, 0.3, 0.0], [0.3, 0.5, 0.1], [0.0, 0.1, 1.0]])


@pytest.mark.parametrize("radius", [0.5, 20.0])
@HESSIANS
def test_steps_in_a_metric_are_those_of_the_paper(hessian, radius):
    problem, oracle = fit()
    ys, states = path(problem, GradientRegularizedNewton(hessian, radius, METRIC), 6)
    for t, (y, gamma, _) in enumerate(steps(oracle, START, hessian, radius, 6, METRIC), 1):
        np.testing.assert_allclose(ys[t], y, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(states.radius[t], gamma, rtol=0)


def test_a_metric_is_a_change_of_coordinates():
    problem, _ = fit()
    C = np.linalg.cholesky(METRIC).T  # |h|^2 = |C h|^2
    moved = rp.LeastSquares(
        lambda z, data: bent(jnp.linalg.solve(C, z), data), C @ START, problem.args
    )
    ys, _ = path(problem, GradientRegularizedNewton("gauss_newton", metric=METRIC), 8)
    zs, _ = path(moved, GradientRegularizedNewton("gauss_newton"), 8)
    np.testing.assert_allclose(ys @ C.T, zs, rtol=1e-9, atol=1e-11)


def fisher(problem, y):
    J = problem.jacobian(y).as_matrix()
    return J.T @ J


@pytest.mark.parametrize(
    ("hessian", "same"),
    [
        (fisher, "gauss_newton"),
        (lambda problem, y: lx.MatrixLinearOperator(fisher(problem, y)), "gauss_newton"),
        (lambda problem, y: problem.hessian(y), "exact"),
        (lambda problem, y: np.zeros((3, 3), np.float32), "zero"),
    ],
)
def test_a_function_says_what_the_hessian_is(hessian, same):
    problem, _ = fit()
    ys, states = path(problem, GradientRegularizedNewton(hessian, 20.0), 6)
    others, of_others = path(problem, GradientRegularizedNewton(same, 20.0), 6)
    np.testing.assert_allclose(ys, others, rtol=1e-12)
    np.testing.assert_array_equal(states.radius, of_others.radius)
    counted = rp.solve(
        rp.Counted(problem), GradientRegularizedNewton(hessian, 20.0), max_steps=6, throw=False
    )
    by_name = rp.solve(
        rp.Counted(problem), GradientRegularizedNewton(same, 20.0), max_steps=6, throw=False
    )
    assert counted.stats.counts == by_name.stats.counts


@pytest.mark.parametrize("b", [None, 4.0])
@pytest.mark.parametrize(("share", "factor"), [(0.99, 0.5), (1.01, 2.0)])
def test_the_verdict_turns_at_an_eighth(share, factor, b):
    # On 3/2 y^2, told a wrong Hessian, the step from 1 is -3/2, and `share` is by construction the
    # fall in units of |g+|^2 / (8 s), where |g|^2 = g^2 / b.
    metric, b = (None, 1.0) if b is None else ([[b]], b)
    shift = 0.25 * share / b
    problem = rp.Minimize(
        lambda y, _: 1.5 * jnp.vdot(y, y),
        jnp.ones(1),
        jnp.array([2 - shift * b]),
        hessian=lambda y, H: lx.DiagonalLinearOperator(H),
    )
    radius = 3 / b**0.5 / shift
    ys, states = path(problem, GradientRegularizedNewton(radius=radius, metric=metric), 1)
    np.testing.assert_allclose(ys[1], [-0.5 if factor > 1 else 1.0], rtol=1e-12)
    np.testing.assert_allclose(states.radius[1], radius * factor)


@HESSIANS
def test_oracle_calls(hessian):
    # A step that is taken back costs a value and a gradient too, but no Hessian.
    problem, oracle = fit()
    accepted = sum(verdict for _, _, verdict in steps(oracle, START, hessian, 20.0, 6))
    assert 1 <= accepted < 6
    method = GradientRegularizedNewton(hessian, 20.0)
    solution = rp.solve(rp.Counted(problem), method, rtol=0, atol=0, max_steps=6, throw=False)
    counts = {name: int(count) for name, count in solution.stats.counts.items() if count > 0}
    of_hessian = {"exact": "hessian", "gauss_newton": "jacobian"}
    expected = {of_hessian[hessian]: 1 + accepted} if hessian in of_hessian else {}
    assert counts == {"value": 7, "gradient": 7, **expected}


def test_without_a_hessian_steps_have_the_length_gamma():
    problem, _ = fit()
    ys, states = path(problem, GradientRegularizedNewton("zero", 0.01), 4)
    lengths = np.linalg.norm(np.diff(ys, axis=0), axis=1)
    np.testing.assert_allclose(lengths, [0.01, 0.02, 0.04, 0.08], rtol=1e-12)
    broken = rp.Minimize(
        lambda y, _: jnp.vdot(y, y),
        START,
        hessian=lambda y, _: lx.DiagonalLinearOperator(y * jnp.nan),
    )
    ys, _ = path(broken, GradientRegularizedNewton(radius=0.01), 1)
    np.testing.assert_allclose(ys[1], (1 - 0.01 / np.linalg.norm(START)) * START, rtol=1e-14)


def test_where_f_is_concave_gamma_falls_until_the_step_is_one_of_descent():
    problem = rp.Minimize(lambda y, _: y**4 / 4 - y**2 / 2, 0.1)
    ys, states = path(problem, GradientRegularizedNewton(radius=0.4), 20)
    # H = -0.97 and |g| = 0.099: H + |g| / gamma is positive from gamma = 0.1 on, where the step is
    # too long, and f falls from the next on.
    np.testing.assert_allclose(ys[:4], 0.1)
    np.testing.assert_allclose(ys[4], 0.1 + 0.099 / (0.099 / 0.05 - 0.97), rtol=1e-12)
    assert np.all(np.diff(states.value) <= 0)
    np.testing.assert_allclose(np.abs(ys[-1]), 1, rtol=1e-12)


def test_finds_the_minimizer_of_a_real_problem():
    problem = logistic("breast_cancer")
    solution = rp.solve(problem, GradientRegularizedNewton(), rtol=0.0, atol=1e-12)
    np.testing.assert_allclose(solution.value, problem.facts.minimizer, atol=1e-9)


@pytest.mark.parametrize("name", ["BEALE", "BROWNDEN"])
def test_reaches_the_best_value_known(name):
    problem = cutest(name)
    solution = rp.solve(problem, GradientRegularizedNewton(), rtol=0.0, atol=1e-6)
    best = cutest_best(name)
    assert float(problem.value(solution.value)) <= best + 1e-12 * (1 + abs(best))


def test_a_tree_takes_the_same_steps():
    problem, _ = fit()
    tree = rp.LeastSquares(
        lambda y, args: {"all": bent(jnp.append(y["u"].ravel(), y["v"]), args)},
        {"u": START[:2].reshape(2, 1), "v": START[2]},
        problem.args,
    )
    method = GradientRegularizedNewton("gauss_newton", 20.0)
    (ys, states), (trees, of_trees) = (path(p, method, 6) for p in (problem, tree))
    np.testing.assert_allclose(trees["u"][..., 0], ys[:, :2], rtol=1e-10)
    np.testing.assert_allclose(trees["v"], ys[:, 2], rtol=1e-10)
    np.testing.assert_allclose(of_trees.radius, states.radius)


def test_converges_where_the_fall_of_f_is_all_rounding():
    for lift in (1e7, 1e8, 1e9):
        lifted = rp.Minimize(lambda y, lift: lift + jnp.sum(jnp.cosh(y - 0.3)), START, lift)
        method = GradientRegularizedNewton()
        solution = rp.solve(lifted, method, rtol=0.0, atol=1e-9, max_steps=12, throw=False)
        np.testing.assert_allclose(solution.value, 0.3, atol=1e-9)


@pytest.mark.parametrize(("rise", "accepted"), [(8, True), (12, False)])
def test_a_rise_within_rounding_is_forgiven(rise, accepted):
    problem = rp.Minimize(
        lambda y, rise: jnp.where(y < 0.9, 1 + rise * jnp.finfo(y.dtype).eps, 1.0),
        1.0,
        float(rise),
        gradient=lambda y, _: y,
        hessian=lambda y, _: lx.DiagonalLinearOperator(jnp.ones(1)),
    )
    ys, _ = path(problem, GradientRegularizedNewton(), 1)
    np.testing.assert_allclose(ys[1], 0.5 if accepted else 1.0)


def test_where_the_fall_of_f_is_all_rounding_the_gradient_does_not_grow():
    # Told a tenth of its Hessian every step overshoots tenfold, and f cannot tell.
    problem = rp.Minimize(
        lambda y, _: 1e9 + jnp.vdot(y, y) / 2,
        jnp.full(1, 1e-5),
        hessian=lambda y, _: lx.DiagonalLinearOperator(0.1 + 0 * y),
    )
    _, states = path(problem, GradientRegularizedNewton(), 20)
    assert np.all(np.diff(np.abs(states.gradient[:, 0])) <= 0)


def test_ends_where_a_step_moves_nothing():
    # No number's cube is within 2 units in the last place of 13: the slope never rounds to 0.
    problem = rp.Minimize(lambda y, _: y**4 / 4 - 13 * y, 1.0)
    solution = rp.solve(problem, GradientRegularizedNewton(), rtol=0, atol=0, throw=False)
    assert rp.status_name(solution.status) in ("stalled", "precise")
    assert int(solution.stats.steps) < 100 and float(solution.certificate.residual) > 0
    np.testing.assert_allclose(solution.value, np.cbrt(13), rtol=4e-16)


def test_refuses_gauss_newton_without_residuals():
    problem = rp.Minimize(lambda y, _: jnp.vdot(y, y), START)
    with pytest.raises(ValueError, match='`hessian="gauss_newton"` .* got a Minimize'):
        rp.solve(problem, GradientRegularizedNewton("gauss_newton"))


@pytest.mark.parametrize("H", [np.eye(2), np.ones(3), None, lx.IdentityLinearOperator(START[:2])])
def test_refuses_what_is_no_hessian(H):
    problem = rp.Minimize(lambda y, _: jnp.vdot(y, y), START)
    with pytest.raises(ValueError, match=r"`hessian` .* a matrix of shape \(3, 3\), got one"):
        rp.solve(problem, GradientRegularizedNewton(lambda problem, y: H))


@pytest.mark.parametrize("bad", ["fisher", 3.0, None])
def test_refuses_a_hessian_of_no_name(bad):
    with pytest.raises(ValueError, match="`hessian` of .* or a function of the problem and y, got"):
        GradientRegularizedNewton(bad)


def test_refuses_a_metric_that_does_not_fit():
    with pytest.raises(ValueError, match="`metric` must be a Lineax operator or a matrix, got 2"):
        GradientRegularizedNewton(metric=2.0)
    problem = rp.Minimize(lambda y, _: jnp.vdot(y, y), START)
    with pytest.raises(ValueError, match=r"`metric` .* got a map of float64\[2\] to float64\[2\]"):
        rp.solve(problem, GradientRegularizedNewton(metric=np.eye(2)))
