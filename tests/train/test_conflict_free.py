"""ConFIG and M-ConFIG against transcriptions in NumPy, and a closed form."""

import io
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from raphson.train import conflict_free, conflict_free_momentum
from tests.train.walk import data, walked

RNG = np.random.default_rng(0)


def cosines(g, d):
    return g @ d / np.linalg.norm(g, axis=1) / np.linalg.norm(d)


def aggregated(g):
    """The paper's formula, by the pseudoinverse of the whole matrix."""
    d = np.linalg.pinv(g / np.linalg.norm(g, axis=1, keepdims=True)) @ np.ones(len(g))
    d /= np.linalg.norm(d)
    return np.sum(g @ d) * d


def opposed(seed=1):
    """Four gradients of very different lengths; two point nearly against each other."""
    rng = np.random.default_rng(seed)
    g = rng.normal(size=(4, 50))
    g[1] = -g[0] + 0.2 * g[1]
    return g * np.array([1.0, 1e3, 1e-3, 10.0])[:, None]


def test_follows_the_formula_with_equal_positive_cosines():
    g = opposed()
    d = conflict_free(jnp.asarray(g))
    np.testing.assert_allclose(d, aggregated(g), rtol=1e-9)
    found = cosines(g, np.asarray(d))
    assert found[0] > 0.01
    np.testing.assert_allclose(found, found[0], rtol=1e-10)


def test_two_losses_have_a_closed_form():
    a, b = g = RNG.normal(size=(2, 7))
    across = [a - a @ b / (b @ b) * b, b - a @ b / (a @ a) * a]
    d = sum(x / np.linalg.norm(x) for x in across)
    d /= np.linalg.norm(d)
    np.testing.assert_allclose(conflict_free(jnp.asarray(g)), np.sum(g @ d) * d, rtol=1e-12)


def test_weights_are_the_ratios_of_cosines():
    g, weights = opposed(), jnp.array([1.0, 2.0, 3.0, 0.5])
    found = cosines(g, np.asarray(conflict_free(jnp.asarray(g), weights)))
    np.testing.assert_allclose(found / found[0], weights, rtol=1e-9)


def test_takes_trees_of_mixed_precision():
    g = opposed()
    tree = {"w": g[:, :30].reshape(4, 5, 6), "b": jnp.asarray(g[:, 30:], jnp.float32), "no": None}
    d = jax.jit(conflict_free)(tree)
    assert d["w"].dtype == jnp.float64 and d["b"].dtype == jnp.float32 and d["no"] is None
    np.testing.assert_allclose(
        np.concatenate([d["w"].ravel(), d["b"]]), aggregated(g), rtol=1e-4, atol=1e-5
    )
    half = conflict_free(jnp.asarray(RNG.normal(size=(2, 9)), jnp.bfloat16))
    assert half.dtype == jnp.bfloat16 and half.shape == (9,)


def test_a_gradient_of_0_has_no_say():
    g = opposed()
    with_zero = jnp.asarray(np.insert(g, 2, 0.0, axis=0))
    np.testing.assert_allclose(conflict_free(with_zero), conflict_free(jnp.asarray(g)), rtol=1e-9)
    np.testing.assert_array_equal(conflict_free(jnp.zeros((3, 4))), 0)
    one = g[:1]
    np.testing.assert_allclose(conflict_free(jnp.asarray(one)), one[0], rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_opposed_gradients_leave_no_way(dtype):
    a, b = RNG.normal(size=(2, 9))
    np.testing.assert_array_equal(conflict_free(jnp.asarray([a, -7 * a], dtype)), 0)
    d = conflict_free(jnp.asarray([a, b, -3 * a], dtype))
    np.testing.assert_allclose(d @ a, 0, atol=1e-5)
    assert d @ b > 0.1


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_parallel_gradients_of_any_length_are_followed(dtype):
    a = RNG.normal(size=9)
    for long, short in ((1.0, 1.0), (1e30, 1e-30), (1e-30, 2e-30)):
        d = np.asarray(conflict_free(jnp.asarray([long * a, short * a], dtype)), np.float64)
        np.testing.assert_allclose(d, (long + short) * a, rtol=1e-5)


def momentum(x, gradients, losses, rate, b1=0.9, b2=0.999, eps=1e-8):
    """The algorithm of the paper; the gradients come for one loss after the other."""
    m, seen, joint, v, t = np.zeros((losses, x.size)), np.zeros(losses), 0.0, 0.0, 0
    for count, g in enumerate(gradients):
        i = count % losses
        m[i] = b1 * m[i] + (1 - b1) * g
        seen[i] += 1
        if np.all(seen > 0):
            t += 1
            whole = aggregated(m / (1 - b1 ** seen[:, None]))
            fresh = whole * (1 - b1**t)
            h, joint = (fresh - b1 * joint) / (1 - b1), fresh
            v = b2 * v + (1 - b2) * h**2
            x = x - rate * whole / (np.sqrt(v / (1 - b2**t)) + eps)
        yield x


@pytest.mark.parametrize("losses", [1, 2, 3])
def test_momentum_follows_the_algorithm(losses):
    x, gradients = RNG.normal(size=10), RNG.normal(size=(25, 10))
    path = walked(conflict_free_momentum(0.03, losses), jnp.asarray(x), list(gradients))
    expected = list(momentum(x, gradients, losses, 0.03))
    np.testing.assert_allclose(path, expected, rtol=0, atol=1e-12)


def test_momentum_of_one_loss_is_adam():
    x, gradients = data()
    ours = walked(conflict_free_momentum(0.03, 1), x, gradients)[-1]
    adam = walked(optax.adam(0.03), x, gradients)[-1]
    for a, b in zip(ours, adam, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_momentum_keeps_a_buffer_for_each_loss_and_two_more(dtype):
    x = {"w": jnp.ones((2, 3), dtype), "b": jnp.zeros((), dtype), "frozen": None}
    optimizer = conflict_free_momentum(optax.cosine_decay_schedule(0.1, 10), losses=3)
    state = optimizer.init(x)
    step = jax.jit(optimizer.update, donate_argnums=1)
    for _ in range(4):
        updates, state = step(x, state, x)
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(updates))
    shaped = [leaf for leaf in jax.tree.leaves(state) if jnp.shape(leaf)[-2:] == (2, 3)]
    assert sum(leaf.size for leaf in shaped) == 6 * (3 + 2)
    assert all(leaf.dtype == jnp.promote_types(dtype, jnp.float32) for leaf in shaped)
    file = io.BytesIO()
    eqx.tree_serialise_leaves(file, state)
    file.seek(0)
    again = eqx.tree_deserialise_leaves(file, optimizer.init(x))
    plain, saved = (jax.jit(optimizer.update)(x, s, x)[0]["w"] for s in (state, again))
    np.testing.assert_array_equal(plain, saved)


def test_hyperparameters_can_be_injected_and_mapped_over():
    x, gradients = data(6)
    injected = optax.inject_hyperparams(conflict_free_momentum, static_args="losses")(0.03)
    plain = walked(conflict_free_momentum(0.03), x, gradients)[-1]
    for a, b in zip(walked(injected, x, gradients)[-1], plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-13)
    rates = jnp.array([0.01, 0.03])
    mapped = jax.vmap(lambda r: walked(conflict_free_momentum(r), x, gradients)[-1])(rates)
    np.testing.assert_allclose(mapped[0][1], plain[0], rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"losses": 0}, "`losses` must be a whole number of at least 1, got 0."),
        ({"b1": 1.0}, "`b1` of conflict_free_momentum must be a number in [0, 1), got 1.0."),
        ({"eps": -1}, "`eps` of conflict_free_momentum must be a number in [0, inf), got -1."),
    ],
)
def test_unfit_hyperparameters_are_refused_in_one_sentence(options, says):
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        conflict_free_momentum(**options)


@pytest.mark.parametrize("gradients", [[jnp.ones((2, 3)), jnp.ones((3, 3))], jnp.array(1.0)])
def test_leaves_that_count_differently_are_refused(gradients):
    with pytest.raises(ValueError, match="^`gradients` must have leaves whose first axis counts"):
        conflict_free(gradients)
