"""Gradient starvation: what one strong feature does to the others, and what prevents it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..compiled import compiled
from ..engine import solve
from ..problems import moons
from ..smooth import Minimize, TrustRegionNewton
from ..train import spectral_decoupling
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="gradient-starvation",
    title="Gradient Starvation: A Learning Proclivity in Neural Networks",
    authors="Pezeshki, Kaba, Bengio, Courville, Precup, Lajoie",
    year=2020,
    implements=("raphson.train.spectral_decoupling",),
    note=(
        "The paper linearizes the penalized loss; the first claim does not. Its experiments on "
        "images are not repeated."
    ),
)


@claim(
    PAPER,
    "With spectral decoupling in place of weight decay, how far a feature is learned does not "
    "depend on how strong another one is that comes with it.",
)
def features_are_decoupled(budget: Budget) -> Verdict:
    strengths = budget.pick((1.0, 5.0), (1.0, 2.0, 5.0, 10.0, 20.0))

    def change(loss: Any) -> float:
        learned = [float(_responses(loss, strength)[1]) for strength in strengths]
        return max(abs(other / learned[0] - 1) for other in learned)

    case = (
        f"greatest relative change of the weak feature's response, the other {strengths[-1]:g} "
        "times as strong; control: weight decay"
    )
    return Verdict(change(_decoupled), 0.01, change(_decayed), case)


@claim(
    PAPER,
    "On two moons that a line tells apart, a network with spectral decoupling also learns how they "
    "bend: moved together, the moons are still told apart.",
)
def both_features_of_moons_are_learned(budget: Budget) -> Verdict:
    seeds = range(budget.pick(2, 20))
    problems = [moons(margin=0.6, noise=0.05, seed=seed) for seed in seeds]

    def accuracy(strength: float) -> float:
        found = [
            compiled(_accuracy, strength, _network(seed), problem.data, problem.held_out)
            for seed, problem in zip(seeds, problems, strict=True)
        ]
        return float(np.mean(found))

    case = (
        "mean accuracy where the moons are without the margin they are trained with, strength 0.1, "
        f"{len(seeds)} networks of 100 hidden units; control: no penalty"
    )
    return Verdict(accuracy(0.1), 0.98, accuracy(0.0), case, at_most=False)


def _decoupled(w: Float[Array, "2"], outputs: Float[Array, "2"]) -> Float[Array, ""]:
    return 2 * spectral_decoupling(outputs, 0.1)


def _decayed(w: Float[Array, "2"], outputs: Float[Array, "2"]) -> Float[Array, ""]:
    return 0.1 * jnp.sum(w**2) / 2


def _responses(penalty: Any, strength: float) -> Float[Array, "2"]:
    """Of two samples' two features, how far each is used; the first is so many times stronger."""
    overlap, features = 0.3, np.array([strength, 1.0])
    aside = (1 - overlap**2) ** 0.5
    mixing = np.array([[aside, -overlap], [overlap, aside]])

    def loss(w: Float[Array, "2"], args: Any) -> Float[Array, ""]:
        mixing, features = args
        outputs = mixing @ (features * w)  # times the labels, 1 and -1
        return jnp.sum(jax.nn.softplus(-outputs)) + penalty(w, outputs)

    problem = Minimize(loss, jnp.zeros(2), args=(mixing, features))
    return features * solve(problem, TrustRegionNewton()).value


def _network(seed: int) -> list[tuple[Array, Array]]:
    rng = np.random.default_rng(seed)
    return [
        (jnp.asarray(rng.normal(size=(m, n)) * (2 / m) ** 0.5), jnp.zeros(n))
        for m, n in ((2, 100), (100, 1))
    ]


def _accuracy(
    strength: Any, layers: Any, data: tuple[Array, Array], held_out: tuple[Array, Array]
) -> Float[Array, ""]:
    (x, labels), (x_after, labels_after) = data, held_out

    def outputs(layers: Any, x: Float[Array, "n 2"]) -> Float[Array, " n"]:
        (weight, bias), (out_weight, out_bias) = layers
        return (jax.nn.relu(x @ weight + bias[None]) @ out_weight + out_bias[None])[:, 0]

    def loss(layers: Any) -> Float[Array, ""]:
        logits = outputs(layers, x)
        entropy = jnp.mean(jax.nn.softplus(-labels * logits))
        return entropy + spectral_decoupling(logits, strength)

    def step(_: Array, carry: Any) -> Any:
        layers, state = carry
        updates, state = optimizer.update(jax.grad(loss)(layers), state)
        return optax.apply_updates(layers, updates), state

    optimizer: Any = optax.adam(1e-2)
    layers, _ = jax.lax.fori_loop(0, 500, step, (layers, optimizer.init(layers)))
    return jnp.mean(jnp.sign(outputs(layers, x_after)) == labels_after)
