"""The certified minimum against known minima, dense grids, and a modulus that is wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.smooth import certified_minimum


def rastrigin(y, _=None):
    return jnp.sum(10 + y**2 - 10 * jnp.cos(2 * np.pi * y))


def slope_of_rastrigin(n, radius):
    """A Lipschitz constant in the greatest entry."""
    return n * (2 * radius + 20 * np.pi)


@pytest.mark.parametrize("n, upper, eps", [(1, 4.3, 1e-6), (2, 4.3, 0.1), (2, 0.7, 1e-3)])
def test_the_proof_holds_and_is_within_eps(n, upper, eps):
    problem = rp.Minimize(rastrigin, jnp.zeros(n))
    found = certified_minimum(problem, -5.0, upper, slope_of_rastrigin(n, 5.0), eps)
    assert found.lower_bound <= 0 <= found.value <= found.lower_bound + eps * (1 + 1e-12)
    np.testing.assert_allclose(found.value, rastrigin(found.minimizer), atol=1e-13)
    # A net as fine as the modulus asks for needs far more values.
    side = (5 + upper) * slope_of_rastrigin(n, 5.0) / (2 * eps)
    assert found.evaluations < (0.01 if n == 2 else 0.1) * side**n


def test_a_maximum_at_a_corner_is_found_and_pytrees_are_kept():
    fn = lambda y, _: -jnp.abs(y["a"]) - 2 * jnp.sum(jnp.sin(y["b"]) ** 2)
    start = {"a": jnp.array(0.1), "b": jnp.array([0.2])}
    lower = {"a": jnp.array(-3.0), "b": jnp.array([-1.0])}
    upper = {"a": jnp.array(1.0), "b": jnp.array([1.5])}
    found = certified_minimum(rp.Minimize(fn, start), lower, upper, 3.0, 0.01)
    least = -3 - 2 * np.sin(1.5) ** 2
    assert jax.tree.structure(found.minimizer) == jax.tree.structure(start)
    assert found.lower_bound <= least <= found.value <= found.lower_bound + 0.01 * (1 + 1e-12)


def test_a_modulus_may_be_a_function():
    # sqrt|y - 0.3| has no Lipschitz constant, but the modulus sqrt(r).
    problem = rp.Minimize(lambda y, _: jnp.sqrt(jnp.abs(y - 0.3)), jnp.array(0.0))
    found = certified_minimum(problem, -1.0, 1.0, np.sqrt, 1e-2)
    assert found.lower_bound <= 0 <= found.value <= found.lower_bound + 1e-2 * (1 + 1e-12)


def test_a_modulus_that_is_too_small_proves_what_is_false():
    # A spike of depth 3 and slope 30 in a bowl of slope 8.
    def spiked(y, _):
        apart = jnp.max(jnp.abs(y - jnp.array([1.234, -0.77])))
        return jnp.sum(y**2) - jnp.maximum(0, 3 - 30 * apart)

    problem = rp.Minimize(spiked, jnp.zeros(2))
    least = float(spiked(jnp.array([1.234, -0.77]), None))
    assert least < -0.8
    found = certified_minimum(problem, -2.0, 2.0, 38.0, 0.05)
    assert found.lower_bound <= least <= found.value <= found.lower_bound + 0.051
    misled = certified_minimum(problem, -2.0, 2.0, 8.0, 0.05)
    assert misled.lower_bound > least + 0.5


def test_where_it_gives_up_the_bound_is_still_valid():
    problem = rp.Minimize(rastrigin, jnp.zeros(2))
    found = certified_minimum(problem, -5.0, 4.3, 146.0, 1e-3, max_evaluations=500)
    assert found.evaluations < 500 + 4 * 1024
    assert found.lower_bound <= 0 <= found.value and found.value - found.lower_bound > 1e-3


def test_single_precision():
    problem = rp.Minimize(rastrigin, jnp.zeros(1, jnp.float32))
    found = certified_minimum(problem, -5.0, 4.3, 73.0, 0.05)
    assert found.minimizer.dtype == jnp.float32 and abs(float(found.minimizer[0])) < 0.02


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"problem": rp.Minimize(rastrigin, jnp.zeros(5))}, "must have 1 to 4 unknowns, got 5"),
        ({"lower": -jnp.inf}, "`lower` and `upper` must be finite"),
        ({"lower": 6.0}, "`lower` must be below `upper`"),
        ({"eps": 0.0}, "`eps` must be a number in"),
        ({"modulus": -1.0}, "`modulus` must be a number in"),
        ({"max_evaluations": 0}, "`max_evaluations` must be a whole number of at least 1"),
        ({"problem": rp.Minimize(lambda y, _: jnp.log(y), jnp.array(1.0))}, "finite values"),
    ],
)
def test_unfit_arguments_are_refused(change, sentence):
    arguments = {
        "problem": rp.Minimize(rastrigin, jnp.zeros(2)),
        "lower": -5.0,
        "upper": 4.3,
        "modulus": 146.0,
        "eps": 0.1,
    }
    with pytest.raises(ValueError, match=sentence):
        certified_minimum(**(arguments | change))
