"""ReSTE: between an estimator that is near the sign and one whose gradients are even."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..compiled import compiled
from ..train import reste_power, reste_sign
from . import Budget, Paper, Verdict, claim
from ._digits import Layers, Samples, digits, entropy, start

PAPER = Paper(
    slug="reste",
    title=(
        "Estimator Meets Equilibrium Perspective: A Rectified Straight Through Estimator for "
        "Binary Neural Networks Training"
    ),
    authors="Wu, Zheng, Liu, Zheng",
    year=2023,
    implements=("raphson.train.reste_sign", "raphson.train.reste_power"),
    note=(
        "The two sides of the paper's balance are checked, and that on a small network nothing is "
        "lost by it, not that its accuracies on CIFAR-10 and ImageNet are better. The slope within "
        "the core, 0.1 here, is from the authors' code."
    ),
)


@claim(
    PAPER,
    "As the power rises by its schedule, what the slopes add up to comes nearer to the sign.",
)
def estimating_error_falls(budget: Budget) -> Verdict:
    counts = budget.pick(5, 50)

    def greatest_ratio(powers: Float[np.ndarray, " counts"]) -> float:
        x, slopes = _slopes(powers)
        surrogates = np.cumsum(slopes, axis=1) * (x[1] - x[0])
        errors = np.linalg.norm(1 - surrogates, axis=1)
        return float(np.max(errors[1:] / errors[:-1]))

    rising = _scheduled(counts)
    case = f"greatest error over that before, {counts} powers from 1 to 3; control: they fall"
    return Verdict(greatest_ratio(rising), 1.0, greatest_ratio(rising[::-1]), case)


@claim(
    PAPER,
    "As the power rises by its schedule, the slopes differ more, and gradients are less stable.",
)
def gradients_become_less_stable(budget: Budget) -> Verdict:
    counts = budget.pick(5, 50)

    def least_rise(powers: Float[np.ndarray, " counts"]) -> float:
        return float(np.min(np.diff(np.var(_slopes(powers)[1], axis=1))))

    rising = _scheduled(counts)
    case = f"least rise of the variance of slopes, {counts} powers from 1 to 3; control: they fall"
    return Verdict(least_rise(rising), 0.0, least_rise(rising[::-1]), case, at_most=False)


@claim(
    PAPER,
    "A network of binary weights and units trained by ReSTE tells held-out digits as well as by "
    "the straight-through estimator, but for half a point.",
)
def binary_networks_are_as_accurate(budget: Budget) -> Verdict:
    training, held_out = digits()
    seeds = range(budget.pick(2, 10))

    def accuracy(final: float, cut: float = 1.5) -> float:
        found = [
            compiled(_trained, start((64, 64, 64, 10), seed), training, held_out, final, cut)
            for seed in seeds
        ]
        return float(np.mean(found))

    straight_through = accuracy(1.0)
    case = (
        f"mean accuracy of {len(seeds)} networks with two hidden layers, less that of the other "
        f"({straight_through:.3f}); control: slopes cut at 0.01"
    )
    gained = accuracy(3.0) - straight_through
    return Verdict(gained, -0.005, accuracy(3.0, 0.01) - straight_through, case, at_most=False)


def _scheduled(counts: int) -> Float[np.ndarray, " counts"]:
    return np.array([reste_power(counts - 1)(count) for count in range(counts)])


def _slopes(
    powers: Float[np.ndarray, " counts"],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "counts n"]]:
    """Within the cut on one side, from 0 outwards, for each power."""
    x = (np.arange(1500) + 0.5) / 1000
    slopes = jax.vmap(jax.vmap(jax.grad(reste_sign), (0, None)), (None, 0))(x, powers)
    return x, np.asarray(slopes)


def _trained(
    layers: Layers, training: Samples, held_out: Samples, final: Any, cut: Any
) -> Float[Array, ""]:
    """Held-out accuracy after 150 steps on all samples, the power rising to the final one."""
    optimizer: Any = optax.adam(1e-2)
    power = reste_power(150, final)

    def outputs(layers: Layers, features: Float[Array, "n 64"], power: Any) -> Float[Array, "n 10"]:
        h = 2 * features - 1
        for index, (weight, bias) in enumerate(layers):
            if index > 0:
                # Normalized, as in the paper's networks, so that half of the signs are up.
                h = reste_sign((h - jnp.mean(h, axis=0)) / (jnp.std(h, axis=0) + 1e-5), power, cut)
            h = h @ (reste_sign(weight, power) * jnp.mean(jnp.abs(weight))) + bias[None]
        return h

    def step(count: Array, carry: Any) -> Any:
        layers, state = carry

        def loss(layers: Layers) -> Float[Array, ""]:
            return entropy(outputs(layers, training[0], power(count)), training[1])

        updates, state = optimizer.update(jax.grad(loss)(layers), state)
        return optax.apply_updates(layers, updates), state

    layers, _ = jax.lax.fori_loop(0, 150, step, (layers, optimizer.init(layers)))
    features, target = held_out
    return jnp.mean(jnp.argmax(outputs(layers, features, 1.0), axis=1) == target)
