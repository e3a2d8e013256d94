"""Self-distillation of kernel ridge regression: where it goes, and how much truth it needs."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..problems import ridge
from ..train import distillation_weight, self_distilled
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="self-distillation",
    title=(
        "Even your Teacher Needs Guidance: Ground-Truth Targets Dampen Regularization Imposed by "
        "Self-Distillation"
    ),
    authors="Borup, Andersen",
    year=2021,
    implements=("raphson.train.self_distilled", "raphson.train.distillation_weight"),
    note=(
        "Checked on kernel ridge regression, of which the paper's theory is, not on networks. Its "
        "weight is computed before a search, but the gain by it is small where the ridge is right."
    ),
)
RIDGE = 0.1


@claim(
    PAPER,
    "Taught its own fits and a share alpha of the truth for ever, the regression comes to the one "
    "with the ridge lambda / alpha.",
)
def limit_is_a_larger_ridge(budget: Budget) -> Verdict:
    kernel, y, *_ = _data(budget)

    def distance(steps: int) -> float:
        apart = [
            self_distilled(kernel, y, RIDGE, alpha, steps) - _fit(kernel, kernel, y, RIDGE / alpha)
            for alpha in (0.2, 0.5, 0.8)
        ]
        return float(np.max(np.abs(apart)))

    case = "greatest distance to it after 200 steps, alpha = 0.2, 0.5, 0.8; control: after 2"
    return Verdict(distance(200), 1e-3, distance(2), case)


@claim(
    PAPER,
    "Without the truth, every step sharpens the basis: components of smaller eigenvalues shrink "
    "faster; with a share of it, that comes to an end.",
)
def basis_grows_sparse(budget: Budget) -> Verdict:
    kernel, y, *_ = _data(budget)
    _, vectors = np.linalg.eigh(np.asarray(kernel))
    large, small = vectors[:, -1], vectors[:, -40]

    def shrinks(alpha: float) -> float:
        fits = [np.asarray(self_distilled(kernel, y, RIDGE, alpha, t)) for t in (20, 21)]
        before, after = (abs(small @ fit) / abs(large @ fit) for fit in fits)
        return float(after / before)

    case = (
        "ratio of two components after a step over that before it, the 20th step; control: "
        "alpha = 0.5"
    )
    return Verdict(shrinks(0.0), 0.99, shrinks(0.5), case)


@claim(
    PAPER,
    "The weight of the truth that is best on validation samples is known without a search.",
)
def weight_needs_no_search(budget: Budget) -> Verdict:
    kernel, y, across, y_after = _data(budget)
    teacher = _fit(kernel, kernel, y, RIDGE)
    first, second = (_fit(across, kernel, target, RIDGE) for target in (y, teacher))

    def error(weight: Any) -> float:
        mixed = weight * y + (1 - weight) * teacher
        return float(jnp.mean((_fit(across, kernel, mixed, RIDGE) - y_after) ** 2))

    found = min(error(weight) for weight in np.linspace(0, 1, 101))
    case = f"error over the best of 101 weights in [0, 1], {len(y)} samples; control: the weight 1"
    ours = error(distillation_weight(first, second, y_after))
    return Verdict(ours / found, 1 + 1e-6, error(1.0) / found, case)


def _data(budget: Budget) -> tuple[Array, Array, Array, Array]:
    """Gaussian kernel of diabetes, targets, kernel of held-out samples, their targets."""
    problem = ridge("diabetes")
    (x, y), (x_after, y_after) = problem.data, problem.held_out  # pyright: ignore
    every = budget.pick(3, 1)
    x, y = np.asarray(x)[::every], np.asarray(y)[::every]

    def gaussian(a: Any) -> Float[Array, "m n"]:
        squares = np.sum((np.asarray(a)[:, None] - x) ** 2, axis=2)
        return jnp.asarray(np.exp(-squares / (2 * x.shape[1])))

    return gaussian(x), jnp.asarray(y), gaussian(x_after), jnp.asarray(y_after)


def _fit(at: Array, kernel: Array, target: Array, ridge: float) -> Array:
    return at @ jnp.linalg.solve(kernel + ridge * jnp.eye(len(kernel)), target)
