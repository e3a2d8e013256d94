"""Training data from several sources, of which few are of use: how much should each weigh?"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from ..bilevel.problem import BilevelSum
from ..validate import whole_number
from ._shared import positive
from .data import split

Sample = tuple[Float[Array, " d"], Int[Array, ""]]

# What is done to the labels of each source.
_SOURCES = ("clean", "noisy", "random", "permuted")
_NOISE = 0.4


def data_reweighting(
    *, regularization: float = 1e-3, batch_size: int | None = 64, seed: int = 0
) -> BilevelSum:
    """Digits from four sources, each with a weight that clean digits choose.

    The labels of the sources are right; 40 % of them another digit; all drawn at random; and each
    digit called by the name of another. Below, softmax regression by the sum over the sources of
    p_j times the mean cross-entropy of source j, p = softmax(x), plus regularization/2 |y|^2;
    above, the mean cross-entropy of the validating samples, whose labels are right.

    Args:
        regularization: positive.
        batch_size: samples of each level that a stochastic method draws at each step; None for all
            of them.
        seed: of which samples are whose, and of the wrong labels.

    Returns:
        The problem with even weights, x of shape (4,), and y = 0, of shape (65, 10): 269 training
        samples of each source and 362 validating ones. Metrics: `clean`, the weight of the clean
        source, and `harmful`, the greatest other; `entropy` of the weights, log(4) at the start;
        `loss`, the mean cross-entropy of the 359 samples held out, and `accuracy`, the part of them
        that is told right.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> problem = data_reweighting()
        >>> round(float(problem.measures(problem.y0)["clean"]), 2)
        0.25
    """
    rng = np.random.default_rng(whole_number(seed, "seed"))
    (features, label), held_out = split("digits", ("digits",), constant=True)
    order = rng.permutation(len(label))
    features, label = features[order], label[order]
    size = 3 * len(label) // (4 * len(_SOURCES))
    training = len(_SOURCES) * size
    source = np.repeat(np.arange(len(_SOURCES)), size)

    right = label[:training]
    other = (right + rng.integers(1, 10, training)) % 10
    anything = rng.integers(0, 10, training)
    # A cycle through all digits: none keeps its name.
    cycle = rng.permutation(10)
    renamed = np.empty(10, int)
    renamed[cycle] = np.roll(cycle, 1)
    noisy = np.where(rng.random(training) < _NOISE, other, right)
    told = np.choose(source, [right, noisy, anything, renamed[right]])

    args = {
        "regularization": positive(regularization, "regularization"),
        "held_out": (jnp.asarray(held_out[0]), jnp.asarray(held_out[1])),
    }
    metrics = {
        "clean": _clean,
        "harmful": _harmful,
        "entropy": _entropy,
        "loss": _held_out_loss,
        "accuracy": _accuracy,
    }
    x, y = jnp.zeros(len(_SOURCES)), jnp.zeros((features.shape[1], 10))
    above = features[training:], label[training:]
    below = features[:training], told, source
    return BilevelSum(
        _above, _below, x, y, above, below, args, batch_size=batch_size, metrics=metrics
    )


# Functions of the module, with all that varies in their arguments: two problems of one kind then
# compile once, and pickle.


def _above(x: Array, y: Float[Array, "d k"], sample: Sample, args: Any) -> Float[Array, ""]:
    features, label = sample
    return optax.losses.softmax_cross_entropy_with_integer_labels(features @ y, label)


def _below(
    x: Float[Array, " m"], y: Float[Array, "d k"], sample: Any, args: Any
) -> Float[Array, ""]:
    features, label, source = sample
    # The sources are of one size: so many times the weight makes of the mean a sum over them.
    weight = len(x) * jax.nn.softmax(x)[source]
    decay = args["regularization"] / 2 * jnp.vdot(y, y)
    return weight * _above(x, y, (features, label), args) + decay


def _clean(z: Any, args: Any) -> Float[Array, ""]:
    return jax.nn.softmax(z[0])[0]


def _harmful(z: Any, args: Any) -> Float[Array, ""]:
    return jnp.max(jax.nn.softmax(z[0])[1:])


def _entropy(z: Any, args: Any) -> Float[Array, ""]:
    logarithm = jax.nn.log_softmax(z[0])
    return -jnp.exp(logarithm) @ logarithm


def _held_out_loss(z: Any, args: Any) -> Float[Array, ""]:
    features, label = args["held_out"]
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(features @ z[1], label)
    return jnp.mean(losses)


def _accuracy(z: Any, args: Any) -> Float[Array, ""]:
    features, label = args["held_out"]
    return jnp.mean(jnp.argmax(features @ z[1], axis=1) == label)
