"""Turbo-Muon: balanced rows are worth a Newton-Schulz step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..train import polar_factor
from ..train._polar import QUINTICS
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="turbo-muon",
    title="Turbo-Muon: Accelerating Orthogonality-Based Optimization with Pre-Conditioning",
    authors="Boissin, Massena, Mamalet, Serrurier",
    year=2025,
    implements=("raphson.train.polar_factor", "raphson.train.steepest_descent"),
    note=(
        "optax.contrib.muon takes the same steps with preconditioning='aol', but refuses four "
        "steps of its preset 'dion' (0.2.8): their coefficients have to be given. Times are in "
        "benchmarks/polar.py. Balancing the rows changes the polar factor: where they differ much "
        "in length, more steps do not come nearer to that of the matrix itself."
    ),
)


@claim(
    PAPER,
    "From balanced rows, four steps come as near to the polar factor of a Gaussian matrix as five "
    "steps from X / |X|.",
)
def balancing_saves_a_step(budget: Budget) -> Verdict:
    size = budget.pick(384, 1024)
    matrices = _gaussian(2, size)
    exact = polar_factor(matrices, None)
    five, four = (_error(_from_norm(matrices, steps), exact) for steps in (5, 4))
    case = (
        f"mean relative error over that of five steps from X / |X| ({five:.3f}), {size} x {size}; "
        "control: four steps from X / |X|"
    )
    return Verdict(_error(polar_factor(matrices), exact) / five, 1.0, four / five, case)


@claim(
    PAPER,
    "Rows divided by the roots of the absolute row sums of X X' leave no singular value above 1.",
)
def balanced_rows_have_norm_at_most_1(budget: Budget) -> Verdict:
    rng = np.random.default_rng(0)

    def greatest(order: int) -> float:
        norms = []
        for _ in range(budget.pick(300, 3000)):
            m, n = rng.integers(1, 12, 2)
            # Rows of many lengths, in few directions.
            x = rng.normal(size=(m, 2)) @ rng.normal(size=(2, n)) + rng.normal(size=(m, n)) / 9
            x *= np.exp(rng.normal(size=(m, 1)))
            sums = np.linalg.norm(x @ x.T, order, axis=1, keepdims=True)
            norms.append(np.linalg.norm(x / np.sqrt(sums), 2))
        return max(norms)

    case = "greatest singular value of many matrices; control: row norms of X X' for its row sums"
    return Verdict(greatest(1), 1 + 1e-14, greatest(2), case)


@claim(
    PAPER,
    "Where the rows of a Gaussian matrix differ in length up to a hundredfold, no number of steps "
    "comes within a tenth of its polar factor: balancing has changed it.",
)
def balancing_changes_the_polar_factor(budget: Budget) -> Verdict:
    size = budget.pick(128, 1024)
    matrices = _gaussian(2, size)
    uneven = jnp.geomspace(1, 100, size)[None, :, None] * matrices

    def least(matrices: Float[Array, "k n n"]) -> float:
        exact = polar_factor(matrices, None)
        return min(_error(polar_factor(matrices, steps), exact) for steps in range(1, 6))

    case = f"least relative error of 1 to 5 steps, {size} x {size}; control: rows of one length"
    return Verdict(least(uneven), 0.1, least(matrices), case, at_most=False)


def _gaussian(count: int, size: int) -> Float[Array, "count size size"]:
    return jax.random.normal(jax.random.key(0), (count, size, size))


def _error(found: Float[Array, "k n n"], exact: Float[Array, "k n n"]) -> float:
    lengths = jnp.linalg.norm(found - exact, axis=(1, 2)) / jnp.linalg.norm(exact, axis=(1, 2))
    return float(jnp.mean(lengths))


def _from_norm(matrices: Float[Array, "k n n"], steps: int) -> Any:
    """Optax's iteration without momentum: what it makes of the gradient is all of its direction."""
    optimizer = optax.contrib.scale_by_muon(
        QUINTICS[-steps:],
        steps,
        0.0,
        nesterov=False,
        weight_dimension_numbers=optax.contrib.MuonDimensionNumbers(1, 2),
    )
    return optimizer.update(matrices, optimizer.init(matrices))[0]
