"""OASIS against a transcription in NumPy that forms the Hessian, and the rule that it extends."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from raphson.train import oasis
from tests.train.descent import descended

KEY = jax.random.key(5)


def loss(x, rows):
    return jnp.mean(jnp.logaddexp(0, -rows @ x)) + jnp.vdot(x, x) / 20


def batches(count=25, n=8, d=5):
    return list(np.random.default_rng(0).normal(size=(count, n, d)) * np.geomspace(0.5, 5, d))


def gradient(x, rows):
    return -rows.T @ (1 / (1 + np.exp(rows @ x))) / len(rows) + x / 10


def transcription(x, samples, initial_rate, b2, alpha, warm, learning_rate=None, momentum=0.0):
    path, before, rates, m = [], None, [], np.zeros_like(x)
    for t, rows in enumerate(samples):
        p = 1 / (1 + np.exp(rows @ x))
        hessian = (rows.T * (p * (1 - p))) @ rows / len(rows) + np.eye(len(x)) / 10
        here = jax.random.fold_in(KEY, t)
        draws = []
        for index in range(warm if t == 0 else 1):
            signs = jax.random.fold_in(here, index)
            z = np.asarray(optax.tree.random_like(signs, x, jax.random.rademacher))
            draws.append(z * (hessian @ z))
        d = np.mean(draws, axis=0) if t == 0 else b2 * d + (1 - b2) * draws[0]
        metric = np.maximum(np.abs(d), alpha)
        g = gradient(x, rows)
        if learning_rate is not None:
            rate = learning_rate(t)
        elif t == 0:
            rate, growth = initial_rate, np.inf
        else:
            moved, turned = x - before, g - gradient(before, rows)
            length = np.sqrt(np.sum(metric * moved**2))
            turn = np.sqrt(np.sum(turned**2 / metric))
            new = min(np.sqrt(1 + growth) * rate, length / (2 * turn))
            rate, growth = new, new / rate
        rates.append(rate)
        m = momentum * m + (1 - momentum) * g
        before, x = x, x - rate * m / (1 - momentum ** (t + 1)) / metric
        path.append(x)
    return path, rates


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"alpha": 0.5, "samples": 1},
        {"b2": 0.99, "initial_rate": 1e-3},
        {"initial_rate": 10.0},
    ],
)
def test_is_the_algorithm(changed):
    settings = {"initial_rate": 1e-2, "b2": 0.9, "alpha": 1e-3, "samples": 3} | changed
    samples, start = batches(), np.ones(5)
    path = descended(oasis(**settings, key=KEY), loss, start, samples)
    settings["warm"] = settings.pop("samples")
    expected, rates = transcription(start, samples, **settings)
    np.testing.assert_allclose(path, expected, rtol=1e-7, atol=1e-9)
    # Both bounds were met, or the rule was not tried.
    ratios = np.array(rates[2:]) / rates[1:-1]
    assert np.any(ratios > 1) and np.any(ratios < 1)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_rate_can_be_fixed_and_the_gradient_averaged_before(momentum):
    def rate(t):
        return 0.3 / (1 + t)

    optimizer = oasis(b2=0.9, samples=3, learning_rate=rate, key=KEY)
    path = descended(optax.chain(optax.ema(momentum), optimizer), loss, np.ones(5), batches())
    settings = {"b2": 0.9, "alpha": 1e-3, "warm": 3, "learning_rate": rate, "momentum": momentum}
    expected, _ = transcription(np.ones(5), batches(), 1.0, **settings)
    np.testing.assert_allclose(path, expected, rtol=1e-7, atol=1e-9)
    assert sum(leaf.size for leaf in jax.tree.leaves(optimizer.init(np.ones(5)))) == 5 + 3


def test_fixed_rates_can_be_injected_and_mapped_over():
    x, samples = np.ones(5), batches(4)
    plain = descended(oasis(learning_rate=0.2), loss, x, samples)
    injected = optax.inject_hyperparams(oasis, static_args="samples")(learning_rate=0.2)
    np.testing.assert_allclose(descended(injected, loss, x, samples), plain, rtol=1e-6)
    mapped = jax.vmap(lambda r: descended(oasis(learning_rate=r), loss, x, samples)[-1])
    np.testing.assert_allclose(mapped(jnp.array([0.1, 0.2]))[1], plain[-1], rtol=1e-12)


def test_quadratic_by_hand():
    # f = 4 x^2: B = 8 by any signs, so that g / B = x and the second bound is always 1 / 2.
    path = descended(oasis(0.25), lambda x, _: 4 * x**2, jnp.array(8.0), [jnp.ones(())] * 4)
    np.testing.assert_allclose(path, [6.0, 3.0, 1.5, 0.75], rtol=1e-12)


def test_with_a_constant_metric_it_is_adaptive_gradient_descent():
    # The rate times 1 / alpha is that of Malitsky and Mishchenko (2020).
    rows, x = batches(1)[0], np.ones(5)
    path = descended(oasis(1.0, alpha=1e4), loss, x, [rows] * 20)
    rate, growth, before = 1e-4, np.inf, None
    for ours in path:
        g = gradient(x, rows)
        if before is not None:
            bound = np.linalg.norm(x - before[0]) / (2 * np.linalg.norm(g - before[1]))
            new = min(np.sqrt(1 + growth) * rate, bound)
            rate, growth = new, new / rate
        before, x = (x, g), x - rate * g
        np.testing.assert_allclose(ours, x, rtol=1e-6)


def test_where_nothing_moves_the_rate_stays_finite():
    x = jnp.zeros(3)
    optimizer = oasis(0.1)
    state = optimizer.init(x)
    for slope in (0.0, 0.0, 2.0, 2.0):

        def flat(x, slope=slope):
            return slope * jnp.sum(x)

        updates, state = optimizer.update(jax.grad(flat)(x), state, x, value_fn=flat)
        x = x + updates
        np.testing.assert_allclose(state[3], 0.1, rtol=1e-7)
    np.testing.assert_allclose(x, -2 * 0.1 * 2 / 1e-3, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("initial_rate", 0.0, "`initial_rate` of oasis must be a number in (0, inf), got 0.0."),
        ("b2", 1.0, "`b2` of oasis must be a number in [0, 1), got 1.0."),
        ("alpha", 0.0, "`alpha` of oasis must be a number in (0, inf), got 0.0."),
        ("samples", 0, "`samples` must be a whole number of at least 1, got 0."),
        ("learning_rate", -1, "`learning_rate` of oasis must be a number in [0, inf), got -1."),
    ],
)
def test_unfit_hyperparameters_are_refused_in_one_sentence(name, value, says):
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        oasis(**{name: value})
