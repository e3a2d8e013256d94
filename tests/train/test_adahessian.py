"""AdaHessian against a transcription in NumPy that forms the Hessian, and steps worked by hand."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from raphson.train import adahessian
from raphson.train._hutchinson import drawn_diagonal
from tests.train.descent import descended
from tests.train.walk import data

KEY = jax.random.key(5)


def coupled(x, sample):
    """Not quadratic, and no entry without the others."""
    leaves = [leaf * jnp.exp(s / 4) for leaf, s in zip(x, sample, strict=True)]
    together = jnp.concatenate([leaf.ravel() for leaf in leaves])
    return jnp.sum(together**2 - jnp.cos(together)) + jnp.sum(together) ** 2 / 20


def transcription(x, samples, lr, b1, b2, eps, hessian_power, every, weight_decay):
    """The parameters after each sample; the signs are drawn as they are drawn by the method."""
    x = [leaf.copy() for leaf in x]
    shapes = [leaf.shape for leaf in x]
    cuts = np.cumsum([leaf.size for leaf in x])[:-1]

    def parts(flat):
        return [p.reshape(s) for p, s in zip(np.split(np.asarray(flat), cuts), shapes)]

    def flat_loss(flat, sample):
        return coupled([p.reshape(s) for p, s in zip(jnp.split(flat, cuts), shapes)], sample)

    gradient, hessian = jax.jit(jax.grad(flat_loss)), jax.jit(jax.hessian(flat_loss))
    m, s = ([np.zeros_like(leaf) for leaf in x] for _ in range(2))
    looks, path = 0, []
    for t, sample in enumerate(samples, 1):
        flat = np.concatenate([leaf.ravel() for leaf in x])
        g = parts(gradient(flat, sample))
        new = (t - 1) % every == 0
        looks += new
        z = optax.tree.random_like(jax.random.fold_in(KEY, t - 1), x, jax.random.rademacher)
        z = np.concatenate([np.ravel(leaf) for leaf in z])
        d = parts(z * (np.asarray(hessian(flat, sample)) @ z))
        rate = lr(t - 1) if callable(lr) else lr
        for i in range(len(x)):
            m[i] = b1 * m[i] + (1 - b1) * g[i]
            s[i] = b2 * s[i] + (1 - b2) * d[i] ** 2 if new else s[i]
            denominator = np.sqrt(s[i] / (1 - b2**looks)) ** hessian_power + eps
            u = m[i] / (1 - b1**t) / denominator
            x[i] = x[i] - rate * (u + weight_decay * x[i])
        path.append([leaf.copy() for leaf in x])
    return path


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"hessian_power": 0.5, "weight_decay": 0.1},
        {"hessian_power": 0.0, "b1": 0.0, "b2": 0.0},
        {"every": 3},
        {"lr": lambda t: 0.2 / (1.0 + t)},
    ],
)
def test_is_the_algorithm(changed):
    settings = {
        "lr": 0.1, "b1": 0.9, "b2": 0.95, "eps": 1e-4,
        "hessian_power": 1.0, "every": 1, "weight_decay": 0.0,
    } | changed  # fmt: skip
    x, samples = data(20)
    expected = transcription(x, samples, **settings)
    path = descended(adahessian(settings.pop("lr"), **settings, key=KEY), coupled, x, samples)
    for ours, theirs in zip(path, expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-11)


def test_first_step_by_hand():
    # f = 3 x^4 at 2: g = 96, H = 144 whatever the sign; without eps x - 0.1 96 / 144.
    (x,) = descended(
        adahessian(0.1, eps=0.0), lambda x, _: 3 * x**4, jnp.array(2.0), [jnp.ones(())]
    )
    np.testing.assert_allclose(x, 2 - 0.1 * 96 / 144, rtol=1e-14)


@pytest.mark.parametrize("output_first", [True, False])
def test_curvatures_of_a_kernel_are_averaged_over_its_places(output_first):
    # One-dimensional kernels of 2 outputs and 3 inputs with 4 places, whose Hessian is diagonal.
    shape = (2, 3, 4) if output_first else (4, 3, 2)
    places = 2 if output_first else 0
    curvature = np.random.default_rng(0).normal(size=shape)
    x = np.ones(shape)
    (after,) = descended(
        adahessian(0.1, eps=0.0, output_first=output_first),
        lambda x, c: jnp.sum(c * x**2) / 2,
        x,
        [curvature],
    )
    mean = np.mean(np.abs(curvature), axis=places, keepdims=True)
    np.testing.assert_allclose(after, x - 0.1 * curvature / mean, rtol=1e-13)


def test_draws_are_the_diagonal_on_the_mean():
    rng = np.random.default_rng(0)
    a, c = rng.normal(size=(20, 20)), rng.normal(size=20)
    h = a + a.T + 20 * np.diag(c)
    keys = jax.random.split(KEY, 4000)
    drawn = jax.vmap(lambda key: drawn_diagonal(key, lambda x: x @ h @ x / 2, jnp.zeros(20)))(keys)
    # The variance of entry i is the sum of squares beside the diagonal.
    deviation = np.sqrt(np.sum(h**2, axis=1) - np.diag(h) ** 2)
    np.testing.assert_array_less(np.abs(np.mean(drawn, axis=0) - np.diag(h)), 5e-2 * deviation)
    np.testing.assert_allclose(np.std(drawn, axis=0), deviation, rtol=0.05)


def test_key_decides_the_signs():
    x, samples = data(2)
    runs = [
        descended(adahessian(0.1, key=key), coupled, x, samples)[-1]
        for key in (None, jax.random.key(0), jax.random.key(1))
    ]
    np.testing.assert_array_equal(runs[0][0], runs[1][0])
    assert np.all(runs[0][0] != runs[2][0])


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("b2", 1.0, "`b2` of adahessian must be a number in [0, 1), got 1.0."),
        ("eps", -1.0, "`eps` of adahessian must be a number in [0, inf), got -1.0."),
        (
            "hessian_power",
            1.5,
            "`hessian_power` of adahessian must be a number in [0, 1], got 1.5.",
        ),
        ("every", 0, "`every` must be a whole number of at least 1, got 0."),
        ("key", 0, "`key` must be one random key, jax.random.key(0), got 0."),
    ],
)
def test_unfit_hyperparameters_are_refused_in_one_sentence(name, value, says):
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        adahessian(0.1, **{name: value})
