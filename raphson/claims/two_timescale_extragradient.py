"""Two-timescale extragradient: local minimax points where f_yy is singular."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..compiled import compiled
from ..probes import local_minimax
from ..problems import local_minimax as degenerate_saddle
from ..saddle import Extragradient, GradientDescentAscent, Saddle
from . import Budget, Paper, Verdict, claim
from ._history import history

PAPER = Paper(
    slug="two-timescale-extragradient",
    title="Two-Timescale Extragradient for Finding Local Minimax Points",
    authors="Chae, Kim, Kim",
    year=2024,
    implements=("raphson.saddle.Extragradient", "raphson.probes.local_minimax"),
    note=(
        "A setting of Extragradient, step_size=(eta / tau, eta). Where f_yy is singular, eta must "
        "also exceed a bound, `least_step_size` of the probe, which was derived anew here: without "
        "it the probe is wrong on about a tenth of random quadratics."
    ),
)


@claim(
    PAPER,
    "Two-timescale extragradient converges to the local minimax point of x y - x^2 / 10 whatever "
    "the ratio tau of its step sizes, where gradient descent ascent diverges for every tau.",
)
def converges_where_descent_ascent_diverges(budget: Budget) -> Verdict:
    problem, eta = degenerate_saddle(), 0.5
    steps, ratios = budget.pick((5000, (1.0, 5.0, 20.0)), (50_000, (1.0, 5.0, 20.0, 100.0)))

    def distances(method: type[Any]) -> np.ndarray:
        runs = [history(problem, method((eta / tau, eta)), steps) for tau in ratios]
        return np.nan_to_num([run["distance"][-1] for run in runs], nan=np.inf)

    case = (
        f"greatest distance after {steps} steps, tau in {ratios}; control: least of descent ascent"
    )
    found, control = distances(Extragradient), distances(GradientDescentAscent)
    return Verdict(float(found.max()), 1e-6, float(control.min()), case)


@claim(
    PAPER,
    "The restricted Schur complement and f_yy <= 0 tell at which stationary points two-timescale "
    "extragradient with a large tau is linearly stable, also where f_yy is singular.",
)
def restricted_schur_complement_tells_stability(budget: Budget) -> Verdict:
    count, tau = budget.pick(300, 5000), 1e4
    rng = np.random.default_rng(0)
    hessians = [_with_singular_f_yy(rng, 3, 3) for _ in range(count)]
    A, B, C = (np.stack(blocks) for blocks in zip(*hessians, strict=True))
    by_probe, by_full, iterations = compiled(_assessed, A, B, C, tau)
    stable = np.abs(np.linalg.eigvals(iterations)).max(axis=1) < 1
    case = (
        f"share of {count} random quadratics told rightly, tau = {tau:g}, eta = 0.9 / L "
        f"({np.mean(stable):.0%} stable); control: the full Schur complement"
    )
    told = [float(np.mean(np.asarray(guess) == stable)) for guess in (by_probe, by_full)]
    return Verdict(told[0], 0.99, told[1], case, at_most=False)


def _with_singular_f_yy(
    rng: np.random.Generator, n: int, m: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """f_xx, f_yy and f_xy at random, f_yy of a rank below m and mostly concave."""
    A = rng.normal(size=(n, n))
    basis = np.linalg.qr(rng.normal(size=(m, m)))[0]
    curvatures = -rng.uniform(0.5, 1.5, m) * (np.arange(m) < rng.integers(1, m))
    if rng.random() < 0.2:
        curvatures[0] *= -1
    return (A + A.T) / 2, (basis * curvatures) @ basis.T, rng.normal(size=(n, m))


def _assessed(
    A: Float[Array, "k n n"], B: Float[Array, "k m m"], C: Float[Array, "k n m"], tau: Array
) -> tuple[Bool[Array, " k"], Bool[Array, " k"], Float[Array, "k n+m n+m"]]:
    """Stability by the probe and by the full Schur complement, and the matrix of a step."""

    def one(A: Array, B: Array, C: Array) -> tuple[Array, Array, Array]:
        n = len(A)
        problem = Saddle(_quadratic, jnp.zeros(n), jnp.zeros(len(B)), (A, B, C))
        eta = 0.9 / jnp.linalg.norm(jnp.block([[A, C], [C.T, B]]), 2)
        probe = local_minimax(problem, problem.y0)
        full = jnp.linalg.eigvalsh(A - C @ jnp.linalg.pinv(B, rtol=1e-8) @ C.T)[0]
        takes = eta > probe.least_step_size

        def step(flat: Array) -> Array:
            z = flat[:n], flat[n:]
            method = Extragradient((eta / tau, eta))
            return jnp.concatenate(method.step(problem, z, method.init(problem, z, None))[0])

        iteration = jax.jacfwd(step)(jnp.zeros(n + len(B)))
        return (
            probe.concave & (probe.schur > 0) & takes,
            probe.concave & (full > 0) & takes,
            iteration,
        )

    return jax.vmap(one)(A, B, C)


def _quadratic(x: Array, y: Array, blocks: tuple[Array, Array, Array]) -> Array:
    A, B, C = blocks
    return x @ A @ x / 2 + x @ C @ y + y @ B @ y / 2
