"""NormalizedGradient against its formula in NumPy, closed forms, and a bound on its descent."""

import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.problems import convex, cutest, cutest_best, rosenbrock
from raphson.smooth import GradientDescent, NormalizedGradient
from tests.smooth.paths import chain, path


def steps(oracle, y, step_size, power, count):
    """Iterates and step sizes; None is backtracking from twice the step size before, first 1."""
    s = step_size or 1.0
    for _ in range(count):
        value, g = oracle(y)
        direction = g / np.linalg.norm(g) ** power
        if step_size is None:
            s *= 2
            while oracle(y - s * direction)[0] > value - s / 2 * g @ direction:
                s /= 2
        y = y - s * direction
        yield y, s


@pytest.mark.parametrize("power", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("step_size", [1e-3, None])
def test_steps_are_the_formula(step_size, power):
    problem = rosenbrock(4)
    ys, states = path(problem, NormalizedGradient(step_size, power), 25)
    expected = list(steps(chain, np.asarray(problem.y0), step_size, power, 25))
    for t, (y, s) in enumerate(expected, 1):
        np.testing.assert_allclose(ys[t], y, rtol=1e-10, atol=1e-11)
        np.testing.assert_allclose(states.step_size[t], s, rtol=1e-12)
        np.testing.assert_allclose(states.value[t], chain(y)[0], rtol=1e-9)
        np.testing.assert_allclose(states.gradient[t], chain(y)[1], rtol=1e-8, atol=1e-9)
    if step_size is None:  # it grew, shrank and stayed
        assert {-1, 0, 1} <= {np.sign(step) for step in np.diff([s for _, s in expected])}


@pytest.mark.parametrize("step_size", [1e-3, None])
def test_without_a_power_it_is_gradient_descent(step_size):
    ours, plain = (
        path(rosenbrock(4), method, 40)[0]
        for method in (NormalizedGradient(step_size, 0.0), GradientDescent(step_size))
    )
    np.testing.assert_allclose(ours, plain, rtol=1e-9)


@pytest.mark.parametrize("start", [1e-3, 1.0, 1e6])
@pytest.mark.parametrize("degree", [3, 4, 8])
def test_on_a_power_the_fitting_step_is_an_exact_share(degree, start):
    direction = np.array([0.6, -0.8])
    problem = rp.Minimize(
        lambda y, degree: jnp.vdot(y, y) ** (degree / 2) / degree, start * direction, degree
    )
    method = NormalizedGradient(0.3, (degree - 2) / (degree - 1))
    ys, _ = path(problem, method, 20)
    np.testing.assert_allclose(ys, start * np.outer(0.7 ** np.arange(21), direction), rtol=1e-11)


def test_with_power_one_all_steps_have_one_length():
    ys, _ = path(rosenbrock(4), NormalizedGradient(0.02), 50)
    np.testing.assert_allclose(np.linalg.norm(np.diff(ys, axis=0), axis=1), 0.02, rtol=1e-10)


@pytest.mark.parametrize("step_size", [0.1, 0.5])
def test_each_step_falls_as_curvature_that_grows_with_the_gradient_lets_it(step_size):
    # |f''| <= 1 + |f'| for the sum of cosh, so that a step of length s raises the curvature by a
    # factor of e^s at most: f+ <= f - s |g| + s^2/2 (1 + |g|) 2 (e^s - s - 1) / s^2.
    start = np.array([20.0, -15.0, 3.0])
    problem = rp.Minimize(lambda y, _: jnp.sum(jnp.cosh(y) - 1), start)
    _, states = path(problem, NormalizedGradient(step_size), 300)
    size = np.linalg.norm(states.gradient, axis=1)[:-1]
    excess = np.exp(step_size) - step_size - 1
    fallen = states.value[:-1] - states.value[1:]
    least = step_size * size - excess * (1 + size)
    assert np.all(fallen >= least - 1e-14 * states.value[:-1])
    assert size.min() <= excess / (step_size - excess)


def test_one_step_size_serves_where_gradient_descent_needs_two():
    problem = rp.Minimize(lambda y, _: jnp.sum(jnp.cosh(y)), jnp.full(3, 25.0))
    far = rp.solve(problem, NormalizedGradient(), rtol=0.0, atol=1e-9)
    assert int(far.stats.steps) < 100
    # The curvature at the start is e^25 / 2, and 1 at the answer.
    tiny = rp.solve(problem, GradientDescent(1e-10), max_steps=20_000, throw=False)
    assert float(jnp.max(jnp.abs(tiny.value))) > 10


@pytest.mark.parametrize("name", ["ROSENBR", "EXPFIT", "ALLINITU"])
def test_reaches_the_best_value_known(name):
    problem = cutest(name)
    solution = rp.solve(problem, NormalizedGradient(), rtol=0.0, atol=1e-6, max_steps=50_000)
    assert float(problem.value(solution.value)) <= cutest_best(name) + 1e-11


def test_converges_where_the_fall_of_f_is_all_rounding():
    easy = convex.quadratic([0.5, 1.0, 2.0])
    lifted = rp.Minimize(lambda y, args: 1e7 + easy.fn(y, args), easy.y0, easy.args)
    solution = rp.solve(lifted, NormalizedGradient(power=0.5), rtol=0.0, atol=1e-9)
    np.testing.assert_allclose(solution.value, easy.facts.minimizer, atol=1e-8)


def test_ends_where_a_step_moves_nothing():
    problem = rp.Minimize(lambda y, _: jnp.sum((y - 1) ** 2), jnp.full(2, 3.0))
    method = NormalizedGradient(1e-20)
    solution = rp.solve(problem, method, rtol=0, atol=0, throw=False)
    assert rp.status_name(solution.status) == "stalled" and int(solution.stats.steps) == 1


@pytest.mark.parametrize("step_size", [1e-3, None])
def test_a_tree_takes_the_same_steps(step_size):
    flat, method = rosenbrock(4), NormalizedGradient(step_size, 0.7)
    tree = rp.Minimize(
        lambda y, _: flat.fn(jnp.append(y["u"].ravel(), y["v"]), None),
        {"u": flat.y0[:3].reshape(3, 1), "v": flat.y0[3]},
    )
    ys, _ = path(flat, method, 15)
    trees, _ = path(tree, method, 15)
    np.testing.assert_allclose(trees["u"][..., 0], ys[:, :3], rtol=1e-10)
    np.testing.assert_allclose(trees["v"], ys[:, 3], rtol=1e-10)


@pytest.mark.parametrize(
    ("method", "values"),
    [
        (NormalizedGradient(0.1), 1 + 2),
        # From y = 4 a step of length 2 is long enough; then 4 is too long, and 2 is not.
        (NormalizedGradient(), 1 + (1 + 1) + (2 + 1)),
    ],
)
def test_oracle_calls(method, values):
    problem = rp.Counted(rp.Minimize(lambda y, _: 2.5 * y**2, 4.0))
    counts = rp.solve(problem, method, rtol=0, atol=0, max_steps=2, throw=False).stats.counts
    counts = {name: int(count) for name, count in counts.items() if count > 0}
    assert counts == {"value": values, "gradient": 1 + 2}


@pytest.mark.parametrize("bad", [{"step_size": 0.0}, {"power": -0.1}, {"power": 1.1}])
def test_refuses(bad):
    with pytest.raises(ValueError, match=f"`{next(iter(bad))}` of NormalizedGradient must be"):
        NormalizedGradient(**bad)
