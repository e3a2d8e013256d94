"""Old optimizers without their averages: each is steepest descent under some norm."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..train import steepest_descent
from . import Budget, Paper, Verdict, claim
from ._training import updates

PAPER = Paper(
    slug="old-optimizer-new-norm",
    title="Old Optimizer, New Norm: An Anthology",
    authors="Bernstein, Newhouse",
    year=2024,
    implements=("raphson.train.steepest_descent", "raphson.train.operator_norms"),
    note=(
        "optax.contrib.muon corrects the bias of its momentum, which Muon does not: its directions "
        "differ from those of optax.trace before steepest_descent. Prodigy, which finds the step "
        "size of sign descent, is Optax's and not checked here."
    ),
)


@claim(PAPER, "Adam without averages is steepest descent under the greatest entry: sign descent.")
def adam_is_sign_descent(budget: Budget) -> Verdict:
    gradients = _gaussian(budget.pick(20, 200))
    ours = updates(steepest_descent(1.0, "max", dualized=False), gradients)

    def deviation(b2: float) -> float:
        adam = updates(optax.adam(1.0, b1=0.0, b2=b2, eps=0.0), gradients)
        return float(np.max(np.abs(ours - adam)))

    case = f"greatest deviation over {len(gradients)} updates; control: b2 = 0.9"
    return Verdict(deviation(0.0), 1e-6, deviation(0.9), case)


@claim(
    PAPER,
    "Shampoo without averages, (G G')^-1/4 G (G' G)^-1/4, is steepest descent under the spectral "
    "norm: U V'.",
)
def shampoo_is_spectral_descent(budget: Budget) -> Verdict:
    gradients = _gaussian(budget.pick(20, 200))

    def power(matrix: np.ndarray, exponent: float) -> np.ndarray:
        eigenvalues, vectors = np.linalg.eigh(matrix)
        # Of G G', two eigenvalues are 0 here, and G has no part in their directions.
        kept = eigenvalues > 1e-9 * eigenvalues[-1]
        powers = np.where(kept, np.where(kept, eigenvalues, 1.0) ** exponent, 0.0)
        return (vectors * powers) @ vectors.T

    def deviation(exponent: float) -> float:
        shampoo = [power(g @ g.T, exponent) @ g @ power(g.T @ g, exponent) for g in gradients]
        ours = updates(steepest_descent(1.0, "spectral", False, True), gradients)
        return float(np.max(np.abs(ours + np.array(shampoo))))

    case = f"greatest deviation over {len(gradients)} gradients; control: the exponent -1/8"
    return Verdict(deviation(-1 / 4), 1e-5, deviation(-1 / 8), case)


@claim(
    PAPER,
    "With the dual norm and learning rate 1 / L, for a loss that is L-smooth in the norm, each "
    "step lowers the loss by at least (dual norm of the gradient)^2 / (2 L).",
)
def each_step_falls_as_the_norm_promises(budget: Budget) -> Verdict:
    rng, steps = np.random.default_rng(0), budget.pick(30, 300)
    a, start = jnp.asarray(rng.normal(size=(4, 4))), jnp.asarray(rng.normal(size=(4, 6)))
    # Of |A D|^2 over D of spectral norm 1 the greatest is |A|^2: D D' is at most the identity.
    smoothness = float(jnp.sum(a**2))

    def loss(w: Float[Array, "4 6"]) -> Float[Array, ""]:
        return jnp.sum((a @ w) ** 2) / 2

    def shortfall(factor: float) -> float:
        optimizer = steepest_descent(factor / smoothness, "spectral", exact=True)

        def step(w: Float[Array, "4 6"], _: None) -> tuple[Any, Float[Array, ""]]:
            gradient = jax.grad(loss)(w)
            change: Any = optimizer.update(gradient, optimizer.init(w), w)[0]
            promised = jnp.linalg.norm(gradient, "nuc") ** 2 / (2 * smoothness)
            return w + change, (loss(w + change) - loss(w)) / promised + 1

        return float(jnp.max(jax.lax.scan(step, start, length=steps)[1]))

    case = f"greatest share of the promised fall that is missing in {steps} steps; control: 2.5 / L"
    return Verdict(shortfall(1.0), 1e-5, shortfall(2.5), case)


def _gaussian(count: int) -> Float[np.ndarray, "count 6 4"]:
    return np.random.default_rng(0).normal(size=(count, 6, 4))
