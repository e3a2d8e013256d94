"""The induced metric against a transcription in NumPy, dense metrics and steps worked by hand."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from raphson.train import induced_metric
from tests.train.walk import data, walked

VARIANTS = ("plain", "log", "rms")
SETTINGS = {
    "learning_rate": 0.03, "momentum": 0.7, "b2": 0.6, "b3": 0.95, "xi": 0.4, "eps": 1e-3,
    "weight_decay": 0.1,
}  # fmt: skip


def transcription(x, gradients, values, variant, learning_rate, momentum, b2, b3, xi, eps, wd):
    """The parameters, one array, after each gradient."""
    m, n, q = np.zeros_like(x), np.zeros_like(x), 0.0
    for t, (g, f) in enumerate(zip(gradients, values, strict=True), 1):
        m = momentum * m + (1 - momentum) * g
        n = b3 * n + (1 - b3) * g**2
        p = np.sqrt(n / (1 - b3**t)) + eps if variant == "rms" else 1.0
        q = b2 * q + (1 - b2) * xi * np.sum(g**2 / p)
        slope = q / (1 - b2**t)
        c = f / (f**2 + slope) if variant == "log" else 1 / (1 + slope)
        rate = learning_rate(t - 1) if callable(learning_rate) else learning_rate
        x = x - rate * (c * m / (1 - momentum**t) / p + wd * x)
        yield x


def path(optimizer, x, gradients, values):
    step = jax.jit(lambda g, state, x, value: optimizer.update(g, state, x, value=value))
    state, found = optimizer.init(x), []
    for g, value in zip(gradients, values, strict=True):
        updates, state = step(g, state, x, value)
        x = optax.apply_updates(x, updates)
        found.append(flat(x))
    return np.array(found)


def flat(leaves):
    return np.concatenate([np.ravel(leaf) for leaf in leaves])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "changed", [{}, {"xi": 0.0}, {"learning_rate": lambda t: 0.05 / (1.0 + t)}, {"weight_decay": 0}]
)
def test_is_the_algorithm(variant, changed):
    settings = SETTINGS | changed
    x, gradients = data()
    values = np.random.default_rng(1).exponential(size=25)
    expected = transcription(
        flat(x), [flat(g) for g in gradients], values, variant, *settings.values()
    )
    found = path(induced_metric(**settings, variant=variant), x, gradients, values)
    np.testing.assert_allclose(found, list(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_is_the_inverse_of_the_metric(variant):
    g, f, xi, eps = np.random.default_rng(0).normal(size=5), 0.3, 0.7, 0.1
    metric = np.diag(np.abs(g) + eps) if variant == "rms" else np.eye(5)
    h = g / f if variant == "log" else g
    expected = -np.linalg.solve(metric + xi * np.outer(h, h), h)
    optimizer = induced_metric(1.0, momentum=0.0, b2=0.0, xi=xi, eps=eps, variant=variant)
    found = path(optimizer, [jnp.zeros(5)], [[g]], [f])
    np.testing.assert_allclose(found[0], expected, rtol=1e-12)


def test_first_steps_by_hand():
    # q / (1 - b2^t) is 4, then (.5 4 + 1) / 1.5 = 2 (b2 = 1/2, xi = 1); m is 2, then 5 / 3.
    optimizer = induced_metric(1.0, momentum=0.5, b2=0.5, xi=1.0)
    first, second = walked(optimizer, jnp.array(0.0), [jnp.array(2.0), jnp.array(1.0)])
    np.testing.assert_allclose(first, -2 / 5, rtol=1e-14)
    np.testing.assert_allclose(second - first, -(4 / 3) / 3, rtol=1e-14)


def test_without_height_is_momentum():
    x, gradients = data()
    ours = walked(induced_metric(0.03, 0.8, xi=0.0), x, gradients)[-1]
    plain = optax.chain(optax.ema(0.8), optax.scale_by_learning_rate(0.03))
    for a, b in zip(ours, walked(plain, x, gradients)[-1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_log_stands_tiny_losses_and_stays_where_there_is_no_logarithm():
    optimizer = induced_metric(1.0, momentum=0.0, b2=0.0, xi=2.0, variant="log")
    x, g = [jnp.zeros(1, jnp.float32)], [jnp.full(1, 1e-18, jnp.float32)]
    # With f = |g| = e, e^2 / (e^2 + 2 e^2).
    np.testing.assert_allclose(path(optimizer, x, [g], [jnp.float32(1e-18)]), -1 / 3, rtol=1e-6)
    for value in (0.0, -1.0):
        assert path(optimizer, x, [g], [value]) == 0
        assert path(optimizer, x, [x], [value]) == 0


@pytest.mark.parametrize(("variant", "buffers"), [("plain", 1), ("log", 1), ("rms", 2)])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_state_is_at_least_single_and_as_large_as_said(variant, buffers, dtype):
    x = {"w": jnp.ones((2, 3), dtype), "frozen": None}
    optimizer = induced_metric(optax.constant_schedule(0.1), variant=variant)
    state = optimizer.init(x)
    updates, after = jax.jit(optimizer.update)(x, state, x, value=jnp.ones((), dtype))
    assert updates["w"].dtype == dtype
    assert jax.tree.map(jnp.result_type, state) == jax.tree.map(jnp.result_type, after)
    shaped = [leaf for leaf in jax.tree.leaves(after) if leaf.shape == (2, 3)]
    assert len(shaped) == buffers
    assert all(leaf.dtype == jnp.promote_types(dtype, jnp.float32) for leaf in shaped)


def test_hyperparameters_can_be_injected_and_mapped_over():
    x, gradients = data(3)
    numbers = {name: value for name, value in SETTINGS.items()}
    plain = walked(induced_metric(**numbers), x, gradients)[-1][1]
    injected = optax.inject_hyperparams(induced_metric)(**numbers)
    np.testing.assert_allclose(walked(injected, x, gradients)[-1][1], plain, rtol=1e-12)
    mapped = jax.vmap(lambda xi: walked(induced_metric(**numbers | {"xi": xi}), x, gradients)[-1])
    np.testing.assert_allclose(mapped(jnp.array([0.1, 0.4]))[1][1], plain, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "value", "range"),
    [
        ("learning_rate", -1.0, "[0, inf)"),
        ("momentum", 1.0, "[0, 1)"),
        ("b2", 1.0, "[0, 1)"),
        ("b3", -0.1, "[0, 1)"),
        ("xi", -0.1, "[0, inf)"),
        ("eps", float("nan"), "[0, inf)"),
    ],
)
def test_unfit_hyperparameters_are_refused_in_one_sentence(name, value, range):
    says = f"`{name}` of induced_metric must be a number in {range}, got {value!r}."
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        induced_metric(**{name: value})


def test_unfit_choices_and_missing_losses_are_refused():
    says = "`variant` must be one of 'plain', 'log', 'rms', got 'exp'."
    with pytest.raises(ValueError, match=f"^{says}$"):
        induced_metric(variant="exp")
    optimizer, x = induced_metric(variant="log"), jnp.ones(2)
    with pytest.raises(ValueError, match="^`value` must be given to the update of induced_metric"):
        optimizer.update(x, optimizer.init(x), x)
