"""The bounds of Garrigos and Gower's handbook, checked at every step of runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..problem import AbstractObjective, Facts
from ..problems import (
    huber_chain,
    logistic_synthetic,
    nesterov_worst,
    polyak_lojasiewicz,
    quadratic,
)
from ..smooth import FiniteSum, GradientDescent, HeavyBall
from . import Budget, Paper, Verdict, claim
from ._history import history

PAPER = Paper(
    slug="gradient-methods-handbook",
    title="Handbook of Convergence Theorems for (Stochastic) Gradient Methods",
    authors="Garrigos, Gower",
    year=2023,
    implements=("raphson.smooth.GradientDescent", "raphson.smooth.HeavyBall"),
    note="In what the claims say, D is the distance from the start to the minimizer.",
)


@claim(
    PAPER, "Gradient descent with step size s <= 1/L on a convex f keeps f - f* <= D^2 / (2 s t)."
)
def gradient_descent_convex(budget: Budget) -> Verdict:
    steps = budget.pick(200, 500)
    # The first is the worst there is for so many steps: it attains nearly half of the bound.
    worst = huber_chain(1, width=1 / (2 * steps + 1))
    problems = [worst, huber_chain(), nesterov_worst(), logistic_synthetic()]

    def excess(factor: float) -> float:
        def ratio(problem: AbstractObjective) -> Any:
            size = factor / problem.facts.lipschitz
            gap = history(problem, GradientDescent(size), steps)["gap"]
            return gap * 2 * size * np.arange(steps + 1) / _square_distance(problem)

        return _greatest(ratio, problems)

    case = f"greatest (f - f*) / bound over {steps} steps and 4 problems; control: s = 2.5 / L"
    return Verdict(excess(1.0), 1.0, excess(2.5), case)


@claim(
    PAPER,
    "Gradient descent with s <= 1/L on a mu-strongly convex f keeps "
    "|y - y*|^2 <= (1 - s mu)^t D^2.",
)
def gradient_descent_strongly_convex(budget: Budget) -> Verdict:
    steps = budget.pick(200, 300)
    problems = [
        quadratic(np.geomspace(0.05, 1, 5)),
        nesterov_worst(strong_convexity=0.05),
        logistic_synthetic(regularization=0.05),
    ]

    def excess(factor: float) -> float:
        def ratio(problem: AbstractObjective) -> Any:
            size = 1 / problem.facts.lipschitz
            distance = history(problem, GradientDescent(factor * size), steps)["distance"]
            rate = (1 - size * problem.facts.strong_convexity) ** np.arange(steps + 1)
            return distance**2 / (rate * _square_distance(problem))

        return _greatest(ratio, problems)

    case = (
        f"greatest |y - y*|^2 / bound over {steps} steps and 3 problems, s = 1 / L; control: steps "
        "of 0.3 / L held to the same rate"
    )
    return Verdict(excess(1.0), 1.0, excess(0.3), case)


@claim(
    PAPER,
    "Gradient descent with s <= 1/L keeps f - f* <= (1 - s mu)^t (f(y0) - f*) under the "
    "Polyak-Lojasiewicz inequality with mu, without convexity.",
)
def gradient_descent_polyak_lojasiewicz(budget: Budget) -> Verdict:
    steps = budget.pick(60, 300)
    problem = polyak_lojasiewicz()
    starts = np.linspace(-10, 10, budget.pick(20, 200))
    problems = [eqx.tree_at(lambda p: p.y0, problem, jnp.array([start])) for start in starts]

    def excess(factor: float) -> float:
        def ratio(problem: AbstractObjective) -> Any:
            size = factor / problem.facts.lipschitz
            gap = history(problem, GradientDescent(size), steps)["gap"]
            rate = (1 - size * problem.facts.polyak_lojasiewicz) ** np.arange(steps + 1)
            return gap / (rate * gap[0])

        return _greatest(ratio, problems)

    case = (
        f"greatest (f - f*) / bound over {steps} steps from {len(starts)} starts in [-10, 10], "
        "f = y^2 + 3 sin(y)^2 with its best constant mu = 0.1755, s = 1 / L; control: s = 2.5 / L"
    )
    return Verdict(excess(1.0), 1.0, excess(2.5), case)


@claim(
    PAPER,
    "Momentum as iterate averaging with s <= 1/(4L) on a convex f keeps its last iterate at "
    "f - f* <= D^2 / (s (t + 1)).",
)
def momentum_as_averaging(budget: Budget) -> Verdict:
    steps = budget.pick(200, 2000)
    problems = [huber_chain(), logistic_synthetic()]

    def excess(method: Callable[[Any], Any]) -> float:
        def ratio(problem: AbstractObjective) -> Any:
            size = 0.25 / problem.facts.lipschitz
            gap = history(problem, method(size), steps)["gap"]
            return gap * size * np.arange(1, steps + 2) / _square_distance(problem)

        return _greatest(ratio, problems)

    def without_momentum(size: Any) -> Any:
        return optax.sgd(lambda t: 2 * size / (t + 3))

    case = (
        f"greatest (f - f*) / bound over {steps} steps and 2 problems, s = 1 / (4L); control: the "
        "same step sizes 2 s / (t + 3) without momentum"
    )
    return Verdict(excess(HeavyBall), 1.0, excess(without_momentum), case)


@claim(
    PAPER,
    "Stochastic gradient descent with s <= 1/(2 Lmax) on a mu-strongly convex f keeps "
    "E|y - y*|^2 <= (1 - s mu)^t D^2 + 2 s sigma^2 / mu, sigma^2 being the variance of its "
    "gradients at y*.",
)
def stochastic_gradient_descent_strongly_convex(budget: Budget) -> Verdict:
    steps, seeds = budget.pick(400, 4000), budget.pick(20, 200)
    rng = np.random.default_rng(0)
    a = rng.standard_normal((100, 3))
    b = a @ np.ones(3) + 0.5 * rng.standard_normal(100)
    minimizer = np.linalg.lstsq(a, b)[0]
    lengths = np.sum(a**2, axis=1)
    mu = np.linalg.eigvalsh(a.T @ a / 100)[0]
    size = 0.5 / lengths.max()
    variance = np.mean(lengths * (a @ minimizer - b) ** 2)
    bound = (1 - size * mu) ** np.arange(steps + 1) * np.dot(minimizer, minimizer)
    bound += 2 * size * variance / mu

    def excess(samples: int) -> float:
        drawn = np.arange(100) % samples
        problem = FiniteSum(
            _squared_error,
            jnp.zeros(3),
            (a[drawn], b[drawn]),
            batch_size=1,
            facts=Facts(minimizer=jnp.asarray(minimizer)),
        )
        keys = jax.random.split(jax.random.key(0), seeds)
        squares = history(problem, optax.sgd(size), steps, keys)["distance"] ** 2
        error = squares.std(axis=0, ddof=1) / seeds**0.5
        return float(np.max(((squares.mean(axis=0) + 3 * error) / bound)[1:]))

    case = (
        f"greatest (mean + 3 standard errors over {seeds} seeds) / bound over {steps} steps, least "
        "squares with 100 samples and 3 unknowns, s = 1 / (2 Lmax); control: drawing from the "
        "first 5 samples only"
    )
    return Verdict(excess(100), 1.0, excess(5), case)


def _squared_error(y: Any, sample: Any, _: None) -> Any:
    a, b = sample
    return (jnp.vdot(a, y) - b) ** 2 / 2


def _square_distance(problem: AbstractObjective) -> float:
    return float(jnp.sum((problem.y0 - problem.facts.minimizer) ** 2))


def _greatest(ratio: Callable[[Any], Any], problems: Iterable[Any]) -> float:
    """The greatest ratio on any problem after the start, where some bounds are attained."""
    return float(np.max([ratio(problem)[1:] for problem in problems]))
