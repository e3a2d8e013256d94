"""HomotopyNewton against paths in closed form, steps in NumPy and roots that are known."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.roots import HomotopyNewton

SHARP = {"rtol": 0.0, "atol": 1e-11, "throw": False}
MODES = pytest.mark.parametrize("mode", ["newton", "fixed_point"])


def cubic(y, _=None):
    return y**3 - 3 * y - 3  # one root, beyond two folds


def freudenstein(y, _=None):
    a, b = y[0], y[1]
    return jnp.stack([-13 + a + ((5 - b) * b - 2) * b, -29 + a + ((b + 1) * b - 14) * b])


@eqx.filter_jit
def path(problem, method, steps):
    """Iterates and states after 0, 1, ..., steps."""

    def step(carry, _):
        return method.step(problem, *carry), carry

    start = problem.y0, method.init(problem, problem.y0, None)
    return jax.lax.scan(step, start, length=steps + 1)[1]


def transcription(mode, bend, steps):
    """The iterates and s on Freudenstein and Roth's equations, until the path has ended."""
    F = lambda y: np.asarray(freudenstein(y))
    J = lambda y: np.asarray(jax.jacobian(freudenstein)(y))
    y0 = np.array([0.5, -2.0])
    F0 = F(y0)
    if mode == "newton":
        H = lambda u: F(u[:2]) - (1 - u[2]) * F0
        DH = lambda u: np.column_stack([J(u[:2]), F0])
    else:
        H = lambda u: u[2] * F(u[:2]) + (1 - u[2]) * (u[:2] - y0)
        DH = lambda u: np.column_stack(
            [u[2] * J(u[:2]) + (1 - u[2]) * np.eye(2), F(u[:2]) - (u[:2] - y0)]
        )
    u = np.append(y0, 0.0)
    D = DH(u)
    # The kernel of a 2 x 3 matrix is spanned by the cross product of its rows.
    t = np.cross(*D)
    t *= np.sign(t[2]) / np.linalg.norm(t)
    h, rows = 0.1 / t[2], []
    for _ in range(steps):
        if u[2] >= 1:
            break
        last = u[2] + h * t[2] >= 1
        h = (1 - u[2]) / t[2] if last else h
        v = u + h * t
        bordered = np.vstack([D, [0, 0, 1] if last else t])
        trial = v - np.linalg.solve(bordered, np.append(H(v), 0))
        bent = np.linalg.norm(np.linalg.solve(bordered, np.append(H(v) - H(u), 0)))
        left = np.linalg.norm(H(trial))
        left = 0 if left < 2**-26 * np.linalg.norm(F0) else left / np.linalg.norm(H(v))
        measured = np.inf if trial[2] > 1 and not last else max(bent / h, left)
        if measured <= bend:
            u, D = trial, DH(trial)
            kernel = np.cross(*D)
            t = t if last else kernel / np.linalg.norm(kernel) * np.sign(kernel @ t)
        h *= np.clip(0.7 * bend / measured, 0.25, 4)
        rows.append(u)
    return np.array(rows)


@MODES
@pytest.mark.parametrize("bend", [0.3, 0.1])
def test_steps_are_those_of_the_formula(mode, bend):
    expected = transcription(mode, bend, 60)
    assert len(np.unique(expected, axis=0)) < len(expected)  # some were taken back
    problem = rp.RootFind(freudenstein, jnp.array([0.5, -2.0]))
    ys, states = path(problem, HomotopyNewton(mode, jnp.array(bend)), len(expected))
    np.testing.assert_allclose(ys[1:], expected[:, :2], rtol=1e-7)
    np.testing.assert_allclose(states.parameter[1:], expected[:, 2], rtol=1e-7, atol=1e-9)


def test_the_path_of_newton_is_where_the_residual_does_not_turn():
    problem = rp.RootFind(freudenstein, jnp.array([0.5, -2.0]))
    ys, states = path(problem, HomotopyNewton(bend=0.05), 400)
    s = np.asarray(states.parameter)
    assert s.min() < -0.6 and s[-1] == 1  # the path goes back beyond its start
    expected = (1 - s)[:, None] * np.asarray(freudenstein(problem.y0))
    np.testing.assert_allclose(states.residual, expected, atol=0.05 * np.linalg.norm(expected[0]))
    np.testing.assert_allclose(ys[-1], [5, 4], rtol=1e-10)


def test_a_path_in_closed_form_is_followed_around_its_fold():
    # H = y^3 - 3 y - 3 + 5 (1 - s) from y = -2 has folds at -1 (s = 0.8) and 1 (s = 0).
    problem = rp.RootFind(cubic, jnp.array([-2.0]))
    ys, states = path(problem, HomotopyNewton(bend=0.02), 1000)
    y, s = np.asarray(ys)[:, 0], np.asarray(states.parameter)
    np.testing.assert_allclose(s, 1 + cubic(y) / 5, atol=1e-3)
    assert np.max(s[y < 0]) == pytest.approx(0.8, abs=1e-2)
    assert np.min(s[y > 0]) == pytest.approx(0.0, abs=1e-2)
    np.testing.assert_allclose(y[-1], np.roots([1, 0, -3, -3])[0].real, rtol=1e-12)


@MODES
@pytest.mark.parametrize(
    ("fn", "start"),
    [
        (lambda y, _: jnp.arctan(y), [20.0]),
        (lambda y, _: y**2 - 2, [0.0]),  # no slope at the start
        (cubic, [-2.0]),
        (freudenstein, [0.5, -2.0]),
    ],
)
def test_roots_from_where_newton_goes_astray(mode, fn, start):
    solution = rp.solve(rp.RootFind(fn, jnp.array(start)), HomotopyNewton(mode), **SHARP)
    assert bool(solution.converged) and float(solution.state.parameter) == 1
    np.testing.assert_allclose(fn(solution.value, None), 0, atol=1e-11)


@MODES
def test_of_a_linear_system_every_question_has_the_same_answer(mode):
    A, b = np.array([[3.0, 1.0], [-1.0, 2.0]]), np.array([1.0, 4.0])
    fn = lambda y, _: A @ y - b
    image = lambda y, _: y - (A @ y - b)
    for question in (rp.RootFind(fn, b), rp.LeastSquares(fn, b), rp.FixedPoint(image, b)):
        solution = rp.solve(question, HomotopyNewton(mode), **SHARP)
        # The path is straight: a tenth of it, then four times as much, then the rest.
        assert mode == "fixed_point" or solution.stats.steps == 3
        np.testing.assert_allclose(solution.value, np.linalg.solve(A, b), rtol=1e-10)


@MODES
def test_of_a_map_the_path_is_that_of_what_grows_with_y(mode):
    image = lambda y, _: jnp.cos(y) + jnp.array([0.5, -0.5]) * y[::-1]
    start = jnp.array([3.0, -2.0])
    map_ = rp.FixedPoint(image, start)
    equations = rp.RootFind(lambda y, _: y - image(y, _), start)
    (ys, states), (expected, of_equations) = (
        path(problem, HomotopyNewton(mode), 6) for problem in (map_, equations)
    )
    np.testing.assert_allclose(ys, expected, rtol=1e-12)
    np.testing.assert_allclose(states.parameter, of_equations.parameter, rtol=1e-12)


def test_once_arrived_the_steps_are_newtons():
    problem = rp.RootFind(lambda y, _: jnp.exp(y) - 3, jnp.array(1.0))
    method = HomotopyNewton(bend=0.9)
    ys, states = path(problem, method, 6)
    ys = np.asarray(ys)[np.asarray(states.parameter) == 1]
    assert len(ys) >= 4
    np.testing.assert_allclose(ys[1:4], ys[:3] - 1 + 3 * np.exp(-ys[:3]), rtol=1e-12)


def test_oracle_calls():
    problem = rp.Counted(rp.RootFind(freudenstein, jnp.array([0.5, -2.0])))
    _, states = path(problem.bare, HomotopyNewton(), 20)
    taken = np.sum(np.diff(np.asarray(states.residual)[:, 0]) != 0)
    assert taken < 20 and states.parameter[-1] < 1
    counts = rp.solve(problem, HomotopyNewton(), max_steps=20, **SHARP).stats.counts
    assert {k: int(v) for k, v in counts.items() if v} == {
        "residual": 1 + 2 * 20,
        "jacobian": 1 + taken,
    }


@pytest.mark.parametrize(
    ("fn", "start", "statuses"),
    [
        (lambda y, _: y**2 + 1, 1.0, {"max_steps", "not_a_root"}),  # the path comes back
        (lambda y, _: jnp.log(y) + 9, 2.0, {"converged"}),  # beside the border of F
        (lambda y, _: jnp.where(y < 0.5, jnp.nan, y), 1.0, {"stalled", "nonfinite"}),
        (lambda y, _: 0 * y + 7.0, 1.0, {"not_a_root"}),
    ],
)
def test_runs_end_in_a_status(fn, start, statuses):
    solution = rp.root(fn, start, method=HomotopyNewton(), max_steps=400, throw=False)
    assert rp.status_name(solution.status) in statuses
    assert np.isfinite(solution.value)


def test_single_precision_and_trees():
    fn = lambda y, _: dict(zip("qp", freudenstein(jnp.append(y["b"], y["a"]))))
    start = {"a": jnp.float32(-2.0), "b": jnp.full(1, 0.5, jnp.float32)}
    solution = rp.solve(rp.RootFind(fn, start), HomotopyNewton())
    assert solution.value["a"].dtype == jnp.float32
    np.testing.assert_allclose(jnp.append(solution.value["b"], solution.value["a"]), [5, 4], 1e-4)


def test_a_system_that_is_not_square_is_refused():
    problem = rp.RootFind(lambda y, _: jnp.append(y, y), jnp.zeros(2))
    with pytest.raises(ValueError, match="as many equations .* for HomotopyNewton, got 4 for 2"):
        rp.solve(problem, HomotopyNewton())
