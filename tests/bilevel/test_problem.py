"""What a bilevel problem answers: its oracles, its residual and its measures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.bilevel import problem as levels

RNG = np.random.default_rng(0)
A, B, C = RNG.normal(size=(4, 4)), RNG.normal(size=(4, 3)), RNG.normal(size=4)
HESSIAN = A @ A.T + np.eye(4)


def upper(x, y, args):
    return jnp.sum((y - C) ** 2) / 2 + jnp.sum(x**2) / 2 + jnp.sum(x) * y[0]


def lower(x, y, args):
    return y @ HESSIAN @ y / 2 - y @ B @ x


def quadratic(**options):
    return rp.Bilevel(upper, lower, jnp.zeros(3), jnp.zeros(4), **options)


def gradients(x, y):
    """F_x, F_y, f_y by hand."""
    F_x = x + y[0]
    F_y = y - C + np.sum(x) * np.eye(4)[0]
    return F_x, F_y, HESSIAN @ y - B @ x


@pytest.fixture(params=["dense", "iterative"])
def size_limit(request, monkeypatch):
    if request.param == "iterative":
        monkeypatch.setattr(levels, "DENSE_LIMIT", 0)


def test_residual_is_the_hypergradient(size_limit):
    x = RNG.normal(size=3)
    y = np.linalg.solve(HESSIAN, B @ x)
    hypergradient, f_y, left = quadratic().optimality((jnp.asarray(x), jnp.asarray(y)))
    F_x, F_y, _ = gradients(x, y)
    expected = F_x + B.T @ np.linalg.solve(HESSIAN, F_y)
    np.testing.assert_allclose(hypergradient, expected, atol=1e-9)
    np.testing.assert_allclose(np.r_[f_y, left], 0, atol=1e-9)
    of_x = lambda x: upper(x, np.linalg.solve(HESSIAN, B @ x), None)
    steps = 1e-6 * np.eye(3)
    numeric = [(of_x(x + e) - of_x(x - e)) / 2e-6 for e in steps]
    np.testing.assert_allclose(hypergradient, numeric, atol=1e-7)


def test_products_are_those_of_the_second_derivatives():
    x, y, v = RNG.normal(size=3), RNG.normal(size=4), RNG.normal(size=4)
    by_x, by_y = quadratic().lower_product(x, y, v, None)
    np.testing.assert_allclose(by_x, -B.T @ v, atol=1e-12)
    np.testing.assert_allclose(by_y, HESSIAN @ v, atol=1e-12)
    by_x, by_y = quadratic().upper_product(x, y, v, None)
    np.testing.assert_allclose(by_x, np.full(3, v[0]), atol=1e-12)
    np.testing.assert_allclose(by_y, v, atol=1e-12)


def test_of_many_lower_minima_the_residual_accepts_the_best_alone(size_limit):
    upper = lambda x, y, _: (x - y[1]) ** 2 / 2 + (y[0] - 1) ** 2 / 2
    lower = lambda x, y, _: y[0] ** 2 / 2 - x * y[0]
    problem = rp.Bilevel(upper, lower, 0.0, jnp.zeros(2))
    norm = lambda x, y: float(problem.measures((jnp.array(x), jnp.array(y)))["residual"])
    assert norm(1.0, [1.0, 1.0]) < 1e-12
    # Here plain unrolling ends: F could still fall along the valley.
    assert norm(0.5, [0.5, 0.0]) == pytest.approx(0.5)


def test_a_lower_unknown_at_its_bound_does_not_follow():
    # y = min(x, 1): beyond 1 the hypergradient is F_x alone.
    upper = lambda x, y, _: (x - 3.0) ** 2 / 2 + y * x
    lower = lambda x, y, _: (y - x) ** 2 / 2
    sets = None, rp.composite.Box(-1.0, 1.0)
    problem = rp.Bilevel(upper, lower, 1.5, 1.0, sets=sets)
    z = jnp.array(2.0), jnp.array(1.0)
    np.testing.assert_allclose(problem.optimality(z), (0.0, 0.0, 0.0), atol=1e-12)
    z = jnp.array(0.5), jnp.array(0.5)
    expected = (0.5 - 3.0) + 0.5 + 0.5
    np.testing.assert_allclose(problem.optimality(z), (expected, 0.0, 0.0), atol=1e-12)
    solution = rp.solve(problem, throw=False)
    assert bool(solution.converged)
    np.testing.assert_allclose(solution.value, (2.0, 1.0), atol=1e-5)


@pytest.mark.parametrize(
    "held", [rp.composite.Ball(1.0), rp.composite.Simplex()], ids=["ball", "simplex"]
)
def test_a_lower_unknown_slides_along_its_set(held):
    target, weights = jnp.array([0.3, -0.2, 0.9]), jnp.array([1.0, 2.0, 3.0])
    upper = lambda x, y, _: jnp.sum((y - target) ** 2)
    lower = lambda x, y, _: weights @ (y - x) ** 2 / 2

    def lower_answer(x):
        fixed = rp.Minimize(lambda y, x: lower(x, y, None), jnp.ones(3) / 3, x)
        return rp.solve(rp.Composite(fixed, held), rtol=1e-13, atol=1e-13, throw=False).value

    x = jnp.array([0.9, 0.8, 0.5])
    of_x = lambda x: upper(x, lower_answer(x), None)
    numeric = [(of_x(x + e) - of_x(x - e)) / 2e-5 for e in 1e-5 * jnp.eye(3)]
    problem = rp.Bilevel(upper, lower, x, jnp.ones(3) / 3, sets=(None, held))
    hypergradient, _, left = problem.optimality((x, lower_answer(x)))
    np.testing.assert_allclose(hypergradient, numeric, atol=1e-6)
    np.testing.assert_allclose(left, 0, atol=1e-12)


def test_upper_set_holds_x():
    upper = lambda x, y, _: (y - 3.0) ** 2 / 2
    lower = lambda x, y, _: (y - x) ** 2 / 2
    problem = rp.Bilevel(upper, lower, 0.0, 0.0, sets=(rp.composite.Box(0.0, 1.0), None))
    np.testing.assert_allclose(rp.solve(problem).value, (1.0, 1.0), atol=1e-5)


def test_answers_are_differentiated():
    upper = lambda x, y, a: jnp.sum((y - a) ** 2) + x**2
    lower = lambda x, y, a: jnp.sum((y - 2 * x) ** 2) + jnp.sum(y**4)

    def x_of(a):
        problem = rp.Bilevel(upper, lower, 0.3, jnp.zeros(2), jnp.array([a, 2.0]))
        return rp.solve(problem, rtol=1e-9, atol=1e-9, throw=False).value[0]

    h = 1e-3
    numeric = (x_of(1.0 + h) - x_of(1.0 - h)) / (2 * h)
    np.testing.assert_allclose(jax.grad(x_of)(1.0), numeric, rtol=1e-5)


def test_means_over_samples():
    samples = RNG.normal(size=(5, 4))
    of_sample = lambda x, y, a, _: jnp.sum((y - a) ** 2) / 2 + x[0] * y[0]
    problem = rp.BilevelSum(
        of_sample, of_sample, jnp.zeros(3), jnp.zeros(4), samples, samples[:3], batch_size=2
    )
    x, y = RNG.normal(size=3), RNG.normal(size=4)
    for value, gradient, data in [
        (problem.upper_value, problem.upper_gradient, samples),
        (problem.lower_value, problem.lower_gradient, samples[:3]),
    ]:
        expected = np.mean(np.sum((y - data) ** 2, axis=1)) / 2 + x[0] * y[0]
        np.testing.assert_allclose(value(x, y, None), expected, atol=1e-12)
        by_y = y - data.mean(axis=0) + x[0] * np.eye(4)[0]
        np.testing.assert_allclose(gradient(x, y, None)[1], by_y, atol=1e-12)
        np.testing.assert_allclose(gradient(x, y, None)[0], y[0] * np.eye(3)[0], atol=1e-12)
    first, second = problem.sample(jax.random.key(0))
    assert first.shape == second.shape == (2, 4)
    assert all(row in samples[:3] for row in np.asarray(second))


def test_the_lower_level_is_a_problem_of_its_own():
    problem = quadratic()
    x = RNG.normal(size=3)
    inner = problem.lower(jnp.asarray(x), jnp.zeros(4))
    solution = rp.solve(inner, rp.smooth.TrustRegionNewton())
    np.testing.assert_allclose(solution.value, np.linalg.solve(HESSIAN, B @ x), atol=1e-8)


def test_measures():
    metrics = {"largest": lambda z, args: jnp.max(jnp.abs(z[0])) * args}
    facts = rp.Facts(minimizer=(jnp.zeros(3), jnp.zeros(4)))
    problem = rp.Bilevel(upper, lower, jnp.ones(3), jnp.zeros(4), 2.0, metrics=metrics, facts=facts)
    measures = problem.measures(problem.y0)
    assert list(measures) == ["residual", "distance", "hypergradient", "lower", "value", "largest"]
    assert float(measures["largest"]) == 2.0
    assert float(measures["distance"]) == pytest.approx(3**0.5)
    assert float(measures["lower"]) == pytest.approx(np.linalg.norm(B @ np.ones(3)))


@pytest.mark.parametrize(
    "statement, words",
    [
        (lambda: rp.Bilevel(3.0, len, 0.0, 0.0), "`upper`"),
        (lambda: rp.Bilevel(len, None, 0.0, 0.0), "`lower`"),
        (lambda: rp.Bilevel(len, len, 0, 0.0), "`x` must"),
        (lambda: rp.Bilevel(len, len, 0.0, "y"), "`y` must"),
        (lambda: quadratic(sets=rp.composite.Box(0.0, 1.0)), "`sets` must be a pair"),
        (lambda: quadratic(sets=(rp.composite.L1(1.0), None)), "`sets` must be a pair"),
        (lambda: quadratic(metrics=[abs]), "`metrics`"),
        (lambda: quadratic(lower_products=abs), "did you mean `lower_product`"),
        (lambda: rp.BilevelSum(len, len, 0.0, 0.0, jnp.zeros(()), DATA), "`upper_data` must"),
        (lambda: rp.BilevelSum(len, len, 0.0, 0.0, DATA, jnp.zeros((0, 2))), "`lower_data` must"),
        (lambda: rp.BilevelSum(len, len, 0.0, 0.0, DATA, DATA, batch_size=0), "`batch_size`"),
        (lambda: rp.solve(rp.Bilevel(lambda x, y, _: y, len, 0.0, jnp.ones(4))), "`upper` must"),
        (
            lambda: rp.solve(rp.Bilevel(lambda x, y, _: x, lambda x: x, 0.0, 0.0)),
            "`lower` is called",
        ),
        (lambda: rp.solve(quadratic(), rp.smooth.GradientDescent()), "`method` GradientDescent"),
    ],
)
def test_bad_statements(statement, words):
    with pytest.raises(ValueError, match=words):
        statement()


DATA = jnp.zeros((2, 2))
