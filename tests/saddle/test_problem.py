"""Variational inequalities, saddles with nonsmooth parts, and sums over samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp

RNG = np.random.default_rng(0)
DATA = RNG.normal(size=(6, 3))


def operator_of(z, sample, shift):
    return jnp.array([[0.5, 1.0, 0.0], [-1.0, 0.5, 0.0], [0.0, 0.0, 1.0]]) @ z - sample - shift


def summed(**options):
    return rp.VariationalSum(operator_of, jnp.zeros(3), DATA, 0.25, **options)


def test_operator_of_a_sum_is_the_mean():
    matrix = np.array([[0.5, 1.0, 0.0], [-1.0, 0.5, 0.0], [0.0, 0.0, 1.0]])
    z = np.array([1.0, -2.0, 3.0])
    expected = matrix @ z - DATA.mean(axis=0) - 0.25
    np.testing.assert_allclose(summed().operator(jnp.asarray(z)), expected, atol=1e-14)
    batch = DATA[[1, 1, 4]]
    expected = matrix @ z - batch.mean(axis=0) - 0.25
    problem = summed(batch_size=3)
    np.testing.assert_allclose(problem.batch_operator(z, jnp.asarray(batch)), expected, atol=1e-14)
    np.testing.assert_allclose(problem.batch_operator(z, None), problem.operator(z))
    solution = rp.solve(summed())
    np.testing.assert_allclose(
        solution.value, np.linalg.solve(matrix, DATA.mean(axis=0) + 0.25), atol=1e-5
    )


def test_batches_are_samples_of_the_data():
    problem = summed(batch_size=4)
    batch = np.asarray(problem.sample(jax.random.key(0)))
    assert batch.shape == (4, 3) and all(row in DATA for row in batch)
    assert problem.stochastic and not summed().stochastic
    assert summed().sample(jax.random.key(0)) is None


def test_resolvent_takes_a_step_for_each_player():
    parts = rp.composite.L1(1.0), rp.composite.Box(-1.0, 1.0)
    problem = rp.Saddle(lambda x, y, _: x * y, 3.0, 3.0, nonsmooth=parts)
    three = jnp.array(3.0)
    assert [float(each) for each in problem.resolvent((three, three), (0.5, 9.0))] == [2.5, 1.0]
    assert [float(each) for each in problem.resolvent((three, -three), 2.0)] == [1.0, -1.0]


def test_a_nonsmooth_part_moves_the_saddle():
    # min_x max_y |x| / 2 + (x - 2) y - y^2 / 2: y = x - 2, and x = 3 / 2 by its slope 1 / 2.
    fn = lambda x, y, _: (x - 2) * y - y**2 / 2
    problem = rp.Saddle(fn, 0.0, 0.0, nonsmooth=(rp.composite.L1(0.5), None))
    np.testing.assert_allclose(rp.solve(problem).value, (1.5, -0.5), atol=1e-5)


def test_nonsmooth_parts_in_other_units():
    fn = lambda x, y, _: (x - 2) * y - y**2 / 2
    problem = rp.Saddle(fn, 0.0, 0.0, nonsmooth=(rp.composite.L1(0.5), rp.composite.Ball(0.25)))
    x, y = rp.solve(problem).value
    scaled = rp.Scaled(problem, (jnp.array(2.0), jnp.array(0.5)), 3.0)
    other_x, other_y = rp.solve(scaled).value
    np.testing.assert_allclose((2 * other_x, 0.5 * other_y), (x, y), atol=1e-5)
    two = rp.Saddle(lambda x, y, _: x @ y, jnp.ones(2), jnp.ones(2), nonsmooth=problem.nonsmooth)
    with pytest.raises(ValueError, match="must be one number"):
        rp.Scaled(two, (jnp.array([1.0, 2.0]), jnp.ones(2)))


def test_sum_of_saddles():
    fn = lambda x, y, a, c: (x - a) * y + c * x**2 - y**2 / 2
    problem = rp.SaddleSum(fn, 0.0, 0.0, DATA[:, 0], 0.5, batch_size=2)
    mean, (x, y) = DATA[:, 0].mean(), (0.3, -0.7)
    z = jnp.array(x), jnp.array(y)
    np.testing.assert_allclose(problem.operator(z), (y + x, y - (x - mean)), atol=1e-14)
    np.testing.assert_allclose(problem.value(z), (x - mean) * y + x**2 / 2 - y**2 / 2, atol=1e-14)
    batch = DATA[[2, 5], 0]
    expected = (y + x, y - (x - batch.mean()))
    np.testing.assert_allclose(problem.batch_operator(z, jnp.asarray(batch)), expected, atol=1e-14)
    # With f_xx = 1 beside the coupling the saddle is at (a, 0) drawn to 0: x = a / 2, y = -a / 2.
    exact = rp.SaddleSum(fn, 0.0, 0.0, DATA[:, 0], 0.5)
    np.testing.assert_allclose(rp.solve(exact).value, (mean / 2, -mean / 2), atol=1e-5)


def test_mixed_products():
    coupling = RNG.normal(size=(2, 3))
    fn = lambda x, y, A: jnp.sin(x @ A @ y)
    problem = rp.Saddle(fn, jnp.zeros(2), jnp.zeros(3), coupling)
    x, y, u, v = (RNG.normal(size=n) for n in (2, 3, 2, 3))
    by_x, by_y = problem.mixed((x, y), (u, v))
    inner = x @ coupling @ y
    second = np.cos(inner) * coupling - np.sin(inner) * np.outer(coupling @ y, x @ coupling)
    np.testing.assert_allclose(by_x, second @ v, atol=1e-12)
    np.testing.assert_allclose(by_y, second.T @ u, atol=1e-12)


def test_metrics_stand_beside_the_measures():
    metrics = {"gap": lambda z, a: jnp.abs(z[0]) + a}
    problem = rp.Saddle(lambda x, y, a: x * y, 2.0, 1.0, 3.0, metrics=metrics)
    assert float(problem.measures(problem.y0)["gap"]) == 5.0


@pytest.mark.parametrize(
    "statement, words",
    [
        (lambda: rp.Saddle(len, 0.0, 0.0, nonsmooth=rp.composite.L1(1.0)), "must be a pair"),
        (lambda: rp.Saddle(len, 0.0, 0.0, nonsmooth=(3.0, None)), "`nonsmooth` must be of"),
        (lambda: rp.VariationalInequality(len, 0.0, nonsmooth=abs), "`nonsmooth` must be of"),
        (lambda: rp.VariationalInequality(len, 0), "`z` must"),
        (lambda: rp.VariationalInequality(len, 0.0, metrics=abs), "`metrics` must be a dict"),
        (lambda: rp.VariationalSum(len, 0.0, jnp.zeros(())), "`data` must hold arrays"),
        (lambda: summed(batch_size=0), "`batch_size`"),
        (lambda: rp.SaddleSum(len, 0.0, 0.0, {"a": jnp.zeros(2), "b": jnp.zeros(3)}), "`data`"),
        (lambda: rp.solve(rp.VariationalInequality(lambda z, _: z[0], jnp.ones(2))), "`fn` must"),
        (
            lambda: rp.Saddle(
                len, 0.0, 0.0, nonsmooth=(rp.composite.Box(jnp.zeros(2), jnp.ones(2)), None)
            ),
            "shaped as its input",
        ),
    ],
)
def test_bad_statements(statement, words):
    with pytest.raises(ValueError, match=words):
        statement()
