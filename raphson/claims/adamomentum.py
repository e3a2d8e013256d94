"""AdaMomentum: what a second average of the first does to steps, and to what is learned."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import optax

from ..problems import perceptron
from ..train import adamomentum
from . import Budget, Paper, Verdict, claim
from ._training import best_losses, updates

PAPER = Paper(
    slug="adamomentum",
    title="Rethinking Adam: A Twofold Exponential Moving Average Approach",
    authors="Wang, Kang, Qin, Wang, Xu, Zhang, Fu",
    year=2021,
    implements=("raphson.train.adamomentum",),
    note=(
        "The paper reports that networks for images generalize as with SGD, and better than with "
        "Adam. On the small perceptron here the three are within ten percent of each other."
    ),
)


@claim(
    PAPER,
    "Where gradients are noise around 0, AdaMomentum's steps are sqrt((1 + b1) / (1 - b1)) times "
    "those of Adam, within 5 %.",
)
def steps_are_long_in_noise(budget: Budget) -> Verdict:
    noise = np.random.default_rng(0).normal(size=(budget.pick(20_000, 200_000), 10))
    adam = updates(optax.adam(1.0), noise)[5000:]

    def departure(optimizer: Any) -> float:
        ratio = np.linalg.norm(updates(optimizer, noise)[5000:]) / np.linalg.norm(adam)
        return float(abs(ratio / np.sqrt(1.9 / 0.1) - 1))

    case = "relative departure of the ratio of root mean squares from 4.36; control: AdaBelief"
    return Verdict(departure(adamomentum(1.0)), 0.05, departure(optax.adabelief(1.0)), case)


@claim(
    PAPER,
    "On the perceptron on digits, the held-out loss of AdaMomentum is at most 1.1 of that of SGD "
    "with momentum, each at its best learning rate.",
)
def generalizes_as_sgd_does(budget: Budget) -> Verdict:
    problem, epochs = perceptron("digits", batch_size=64), 10
    steps = epochs * (problem.num_samples // 64)

    def held_out(make: Callable[[Any], Any], lowest: float) -> float:
        rates = np.geomspace(lowest, 4 * lowest, budget.pick(3, 9))
        return best_losses(problem, make, rates, budget.pick(3, 15), [steps], held_out=True)[0]

    sgd = held_out(partial(optax.sgd, momentum=0.9), 0.16)
    case = f"held-out loss after {epochs} epochs over that of SGD; control: RMSprop"
    return Verdict(
        held_out(adamomentum, 0.004) / sgd, 1.1, held_out(optax.rmsprop, 0.004) / sgd, case
    )
