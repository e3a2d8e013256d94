"""Competitive gradients against dense solutions in NumPy and the spectrum on bilinear saddles."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.problems import saddles
from raphson.saddle import CompetitiveGradient, GradientDescentAscent


def entangled(seed=0, n=3, m=2):
    """A saddle whose mixed derivative depends on both players, with its derivatives by hand."""
    rng = np.random.default_rng(seed)
    A, x0, y0 = rng.normal(size=(n, m)), rng.normal(size=n), rng.normal(size=m)
    return rp.Saddle(tied, x0, y0, A), lambda x, y: derivatives(x, y, A)


def tied(x, y, A):
    return jnp.sin(x) @ A @ jnp.cos(y) + x @ x / 2 - y @ y / 2


def derivatives(x, y, A):
    f_x = np.cos(x) * (A @ np.cos(y)) + x
    f_y = -np.sin(y) * (A.T @ np.sin(x)) - y
    return f_x, f_y, -np.cos(x)[:, None] * A * np.sin(y)


def direction(derivatives, x, y, alpha):
    """The paper's two systems, each solved densely."""
    f_x, f_y, D = derivatives(x, y)
    g_x = np.linalg.solve(np.eye(len(x)) + alpha**2 * D @ D.T, f_x + alpha * D @ f_y)
    g_y = -np.linalg.solve(np.eye(len(y)) + alpha**2 * D.T @ D, f_y - alpha * D.T @ f_x)
    return g_x, g_y


@pytest.mark.parametrize("optimistic", [False, True])
@pytest.mark.parametrize("step", [0.1, (0.05, 0.2), lambda t: 1 / (t + 9)])
@pytest.mark.parametrize("alpha", [0.1, 2.0])
def test_iterates_are_those_of_the_paper(step, alpha, optimistic):
    problem, derivatives = entangled()
    x, y = map(np.asarray, problem.y0)
    for t in range(10):
        s = np.broadcast_to(step(t) if callable(step) else step, 2)
        g = direction(derivatives, x, y, alpha)
        if optimistic:
            g = direction(derivatives, x - s[0] * g[0], y - s[1] * g[1], alpha)
        x, y = x - s[0] * g[0], y - s[1] * g[1]
    method = CompetitiveGradient(step, alpha, optimistic)
    solution = rp.solve(problem, method, max_steps=10, rtol=0.0, atol=0.0, throw=False)
    np.testing.assert_allclose(solution.value[0], x, rtol=0, atol=1e-10)
    np.testing.assert_allclose(solution.value[1], y, rtol=0, atol=1e-10)


def test_without_interaction_it_is_descent_ascent():
    problem, _ = entangled()
    options = {"max_steps": 20, "rtol": 0.0, "atol": 0.0, "throw": False}
    ours = rp.solve(problem, CompetitiveGradient(0.1, 0.0), **options).value
    theirs = rp.solve(problem, GradientDescentAscent(0.1), **options).value
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-13)


@pytest.mark.parametrize("optimistic", [False, True])
def test_shrinks_on_a_bilinear_saddle_by_the_factor_of_its_spectrum(optimistic):
    # The field is linear with the eigenvalues q = (a c^2 +- i c) / (1 + a^2 c^2).
    c, s, a = 0.7, 0.3, 0.5
    problem = saddles.bilinear([c, c])
    method = CompetitiveGradient(s, a, optimistic)
    options = {"rtol": 0.0, "atol": 0.0, "throw": False}
    start, end = (
        float(rp.solve(problem, method, max_steps=k, **options).certificate.residual)
        for k in (0, 40)
    )
    q = (a * c**2 + 1j * c) / (1 + a**2 * c**2)
    factor = abs(1 - s * q + (s * q) ** 2) if optimistic else abs(1 - s * q)
    np.testing.assert_allclose(end / start, factor**40, rtol=1e-8)


def test_asks_for_products_and_counts_them_all():
    problem, _ = entangled()
    options = {"rtol": 0.0, "atol": 0.0, "throw": False}
    counts = lambda **o: (
        rp.solve(rp.Counted(problem), CompetitiveGradient(0.1, 1.0), **options, **o).stats.counts
    )
    zero, five = counts(max_steps=0), counts(max_steps=5)
    assert int(zero["operator"]) == 1 and int(five["operator"]) == 6
    # The right side, g_y and, for a matrix of rank 2 plus 1, at most 3 iterations, a little more
    # with those that CG takes to see that it is done.
    calls = int(five["product"]) / 2 / 5
    assert int(zero["product"]) == 0 and 2 + 2 * 2 <= calls <= 2 + 2 * 5
    assert "hessian" not in five or int(five["hessian"]) == 0


@pytest.mark.parametrize("scale", [1e-13, 1e8])
def test_the_system_is_solved_in_any_units(scale):
    problem, _ = entangled()
    scaled = rp.Scaled(problem, value_scale=scale)
    # f -> c f with s -> s / c and a -> a / c is the same iteration.
    options = {"rtol": 0.0, "atol": 0.0, "throw": False}
    ends = [
        rp.solve(p, CompetitiveGradient(0.1 / c, 2.0 / c), max_steps=20, **options).value
        for p, c in ((problem, 1.0), (scaled, scale))
    ]
    for a, b in zip(*ends, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)


def test_trees_and_single_precision():
    def fn(x, y, _):
        return x["a"] @ y[0] + x["b"] * y[1] + 0.1 * x["b"] ** 2 - 0.1 * jnp.sum(y[0] ** 2)

    for dtype in (jnp.float32, jnp.float64):
        ones = jnp.ones(2, dtype)
        problem = rp.Saddle(fn, {"a": ones, "b": ones[0]}, [ones, 2 * ones[0]])
        solution = rp.solve(problem, CompetitiveGradient(0.5, 1.0))
        for leaf in jax.tree.leaves(solution.value):
            assert leaf.dtype == dtype
            np.testing.assert_allclose(leaf, 0, atol=1e-2 if dtype == jnp.float32 else 1e-5)


def entangled_samples(batch_size):
    """The mean of such saddles over their matrices."""
    rng = np.random.default_rng(1)
    data, x0, y0 = rng.normal(size=(6, 3, 2)), rng.normal(size=3), rng.normal(size=2)
    fn = lambda x, y, A, _: tied(x, y, A)
    return rp.SaddleSum(fn, x0, y0, data, batch_size=batch_size), data


@pytest.mark.parametrize("optimistic", [False, True])
def test_sampled_steps_ask_all_of_one_batch(optimistic):
    problem, _ = entangled_samples(2)
    method = CompetitiveGradient(0.1, 1.5, optimistic)

    @jax.jit
    def path(key):
        step = lambda carry, _: 2 * (method.step(problem, *carry),)
        start = problem.y0, method.init(problem, problem.y0, key)
        return jax.lax.scan(step, start, length=5)[1][0]

    key = jax.random.key(0)
    rows = zip(*path(key), strict=True)
    x, y = map(np.asarray, problem.y0)
    for row in rows:
        key, now = jax.random.split(key)
        A = np.asarray(problem.sample(now)).mean(0)
        of_batch = lambda x, y, A=A: derivatives(x, y, A)
        g = direction(of_batch, x, y, 1.5)
        if optimistic:
            g = direction(of_batch, x - 0.1 * g[0], y - 0.1 * g[1], 1.5)
        x, y = x - 0.1 * g[0], y - 0.1 * g[1]
        for ours, theirs in zip(row, (x, y), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10)


def test_products_of_a_batch_of_all_samples_are_those_of_the_mean():
    problem, data = entangled_samples(2)
    z, v = problem.y0, (jnp.arange(3.0), jnp.array([1.0, -2.0]))
    D = derivatives(*map(np.asarray, z), data.mean(0))[2]
    batched = jax.jit(lambda *z: problem.batch_mixed(*z))
    for products in (problem.mixed(z, v), batched(z, v, problem.data), batched(z, v, None)):
        np.testing.assert_allclose(products[0], D @ v[1], rtol=1e-12)
        np.testing.assert_allclose(products[1], D.T @ v[0], rtol=1e-12)
    D = derivatives(*map(np.asarray, z), data[3])[2]
    of_one = batched(z, v, problem.data[3:4])
    np.testing.assert_allclose(of_one[0], D @ v[1], rtol=1e-12)
    np.testing.assert_allclose(of_one[1], D.T @ v[0], rtol=1e-12)


def test_batches_that_are_all_alike_make_the_steps_of_the_whole():
    fn = lambda x, y, A, _: tied(x, y, A)
    data = jnp.broadcast_to(entangled()[0].args, (4, 3, 2))
    options = {"max_steps": 20, "rtol": 0.0, "atol": 0.0, "throw": False}
    ends = []
    for size in (None, 2):
        problem = rp.SaddleSum(fn, jnp.ones(3), jnp.ones(2), data, batch_size=size)
        key = None if size is None else jax.random.key(0)
        ends.append(rp.solve(problem, CompetitiveGradient(), key=key, **options).value)
    for a, b in zip(*ends, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_a_sampled_run_counts_its_batches_and_claims_nothing():
    fn = lambda x, y, a, _: (x - a) * y + 0.1 * x**2 - 0.1 * y**2
    data = jnp.array([1.0, 2.0, 6.0])
    problem = rp.Counted(rp.SaddleSum(fn, 0.0, 1.0, data, batch_size=1))
    method = CompetitiveGradient(lambda t: 5 / (t + 50), 1.0)
    solution = rp.solve(problem, method, key=jax.random.key(0), max_steps=4000, throw=False)
    assert rp.status_name(solution.status) == "max_steps"
    assert int(solution.stats.counts["operator"]) == 4000
    assert int(solution.stats.counts["product"]) >= 2 * 4000
    # 0.2 x + y = 0 and x - 3 - 0.2 y = 0.
    np.testing.assert_allclose(solution.value, (3 / 1.04, -0.6 / 1.04), atol=0.2)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: CompetitiveGradient(0.0), "`step_size` of CompetitiveGradient must be a number"),
        (lambda: CompetitiveGradient((1.0, 1.0, 1.0)), "must be one number or a pair"),
        (lambda: CompetitiveGradient(0.1, -1.0), "`alpha` of CompetitiveGradient must be a number"),
    ],
)
def test_unfit_hyperparameters_are_refused(build, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        build()


def test_sets_and_other_questions_are_refused():
    box = rp.composite.Box(-1.0, 1.0)
    on_a_box = rp.Saddle(lambda x, y, _: x * y, 1.0, 1.0, nonsmooth=(box, None))
    with pytest.raises(ValueError, match="`problem` must be a Saddle without nonsmooth parts"):
        rp.solve(on_a_box, CompetitiveGradient())
    inequality = rp.VariationalInequality(lambda z, _: z, jnp.ones(2))
    with pytest.raises(ValueError, match="answers Saddle, got a VariationalInequality"):
        rp.solve(inequality, CompetitiveGradient())
