"""Polyak's step size with momentum: what it guarantees, and what it is worth."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..problem import AbstractObjective, Facts
from ..problems import huber_chain, logistic_synthetic, nesterov_worst, quadratic
from ..smooth import FiniteSum, HeavyBall, PolyakMomentum
from ..train.polyak_momentum import Kind, polyak_momentum
from . import Budget, Paper, Verdict, claim
from ._history import history

PAPER = Paper(
    slug="polyak-momentum",
    title="Generalized Polyak Step Size for First Order Optimization with Momentum",
    authors="Wang, Johansson, Zhang",
    year=2023,
    implements=("raphson.smooth.PolyakMomentum", "raphson.train.polyak_momentum"),
    note=(
        "The heavy-ball form is not safe on every convex f: on `huber_chain()` with momentum 0.9 "
        "it diverges. On ill-conditioned quadratics Polyak's step size alone does better than "
        "either form with any of the momenta tried, as the last claim says; that is a finding of "
        "ours. That on batches the moving average never moves away follows for c >= 1; with c = "
        "1/2 it was not seen to fail."
    ),
)
MOMENTA = (0.5, 0.9, 0.99)


@claim(
    PAPER,
    "On a convex f the moving-average form never moves away from a minimizer, whatever the "
    "momentum.",
)
def moving_average_never_moves_away(budget: Budget) -> Verdict:
    steps = budget.pick(300, 3000)
    problems = [quadratic(), huber_chain(), nesterov_worst(), logistic_synthetic()]

    def greatest_rise(kind: str) -> float:
        def rise(problem: AbstractObjective, momentum: float) -> Any:
            method = PolyakMomentum(float(problem.facts.optimum), momentum, kind)
            run = history(problem, method, steps)
            ahead = run["gap"][:-1] > 1e-12 * run["gap"][0]  # below, f - f* is rounding
            return np.max((np.diff(run["distance"]) / run["distance"][:-1])[ahead])

        return float(np.max([rise(problem, m) for problem in problems for m in MOMENTA]))

    case = (
        f"greatest relative rise of |y - y*| in {steps} steps on 4 problems with momenta "
        f"{MOMENTA}; control: the heavy-ball form"
    )
    return Verdict(greatest_rise("moving_average"), 1e-10, greatest_rise("heavy_ball"), case)


@claim(
    PAPER,
    "On quadratics with condition number 1e4 the heavy-ball form is better after 2000 steps than "
    "the heavy ball with step size 1/L, whichever momentum both take.",
)
def better_than_a_fixed_step_size(budget: Budget) -> Verdict:
    heavy_ball, moving_average = (
        max(_gap(budget, kind, m) / _gap(budget, "fixed", m) for m in MOMENTA)
        for kind in ("heavy_ball", "moving_average")
    )
    case = (
        f"greatest f - f* over that with the fixed step size, momenta {MOMENTA}, medians of seeds; "
        "control: the moving-average form"
    )
    return Verdict(heavy_ball, 1.0, moving_average, case)


@claim(
    PAPER,
    "On the same quadratics both forms hang less on the momentum than the heavy ball with a fixed "
    "step size does: their f - f* spread over 4.5 decades at most.",
)
def hangs_less_on_the_momentum(budget: Budget) -> Verdict:
    def spread(kind: str) -> float:
        return float(np.ptp(np.log10([_gap(budget, kind, m) for m in MOMENTA])))

    case = (
        f"greatest spread of log10 of f - f* over the momenta {MOMENTA}, medians of seeds; "
        "control: the fixed step size 1/L"
    )
    both = max(spread("moving_average"), spread("heavy_ball"))
    return Verdict(both, 4.5, spread("fixed"), case)


@claim(
    PAPER,
    "On batches of one sample, all of which one model fits, the stochastic moving average with "
    "c = 1 never moves away from that model.",
)
def fits_are_never_left(budget: Budget) -> Verdict:
    steps, seeds = budget.pick((1000, 4), (10_000, 32))
    rng = np.random.default_rng(0)
    A, fit = rng.normal(size=(50, 10)) * np.geomspace(1, 10, 10), rng.normal(size=10)
    samples, facts = (jnp.asarray(A), jnp.asarray(A @ fit)), Facts(minimizer=jnp.asarray(fit))
    problem = FiniteSum(_half_square, jnp.zeros(10), samples, batch_size=1, facts=facts)
    keys = jax.random.split(jax.random.key(0), seeds)

    def greatest_rise(kind: Kind) -> float:
        away = history(problem, polyak_momentum(10.0, 0.9, kind), steps, keys)["distance"]
        return float(np.max(np.diff(away)) / away[0, 0])

    case = (
        f"greatest rise of the distance over that at the start in {steps} steps with momentum 0.9 "
        f"on {seeds} draws of least squares; control: the heavy-ball form"
    )
    return Verdict(greatest_rise("moving_average"), 1e-12, greatest_rise("heavy_ball"), case)


@claim(
    PAPER,
    "On the same quadratics momentum is no help to Polyak's step size: with the best of three "
    "momenta each of the two forms is worse by a factor of 5 at least than without momentum.",
    reproduces=False,
)
def momentum_does_not_help_polyaks_step(budget: Budget) -> Verdict:
    def share(kind: str) -> float:
        return min(_gap(budget, kind, m) for m in MOMENTA) / _gap(budget, kind, 0.0)

    case = (
        f"least f - f* after 2000 steps over that without momentum, momenta {MOMENTA}, medians of "
        "seeds, the form that gains more; control: the heavy ball with the fixed step size 1/L"
    )
    both = min(share("moving_average"), share("heavy_ball"))
    return Verdict(both, 5.0, share("fixed"), case, at_most=False)


@cache
def _gap(budget: Budget, kind: str, momentum: float) -> float:
    """f - f* after 2000 steps on an ill-conditioned quadratic, its median over seeds."""
    L = 1e4
    fixed = HeavyBall(1 / L, momentum)
    method = fixed if kind == "fixed" else PolyakMomentum(0.0, momentum, kind)
    problems = [quadratic(np.geomspace(1, L, 20), seed=s) for s in range(budget.pick(25, 100))]
    return float(np.median([history(problem, method, 2000)["gap"][-1] for problem in problems]))


def _half_square(y: Float[Array, " d"], sample: tuple[Array, Array], _: None) -> Float[Array, ""]:
    a, b = sample
    return (jnp.vdot(a, y) - b) ** 2 / 2
