"""Feed-forward computation in parallel: the states of a sequence, exactly, in fewer sweeps."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..roots import solve_feedforward
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="parallel-feedforward",
    title="Accelerating Feedforward Computation via Parallel Nonlinear Equation Solving",
    authors="Song, Meng, Liao, Ermon",
    year=2021,
    implements=("raphson.roots.solve_feedforward",),
    note="Only Jacobi sweeps over chains, in which each state follows from the one before; not the "
    "hybrids with Gauss-Seidel, nor the paper's autoregressive images. Sweeps are counted, which "
    "are seconds where a sweep fits the device. Random gated cells forget less the larger their "
    "recurrent weights: 200 steps take 28 to 31 sweeps at spectral radius 0.5, 39 to 57 at 1.5 and "
    "113 to 200 at 3, until nothing changes by more than 1e-6.",
)

T = 200


@claim(
    PAPER,
    "Of a gated recurrent cell with recurrent weights of spectral radius 0.5, the states of 200 "
    "steps settle to 1e-6 in at most a quarter as many sweeps.",
)
def sweeps_are_few_where_the_chain_forgets(budget: Budget) -> Verdict:
    def most(radius: float) -> float:
        runs = [_swept(radius, seed, 1e-6)[1] for seed in range(budget.pick(3, 10))]
        return max(runs) / T

    return Verdict(most(0.5), 0.25, most(3.0), "most sweeps over the steps; control: radius 3")


@claim(
    PAPER,
    "Swept until nothing changes the states are those of the sequence to rounding, after no more "
    "sweeps than steps, also where the chain forgets slowly.",
)
def sweeps_are_exact(budget: Budget) -> Verdict:
    def greatest_error(atol: float) -> float:
        return max(_swept(radius, 0, atol)[0] for radius in (0.5, 1.5, 3.0))

    case = "greatest error in a state at spectral radii 0.5, 1.5 and 3; control: stopped at 1e-3"
    return Verdict(greatest_error(0.0), 1e-12, greatest_error(1e-3), case)


def _swept(radius: float, seed: int, atol: float) -> tuple[float, int]:
    """The greatest error in the states of a random cell, and the sweeps that it took."""
    cell, start, inputs = _gated(radius, seed)
    states, sweeps = solve_feedforward(cell, start, inputs, atol=atol)

    def step(s: Array, x: Array) -> tuple[Array, Array]:
        s = cell(s, x)
        return s, s

    _, exact = jax.lax.scan(step, start, inputs)
    return float(jnp.max(jnp.abs(states - exact))), int(sweeps)


def _gated(radius: float, seed: int) -> tuple[Callable[..., Array], Array, Array]:
    """A gated recurrent unit of 16 states, and its inputs; all random."""
    n = 16
    rng = np.random.default_rng(seed)
    U = rng.normal(size=(3, n, n))
    U *= radius / np.abs(np.linalg.eigvals(U)).max(axis=1)[:, None, None]
    V = rng.normal(size=(3, n, n)) / np.sqrt(n)

    def cell(s: Float[Array, " n"], x: Float[Array, " n"]) -> Float[Array, " n"]:
        update = jax.nn.sigmoid(V[0] @ x + U[0] @ s)
        reset = jax.nn.sigmoid(V[1] @ x + U[1] @ s)
        return (1 - update) * s + update * jnp.tanh(V[2] @ x + U[2] @ (reset * s))

    return cell, jnp.zeros(n), jnp.array(rng.normal(size=(T, n)))
