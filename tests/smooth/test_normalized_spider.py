"""NormalizedSpider against its recursion in NumPy, exact cases, and the variance it should have."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.problems import convex, rosenbrock
from raphson.smooth import GradientDescent, NormalizedGradient, NormalizedSpider

KEY = jax.random.key(3)


@eqx.filter_jit
def scanned(problem, method, count, key):
    def step(carry, _):
        return method.step(problem, *carry), (carry[0], getattr(carry[1], "estimate", None))

    start = (problem.y0, method.init(problem, problem.y0, key))
    return jax.lax.scan(step, start, length=count + 1)[1]


def path(problem, method, count, key=KEY):
    """The iterates and estimates after 0, 1, ..., `count` steps."""
    return jax.tree.map(np.asarray, scanned(problem.without_facts, method, count, key))


def drawn(problem, count):
    """The batches of the first steps; at each the key is split, and one half kept."""
    key, batches = KEY, []
    for _ in range(count):
        key, now = jax.random.split(key)
        batches.append(jax.tree.map(np.asarray, problem.sample(now)))
    return batches


@pytest.mark.parametrize(("step_size", "radius"), [(0.5, np.inf), (np.inf, 0.05), (0.7, 0.2)])
def test_steps_are_the_recursion(step_size, radius):
    problem = convex.logistic_synthetic(40, 5, regularization=0.05, batch_size=6)
    mu = problem.args

    def gradient(y, samples):
        A, b = samples
        return mu * y - A.T @ (b / (1 + np.exp(b * (A @ y)))) / len(b)

    data = jax.tree.map(np.asarray, problem.data)
    ys, vs = path(problem, NormalizedSpider(step_size, radius, 4), 14)
    y = np.zeros(5)
    v, lengths = gradient(y, data), []
    for t, batch in enumerate(drawn(problem, 14), 1):
        move = -min(step_size, radius / np.linalg.norm(v)) * v
        estimated = v + gradient(y + move, batch) - gradient(y, batch)
        y = y + move
        v = gradient(y, data) if t % 4 == 0 else estimated
        lengths.append(np.linalg.norm(move))
        np.testing.assert_allclose(ys[t], y, rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(vs[t], v, rtol=1e-9, atol=1e-12)
    if step_size == 0.7:  # both limits were met
        assert max(lengths) == pytest.approx(radius) and min(lengths) < radius / 2


def test_the_estimate_is_exact_where_all_samples_have_one_hessian():
    centers = np.random.default_rng(0).normal(size=(50, 3))
    problem = rp.FiniteSum(
        lambda y, a, _: jnp.sum((y - a) ** 2) / 2, jnp.zeros(3), centers, batch_size=1
    )
    ys, vs = path(problem, NormalizedSpider(0.3, refresh_every=10_000), 60)
    np.testing.assert_allclose(vs, ys - centers.mean(0), atol=1e-14)
    np.testing.assert_allclose(ys[-1], centers.mean(0), atol=1e-9)


def test_the_variance_of_the_estimate_grows_as_the_theory_says():
    # Far down a bowl each step is -r, and t of them leave the error a variance of t r^2 var(h) / B.
    h = np.random.default_rng(0).uniform(1, 3, 100)
    problem = rp.FiniteSum(lambda y, h, _: h * y**2 / 2, jnp.array(100.0), h, batch_size=4)
    method = NormalizedSpider(np.inf, 0.5, 10_000)
    keys = jax.random.split(KEY, 4000)
    ys, vs = jax.vmap(lambda key: scanned(problem, method, 20, key))(keys)
    errors = np.asarray(vs - h.mean() * ys)
    t = np.arange(1, 21)
    np.testing.assert_allclose(ys[:, 1:], np.broadcast_to(100 - 0.5 * t, (4000, 20)))
    np.testing.assert_allclose(errors[:, 1:].var(0), t * 0.25 * h.var() / 4, rtol=0.08)
    assert np.all(np.abs(errors[:, 1:].mean(0)) < 4 * errors[:, 1:].std(0) / 4000**0.5)


@pytest.mark.parametrize(
    ("ours", "plain"),
    [
        (NormalizedSpider(np.inf, 0.02), NormalizedGradient(0.02, 1.0)),
        (NormalizedSpider(5e-4), GradientDescent(5e-4)),
    ],
)
def test_on_exact_gradients_it_is_the_exact_method(ours, plain):
    ys, other = (path(rosenbrock(4), method, 40)[0] for method in (ours, plain))
    np.testing.assert_allclose(ys, other, rtol=1e-10)


def test_learns_from_samples_as_well_as_from_all_data():
    problem = convex.logistic_synthetic(200, 10, batch_size=14)
    method = NormalizedSpider(0.5, 0.1, 14)
    solution = rp.solve(problem, method, key=KEY, max_steps=2000, throw=False)
    assert rp.status_name(solution.status) == "converged"
    np.testing.assert_allclose(solution.value, problem.facts.minimizer, atol=1e-5)


@pytest.mark.parametrize(("refresh_every", "gradients"), [(1, 1 + 7), (3, 1 + 2 + 2 * 5)])
def test_oracle_calls(refresh_every, gradients):
    problem = rp.Counted(convex.logistic_synthetic(40, 5, batch_size=6))
    method = NormalizedSpider(refresh_every=refresh_every)
    counts = rp.solve(problem, method, key=KEY, max_steps=7, throw=False).stats.counts
    assert int(counts["gradient"]) == int(counts["value"]) == gradients


def test_a_sampled_run_resumes_bit_for_bit(tmp_path):
    problem = convex.logistic_synthetic(40, 5, batch_size=6)
    options = {"key": KEY, "rtol": 0.0, "atol": 0.0}
    whole = rp.trace(problem, NormalizedSpider(), max_steps=9, **options).solution
    rp.trace(problem, NormalizedSpider(), max_steps=4, checkpoint=tmp_path / "run", **options)
    resumed = rp.trace(
        problem, NormalizedSpider(), max_steps=9, checkpoint=tmp_path / "run", **options
    ).solution
    np.testing.assert_array_equal(whole.value, resumed.value)
    np.testing.assert_array_equal(whole.state.estimate, resumed.state.estimate)


def test_a_tree_takes_the_same_steps():
    centers = jnp.array(np.random.default_rng(0).normal(size=(50, 3)))

    def loss(y, a, _):
        return jnp.sum((y - a) ** 2 * jnp.array([1.0, 2.0, 3.0])) + jnp.sum((y - a) ** 4)

    def of_tree(y, a, _):
        return loss(jnp.append(y["u"].ravel(), y["v"]), a, None)

    method = NormalizedSpider(0.05, 0.1, 5)
    flat = rp.FiniteSum(loss, jnp.zeros(3), centers, batch_size=4)
    start = {"u": jnp.zeros((2, 1)), "v": jnp.zeros(())}
    tree = rp.FiniteSum(of_tree, start, centers, batch_size=4)
    ys, _ = path(flat, method, 15)
    trees, _ = path(tree, method, 15)
    np.testing.assert_allclose(trees["u"][..., 0], ys[:, :2], rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(trees["v"], ys[:, 2], rtol=1e-11, atol=1e-14)


def test_a_sampled_problem_needs_a_key():
    with pytest.raises(ValueError, match="`key`"):
        rp.solve(convex.logistic_synthetic(40, 5, batch_size=6), NormalizedSpider())


@pytest.mark.parametrize("bad", [{"step_size": 0.0}, {"radius": -1.0}, {"refresh_every": 0}])
def test_refuses(bad):
    with pytest.raises(ValueError, match=f"`{next(iter(bad))}`"):
        NormalizedSpider(**bad)
