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


DATA = {"inputs": jnp.asarray(FEATURES), "targets": jnp.asarray(TARGET)}


def model(w, features):
    """Logits of two classes, not linear in the weights."""
    return jnp.tanh(features @ w[0]) @ w[1]


def loss(w):
    logits = model(w, FEATURES)
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - logits[jnp.arange(12), TARGET])


START = [RNG.normal(size=(3, 2)), RNG.normal(size=(2, 2))]


def at(w):
    """The gradient and J' Q J, flat, from the derivatives of the softmax."""
    flat, unravel = jax.flatten_util.ravel_pytree(w)
    jacobian = np.asarray(jax.jacobian(lambda w: model(unravel(w), FEATURES).ravel())(flat))
    p = np.asarray(jax.nn.softmax(model(w, FEATURES)))
    blocks = np.zeros((12, 2, 12, 2))
    for i in range(12):
        blocks[i, :, i, :] = (np.diag(p[i]) - np.outer(p[i], p[i])) / 12
    residual = (p - np.eye(2)[TARGET]).ravel() / 12
    return jacobian.T @ residual, jacobian.T @ blocks.reshape(24, 24) @ jacobian


def followed(*settings, steps, **options):
    """The parameters after each step."""
    optimizer = tngd(*settings, model=model, loss="softmax", **options)

    @jax.jit
    def step(w, state):
        updates, state = optimizer.update(jax.grad(loss)(w), state, w, **DATA)
        return jax.tree.map(jnp.add, w, updates), state

    w, state, path = START, optimizer.init(START), []
    for _ in range(steps):
        w, state = step(w, state)
        path.append(w)
    return path


@pytest.mark.parametrize(
    ("time", "options"), [(0.1, {}), (3.0, {}), (0.5, {"delay": 0.3}), (0.5, {"warm_start": False})]
)
def test_without_noise_it_is_the_matrix_exponential(time, options):
    path = followed(0.3, 0.2, time, **options, steps=20)
    w, x = START, at(START)[0]
    for ours in path:
        g, curvature = at(w)
        a = curvature + 0.2 * np.eye(10)
        rest = np.linalg.solve(a, g)
        x = x if options.get("warm_start", True) else g
        x = rest + expm(-a * time) @ (x - rest)
        flat, unravel = jax.flatten_util.ravel_pytree(w)
        w = unravel(flat - 0.3 * x)
        # Until the next gradient it runs on by this one.
        x = rest + expm(-a * options.get("delay", 0.0)) @ (x - rest)
        for a, b in zip(ours, w, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-11)


def test_long_times_are_natural_gradient_and_short_ones_descent():
    g, curvature = at(START)
    flat, _ = jax.flatten_util.ravel_pytree(START)
    for time, direction in (
        (1e4, np.linalg.solve(curvature + 0.1 * np.eye(10), g)),
        (1e-7, g),
    ):
        (after,) = followed(1.0, analog_time=time, steps=1)
        moved = flat - jax.flatten_util.ravel_pytree(after)[0]
        np.testing.assert_allclose(moved, direction, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("delay", [0.0, 1.0])
def test_euler_and_maruyama_by_their_steps(delay):
    settings = {"damping": 0.2, "analog_time": 2.0, "inverse_temperature": 50.0, "delay": delay}
    path = followed(0.3, **settings, euler_steps=4, key=KEY, steps=20)
    w, x = START, at(START)[0]
    for t, ours in enumerate(path):
        g, curvature = at(w)
        a = curvature + 0.2 * np.eye(10)
        before, after = jax.random.split(jax.random.fold_in(KEY, t))

        def run(x, time, key, a=a, g=g):
            for index in range(4):
                noise = jax.random.normal(jax.random.fold_in(key, index), (10,), float)
                x = x - time / 4 * (a @ x - g) + np.sqrt(time / 2 / 50) * np.asarray(noise)
            return x

        x = run(x, 2.0, before)
        flat, unravel = jax.flatten_util.ravel_pytree(w)
        w = unravel(flat - 0.3 * x)
        x = run(x, delay, after)
        for a, b in zip(ours, w, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("euler_steps", "time"), [(None, 0.7), (None, 50.0), (200, 0.7)])
def test_voltages_have_the_law_of_the_process(euler_steps, time):
    # From g the mean is A^-1 g + e^-At (g - A^-1 g), the covariance (1 - e^-2At) A^-1 / beta.
    h = np.array([[3.0, 1.0], [1.0, 0.5]])
    a, beta, g = h + 0.1 * np.eye(2), 4.0, np.array([1.0, -2.0])

    def voltages(key):
        optimizer = tngd(1.0, 0.1, time, beta, euler_steps=euler_steps, key=key)
        x = jnp.zeros(2)
        extra = {"value_fn": lambda x: x @ h @ x / 2}
        return -optimizer.update(jnp.asarray(g), optimizer.init(x), x, **extra)[0]

    drawn = np.asarray(jax.jit(jax.vmap(voltages))(jax.random.split(KEY, 10_000)))
    rest = np.linalg.solve(a, g)
    mean = rest + expm(-a * time) @ (g - rest)
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


@pytest.mark.parametrize("missing", ["inputs", "targets", "value_fn"])
def test_without_the_batch_it_says_what_is_missing(missing):
    optimizer = tngd(0.1, model=None if missing == "value_fn" else model)
    given = {name: value for name, value in DATA.items() if name != missing}
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
        ("delay", -1.0, "`delay` of tngd must be a number in [0, inf), got -1.0."),
        ("euler_steps", 0, "`euler_steps` must be a whole number of at least 1, got 0."),
        ("model", 1, "`model` must be a function, got 1."),
        ("loss", "l1", "`loss` of tngd must be 'squared', 'softmax' or a function, got 'l1'."),
    ],
)
def test_unfit_hyperparameters_are_refused_in_one_sentence(name, value, says):
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        tngd(0.1, **{name: value})
