"""EXAdam: what its corrections amount to, and what is left of its lead once Adam is tuned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import optax

from ..problems import perceptron
from ..train import exadam
from . import Budget, Paper, Verdict, claim
from ._training import best_losses, updates

PAPER = Paper(
    slug="exadam",
    title="EXAdam: The Power of Adaptive Cross-Moments",
    authors="Adly",
    year=2024,
    implements=("raphson.train.exadam",),
    note=(
        "The paper compares at one learning rate, 1e-3, with steps that are four times Adam's at "
        "first and twice later. At that rate the training loss is 0.2 of Adam's here too; each at "
        "its best rate, it is 0.9 of it, by the median of 15 seeds and nine rates."
    ),
)


@claim(
    PAPER,
    "Late, where b1^t and b2^t vanish, the direction is Adam's, the gradient added to its mean.",
)
def becomes_adam_with_the_gradient(budget: Budget) -> Verdict:
    steps = budget.pick(25_000, 100_000)
    gradients = np.random.default_rng(0).normal(size=(steps, 10))
    v = np.zeros(10)
    for g in gradients:
        v = 0.999 * v + 0.001 * g**2
    adam = updates(optax.adam(1.0), gradients)[-1]
    expected = adam - gradients[-1] / (np.sqrt(v) + 1e-8)

    def deviation(optimizer: Any) -> float:
        return float(np.max(np.abs(updates(optimizer, gradients)[-1] - expected)))

    case = f"greatest deviation at t = {steps} on random gradients; control: Nadam"
    return Verdict(deviation(exadam(1.0)), 1e-9, deviation(optax.nadam(1.0)), case)


@claim(
    PAPER,
    "Early, the corrections lengthen steps: on a constant gradient they are more than 3.5 times "
    "those of Adam for 200 steps.",
)
def early_steps_are_long(budget: Budget) -> Verdict:
    gradients = np.ones((200, 1))
    ours, adam = (
        float(-np.max(updates(optimizer, gradients)))
        for optimizer in (exadam(1.0), optax.adam(1.0))
    )
    case = "least step in learning rates; control: Adam"
    return Verdict(ours, 3.5, adam, case, at_most=False)


@claim(
    PAPER,
    "On the perceptron on digits, each at its best learning rate, the training loss of EXAdam "
    "after 10 epochs is not below 0.6 of Adam's; at Adam's default rate it is.",
    reproduces=False,
)
def lead_goes_with_tuning(budget: Budget) -> Verdict:
    problem, count = perceptron("digits", batch_size=64), budget.pick(3, 9)
    steps = 10 * (problem.num_samples // 64)

    def loss(make: Callable[[Any], Any], rates: np.ndarray) -> float:
        return best_losses(problem, make, rates, budget.pick(3, 15), [steps])[0]

    # The best rates are inside of these.
    ours = loss(exadam, np.geomspace(0.008, 0.032, count))
    adam = loss(optax.adam, np.geomspace(0.032, 0.128, count))
    untuned, untuned_adam = (loss(make, np.array([1e-3])) for make in (exadam, optax.adam))
    case = "training loss over Adam's; control: both at 1e-3"
    return Verdict(ours / adam, 0.6, untuned / untuned_adam, case, at_most=False)
