"""Thermodynamic natural gradient against matrix exponentials, linear solves and its law."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

from raphson.train import tngd

KEY = jax.random.key(5)
RNG = np.random.default_rng(0)
FEATURES, TARGET = RNG.normal(size=(12, 3)), RNG.integers(0, 2, 12)


def model(w):
    """Logits of two classes, not linear in the weights."""
    return jnp.tanh(FEATURES @ w[0]) @ w[1]


def loss(logits):
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - logits[jnp.arange(12), TARGET])


START = [RNG.normal(size=(3, 2)), RNG.normal(size=(2, 2))]


def at(w):
    """The gradient and J' H J, flat, from the derivatives of the softmax."""
    flat, unravel = jax.flatten_util.ravel_pytree(w)
    jacobian = np.asarray(jax.jacobian(lambda w: model(unravel(w)).ravel())(flat))
    p = np.asarray(jax.nn.softmax(model(w)))
    blocks = np.zeros((12, 2, 12, 2))
    for i in range(12):
        blocks[i, :, i, :] = (np.diag(p[i]) - np.outer(p[i], p[i])) / 12
    residual = (p - np.eye(2)[TARGET]).ravel() / 12
    return jacobian.T @ residual, jacobian.T @ blocks.reshape(24, 24) @ jacobian


def followed(optimizer, steps):
    """The parameters, flat, after each step."""

    @jax.jit
    def step(w, state):
        g = jax.grad(lambda w: loss(model(w)))(w)
        updates, state = optimizer.update(g, state, w, model_fn=model, loss_fn=loss)
        return jax.tree.map(jnp.add, w, updates), state

    w, state, path = START, optimizer.init(START), []
    for _ in range(steps):
        w, state = step(w, state)
        path.append(w)
    return path


@pytest.mark.parametrize("time", [0.1, 3.0])
def test_without_noise_it_is_the_matrix_exponential(time):
    path = followed(tngd(0.3, damping=0.2, analog_time=time), 20)
    w, x = START, np.zeros(10)
    for ours in path:
        g, curvature = at(w)
        a = curvature + 0.2 * np.eye(10)
        rest = np.linalg.solve(a, g)
        x = rest + expm(-a * time) @ (x - rest)
        flat, unravel = jax.flatten_util.ravel_pytree(w)
        w = unravel(flat - 0.3 * x)
        for a, b in zip(ours, w, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-11)


def test_long_times_are_natural_gradient_and_short_ones_descent():
    g, curvature = at(START)
    flat, _ = jax.flatten_util.ravel_pytree(START)
    for time, direction in (
        (1e4, np.linalg.solve(curvature + 0.1 * np.eye(10), g)),
        (1e-7, 1e-7 * g),
    ):
        (after,) = followed(tngd(1.0, analog_time=time), 1)
        moved = flat - jax.flatten_util.ravel_pytree(after)[0]
        np.testing.assert_allclose(moved, direction, rtol=1e-6, atol=1e-12)


def test_euler_and_maruyama_by_their_steps():
    settings = {"damping": 0.2, "analog_time": 2.0, "inverse_temperature": 50.0}
    path = followed(tngd(0.3, **settings, euler_steps=4, key=KEY), 20)
    w, x, dt = START, np.zeros(10), 0.5
    for t, ours in enumerate(path):
        g, curvature = at(w)
        for index in range(4):
            key = jax.random.fold_in(jax.random.fold_in(KEY, t), index)
            noise = np.asarray(jax.random.normal(key, (10,), float))
            x = x - dt * (curvature @ x + 0.2 * x - g) + np.sqrt(2 * dt / 50) * noise
        flat, unravel = jax.flatten_util.ravel_pytree(w)
        w = unravel(flat - 0.3 * x)
        for a, b in zip(ours, w, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("euler_steps", "time"), [(None, 0.7), (None, 50.0), (200, 0.7)])
def test_voltages_have_the_law_of_the_process(euler_steps, time):
    # From 0 the mean is (1 - e^-At) A^-1 g, and the covariance (1 - e^-2At) A^-1 / beta.
    h = np.array([[3.0, 1.0], [1.0, 0.5]])
    a, beta, g = h + 0.1 * np.eye(2), 4.0, np.array([1.0, -2.0])

    def voltages(key):
        optimizer = tngd(1.0, 0.1, time, beta, euler_steps, key)
        x = jnp.zeros(2)
        extra = {"value_fn": lambda x: x @ h @ x / 2}
        return -optimizer.update(jnp.asarray(g), optimizer.init(x), x, **extra)[0]

    drawn = np.asarray(jax.jit(jax.vmap(voltages))(jax.random.split(KEY, 10_000)))
    rest = np.linalg.solve(a, g)
    mean = rest - expm(-a * time) @ rest
    covariance = np.linalg.solve(a, np.eye(2) - expm(-2 * a * time)) / beta
    deviations = np.sqrt(np.diag(covariance))
    tolerance = 0.04 if euler_steps is None else 0.06
    np.testing.assert_array_less(np.abs(np.mean(drawn, axis=0) - mean), tolerance * deviations)
    np.testing.assert_array_less(
        np.abs(np.cov(drawn.T) - covariance), tolerance * np.outer(deviations, deviations)
    )


def test_value_fn_alone_gives_the_hessian():
    h = np.diag([1.0, 4.0])

    def quadratic(x):
        return x @ h @ x / 2

    x, optimizer = jnp.array([2.0, -1.0]), tngd(1.0, damping=1e-9, analog_time=1e3)
    updates, _ = optimizer.update(h @ x, optimizer.init(x), x, value_fn=quadratic)
    np.testing.assert_allclose(updates, -x, rtol=1e-7)


@pytest.mark.parametrize(
    ("given", "missing"),
    [({}, "model_fn"), ({"model_fn": model}, "loss_fn"), ({"loss_fn": loss}, "model_fn")],
)
def test_without_model_or_loss_it_says_what_is_missing(given, missing):
    optimizer = tngd(0.1)
    says = f"`{missing}` must be given to the update of tngd, got None."
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        optimizer.update(START, optimizer.init(START), START, **given)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("damping", 0.0, "`damping` of tngd must be a number in (0, inf), got 0.0."),
        ("analog_time", -1.0, "`analog_time` of tngd must be a number in (0, inf), got -1.0."),
        (
            "inverse_temperature",
            0.0,
            "`inverse_temperature` of tngd must be a number in (0, inf], got 0.0.",
        ),
        ("euler_steps", 0, "`euler_steps` must be a whole number of at least 1, got 0."),
    ],
)
def test_unfit_hyperparameters_are_refused_in_one_sentence(name, value, says):
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        tngd(0.1, **{name: value})
