"""AdaBelief: steps that are long where gradients come as their average foretells."""

from __future__ import annotations

from typing import Any

import numpy as np
import optax

from . import Budget, Paper, Verdict, claim
from ._training import updates

PAPER = Paper(
    slug="adabelief",
    title="AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed Gradients",
    authors="Zhuang, Tang, Ding, Tatikonda, Dvornek, Papademetris, Duncan",
    year=2020,
    implements=("optax.adabelief",),
    note=(
        "Optax has the paper's algorithm, whose one eps is Optax's eps and eps_root: 1e-8 in the "
        "paper, 1e-16 in Optax and in the authors' later code, which also rectifies the first "
        "steps as RAdam does. Added to the average at every step, it grows there to eps / (1 - b2)."
    ),
)


@claim(
    PAPER,
    "Optax's AdaBelief makes the updates of the paper's algorithm.",
)
def optax_follows_adabelief(budget: Budget) -> Verdict:
    b1, b2, eps = 0.9, 0.999, 1e-8
    gradients = np.random.default_rng(0).normal(size=(budget.pick(20, 1000), 10))
    m, s = np.zeros((2, 10))
    directions = []
    for t, g in enumerate(gradients, 1):
        m = b1 * m + (1 - b1) * g
        s = b2 * s + (1 - b2) * (g - m) ** 2 + eps
        directions.append(m / (1 - b1**t) / (np.sqrt(s / (1 - b2**t)) + eps))

    def deviation(optimizer: Any) -> float:
        return float(np.max(np.abs(updates(optimizer, gradients) + directions)))

    case = (
        f"greatest deviation over {len(gradients)} random gradients with an eps of 1e-8; control: "
        "eps not added to the average"
    )
    without = optax.adabelief(1.0, eps=eps, eps_root=0.0)
    return Verdict(
        deviation(optax.adabelief(1.0, eps=eps, eps_root=eps)), 1e-10, deviation(without), case
    )


@claim(
    PAPER,
    "Where the gradient is large but does not change, AdaBelief's steps grow: after 200 steps they "
    "are more than 3 learning rates long.",
)
def steps_grow_where_the_gradient_is_steady(budget: Budget) -> Verdict:
    gradients = np.full((200, 1), 5.0)
    ours, adam = (
        -float(updates(make(1.0), gradients)[-1, 0]) for make in (optax.adabelief, optax.adam)
    )
    case = "length of the step at t = 200 in learning rates, g = 5; control: Adam"
    return Verdict(ours, 3.0, adam, case, at_most=False)


@claim(
    PAPER,
    "Gradients of mean mu and deviation sigma take AdaBelief along mu / sigma on average, within "
    "15 %, and Adam along mu / sqrt(mu^2 + sigma^2).",
)
def steps_go_by_the_deviation(budget: Budget) -> Verdict:
    mu, sigma = 1.0, np.array([0.1, 0.3, 1.0, 3.0])
    noise = np.random.default_rng(0).normal(size=(budget.pick(20_000, 200_000), 4))

    def departure(optimizer: Any) -> float:
        mean = -np.mean(updates(optimizer, mu + sigma * noise)[5000:], axis=0)
        return float(np.max(np.abs(mean * sigma / mu - 1)))

    case = (
        "greatest departure of the mean step from mu / sigma, relative, mu = 1 and sigma = 0.1 to "
        "3; control: Adam"
    )
    return Verdict(departure(optax.adabelief(1.0)), 0.15, departure(optax.adam(1.0)), case)
