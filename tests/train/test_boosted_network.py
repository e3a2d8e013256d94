"""Boosted networks against the sum of their rounds, the loss of each, and closed forms."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from raphson.train import boosted_network

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 3))
SCORE = np.sin(2 * X[:, 0]) + X[:, 1]
TARGETS = {
    "squared": np.stack([SCORE, X[:, 2] ** 2], axis=1),
    "binary": (SCORE > 0.3).astype(int),
    "softmax": np.digitize(SCORE, [-0.5, 0.5]),
}


def losses(loss, network, rounds):
    found = []
    for count in range(rounds + 1):
        outputs = network.first(count)(X)
        if loss == "squared":
            each = (outputs - TARGETS[loss]) ** 2
        elif loss == "binary":
            each = optax.losses.sigmoid_binary_cross_entropy(outputs[:, 0], TARGETS[loss])
        else:
            each = optax.losses.softmax_cross_entropy_with_integer_labels(outputs, TARGETS[loss])
        found.append(float(jnp.mean(each)))
    return np.array(found)


@pytest.fixture(scope="module")
def networks():
    x, single = jnp.asarray(X, jnp.float32), jnp.asarray(TARGETS["squared"], jnp.float32)
    return {
        "squared": boosted_network(x, single, KEY, 8, 2, 0.5, 1.0, 1e-4, "squared", 30),
        "binary": boosted_network(X, TARGETS["binary"], KEY, 8, 2, 0.5, 0.5, 1e-4, "binary", 30),
        "softmax": boosted_network(X, TARGETS["softmax"], KEY, 8, 2, 0.5, 1.0, 1e-4, "softmax", 30),
    }


@pytest.mark.parametrize("loss", TARGETS)
def test_every_round_lowers_the_loss(networks, loss):
    found = losses(loss, networks[loss], 4)
    assert np.all(np.diff(found) < 0) and found[-1] < 0.7 * found[0]


def test_begins_at_the_best_constant(networks):
    share = TARGETS["binary"].mean()
    constants = [networks[loss].first(0)(X[0]) for loss in TARGETS]
    np.testing.assert_allclose(constants[0], TARGETS["squared"].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(constants[1], [np.log(share / (1 - share))], rtol=1e-12)
    np.testing.assert_array_equal(constants[2], np.zeros(3))


@pytest.mark.parametrize("loss", TARGETS)
def test_each_round_is_a_newton_step_along_its_network(networks, loss):
    # F and h are read off the finished network; rho is then a quotient of sums.
    network, y = networks[loss], TARGETS[loss]
    for count in range(3):
        f, after = (np.asarray(network.first(t)(X)) for t in (count, count + 1))
        added = after - f
        if loss == "squared":
            # The network is the best of its kind but for its length, which is halved.
            r, curvature = y - f, np.ones_like(f)
        elif loss == "binary":
            f, added, y_ = f / 2, added / 2, 2 * y[:, None] - 1
            r = 2 * y_ / (1 + np.exp(2 * y_ * f))
            curvature = r * (2 * y_ - r)
        else:
            p = np.exp(f) / np.exp(f).sum(axis=1, keepdims=True)
            r, curvature = np.eye(3)[y] - p, p * (1 - p)
        share = np.sum(curvature * added**2) / np.sum(r * added)
        np.testing.assert_allclose(share, 0.5, rtol=0.1 if loss == "squared" else 1e-9)


def test_takes_one_sample_or_many_in_their_precision(networks):
    network, x = networks["squared"], jnp.asarray(X, jnp.float32)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(network))
    assert network.weight.shape == (3, 8) and network.out_bias.shape == (5, 2)
    np.testing.assert_allclose(network(x[:4].reshape(2, 2, 3))[1, 0], network(x[2]), rtol=1e-4)


def test_rounds_are_drawn_by_the_key(networks):
    first, other = (
        boosted_network(X, TARGETS["binary"], key, 8, 2, 0.5, 0.5, 1e-4, "binary", 30)
        for key in (KEY, jax.random.key(1))
    )
    np.testing.assert_array_equal(first.weight, networks["binary"].weight)
    assert np.all(first.weight != other.weight)


def test_what_is_told_apart_stays_finite():
    network = boosted_network(100 * X, X[:, 0] > 0, KEY, 8, 2, 1.0, 0.5, 1e-4, "binary", 30)
    outputs = network(100 * X)[:, 0]
    assert np.all(np.isfinite(outputs)) and np.mean((outputs > 0) == (X[:, 0] > 0)) > 0.95


def test_a_round_sees_its_share_of_the_samples():
    x, y = np.array([[5.0], [-5.0]]), np.array([1.0, -1.0])
    network = boosted_network(x, y, KEY, 1, max_steps=20)
    # Fitted to both samples, it would have opposite signs at them.
    assert np.prod(network(x)) > 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"units": 5, "units_per_round": 2}, "`units` must be a multiple of `units_per_round`, 2"),
        ({"loss": "hinge"}, "`loss` must be one of 'squared', 'binary', 'softmax', got 'hinge'."),
        ({"subsample": 0.0}, "`subsample` of boosted_network must be a number in (0, 1], got 0.0."),
        ({"shrinkage": 0.0}, "`shrinkage` of boosted_network must be a number in (0, inf), got 0."),
    ],
)
def test_what_is_unfit_is_refused_in_one_sentence(options, says):
    with pytest.raises(ValueError, match=f"^{re.escape(says)}"):
        boosted_network(X, SCORE, KEY, **options)
