"""Problems of many blocks: estimates on batches, what is drawn, what is refused."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.bilevel import MultiBlockBilevel
from raphson.problems import shared_center

SQUARE = lambda x, y, a, _: (y - a * x) ** 2
DATA = jnp.ones((3, 2))


def at(problem):
    keys = jax.random.split(jax.random.key(0))
    shapes = [leaf.shape for leaf in problem.y0]
    return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]


def test_objectives_are_means_over_blocks_and_samples():
    problem = shared_center(4, 3, 5, regularization=0.7)
    x, y = map(np.asarray, at(problem))
    (a, b), (c, d) = (jax.tree.map(np.asarray, p) for p in (problem.upper_data, problem.lower_data))
    upper = np.mean([(a[i, j] @ y[i] - b[i, j]) ** 2 / 2 for i in range(4) for j in range(5)])
    lower = np.mean([(c[i, j] @ y[i] - d[i, j]) ** 2 / 2 for i in range(4) for j in range(5)])
    lower += 0.35 * np.mean(np.sum((y - x) ** 2, axis=1))
    np.testing.assert_allclose(problem.upper_value(x, y, None), upper)
    np.testing.assert_allclose(problem.lower_value(x, y, None), lower)


def test_estimates_are_right_on_average_over_the_draws():
    problem = shared_center(4, 3, 5, blocks_per_step=2)
    x, y = at(problem)
    v = jax.random.normal(jax.random.key(2), y.shape)
    total, draws = None, list(itertools.combinations(range(4), 2))
    for chosen in draws:
        chosen = jnp.array(chosen)
        data = jax.tree.map(lambda leaf: leaf[chosen], problem.lower_data)  # noqa: B023
        batch = chosen, data
        found = problem.lower_gradient(x, y, batch), problem.lower_product(x, y, v, batch)
        others = np.setdiff1d(np.arange(4), chosen)
        np.testing.assert_array_equal(found[0][1][others], 0.0)
        total = found if total is None else jax.tree.map(jnp.add, total, found)
    exact = problem.lower_gradient(x, y, None), problem.lower_product(x, y, v, None)
    for mean, whole in zip(jax.tree.leaves(total), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(mean / len(draws), whole, atol=1e-12)


def test_draws_blocks_without_repetition_and_samples_of_each():
    problem = shared_center(6, 3, 5, blocks_per_step=4, batch_size=2)
    assert problem.stochastic and problem.num_blocks == 6
    seen = set()
    for seed in range(20):
        (chosen, upper), (same, lower) = problem.sample(jax.random.key(seed))
        np.testing.assert_array_equal(chosen, same)
        assert len(set(chosen.tolist())) == 4
        seen |= set(chosen.tolist())
        for data, (a, b) in ((problem.upper_data, upper), (problem.lower_data, lower)):
            assert a.shape == (4, 2, 3) and b.shape == (4, 2)
            for block, of_a, of_b in zip(chosen, a, b, strict=True):
                for j in range(2):
                    (k,) = np.flatnonzero(np.asarray(data[1][block]) == of_b[j])
                    np.testing.assert_array_equal(of_a[j], data[0][block, k])
    assert seen == set(range(6))
    assert problem.sample(None) == (None, None)
    whole = shared_center(6, 3, 5, batch_size=2).sample(jax.random.key(0))
    np.testing.assert_array_equal(whole[0][0], np.arange(6))


def test_facts_of_the_shared_center():
    problem = shared_center(7, 4, 9)
    assert problem.measures(problem.facts.minimizer)["residual"] < 1e-12
    x, y = problem.facts.minimizer
    np.testing.assert_allclose(problem.upper_value(x, y, None), problem.facts.optimum)


def test_other_methods_answer_it():
    problem = shared_center(5, 2, 6)
    solution = rp.solve(problem, rp.bilevel.ImplicitGradient(1.0), rtol=0.0, atol=1e-8)
    for got, known in zip(solution.value, problem.facts.minimizer, strict=True):
        np.testing.assert_allclose(got, known, atol=1e-6)


@pytest.mark.parametrize(
    "data, options, message",
    [
        ((DATA, jnp.ones((2, 2))), {}, "one common leading axis"),
        ((DATA, jnp.ones(3)), {}, "`lower_data` must hold arrays whose first two axes"),
        ((jnp.ones((3, 0)), DATA), {}, "`upper_data` must hold arrays whose first two axes"),
        ((DATA, DATA), {"blocks_per_step": 4}, "at most the number of blocks, 3, got 4"),
        ((DATA, DATA), {"blocks_per_step": 0}, "`blocks_per_step` must be a whole number"),
        ((DATA, DATA), {"batch_size": 0}, "`batch_size` must be a whole number"),
    ],
)
def test_refuses_what_does_not_fit(data, options, message):
    with pytest.raises(ValueError, match=message):
        MultiBlockBilevel(SQUARE, SQUARE, 1.0, jnp.zeros(3), *data, **options)


def test_refuses_to_be_scaled_and_levels_that_are_no_numbers():
    problem = MultiBlockBilevel(SQUARE, SQUARE, 1.0, jnp.zeros(3), DATA, DATA)
    with pytest.raises(ValueError, match="cannot be scaled"):
        rp.Scaled(problem, 2.0)
    vector = MultiBlockBilevel(SQUARE, lambda x, y, a, _: (x, y), 1.0, jnp.zeros(3), DATA, DATA)
    with pytest.raises(ValueError, match="`lower` must return one real scalar"):
        rp.solve(vector)
