"""Upper bounds of Bubeck's monograph, and the lower bounds that no method of gradients beats."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from ..composite import Ball, Box, Composite, ProximalGradient
from ..problem import AbstractObjective, AbstractProblem, Facts
from ..problems import (
    ball_quadratic,
    first_order_lower_bound,
    huber_chain,
    lasso,
    logistic_synthetic,
    matrix_game,
    nesterov_worst,
    nonsmooth_worst,
    quadratic,
)
from ..saddle import Extragradient, GradientDescentAscent
from ..smooth import (
    CenterOfGravity,
    Ellipsoid,
    GradientDescent,
    HeavyBall,
    Minimize,
    Nesterov,
    SubgradientDescent,
)
from . import Budget, Paper, Verdict, claim
from ._history import history

PAPER = Paper(
    slug="convex-optimization-bubeck",
    title="Convex Optimization: Algorithms and Complexity",
    authors="Bubeck",
    year=2015,
    implements=(
        "raphson.smooth.GradientDescent",
        "raphson.smooth.Nesterov",
        "raphson.smooth.SubgradientDescent",
        "raphson.smooth.CenterOfGravity",
        "raphson.smooth.Ellipsoid",
        "raphson.composite.ProximalGradient",
        "raphson.saddle.Extragradient",
        "raphson.problems.nesterov_worst",
        "raphson.problems.nonsmooth_worst",
    ),
    note=(
        "In what the claims say, D is the distance from the start to the minimizer and t counts "
        "gradients, while in the monograph it counts points, the start being the first. The "
        "strongly convex lower bound is for infinitely many unknowns and is checked for n of them. "
        "The steps for strongly convex functions with kinks are taken where no subgradient is "
        "longer than G even without the monograph's projection. Mirror prox is checked in the "
        "Euclidean metric, in which it is the extragradient method. Not here so far: Frank-Wolfe, "
        "and mirror descent in other metrics, which are methods for composite problems; mirror "
        "prox in other metrics, one for saddles; interior points, one for constrained problems."
    ),
)


@claim(
    PAPER,
    "Gradient descent with step size 2 / (L + mu) on an L-smooth, mu-strongly convex f keeps "
    "f - f* <= L/2 exp(-4 t / (L/mu + 1)) D^2.",
)
def gradient_descent_at_its_best_step(budget: Budget) -> Verdict:
    steps = budget.pick(100, 120)
    problems = [
        quadratic(np.geomspace(0.05, 1, 5)),
        nesterov_worst(strong_convexity=0.05),
        logistic_synthetic(),
    ]

    def excess(factor: float) -> float:
        def ratio(problem: AbstractObjective) -> Any:
            L, mu = problem.facts.lipschitz, problem.facts.strong_convexity
            gap = history(problem, GradientDescent(factor * 2 / (L + mu)), steps)["gap"]
            rate = np.exp(-4 * np.arange(steps + 1) / (L / mu + 1))
            return gap / (L / 2 * rate * _square_distance(problem))

        return float(np.max([ratio(problem) for problem in problems]))

    case = f"greatest (f - f*) / bound over {steps} steps and 3 problems; control: half such steps"
    return Verdict(excess(1.0), 1.0, excess(0.5), case)


@claim(PAPER, "Nesterov's method on an L-smooth convex f keeps f - f* <= 2 L D^2 / (t + 1)^2.")
def nesterov_convex(budget: Budget) -> Verdict:
    steps = budget.pick(200, 2000)
    problems = [nesterov_worst(), huber_chain(), logistic_synthetic()]

    def excess(method: Callable[[Any], Any]) -> float:
        def ratio(problem: AbstractObjective) -> Any:
            L = problem.facts.lipschitz
            gap = _gaps(problem, method(1 / L), steps)
            return gap * np.arange(2, steps + 2) ** 2 / (2 * L * _square_distance(problem))

        return float(np.max([ratio(problem) for problem in problems]))

    case = f"greatest (f - f*) / bound over {steps} steps and 3 problems; control: gradient descent"
    return Verdict(excess(Nesterov), 1.0, excess(GradientDescent), case)


@claim(
    PAPER,
    "Nesterov's method with constant momentum on an L-smooth, mu-strongly convex f keeps "
    "f - f* <= (L + mu)/2 exp(-t / sqrt(L/mu)) D^2.",
)
def nesterov_strongly_convex(_: Budget) -> Verdict:
    steps = 200
    problems = [quadratic(), nesterov_worst(strong_convexity=0.01), logistic_synthetic()]

    def excess(momentum: bool) -> float:
        def ratio(problem: AbstractObjective) -> Any:
            L, mu = problem.facts.lipschitz, problem.facts.strong_convexity
            method = Nesterov(1 / L, mu) if momentum else GradientDescent(2 / (L + mu))
            gap = _gaps(problem, method, steps)
            rate = np.exp(-np.arange(1, steps + 1) / (L / mu) ** 0.5)
            return gap / ((L + mu) / 2 * rate * _square_distance(problem))

        return float(np.max([ratio(problem) for problem in problems]))

    case = (
        f"greatest (f - f*) / bound over {steps} gradients and 3 problems; control: gradient "
        "descent with step size 2 / (L + mu)"
    )
    return Verdict(excess(True), 1.0, excess(False), case)


@claim(
    PAPER,
    "Projected gradient descent with step size 1/L on an L-smooth, mu-strongly convex f keeps "
    "|y - y*|^2 <= exp(-t mu/L) D^2.",
)
def projected_gradient_strongly_convex(budget: Budget) -> Verdict:
    steps = budget.pick(200, 300)
    chain = nesterov_worst(strong_convexity=0.05)
    boxed = Composite(chain, Box(0.0, 1.0), facts=chain.facts)
    problems = [boxed, ball_quadratic(np.geomspace(0.05, 1, 5))]

    def excess(factor: float) -> float:
        def ratio(problem: Composite) -> Any:
            L, mu = problem.facts.lipschitz, problem.facts.strong_convexity
            distance = history(problem, ProximalGradient(factor / L), steps)["distance"]
            rate = np.exp(-np.arange(steps + 1) * mu / L)
            return distance**2 / (rate * _square_distance(problem))

        return float(np.max([ratio(problem)[1:] for problem in problems]))

    case = (
        f"greatest |y - y*|^2 / bound over {steps} steps in a box and in a ball; control: steps of "
        "0.3 / L held to the same rate"
    )
    return Verdict(excess(1.0), 1.0, excess(0.3), case)


@claim(
    PAPER,
    "Of a convex f on an interval or a square, n = 1 or 2, the best of t centers of gravity is "
    "within 2B (1 - 1/e)^(t/n) of the least value, 2B being how much f varies there.",
)
def center_of_gravity(budget: Budget) -> Verdict:
    problems = [_kinked(n, seed) for n in (1, 2) for seed in range(budget.pick(3, 10))]

    def excess(method: Callable[[int], Any]) -> float:
        def ratio(problem: Minimize) -> Any:
            n, (S, z) = problem.y0.size, problem.args
            # Until f is at its rounding.
            best, t = _best_gaps(problem, method(n), 45 * n)
            varies = max(np.sum(np.abs(slope)) - slope @ z for slope in _slopes(S))
            return best / (varies * (1 - 1 / np.e) ** (t / n))

        return float(max(np.max(ratio(problem)) for problem in problems))

    case = (
        f"greatest (f - f*) / bound over 45 n centers and {len(problems)} sums of absolute values; "
        "control: the ellipsoid method from the circle around the square"
    )
    ellipsoid = excess(lambda n: Ellipsoid(n**0.5))
    return Verdict(excess(lambda _: CenterOfGravity(1.0)), 1.0, ellipsoid, case)


@claim(
    PAPER,
    "The ellipsoid method from a ball of radius R, on a convex f that varies by 2B in a ball of "
    "radius r inside, which holds the minimizer, keeps the best of t >= 2 n^2 log(R/r) centers at "
    "f - f* <= 2 B R/r exp(-t / (2 n^2)).",
)
def ellipsoid(budget: Budget) -> Verdict:
    sizes, radius = budget.pick((2, 4), (2, 3, 5, 8)), 2.0
    problems = [_kinked(n, seed) for n in sizes for seed in range(budget.pick(3, 10))]

    def excess(method: Ellipsoid) -> float:
        def ratio(problem: Minimize) -> Any:
            n, (S, z) = problem.y0.size, problem.args
            # Until f is at its rounding.
            best, t = _best_gaps(problem, method, 46 * n**2)
            varies = max(np.linalg.norm(slope) - slope @ z for slope in _slopes(S))
            bound = radius * varies * np.exp(-t / (2 * n**2))
            return (best / bound)[t >= 2 * n**2 * np.log(radius)]

        return float(max(np.max(ratio(problem)) for problem in problems))

    case = (
        f"greatest (f - f*) / bound over 46 n^2 centers and {len(problems)} sums of absolute "
        f"values, n in {sizes}, R = 2, r = 1; control: half axes that are stretched by "
        "n^2 / (n^2 - 1), as their squares should be"
    )
    return Verdict(excess(Ellipsoid(radius)), 1.0, excess(_Overstretched(radius)), case)


@claim(
    PAPER,
    "FISTA with step size 1/L on a convex f + h, f being L-smooth, keeps f + h within "
    "2 L D^2 / (t + 1)^2 of its least value.",
)
def fista(budget: Budget) -> Verdict:
    steps = budget.pick(200, 2000)
    chain = nesterov_worst()
    boxed = Composite(chain, Box(0.0, 1.0), facts=chain.facts)
    problems = [boxed, lasso(np.geomspace(0.04, 4, 20)), ball_quadratic()]

    def excess(momentum: bool) -> float:
        def ratio(problem: Composite) -> Any:
            L = problem.facts.lipschitz
            gap = _gaps(problem, ProximalGradient(1 / L, momentum), steps)
            return gap * np.arange(2, steps + 2) ** 2 / (2 * L * _square_distance(problem))

        return float(np.max([ratio(problem) for problem in problems]))

    case = (
        f"greatest (f + h - least) / bound over {steps} gradients and 3 problems (h a box, an "
        "absolute value, a ball); control: without momentum"
    )
    return Verdict(excess(True), 1.0, excess(False), case)


@claim(
    PAPER,
    "The projected subgradient method with steps D / (G sqrt t), no subgradient in the set being "
    "longer than G, keeps the average of its t iterates at f - f* <= D G / sqrt t.",
)
def projected_subgradient_average(budget: Budget) -> Verdict:
    counts = [4**k for k in range(1, budget.pick(5, 8))]
    kink = Minimize(_absolute, jnp.zeros(1))
    absolute = Composite(kink, Box(-2.0, 2.0), facts=Facts(optimum=0.0))
    # With G = 1 in the ball, on whose border its minimizer is.
    worsts = [nonsmooth_worst(count) for count in counts]
    worsts = [Composite(worst, Ball(1.0), facts=worst.facts) for worst in worsts]

    def excess(power: float) -> float:
        def ratio(problem: Composite, count: int) -> float:
            method = ProximalGradient(1 / count**power, average=True)
            return history(problem, method, count)["gap"][-1] * count**0.5

        cases = [(absolute, count) for count in counts] + list(zip(worsts, counts))
        return float(max(ratio(*case) for case in cases))

    case = (
        f"greatest (f - f*) / bound for {len(counts)} t up to {counts[-1]}, on an absolute value "
        "in an interval, which attains it, and in a ball on the worst function for that t; "
        "control: steps of D / (G t)"
    )
    return Verdict(excess(0.5), 1 + 1e-9, excess(1.0), case)


@claim(
    PAPER,
    "On a mu-strongly convex f the subgradient method with steps 2 / (mu (t + 2)), no subgradient "
    "being longer than G, keeps the average of t iterates, weighted by 1, ..., t, at "
    "f - f* <= 2 G^2 / (mu (t + 1)).",
)
def subgradient_strongly_convex(budget: Budget) -> Verdict:
    steps = budget.pick(1000, 10_000)
    problem = nonsmooth_worst(20)
    mu = problem.facts.strong_convexity
    # From 0 no iterate gets farther than gamma / mu, where the quadratic's slope is gamma as well.
    longest = 2 * problem.args[0]
    bound = 2 * longest**2 / (mu * np.arange(1, steps + 2))

    def excess(method: SubgradientDescent) -> float:
        return float(np.max((history(problem, method, steps)["gap"] / bound)[1:]))

    case = (
        f"greatest (f - f*) / bound over {steps} steps on the worst function of 20 unknowns; "
        "control: the first of these steps kept, and the plain average"
    )
    constant = SubgradientDescent(1 / mu, 0.0, average=True)
    weighted = SubgradientDescent(strong_convexity=mu, average=True)
    return Verdict(excess(weighted), 1.0, excess(constant), case)


@claim(
    PAPER,
    "Mirror prox with steps 1/L for an L-Lipschitz monotone operator, in the Euclidean metric, "
    "keeps the mean of its t leading points at a duality gap of at most L R^2 / t, where R^2 is "
    "the most that |z|^2 / 2 exceeds its value at the start, its least.",
)
def mirror_prox(budget: Budget) -> Verdict:
    steps = budget.pick(1000, 10_000)
    games = [matrix_game(20, 30, seed=seed) for seed in range(budget.pick(2, 10))]

    def excess(method: Callable[[Any], Any]) -> float:
        def ratio(game: Any) -> Any:
            L, (x, y) = game.facts.lipschitz, game.y0
            square = (1 - 1 / x.size) / 2 + (1 - 1 / y.size) / 2
            gap = history(game, method(1 / L), steps)["gap"]
            return gap * np.arange(steps + 1) / (L * square)

        return float(np.max([ratio(game) for game in games]))

    case = (
        f"greatest gap / bound over {steps} steps of {len(games)} matrix games; control: without "
        "the step ahead, which is descent ascent"
    )
    measured = excess(lambda s: Extragradient(s, average=True))
    control = excess(lambda s: GradientDescentAscent((s, s), average=True))
    return Verdict(measured, 1.0, control, case)


@claim(
    PAPER,
    "On a convex function with kinks, of t + 1 unknowns, no method that moves by combinations of "
    "the t subgradients it saw gets below f - f* = G D / (2 (1 + sqrt(t + 1))).",
)
def nonsmooth_lower_bound(budget: Budget) -> Verdict:
    gradients = budget.pick(99, 999)
    problem = nonsmooth_worst(gradients + 1)
    bound = -problem.facts.optimum
    # Told a mean of all subgradients, a method is not blind to the coordinates to come.
    informed = Minimize(_shared_slope, problem.y0, problem.args, facts=problem.facts)
    size, mu = gradients**-0.5, problem.facts.strong_convexity

    def least(problem: AbstractObjective) -> float:
        methods = [
            SubgradientDescent(size, 0.0),
            SubgradientDescent(size, 0.0, average=True),
            SubgradientDescent(strong_convexity=mu, average=True),
            HeavyBall(size / 10),
        ]
        return float(np.min([history(problem, m, gradients)["gap"] for m in methods]))

    case = (
        f"least (f - f*) / bound of 4 methods over {gradients} subgradients; control: the same "
        "methods, told the mean of all subgradients"
    )
    return Verdict(least(problem) / bound, 1 - 1e-9, least(informed) / bound, case, at_most=False)


@claim(
    PAPER,
    "On a smooth convex chain of 2t + 1 unknowns no method that moves by combinations of the t "
    "gradients it saw gets below f - f* = 3/32 L D^2 / (t + 1)^2.",
)
def smooth_lower_bound(budget: Budget) -> Verdict:
    gradients = budget.pick(50, 500)
    problem = nesterov_worst(2 * gradients + 1)
    bound = float(first_order_lower_bound(gradients, 1.0, _square_distance(problem) ** 0.5))

    runs = [_gaps(problem, method(1.0), gradients) for method in (GradientDescent, Nesterov)]
    best, newton = _least_gaps(problem, [gradients, 2 * gradients + 1])
    case = (
        "least (f - f*) / bound of gradient descent, Nesterov's method and the best combination of "
        f"{gradients} gradients; control: one step of Newton's method, which is no such method"
    )
    lowest = float(min(np.min(runs), best))
    return Verdict(lowest / bound, 1.0, float(newton) / bound, case, at_most=False)


@claim(
    PAPER,
    "Nesterov's method is optimal up to a constant: after t gradients on the worst chain of 2t + 1 "
    "unknowns its gap is at most 64/3 times the lower bound.",
)
def nesterov_is_optimal(budget: Budget) -> Verdict:
    gradients = budget.pick(500, 2000)
    problem = nesterov_worst(2 * gradients + 1)
    bound = float(first_order_lower_bound(gradients, 1.0, _square_distance(problem) ** 0.5))

    nesterov, descent = (
        _gaps(problem, method(1.0), gradients)[-1] / bound for method in (Nesterov, GradientDescent)
    )
    case = f"(f - f*) / lower bound after {gradients} gradients; control: gradient descent"
    return Verdict(float(nesterov), 64 / 3, float(descent), case)


@claim(
    PAPER,
    "On a mu-strongly convex chain of n unknowns no method that moves by combinations of the t "
    "gradients it saw gets below f - f* = mu/2 (q^(2t) - q^(2n)) / (1 - q^(2n)) D^2, "
    "q = (sqrt(L/mu) - 1) / (sqrt(L/mu) + 1).",
)
def strongly_convex_lower_bound(_: Budget) -> Verdict:
    n, mu = 60, 0.01
    problem = nesterov_worst(n, strong_convexity=mu)
    q = (mu**-0.5 - 1) / (mu**-0.5 + 1)

    gradients = np.arange(1, 51)
    share = (q ** (2 * gradients) - q ** (2 * n)) / (1 - q ** (2 * n))
    bound = mu / 2 * share * _square_distance(problem)

    runs = [_gaps(problem, method, 50) for method in (GradientDescent(1.0), Nesterov(1.0, mu))]
    *best, newton = _least_gaps(problem, [*gradients, n])
    case = (
        "least (f - f*) / bound of gradient descent, Nesterov's method and the best combination of "
        "1 to 50 gradients, n = 60, L/mu = 100; control: one step of Newton's method, which is no "
        "such method"
    )
    lowest = float(np.min(np.array([*runs, best]) / bound))
    return Verdict(lowest, 1.0, float(newton / bound[0]), case, at_most=False)


class _Overstretched(Ellipsoid):
    def step(self, problem: Any, y: Any, state: Any) -> tuple[Any, Any]:
        n = state.center.size
        y, state = super().step(problem, y, state)
        return y, eqx.tree_at(lambda s: s.axes, state, state.axes * n / (n**2 - 1) ** 0.5)


def _kinked(n: int, seed: int) -> Minimize:
    """The sum of |s'(y - z)| over n + 1 rows s of S, with its minimizer z in the unit ball."""
    rng = np.random.default_rng(seed)
    S, z = rng.standard_normal((n + 1, n)), rng.standard_normal(n)
    z *= 0.9 * rng.uniform() ** (1 / n) / np.linalg.norm(z)
    return Minimize(_sum_of_kinks, jnp.zeros(n), (S, z), facts=Facts(optimum=0.0))


def _slopes(S: np.ndarray) -> np.ndarray:
    """The slopes of the linear functions of which `_kinked` is the greatest."""
    return np.array(list(itertools.product((-1.0, 1.0), repeat=len(S)))) @ S


def _sum_of_kinks(y: Any, args: Any) -> Any:
    S, z = args
    return jnp.sum(jnp.abs(S @ (y - z)))


def _best_gaps(problem: Minimize, method: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The best f - f* of 1, 2, ... centers, the start being the first, and their numbers."""
    return history(problem, method, count - 1)["gap"], np.arange(1, count + 1)


def _absolute(y: Any, _: None) -> Any:
    return jnp.sum(jnp.abs(y - 1))


def _shared_slope(y: Any, args: tuple[float, float]) -> Any:
    """The worst function with kinks, whose slope is shared among all entries that are greatest."""
    gamma, alpha = args
    return gamma * jnp.max(y) + alpha / 2 * jnp.vdot(y, y)


def _gaps(problem: AbstractProblem, method: Any, gradients: int) -> np.ndarray:
    """f - f* after 1, 2, ... gradients, shape (gradients,)."""
    # The answer of an accelerated method before its first step has already used one gradient.
    if isinstance(method, Nesterov) or getattr(method, "momentum", False):
        return history(problem, method, gradients - 1)["gap"]
    return history(problem, method, gradients)["gap"][1:]


def _least_gaps(problem: AbstractObjective, counts: Iterable[Any]) -> np.ndarray:
    """The least f - f* over the span of so many gradients of a chain, its first unknowns.

    With all unknowns it is what a step of Newton's method from 0 reaches.
    """
    # A chain is a quadratic, least at y*. NumPy does not compile anew for each count.
    hessian = np.asarray(problem.hessian(problem.y0).as_matrix())
    minimizer = np.asarray(problem.facts.minimizer)

    def least_gap(count: Any) -> Any:
        y = np.zeros_like(minimizer)
        y[:count] = np.linalg.solve(hessian[:count, :count], (hessian @ minimizer)[:count])
        return (y - minimizer) @ hessian @ (y - minimizer) / 2

    return np.array([least_gap(count) for count in counts])


def _square_distance(problem: AbstractProblem) -> float:
    return float(jnp.sum((problem.y0 - problem.facts.minimizer) ** 2))
