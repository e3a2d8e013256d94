"""The digits, and a network of dense tanh layers that tells them apart."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from ..problems import perceptron

Layers = list[tuple[Float[Array, "inputs outputs"], Float[Array, " outputs"]]]
Samples = tuple[Float[Array, "n 64"], Int[Array, " n"]]


def digits() -> tuple[Samples, Samples]:
    """To train on, and held out."""
    problem = perceptron("digits")
    return problem.data, problem.held_out  # pyright: ignore


def start(sizes: tuple[int, ...], seed: int = 0) -> Layers:
    """Weights with the variance 1 / (number of inputs), and no bias."""
    rng = np.random.default_rng(seed)
    return [
        (jnp.asarray(rng.normal(size=(m, n)) / m**0.5), jnp.zeros(n))
        for m, n in zip(sizes[:-1], sizes[1:])
    ]


def dense(layer: Any, h: Float[Array, "n inputs"]) -> Float[Array, "n outputs"]:
    weight, bias = layer
    return jax.vmap(lambda row: row @ weight + bias)(h)


def outputs(layers: Layers, h: Float[Array, "n 64"], cut: bool = False) -> list[Array]:
    """Of each layer; where they are cut, none passes a gradient on to the one before."""
    found = []
    for index, layer in enumerate(layers):
        h = dense(layer, jax.lax.stop_gradient(h) if cut else h)
        h = h if index == len(layers) - 1 else jnp.tanh(h)
        found.append(h)
    return found


def entropy(logits: Float[Array, "n k"], target: Int[Array, " n"]) -> Float[Array, ""]:
    return jnp.mean(optax.losses.softmax_cross_entropy_with_integer_labels(logits, target))


def loss(layers: Layers, features: Float[Array, "n 64"], target: Int[Array, " n"]) -> Array:
    return entropy(outputs(layers, features)[-1], target)


def accuracy(layers: Layers, samples: Samples) -> Float[Array, ""]:
    features, target = samples
    return jnp.mean(jnp.argmax(outputs(layers, features)[-1], axis=1) == target)
