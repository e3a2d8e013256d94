"""Networks built by gradient boosting: as good as those trained whole, and good in part."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..compiled import compiled
from ..problems import ridge
from ..train import BoostedNetwork, boosted_network
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="boosted-network",
    title="Sequential Training of Neural Networks with Gradient Boosting",
    authors="Emami, Martinez-Munoz",
    year=2019,
    implements=("raphson.train.boosted_network",),
    note=(
        "Checked on 442 samples by one split, with 50 hidden units and a shrinkage of 0.1. Without "
        "the decay of weights, of which the paper says nothing, a shrinkage of 0.5 can bring "
        "errors of 1000 times the variance on held-out samples."
    ),
)
UNITS = 50


@claim(
    PAPER,
    "Built by boosting, a network explains about as much of the held-out variance as one of its "
    "size that Adam trained and stopped at the best moment.",
)
def boosting_is_competitive(budget: Budget) -> Verdict:
    keys = budget.pick(3, 10)
    adam = max(_explained(network) for network in _trained_by_adam())

    def lost(shrinkage: float) -> float:
        runs = [_explained(_boosted(key, shrinkage)) for key in range(keys)]
        return adam - float(np.median(runs))

    case = (
        f"share of variance lost against Adam's {adam:.3f}, diabetes, median of {keys} runs; "
        "control: shrunk to 0.001 a round"
    )
    return Verdict(lost(0.1), 0.02, lost(1e-3), case)


@claim(
    PAPER,
    "The first half of the units alone explains as much, but for 3 points.",
)
def half_of_the_units_will_do(budget: Budget) -> Verdict:
    keys = budget.pick(3, 10)
    boosted = [_boosted(key) for key in range(keys)]
    # Against the mean at least: a half is no proof where the whole explains nothing.
    lost = [max(0, _explained(n)) - _explained(n.first(UNITS // 2)) for n in boosted]
    whole = max(_trained_by_adam(), key=_explained)
    half = BoostedNetwork(
        whole.weight[:, ::2], whole.bias[::2], whole.out_weight[::2], whole.out_bias
    )
    case = (
        f"share of variance lost with half of the units, diabetes, median of {keys} runs; control: "
        "every other unit of Adam's network"
    )
    return Verdict(float(np.median(lost)), 0.03, _explained(whole) - _explained(half), case)


def _diabetes() -> Any:
    problem = ridge("diabetes")
    return problem.data, problem.held_out


def _boosted(seed: int, shrinkage: float = 0.1) -> BoostedNetwork:
    (x, y), _ = _diabetes()
    return boosted_network(
        x,
        y,
        jax.random.key(seed),
        UNITS,
        shrinkage=shrinkage,
        weight_decay=0.1,
        max_steps=100,
    )


def _explained(network: BoostedNetwork) -> float:
    """The share of the held-out variance."""
    _, (x, y) = _diabetes()
    return float(1 - np.mean((np.asarray(network(x))[:, 0] - y) ** 2) / np.var(y))


def _trained_by_adam() -> list[BoostedNetwork]:
    """As it was after every 20 steps."""
    (x, y), _ = _diabetes()
    rng, d = np.random.default_rng(0), x.shape[1]
    start = BoostedNetwork(
        jnp.asarray(rng.normal(size=(d, UNITS)) / d**0.5),
        jnp.zeros(UNITS),
        jnp.asarray(rng.normal(size=(UNITS, 1)) / UNITS**0.5),
        jnp.zeros((1, 1)),
    )
    path = compiled(_adam, start, x, y)
    return [jax.tree.map(lambda leaf, at=index: leaf[at], path) for index in range(30)]


def _adam(network: BoostedNetwork, x: Float[Array, "n d"], y: Float[Array, " n"]) -> Any:
    optimizer = optax.adam(1e-2)

    def loss(network: BoostedNetwork) -> Float[Array, ""]:
        return jnp.mean((network(x)[:, 0] - y) ** 2) / 2

    def step(_: Array, carry: Any) -> Any:
        network, state = carry
        updates, state = optimizer.update(jax.grad(loss)(network), state)
        return optax.apply_updates(network, updates), state  # pyright: ignore

    def leg(carry: Any, _: None) -> Any:
        carry = jax.lax.fori_loop(0, 20, step, carry)
        return carry, carry[0]

    return jax.lax.scan(leg, (network, optimizer.init(network)), length=30)[1]  # pyright: ignore
