"""AuON: what its cosh does to a momentum is to multiply it by a number near 1."""

from __future__ import annotations

import numpy as np
import optax
from jaxtyping import Float

from ..train import auon, steepest_descent
from . import Budget, Paper, Verdict, claim
from ._training import updates

PAPER = Paper(
    slug="auon",
    title="AuON: A Linear-time Alternative to Semi-Orthogonal Momentum Updates",
    authors="Maity",
    year=2025,
    implements=("raphson.train.auon",),
    note=(
        "The paper takes the division by the root mean square of a cosh for an alternative to "
        "making the momentum orthogonal. It is a division by one number between 1 and 1 + "
        "sinh(gamma)^2 / N for a leaf of N numbers, and leaves the direction as it is: singular "
        "values stay as unequal as they were. The hybrid with a Newton-Schulz step is left out."
    ),
)


@claim(
    PAPER,
    "Of a leaf of N numbers of length 1, the mean of cosh(gamma G)^2 is between 1 + gamma^2 / N "
    "and 1 + sinh(gamma)^2 / N.",
)
def the_divisor_is_near_1(budget: Budget) -> Verdict:
    rng, gamma = np.random.default_rng(0), 1.5
    # From all entries alike to one alone, which attains the upper bound.
    powers = np.linspace(0, 20, budget.pick(50, 500))
    leaves = [np.abs(rng.normal(size=(4, 4))) ** power for power in powers]
    leaves = np.array([*leaves, np.eye(16)[0].reshape(4, 4)])

    def excess(factor: float) -> float:
        found = updates(auon(1.0, momentum=0.0, gamma=factor * gamma), leaves)
        means = np.sum(found**2, axis=(1, 2)) ** -1
        low, high = 1 + gamma**2 / 16, 1 + np.sinh(gamma) ** 2 / 16
        return float(np.max(np.maximum(low - means, means - high)) / (high - low))

    case = f"greatest excess over the interval's width, {len(leaves)} leaves; control: of length 2"
    return Verdict(excess(1.0), 1e-4, excess(2.0), case)


@claim(
    PAPER,
    "AuON makes a momentum no more orthogonal: on leaves of 64 x 64 its directions are, to 1e-3, "
    "the momentum divided by its length.",
    reproduces=False,
)
def directions_are_those_of_the_momentum(budget: Budget) -> Verdict:
    gradients = np.random.default_rng(0).normal(size=(budget.pick(20, 200), 64, 64))

    def directions(name: str) -> Float[np.ndarray, "t 64 64"]:
        momentum = optax.trace(0.95, nesterov=True)
        optimizer = optax.chain(momentum, steepest_descent(1.0, name, dualized=False))
        return updates(optimizer, gradients)

    normalized, muon = directions("frobenius"), directions("spectral") / 8
    ours = updates(auon(1.0), gradients)

    def deviation(found: Float[np.ndarray, "t 64 64"]) -> float:
        return float(np.max(np.linalg.norm(found - normalized, axis=(1, 2))))

    case = f"greatest deviation in {len(gradients)} updates of length 1; control: Muon's directions"
    return Verdict(deviation(ours), 1e-3, deviation(muon), case)
