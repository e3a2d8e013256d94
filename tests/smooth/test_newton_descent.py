"""Newton's method and steepest descent combined, against both written out in NumPy."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

import raphson as rp
from raphson.smooth import CombinedNewtonDescent


def double_well(y, _):
    return jnp.sum((y**2 - 1) ** 2) + y[0] * y[1] / 4 + 0.1 * y[0]


def value(y):
    return np.sum((y**2 - 1) ** 2) + y[0] * y[1] / 4 + 0.1 * y[0]


def gradient(y):
    return 4 * y * (y**2 - 1) + y[::-1] / 4 + np.array([0.1, 0.0])


def hessian(y):
    return np.diag(12 * y**2 - 4) + np.array([[0.0, 0.25], [0.25, 0.0]])


def step_by_hand(y):
    """The next iterate, whether by Newton's step, and its length."""
    g, H = gradient(y), hessian(y)
    definite = bool(np.linalg.eigvalsh(H).min() > 0)
    d = -np.linalg.solve(H, g) if definite else -g * (g @ g) / abs(g @ H @ g)
    t = 1.0
    while value(y + t * d) > value(y) + 1e-4 * t * g @ d:
        t /= 2
    return y + t * d, definite, t


def test_steps_are_those_written_out():
    seen = set()
    for start in ([0.1, 0.3], [0.6, 0.02], [2.0, -1.5], [0.59, 0.6]):
        problem = rp.Minimize(double_well, jnp.array(start))
        method, y, expected = CombinedNewtonDescent(), problem.y0, np.array(start)
        state, step = method.init(problem, y, None), eqx.filter_jit(method.step)
        for _ in range(6):
            y, state = step(problem, y, state)
            expected, definite, t = step_by_hand(expected)
            np.testing.assert_allclose(y, expected, rtol=1e-9, atol=1e-12)
            seen.add((definite, t < 1))
    # Both directions came up, and a length that was halved.
    assert {definite for definite, _ in seen} == {True, False}
    assert any(halved for _, halved in seen)


def test_a_quadratic_takes_one_step_and_the_end_is_quadratic():
    problem = rp.problems.quadratic()
    assert rp.solve(problem, CombinedNewtonDescent(), rtol=1e-12, atol=0.0).stats.steps == 1
    problem = rp.Minimize(double_well, jnp.array([2.0, -1.5]))
    residual = rp.trace(problem, CombinedNewtonDescent(), every=1, rtol=0.0, atol=1e-14)
    norms = residual.measures["residual"]
    late = norms[(norms < 1e-1) & (norms > 1e-12)]
    assert len(late) >= 2 and np.all(late[1:] < 3 * late[:-1] ** 2)


def test_leaves_a_saddle_for_a_minimum():
    problem = rp.Minimize(double_well, jnp.array([1e-3, 1e-3]))
    solution = rp.solve(problem, CombinedNewtonDescent(), rtol=0.0, atol=1e-10)
    assert np.linalg.eigvalsh(hessian(np.asarray(solution.value))).min() > 0


def test_asks_one_hessian_and_one_gradient_a_step():
    problem = rp.Counted(rp.Minimize(double_well, jnp.array([2.0, -1.5])))
    counts = rp.solve(problem, CombinedNewtonDescent(), rtol=0.0, atol=1e-10).stats
    assert int(counts.counts["hessian"]) == counts.steps
    assert int(counts.counts["gradient"]) == counts.steps + 1
