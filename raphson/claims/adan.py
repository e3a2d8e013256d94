"""Adan: Nesterov's momentum without a gradient ahead, and what it is worth beside Adam."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import optax
from jaxtyping import Array

from ..problems import perceptron, quadratic
from ..smooth import FiniteSum
from ..train import adan
from . import Budget, Paper, Verdict, claim
from ._training import best_losses, updates

PAPER = Paper(
    slug="adan",
    title="Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models",
    authors="Xie, Zhou, Li, Lin, Yan",
    year=2022,
    implements=("raphson.train.adan",),
    note=(
        "The paper reports half the epochs of other optimizers on large models. On the small "
        "perceptron here, both at their best learning rates, Adan's training loss is below Adam's "
        "after as many epochs, but not after half as many. optax.adan weighs changes of the "
        "gradient by 1 - b2 where the paper has b2, and is the control of the first claim."
    ),
)


@claim(
    PAPER,
    "With b1 = b2 = b and no adaptivity, Adan's direction is that of Nesterov's momentum, g + b M "
    "with M = b M + g, which takes the gradient at the point ahead.",
)
def momentum_is_nesterovs(budget: Budget) -> Verdict:
    b, large, steps = 0.9, 1e8, budget.pick(300, 3000)
    gradients = np.random.default_rng(0).normal(size=(steps, 10))
    momentum, nesterov = np.zeros(10), []
    for g in gradients:
        momentum = b * momentum + g
        nesterov.append(g + b * momentum)

    # A large eps swamps the adaptivity; the schedule undoes it, and the correction of the bias.
    def rate(count: Array) -> Array:
        return large * (1 - b ** (count + 1)) / (1 - b)

    def deviation(make: Callable[..., optax.GradientTransformation]) -> float:
        optimizer = make(rate, b1=b, b2=b, eps=large)
        directions = -updates(optimizer, gradients)
        # The first gradient counts as no change, which b^t forgets.
        return float(np.max(np.abs(directions - nesterov)[200:]) / np.max(np.abs(nesterov)))

    case = (
        f"greatest relative deviation on random gradients, t = 200 to {steps}; control: optax.adan"
    )
    return Verdict(deviation(adan), 1e-6, deviation(optax.adan), case)


@claim(
    PAPER,
    "On an ill-conditioned quadratic with noisy gradients, Adan comes in 1000 steps to 0.8 of the "
    "loss of Adam, each at its best learning rate.",
)
def beats_adam_on_a_noisy_quadratic(budget: Budget) -> Verdict:
    exact = quadratic(np.geomspace(1e-3, 1, 20))
    noise = np.random.default_rng(0).normal(0, 0.01, (1000, 20))
    problem = FiniteSum(
        lambda y, noise, args: exact.fn(y, args) + noise @ y,
        exact.y0,
        noise - noise.mean(0),
        exact.args,
        batch_size=1,
    )
    rates, seeds = np.geomspace(5e-3, 0.05, 5), budget.pick(32, 256)
    (adam,), (ours,), (nadam,) = (
        best_losses(problem, make, rates, seeds, [1000]) for make in (optax.adam, adan, optax.nadam)
    )
    case = f"median loss of {seeds} seeds over that of Adam ({adam:.2e}); control: Nadam"
    return Verdict(ours / adam, 0.8, nadam / adam, case)


@claim(
    PAPER,
    "On the perceptron on digits, Adan does not reach with half the epochs the training loss that "
    "Adam reaches, each at its best learning rate; with as many it comes lower.",
    reproduces=False,
)
def half_the_epochs_do_not_suffice(budget: Budget) -> Verdict:
    problem, epochs = perceptron("digits", batch_size=64), budget.pick(10, 40)
    rates, seeds = np.geomspace(0.03, 0.12, budget.pick(3, 9)), budget.pick(3, 15)
    steps = epochs * (problem.num_samples // 64)
    marks = [steps // 2, steps]
    half, whole = best_losses(problem, adan, rates, seeds, marks)
    _, adam = best_losses(problem, optax.adam, rates, seeds, marks)
    case = (
        f"loss after {epochs // 2} epochs over Adam's after {epochs}; control: {epochs} of Adan too"
    )
    return Verdict(half / adam, 1.0, whole / adam, case, at_most=False)
