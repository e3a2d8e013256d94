"""ReSTE: between an estimator that is near the sign and one whose gradients are even."""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import Float

from ..train import reste_power, reste_sign
from . import Budget, Paper, Verdict, claim

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
        "The two sides of the paper's balance are checked, not its accuracies on CIFAR-10 and "
        "ImageNet. The slope within the core, 0.1 here, is from the authors' code."
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


def _scheduled(counts: int) -> Float[np.ndarray, " counts"]:
    return np.array([reste_power(counts - 1)(count) for count in range(counts)])


def _slopes(
    powers: Float[np.ndarray, " counts"],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "counts n"]]:
    """Within the cut on one side, from 0 outwards, for each power."""
    x = (np.arange(1500) + 0.5) / 1000
    slopes = jax.vmap(jax.vmap(jax.grad(reste_sign), (0, None)), (None, 0))(x, powers)
    return x, np.asarray(slopes)
