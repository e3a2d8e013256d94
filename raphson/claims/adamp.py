"""AdamP and SGDP: how momentum lengthens weights whose length does not matter."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..compiled import compiled
from ..problems import perceptron
from ..train import adamp, remove_radial, sgdp
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="adamp",
    title="AdamP: Slowing Down the Slowdown for Momentum Optimizers on Scale-invariant Weights",
    authors="Heo, Chun, Oh, Han, Yun, Kim, Uh, Ha",
    year=2020,
    implements=("raphson.train.adamp", "raphson.train.sgdp", "raphson.train.remove_radial"),
    note=(
        "The loss of the first claims is a quadratic of the direction of each row of weights. The "
        "authors' code adds eps to the length of weights and bounds the lengths in the cosine from "
        "below by it; here lengths of 0 are taken apart instead, and small weights are judged by "
        "their angle."
    ),
)


@claim(
    PAPER,
    "Projected steps are orthogonal to the weights, so that |x|^2 grows by the square of the "
    "step's length and no more.",
)
def weights_grow_by_the_steps_alone(budget: Budget) -> Verdict:
    def deviation(optimizer: optax.GradientTransformation) -> float:
        lengths, steps = compiled(_walk, optimizer, budget.pick(100, 10_000))
        expected = lengths[:-1] ** 2 + steps**2
        return float(np.max(np.abs(lengths[1:] ** 2 / expected - 1)))

    case = "greatest relative deviation of |x|^2 over the steps; control: Adam"
    return Verdict(
        deviation(adamp(0.01, output_first=False)), 1e-12, deviation(optax.adam(0.01)), case
    )


@claim(
    PAPER,
    "Momentum b lets |x|^2 grow 1 + 2 b / (1 - b) times as much where the length of x does not "
    "matter, within 5 %; the projection takes that away.",
)
def momentum_lengthens_weights(budget: Budget) -> Verdict:
    b, steps = 0.9, budget.pick(500, 5000)

    def growth(optimizer: optax.GradientTransformation) -> float:
        lengths, _ = compiled(_walk, optimizer, steps)
        return float(lengths[-1] ** 2 - lengths[0] ** 2)

    ours, plain, never = (
        growth(optimizer)
        for optimizer in (
            sgdp(0.05, b, output_first=False),
            optax.sgd(0.05, momentum=b),
            sgdp(0.05, b, delta=0.0, output_first=False),
        )
    )
    case = f"relative departure of the ratio of growths in {steps} steps; control: no projection"
    factor = 1 + 2 * b / (1 - b)
    return Verdict(abs(plain / ours / factor - 1), 0.05, abs(plain / never / factor - 1), case)


@claim(
    PAPER,
    "Layers whose length matters are left alone: the last one of the perceptron on digits is "
    "projected in less than 5 % of the steps.",
)
def other_layers_are_left_alone(budget: Budget) -> Verdict:
    steps = budget.pick(100, 1000)
    problem = perceptron("digits", batch_size=None)
    share = compiled(_projected, problem.gradient, problem.y0, lambda y: y[1][0], steps)
    sphere = compiled(_projected, jax.grad(_loss_of_directions), _START, lambda x: x, steps)
    case = f"share of {steps} steps of AdamP; control: the loss of the claims before"
    return Verdict(float(share), 0.05, float(sphere), case)


_START = np.random.default_rng(0).normal(size=(20, 4))


def _loss_of_directions(x: Float[Array, "inputs outputs"]) -> Float[Array, ""]:
    direction = x / jnp.linalg.norm(x, axis=0)
    return jnp.sum(jnp.linspace(0.1, 1, len(x))[:, None] * direction**2) / 2


def _walk(optimizer: Any, steps: int) -> tuple[Float[Array, " t+1"], Float[Array, " t"]]:
    """The lengths of the weights, and those of the steps between."""

    def step(carry: tuple[Array, Any], _: None) -> tuple[tuple[Array, Any], tuple[Array, Array]]:
        x, state = carry
        updates, state = optimizer.update(jax.grad(_loss_of_directions)(x), state, x)
        return (x + updates, state), (jnp.linalg.norm(x + updates), jnp.linalg.norm(updates))

    start = jnp.asarray(_START)
    _, (lengths, moves) = jax.lax.scan(step, (start, optimizer.init(start)), length=steps)
    return jnp.append(jnp.linalg.norm(start), lengths), moves


def _projected(gradient: Any, start: Any, weight: Any, steps: int) -> Float[Array, ""]:
    """The share of AdamP's steps in which it projects the weight."""
    optimizer = adamp(0.01, output_first=False)
    projection = remove_radial(optax.identity(), output_first=False)

    def step(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], Array]:
        y, state = carry
        g = gradient(y)
        seen = projection.update(weight(g), optax.EmptyState(), weight(y))[0]
        updates, state = optimizer.update(g, state, y)
        return (optax.apply_updates(y, updates), state), jnp.any(seen != weight(g))

    start = jax.tree.map(jnp.asarray, start)
    return jnp.mean(jax.lax.scan(step, (start, optimizer.init(start)), length=steps)[1])
