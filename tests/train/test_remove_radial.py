"""AdamP, SGDP and their projection against transcriptions in NumPy and steps worked by hand."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from raphson.train import adamp, remove_radial, sgdp
from tests.train.walk import walked

DELTA, WD_RATIO = 0.3, 0.2


def projection(p, g, x):
    """For a kernel of output channels first: the direction and the factor of its decay."""
    for rows in (x.shape[0], 1):
        w, d, u = (leaf.reshape(rows, -1) for leaf in (x, g, p))
        norms = np.linalg.norm(w, axis=1, keepdims=True)
        cosine = np.sum(w * d, axis=1) / (norms[:, 0] * np.linalg.norm(d, axis=1) + 1e-300)
        if np.max(np.abs(cosine)) < DELTA / np.sqrt(w.shape[1]):
            w = w / (norms + 1e-8)
            return (u - w * np.sum(w * u, axis=1, keepdims=True)).reshape(x.shape), WD_RATIO
    return p, 1.0


def gradient(rng, x, across):
    """One that is across the weights in each channel, or in all, or along them."""
    g = rng.normal(size=x.shape)
    if across == "not":
        return g + x
    w, d = (leaf.reshape(x.shape[0] if across == "channel" else 1, -1) for leaf in (x, g))
    d = d - w * np.sum(w * d, axis=1, keepdims=True) / np.sum(w * w, axis=1, keepdims=True)
    return d.reshape(x.shape) + 1e-3


@pytest.mark.parametrize("across", ["channel", "layer", "not"])
@pytest.mark.parametrize("name", ["adamp", "sgdp", "sgdp_nesterov"])
def test_is_the_algorithm(name, across):
    start = np.random.default_rng(0).normal(size=(3, 2, 4)) + 1.0
    x, m, v = start, np.zeros_like(start), np.zeros_like(start)
    rate, decay, settings = 0.01, 0.3, {"delta": DELTA, "wd_ratio": WD_RATIO}
    rng, gradients, path, ratios = np.random.default_rng(1), [], [], set()
    for t in range(1, 21):
        g = gradient(rng, x, across)
        if name == "adamp":
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            p = m / (np.sqrt(v) / np.sqrt(1 - 0.999**t) + 1e-8)
            p, ratio = projection(p, g, x)
            x = x * (1 - rate * decay * ratio) - rate / (1 - 0.9**t) * p
        else:
            m = 0.8 * m + g
            p = g + 0.8 * m if name == "sgdp_nesterov" else m
            p, ratio = projection(p, g, x)
            x = x * (1 - rate * decay * ratio / (1 - 0.8)) - rate * p
        gradients.append(g)
        path.append(x)
        ratios.add(ratio)
    assert ratios == ({1.0} if across == "not" else {WD_RATIO})

    settings["weight_decay"] = decay
    if name == "adamp":
        optimizer = adamp(rate, **settings)
    else:
        optimizer = sgdp(rate, 0.8, nesterov=name == "sgdp_nesterov", **settings)
    np.testing.assert_allclose(walked(optimizer, start, gradients), path, rtol=1e-7)


def test_kernels_are_read_by_their_layout():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 4, 3))
    g = gradient(rng, x, "channel")
    first = remove_radial(optax.identity())
    last = remove_radial(optax.identity(), output_first=False)
    ours, _ = first.update(g, first.init(x), x)
    turned_g, turned_x = (np.moveaxis(leaf, 0, -1) for leaf in (g, x))
    theirs, _ = last.update(turned_g, last.init(turned_x), turned_x)
    np.testing.assert_allclose(np.moveaxis(theirs, -1, 0), ours, rtol=1e-12)
    rows = np.sum((ours * x).reshape(2, -1), axis=1)
    np.testing.assert_allclose(rows, 0.0, atol=1e-12)
    assert np.all(ours != g)


def test_vectors_scalars_and_other_gradients_stay():
    x = {"matrix": jnp.ones((2, 3)), "bias": jnp.ones(3), "scalar": jnp.array(1.0), "none": None}
    u = jax.tree.map(jnp.ones_like, x)
    transformation = remove_radial(optax.identity())
    updates, _ = transformation.update(u, transformation.init(x), x)
    assert updates["none"] is None
    for key in ("matrix", "bias", "scalar"):
        np.testing.assert_array_equal(updates[key], u[key])


def test_an_update_without_parameters_is_refused_in_one_sentence():
    transformation = remove_radial(optax.identity())
    says = "`params` must be given to the update of remove_radial, got None."
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        transformation.update(jnp.ones(2), transformation.init(jnp.ones(2)))


def test_weights_of_length_0_stay_finite():
    x, g = jnp.zeros((2, 3)), jnp.ones((2, 3))
    transformation = remove_radial(optax.identity(), 0.1)
    updates, _ = transformation.update(g, transformation.init(x), x)
    np.testing.assert_array_equal(updates, g)
    updates, _ = transformation.update(jnp.zeros((2, 3)), transformation.init(x), g)
    np.testing.assert_allclose(updates, 0.01, rtol=1e-6)


@pytest.mark.parametrize(("dtype", "size"), [(jnp.float64, 1e-30), (jnp.float32, 1e-15)])
def test_small_weights_and_gradients_are_judged_by_their_angle(dtype, size):
    x, g = jnp.full((2, 3), size, dtype), jnp.full((2, 3), size, dtype)
    transformation = remove_radial(optax.identity())
    updates, _ = transformation.update(g, transformation.init(x), x)
    np.testing.assert_array_equal(updates, g)


def test_weights_whose_squares_underflow_are_left_alone():
    x, g = jnp.full((2, 3), 1.1e-19, jnp.float32), jnp.array([[1.0, -1.0, 1e-3]] * 2, jnp.float32)
    transformation = remove_radial(optax.identity())
    updates, _ = transformation.update(g, transformation.init(x), x)
    np.testing.assert_allclose(updates, g, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "name", "value", "range"),
    [
        (adamp, "b1", 1.0, "[0, 1)"),
        (adamp, "eps", -1.0, "[0, inf)"),
        (adamp, "weight_decay", float("nan"), "[0, inf)"),
        (adamp, "delta", -0.1, "[0, inf)"),
        (sgdp, "momentum", 1.0, "[0, 1)"),
        (sgdp, "wd_ratio", "low", "[0, inf)"),
    ],
)
def test_unfit_hyperparameters_are_refused_in_one_sentence(make, name, value, range):
    says = f"`{name}` of {make.__name__} must be a number in {range}, got {value!r}."
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        make(**{"learning_rate": 0.1, name: value})
