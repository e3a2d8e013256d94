"""Price's search against a transcription in NumPy with the same draws, and known minima."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.smooth import price_search

KEY = jax.random.key(3)


def waves(y, _=None):
    """Rastrigin's function with its least value, 0, at 0.3."""
    return jnp.sum(10 + (y - 0.3) ** 2 - 10 * jnp.cos(2 * np.pi * (y - 0.3)))


def test_steps_are_those_of_the_paper():
    low, high, size, trials = np.array([-3.0, -1.0]), np.array([2.0, 4.0]), 20, 80
    f = lambda y: float(np.sum(np.abs(y - 1) ** 1.5) + y[0])
    problem = rp.Minimize(lambda y, _: jnp.sum(jnp.abs(y - 1) ** 1.5) + y[0], jnp.zeros(2))
    found = price_search(problem, low, high, key=KEY, population=size, atol=0.0, max_trials=trials)
    key, now = jax.random.split(KEY)
    points = low + (high - low) * np.asarray(jax.random.uniform(now, (size, 2)))
    values, asked = np.array([f(y) for y in points]), size
    for _ in range(trials):
        key, now = jax.random.split(key)
        *others, last = points[np.asarray(jax.random.choice(now, size, (3,), replace=False))]
        trial = others[0] + others[1] - last
        if np.any(trial < low) or np.any(trial > high):
            continue
        value, worst, asked = f(trial), np.argmax(values), asked + 1
        if value < values[worst]:
            points[worst], values[worst] = trial, value
    assert size + trials / 2 < asked < size + trials  # some were outside
    assert int(found.evaluations) == asked
    np.testing.assert_allclose(found.minimizer, points[np.argmin(values)], rtol=1e-12)
    spread = np.ptp(values)
    np.testing.assert_allclose([found.value, found.spread], [min(values), spread], rtol=1e-6)


def test_the_least_of_many_minima_is_found():
    found = price_search(rp.Minimize(waves, jnp.ones(2)), -5.0, 5.0, key=KEY)
    assert float(found.value) < 1e-6 and float(found.spread) <= 1e-6
    np.testing.assert_allclose(found.minimizer, 0.3, atol=1e-3)


def test_a_minimum_at_the_border_is_found_in_a_tree_of_single_precision():
    fn = lambda y, _: jnp.sum(y["u"] ** 2) - 2 * y["v"]
    start = {"u": jnp.zeros(2, jnp.float32), "v": jnp.zeros((), jnp.float32)}
    found = price_search(rp.Minimize(fn, start), -1.0, 2.0, key=KEY, atol=1e-3)
    assert found.minimizer["u"].dtype == found.value.dtype == jnp.float32
    np.testing.assert_allclose(found.value, -4, atol=1e-2)


def test_where_f_is_not_defined_no_point_stays():
    problem = rp.Minimize(lambda y, _: jnp.log(y) ** 2, jnp.array(2.0))
    found = price_search(problem, -3.0, 3.0, key=KEY)
    np.testing.assert_allclose(found.minimizer, 1, atol=1e-2)


def test_keys_under_vmap_are_searches_of_their_own():
    problem = rp.Minimize(lambda y, _: jnp.sum((y - 0.3) ** 2), jnp.ones(2))
    keys = jax.random.split(KEY, 2)
    search = lambda key: price_search(problem, -5.0, 5.0, key=key, max_trials=100)
    together = jax.vmap(search)(keys)
    for i in range(2):
        alone = search(keys[i])
        assert int(together.evaluations[i]) == int(alone.evaluations)
        np.testing.assert_allclose(together.value[i], alone.value, rtol=1e-12)


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"lower": 6.0}, "`lower` must be below `upper`"),
        ({"upper": jnp.inf}, "`lower` and `upper` must be finite"),
        ({"key": 3}, "`key` must be one random key"),
        ({"population": 3}, "`population` must be a whole number of at least 4"),
        ({"atol": -1.0}, "`atol` must be a number in"),
        ({"max_trials": 0.5}, "`max_trials` must be a whole number"),
    ],
)
def test_unfit_arguments_are_refused(change, sentence):
    arguments = {"lower": -5.0, "upper": 5.0, "key": KEY} | change
    with pytest.raises(ValueError, match=sentence):
        price_search(rp.Minimize(waves, jnp.zeros(2)), **arguments)
