"""The bounds of Garrigos and Gower's handbook, checked at every step of runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..composite import L1, Box, Composite, ProximalGradient
from ..engine import solve
from ..problem import AbstractObjective, AbstractProblem, Facts
from ..problems import (
    ball_quadratic,
    huber_chain,
    lasso,
    logistic_synthetic,
    nesterov_worst,
    polyak_lojasiewicz,
    quadratic,
)
from ..smooth import FiniteSum, GradientDescent, HeavyBall, Minimize, SubgradientDescent
from . import Budget, Paper, Verdict, claim
from ._history import history

PAPER = Paper(
    slug="gradient-methods-handbook",
    title="Handbook of Convergence Theorems for (Stochastic) Gradient Methods",
    authors="Garrigos, Gower",
    year=2023,
    implements=(
        "raphson.smooth.GradientDescent",
        "raphson.smooth.HeavyBall",
        "raphson.smooth.SubgradientDescent",
        "raphson.composite.ProximalGradient",
    ),
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
    "The proximal gradient method with s <= 1/L on a convex f + h keeps f + h within "
    "D^2 / (2 s t) of its least value.",
)
def proximal_gradient_convex(budget: Budget) -> Verdict:
    steps = budget.pick(200, 500)
    # The worst for gradient descent, in a box that leaves its path alone.
    worst = huber_chain(1, width=1 / (2 * steps + 1))
    boxed = Composite(worst, Box(-2.0, 2.0), facts=worst.facts)
    problems = [boxed, lasso(np.geomspace(0.04, 4, 20)), ball_quadratic()]

    def excess(factor: float) -> float:
        def ratio(problem: Composite) -> Any:
            size = factor / problem.facts.lipschitz
            gap = history(problem, ProximalGradient(size), steps)["gap"]
            return gap * 2 * size * np.arange(steps + 1) / _square_distance(problem)

        return _greatest(ratio, problems)

    case = (
        f"greatest (f + h - least) / bound over {steps} steps and 3 problems (h an absolute value, "
        "a ball, a box); control: s = 2.5 / L"
    )
    return Verdict(excess(1.0), 1.0, excess(2.5), case)


@claim(
    PAPER,
    "The proximal gradient method with s <= 1/L, f being mu-strongly convex, keeps "
    "|y - y*|^2 <= (1 - s mu)^t D^2.",
)
def proximal_gradient_strongly_convex(budget: Budget) -> Verdict:
    steps = budget.pick(200, 400)
    chain, spectrum = nesterov_worst(strong_convexity=0.05), np.geomspace(0.2, 4, 5)
    boxed = Composite(chain, Box(0.0, 1.0), facts=chain.facts)
    problems = [boxed, lasso(spectrum), ball_quadratic(spectrum)]

    def excess(factor: float) -> float:
        def ratio(problem: Composite) -> Any:
            size = 1 / problem.facts.lipschitz
            distance = history(problem, ProximalGradient(factor * size), steps)["distance"]
            rate = (1 - size * problem.facts.strong_convexity) ** np.arange(steps + 1)
            return distance**2 / (rate * _square_distance(problem))

        return _greatest(ratio, problems)

    case = (
        f"greatest |y - y*|^2 / bound over {steps} steps and 3 problems (h a box, an absolute "
        "value, a ball), s = 1 / L; control: steps of 0.3 / L held to the same rate"
    )
    return Verdict(excess(1.0), 1.0, excess(0.3), case)


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
    "On single samples, momentum as iterate averaging with s <= 1/(4 Lmax) keeps its last iterate "
    "at E f - f* <= D^2 / (s (t + 1)) + 2 s sigma^2.",
)
def stochastic_momentum(budget: Budget) -> Verdict:
    steps, seeds = budget.pick(1000, 4000), budget.pick(20, 200)
    a, _, minimizer, variance = _regression()
    size = 0.25 / np.sum(a**2, axis=1).max()
    bound = np.dot(minimizer, minimizer) / (size * np.arange(1, steps + 2)) + 2 * size * variance

    def excess(method: Any) -> float:
        runs = history(_least_squares(1, len(a)), method, steps, _keys(seeds))
        return _greatest_mean(runs["gap"], bound)

    without_momentum = optax.sgd(lambda t: 2 * size / (t + 3))
    case = (
        f"greatest (mean + 3 standard errors over {seeds} seeds) / bound over {steps} steps, least "
        "squares with 100 samples and 3 unknowns, s = 1 / (4 Lmax); control: the same step sizes "
        "2 s / (t + 3) without momentum"
    )
    return Verdict(excess(HeavyBall(size, None)), 1.0, excess(without_momentum), case)


@claim(
    PAPER,
    "The subgradient method with constant steps s keeps the average of its t iterates at "
    "f - f* <= D^2 / (2 s t) + s G^2 / 2 where no subgradient is longer than G.",
)
def subgradient_descent(budget: Budget) -> Verdict:
    steps = budget.pick(256, 4096)
    rng = np.random.default_rng(0)
    # The absolute value of one unknown attains the bound when its iterates come to the kink.
    cases = [(np.ones((1, 1)), np.ones(1)), (rng.standard_normal((20, 5)), rng.standard_normal(5))]

    def excess(factor: float) -> float:
        def ratio(case: tuple[np.ndarray, np.ndarray]) -> Any:
            a, minimizer = case
            facts = Facts(optimum=0.0, minimizer=jnp.asarray(minimizer))
            start = jnp.zeros(minimizer.size)
            problem = Minimize(_absolute_error, start, (a, minimizer), facts=facts)
            longest = np.mean(np.linalg.norm(a, axis=1))
            size = float(np.linalg.norm(minimizer) / (longest * steps**0.5))
            method = SubgradientDescent(factor * size, 0.0, average=True)
            gap, count = history(problem, method, steps)["gap"], np.arange(1, steps + 1)
            bound = _square_distance(problem) / (2 * size * count) + size * longest**2 / 2
            return np.append(0.0, gap[1:] / bound)

        return _greatest(ratio, cases)

    case = (
        f"greatest (f - f*) / bound over {steps} steps, the mean of |a'(y - z)| over 1 and 20 a; "
        "control: steps of s / 2"
    )
    return Verdict(excess(1.0), 1 + 1e-9, excess(0.5), case)


@claim(
    PAPER,
    "Stochastic gradient descent with s <= 1/(2 Lmax) on a mu-strongly convex f keeps "
    "E|y - y*|^2 <= (1 - s mu)^t D^2 + 2 s sigma^2 / mu, sigma^2 being the variance of its "
    "gradients at y*.",
)
def stochastic_gradient_descent_strongly_convex(budget: Budget) -> Verdict:
    steps, seeds = budget.pick(400, 4000), budget.pick(20, 200)
    a, b, minimizer, variance = _regression()
    mu = np.linalg.eigvalsh(a.T @ a / 100)[0]
    size = 0.5 / np.sum(a**2, axis=1).max()
    bound = (1 - size * mu) ** np.arange(steps + 1) * np.dot(minimizer, minimizer)
    bound += 2 * size * variance / mu

    def excess(samples: int) -> float:
        runs = history(_least_squares(1, samples), optax.sgd(size), steps, _keys(seeds))
        return _greatest_mean(runs["distance"] ** 2, bound)

    case = (
        f"greatest (mean + 3 standard errors over {seeds} seeds) / bound over {steps} steps, least "
        "squares with 100 samples and 3 unknowns, s = 1 / (2 Lmax); control: drawing from the "
        "first 5 samples only"
    )
    return Verdict(excess(100), 1.0, excess(5), case)


@claim(
    PAPER,
    "On logistic ridge regression, too, stochastic gradient descent with s <= 1/(2 Lmax) keeps "
    "E|y - y*|^2 <= (1 - s mu)^t D^2 + 2 s sigma^2 / mu.",
)
def stochastic_gradient_descent_logistic_ridge(budget: Budget) -> Verdict:
    steps, seeds, mu = budget.pick(400, 4000), budget.pick(20, 200), 0.1
    problem = logistic_synthetic(100, 3, regularization=mu, batch_size=1)
    minimizer = problem.facts.minimizer
    slopes = jax.vmap(jax.grad(problem.fn), (None, 0, None))(minimizer, problem.data, mu)
    variance = float(jnp.sum(jnp.var(slopes, axis=0)))
    size = 0.5 / (float(jnp.max(jnp.sum(problem.data[0] ** 2, axis=1))) / 4 + mu)
    bound = (1 - size * mu) ** np.arange(steps + 1) * _square_distance(problem)
    bound += 2 * size * variance / mu

    def excess(factor: float) -> float:
        method = SubgradientDescent(factor * size, 0.0)  # a number that compiles nothing anew
        runs = history(problem, method, steps, _keys(seeds))
        return _greatest_mean(runs["distance"] ** 2, bound)

    case = (
        f"greatest (mean + 3 standard errors over {seeds} seeds) / bound over {steps} steps, 100 "
        f"samples and 3 unknowns, mu = {mu}, s = 1 / (2 Lmax); control: steps of 8 s"
    )
    return Verdict(excess(1.0), 1.0, excess(8.0), case)


@claim(
    PAPER,
    "Stochastic gradient descent with s = 1/(4 Lmax) on a convex f keeps the average of its "
    "iterates at E f - f* <= D^2 / (s t) + 2 s sigma^2.",
)
def stochastic_gradient_descent_convex(budget: Budget) -> Verdict:
    steps, seeds = budget.pick(1000, 4000), budget.pick(20, 200)
    a, _, minimizer, variance = _regression()
    size = 0.25 / np.sum(a**2, axis=1).max()
    bound = _averaged_bound(minimizer, size, variance, steps)

    def excess(samples: int) -> float:
        method = SubgradientDescent(size, 0.0, average=True)
        runs = history(_least_squares(1, samples), method, steps, _keys(seeds))
        return _greatest_mean(runs["gap"], bound)

    case = (
        f"greatest (mean + 3 standard errors over {seeds} seeds) / bound over {steps} steps, least "
        "squares with 100 samples and 3 unknowns; control: drawing from the first 5 samples only"
    )
    return Verdict(excess(100), 1.0, excess(5), case)


@claim(
    PAPER,
    "Batches of b among n samples, drawn without replacement, do the same for the larger step "
    "1/(4 L_b) and less noise: L_b = n(b-1)/(b(n-1)) L + (n-b)/(b(n-1)) Lmax, sigma_b^2 = "
    "(n-b)/(b(n-1)) sigma^2.",
)
def batches_without_replacement(budget: Budget) -> Verdict:
    steps, seeds = budget.pick(1000, 4000), budget.pick(20, 200)
    a, _, minimizer, variance = _regression()
    n, size = len(a), 10
    within, across = n * (size - 1) / (size * (n - 1)), (n - size) / (size * (n - 1))
    greatest, longest = np.linalg.eigvalsh(a.T @ a / n)[-1], np.sum(a**2, axis=1).max()
    step_size = 0.25 / (within * greatest + across * longest)
    bound = _averaged_bound(minimizer, step_size, across * variance, steps)

    def excess(samples: int) -> float:
        method = SubgradientDescent(step_size, 0.0, average=True)
        runs = history(_least_squares(size, samples), method, steps, _keys(seeds))
        return _greatest_mean(runs["gap"], bound)

    case = (
        f"greatest (mean + 3 standard errors over {seeds} seeds) / bound over {steps} steps, least "
        f"squares with 100 samples and 3 unknowns, batches of {size}; control: the first {size} "
        "samples each time"
    )
    return Verdict(excess(n), 1.0, excess(size), case)


@claim(
    PAPER,
    "The stochastic proximal gradient method with s <= 1/(2 Lmax), f being mu-strongly convex, "
    "keeps E|y - y*|^2 <= (1 - s mu)^t D^2 + 2 s sigma^2 / mu.",
)
def stochastic_proximal_gradient(budget: Budget) -> Verdict:
    steps, seeds = budget.pick(400, 4000), budget.pick(20, 200)
    a = _regression()[0]
    mu, size = np.linalg.eigvalsh(a.T @ a / 100)[0], 0.5 / np.sum(a**2, axis=1).max()

    def excess(samples: int) -> float:
        problem, variance = _stochastic_lasso(samples)
        bound = (1 - size * mu) ** np.arange(steps + 1) * _square_distance(problem)
        bound += 2 * size * variance / mu
        runs = history(problem, ProximalGradient(size), steps, _keys(seeds))
        return _greatest_mean(runs["distance"] ** 2, bound)

    case = (
        f"greatest (mean + 3 standard errors over {seeds} seeds) / bound over {steps} steps, lasso "
        "with 100 samples and 3 unknowns, s = 1 / (2 Lmax); control: drawing from the first 5 "
        "samples only"
    )
    return Verdict(excess(100), 1.0, excess(5), case)


@claim(
    PAPER,
    "The stochastic proximal gradient method with s < 1/(4 Lmax) on a convex F = f + h keeps the "
    "mean of F over its first t iterates at E F - F* <= (D^2 + 2 s (F(y0) - F*)) / (2 s t (1 - 4 s "
    "Lmax)) + 2 s sigma^2 / (1 - 4 s Lmax).",
)
def stochastic_proximal_gradient_convex(budget: Budget) -> Verdict:
    steps, seeds = budget.pick(1000, 4000), budget.pick(20, 200)
    roughest, count = np.sum(_regression()[0] ** 2, axis=1).max(), np.arange(1, steps + 2)
    size = 1 / (8 * roughest)  # for which 1 - 4 s Lmax = 1/2

    def excess(samples: int) -> float:
        problem, variance = _stochastic_lasso(samples)
        gap = history(problem, ProximalGradient(size), steps, _keys(seeds))["gap"]
        bound = (_square_distance(problem) + 2 * size * gap[0, 0]) / (size * count)
        bound += 4 * size * variance
        return _greatest_mean(np.cumsum(gap, axis=1) / count, bound)

    case = (
        f"greatest (mean + 3 standard errors over {seeds} seeds) / bound over {steps} steps, lasso "
        "with 100 samples and 3 unknowns, s = 1 / (8 Lmax); control: drawing from the first 5 "
        "samples only"
    )
    return Verdict(excess(100), 1.0, excess(5), case)


def _regression() -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Features, targets, the minimizer of the mean loss, and the variance of gradients there."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((100, 3))
    b = a @ np.ones(3) + 0.5 * rng.standard_normal(100)
    minimizer = np.linalg.lstsq(a, b)[0]
    return a, b, minimizer, float(np.mean(np.sum(a**2, axis=1) * (a @ minimizer - b) ** 2))


def _least_squares(size: int, samples: int) -> FiniteSum:
    """Their mean square, of which batches are of the first samples, none twice in a batch."""
    a, b, minimizer, _ = _regression()

    def draw(key: Any, _: None) -> Any:
        # One alone is never drawn twice, and this is quicker.
        if size == 1:
            chosen = jax.random.randint(key, (1,), 0, samples)
        else:
            chosen = jax.random.choice(key, samples, (size,), replace=False)
        return jnp.asarray(a)[chosen], jnp.asarray(b)[chosen]

    least = float(np.mean((a @ minimizer - b) ** 2) / 2)
    facts = Facts(optimum=least, minimizer=jnp.asarray(minimizer))
    return FiniteSum(
        _squared_error, jnp.zeros(3), (a, b), batch_size=size, facts=facts, sample=draw
    )


def _stochastic_lasso(samples: int) -> tuple[Composite, float]:
    """A lasso of which single samples are drawn from the first, and the noise at its minimizer."""
    a, b, *_ = _regression()
    h = L1(0.3)
    exact = Composite(Minimize(_mean_square, jnp.zeros(3), (a, b)), h)
    minimizer = solve(exact, ProximalGradient(), rtol=0.0, atol=1e-12).value
    slopes = a * (a @ np.asarray(minimizer) - b)[:, None]
    facts = Facts(optimum=float(exact.minimized(minimizer)), minimizer=minimizer)
    problem = Composite(_least_squares(1, samples), h, facts=facts)
    return problem, float(np.sum(np.var(slopes, axis=0)))


def _keys(seeds: int) -> Any:
    return jax.random.split(jax.random.key(0), seeds)


def _averaged_bound(
    minimizer: np.ndarray, step_size: float, variance: float, steps: int
) -> np.ndarray:
    """That of an average of 0, 1, ... iterates; of none it is infinite."""
    count = np.maximum(np.arange(steps + 1), 1e-300)
    return np.dot(minimizer, minimizer) / (step_size * count) + 2 * step_size * variance


def _greatest_mean(runs: np.ndarray, bound: np.ndarray) -> float:
    """The greatest mean over seeds, with three standard errors, over the bound after the start."""
    error = runs.std(axis=0, ddof=1) / len(runs) ** 0.5
    return float(np.max(((runs.mean(axis=0) + 3 * error) / bound)[1:]))


def _absolute_error(y: Any, args: Any) -> Any:
    a, minimizer = args
    return jnp.mean(jnp.abs(a @ (y - minimizer)))


def _mean_square(y: Any, args: Any) -> Any:
    a, b = args
    return jnp.mean((a @ y - b) ** 2) / 2


def _squared_error(y: Any, sample: Any, _: None) -> Any:
    a, b = sample
    return (jnp.vdot(a, y) - b) ** 2 / 2


def _square_distance(problem: AbstractProblem) -> float:
    return float(jnp.sum((problem.y0 - problem.facts.minimizer) ** 2))


def _greatest(ratio: Callable[[Any], Any], problems: Iterable[Any]) -> float:
    """The greatest ratio on any problem after the start, where some bounds are attained."""
    return float(np.max([ratio(problem)[1:] for problem in problems]))
