"""Guided forward gradients: a loss of its own for each block is worth far more than chance."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.tree as otu
from jaxtyping import Array, Float, Int

from ..compiled import compiled
from ..train import forward_value_and_grad, guided_value_and_grad
from . import Budget, Paper, Verdict, claim
from ._digits import (
    Layers,
    Samples,
    accuracy,
    dense,
    digits,
    entropy,
    loss,
    outputs,
    start,
)

PAPER = Paper(
    slug="guided-forward-gradient",
    title="Can Forward Gradient Match Backpropagation?",
    authors="Fournier, Rivaud, Belilovsky, Eickenberg, Oyallon",
    year=2023,
    implements=("raphson.train.guided_value_and_grad",),
    note=(
        "Checked on a network of four dense layers on digits, whose hidden layers have linear "
        "heads; the paper's are convolutional, on CIFAR-10 and ImageNet32. The estimate here is of "
        "the gradient in the parameters; that in the activations is left out."
    ),
)


@claim(
    PAPER,
    "Along the gradient of a loss that each layer has of its own, the mean squared cosine of the "
    "estimate and the gradient is at least 10 times that along a random direction.",
)
def local_guesses_point_where_the_gradient_does(budget: Budget) -> Verdict:
    _, cosines = _trained("local", budget)
    along, first, second = np.mean(cosines, axis=0)
    case = (
        f"mean squared cosine over the hidden layers and the training, over that of a random "
        f"direction ({first:.1e}); control: another random direction"
    )
    return Verdict(along / first, 10.0, second / first, case, at_most=False)


@claim(
    PAPER,
    "Trained along local guesses, the network is after as many steps at least 10 points more "
    "accurate on held-out digits than with forward gradients along random directions.",
)
def local_guesses_train_better(budget: Budget) -> Verdict:
    local, random = (_trained(kind, budget)[0] for kind in ("local", "random"))
    case = "held-out accuracy, Adam; threshold and control: random directions, with 10 points more"
    return Verdict(float(local), float(random) + 0.1, float(random), case, at_most=False)


def _trained(kind: str, budget: Budget) -> tuple[np.ndarray, np.ndarray]:
    """Held-out accuracy after training, and squared cosines along the way."""
    layers, heads = start((64, 32, 32, 32, 10)), [start((32, 10), seed)[0] for seed in (1, 2, 3)]
    training, held_out = digits()
    training = jax.tree.map(lambda leaf: leaf[:: budget.pick(3, 1)], training)
    steps = budget.pick(100, 500)
    found = compiled(_train, kind, layers, heads, training, held_out, steps)
    return jax.tree.map(np.asarray, found)


def _train(
    kind: str, layers: Layers, heads: Layers, data: Samples, held_out: Samples, steps: int
) -> tuple[Float[Array, ""], Float[Array, "steps 3"]]:
    optimizer = optax.adam(3e-3)

    def step(carry: Any, key: Array) -> tuple[Any, Any]:
        (layers, heads), state = carry
        local, of_heads = jax.grad(_local_loss, argnums=(0, 1))(layers, heads, *data)
        if kind == "local":
            _, gradient = guided_value_and_grad(loss, lambda *_: local)(layers, *data)
        else:
            _, gradient = forward_value_and_grad(loss)(key, layers, *data)
        exact = jax.grad(loss)(layers, *data)
        directions = [local, *(otu.random_like(k, layers) for k in jax.random.split(key))]
        cosines = jnp.array([_mean_squared_cosine(v, exact) for v in directions])
        updates, state = optimizer.update((gradient, of_heads), state)
        return (optax.apply_updates((layers, heads), updates), state), cosines

    start = (layers, heads), optimizer.init((layers, heads))
    ((layers, _), _), cosines = jax.lax.scan(
        step, start, jax.random.split(jax.random.key(0), steps)
    )
    return accuracy(layers, held_out), cosines


def _local_loss(
    layers: Layers, heads: Layers, features: Float[Array, "n d"], target: Int[Array, " n"]
) -> Float[Array, ""]:
    """The loss of the last layer and, through their heads, of all others, each for itself."""
    *hidden, logits = outputs(layers, features, cut=True)
    local = [entropy(dense(head, h), target) for h, head in zip(hidden, heads)]
    return sum(local, entropy(logits, target))


def _mean_squared_cosine(directions: Any, gradients: Any) -> Float[Array, ""]:
    """Over the hidden layers; that of the last is its own guess."""
    pairs = zip(directions[:-1], gradients[:-1])
    return jnp.mean(
        jnp.array([otu.vdot(v, g) ** 2 / otu.vdot(v, v) / otu.vdot(g, g) for v, g in pairs])
    )
