"""diffGrad: friction from the change of the gradient, and how little of it is left below 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import optax

from ..train import diffgrad
from . import Budget, Paper, Verdict, claim
from ._training import updates

PAPER = Paper(
    slug="diffgrad",
    title="diffGrad: An Optimization Method for Convolutional Neural Networks",
    authors="Dubey, Chakraborty, Roy, Mukherjee, Singh, Chaudhuri",
    year=2019,
    implements=("raphson.train.diffgrad",),
    note=(
        "The paper means the coefficient to lie between 1/2 and 1 as gradients settle or change. "
        "But it compares changes with 1, so that networks whose gradients are small see a "
        "constant 1/2: Adam at half the learning rate. The authors' first code compared the "
        "gradient with itself, which is the same."
    ),
)


@claim(
    PAPER,
    "Whatever the gradients, steps are between half and whole steps of Adam.",
)
def steps_are_half_to_whole(budget: Budget) -> Verdict:
    shape = budget.pick(100, 10_000), 100
    gradients = np.random.default_rng(0).normal(size=shape) * np.geomspace(1e-3, 1e3, 100)
    adam = updates(optax.adam(1.0, eps=0.0), gradients)

    def departure(optimizer: Any) -> float:
        return float(np.max(np.abs(updates(optimizer, gradients) / adam - 0.75)))

    case = (
        "greatest departure from 3/4 of the ratio of steps, gradients of sizes 1e-3 to 1e3; "
        "control: AdaBelief"
    )
    belief = departure(optax.adabelief(1.0))
    return Verdict(departure(diffgrad(1.0, eps=0.0)), 0.25 + 1e-9, belief, case)


@claim(
    PAPER,
    "Where gradients are below 1e-3, the coefficient does not tell change from rest: diffGrad is "
    "Adam at half the learning rate, within 0.1 %.",
    reproduces=False,
)
def is_adam_at_half_the_rate(budget: Budget) -> Verdict:
    gradients = np.random.default_rng(0).uniform(-1e-3, 1e-3, (budget.pick(100, 10_000), 100))

    def departure(scale: float) -> float:
        ours = updates(diffgrad(1.0, eps=0.0), scale * gradients)
        adam = updates(optax.adam(0.5, eps=0.0), scale * gradients)
        return float(np.max(np.abs(ours / adam - 1)))

    case = "greatest relative departure on random gradients; control: a thousand times the loss"
    return Verdict(departure(1.0), 1e-3, departure(1e3), case)
