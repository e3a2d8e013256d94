"""Accelerated methods side by side: a potential that falls, and a cycle of the heavy ball."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..compiled import compiled
from ..problem import Facts
from ..problems import logistic_synthetic, nesterov_worst, quadratic
from ..smooth import GradientDescent, HeavyBall, Minimize, Nesterov, TripleMomentum
from . import Budget, Paper, Verdict, claim
from ._history import history

PAPER = Paper(
    slug="acceleration-dynamics",
    title="On the Dynamics of Acceleration in First order Gradient Methods",
    authors="Parimi, Mehra, Wagh, Yerudkar, Singh",
    year=2025,
    implements=(
        "raphson.smooth.TripleMomentum",
        "raphson.smooth.Nesterov",
        "raphson.smooth.HeavyBall",
    ),
    note=(
        "Checked is what the paper's dynamical system is to explain, that Nesterov's method and "
        "triple momentum are fast and the heavy ball may fail, not the construction of the system. "
        "The potential is that of Taylor and Drori's analysis of triple momentum, and the cycle "
        "that of Lessard, Recht and Packard (2016)."
    ),
)


@claim(
    PAPER,
    "On an L-smooth, mu-strongly convex f, triple momentum shrinks a potential, which bounds the "
    "squared distance to the minimizer, by (1 - sqrt(mu/L))^2 at every step.",
)
def triple_momentum_shrinks_its_potential(budget: Budget) -> Verdict:
    steps = budget.pick(60, 120)
    problems = [
        quadratic(),
        nesterov_worst(strong_convexity=0.01),
        logistic_synthetic(),
        _bent(),
    ]

    def excess(factor: float) -> float:
        def greatest(problem: Any) -> Any:
            L, mu = float(problem.facts.lipschitz), float(problem.facts.strong_convexity)
            potential = np.asarray(compiled(_potentials, problem, L, mu, factor * mu, steps))
            ahead = potential[:-1] > 1e-10 * potential[0]  # below, f - f* is rounding
            rate = (1 - (mu / L) ** 0.5) ** 2
            return np.max((potential[1:] / potential[:-1])[ahead]) / rate

        return float(np.max([greatest(problem) for problem in problems]))

    case = (
        f"greatest factor over (1 - sqrt(mu/L))^2 in {steps} steps on 4 problems; control: the "
        "method is told half of mu"
    )
    return Verdict(excess(1.0), 1 + 1e-6, excess(0.5), case)


@claim(
    PAPER,
    "On quadratics with L / mu = 100 triple momentum shrinks the distance to the minimizer by "
    "1 - sqrt(mu/L) = 0.9 a step.",
)
def triple_momentum_is_as_fast_as_its_rate(budget: Budget) -> Verdict:
    problems = [quadratic(seed=seed) for seed in range(budget.pick(3, 30))]

    def slowest(method: Any) -> float:
        def rate(problem: Any) -> float:
            distance = history(problem, method, 200)["distance"]
            return float((distance[-1] / distance[50]) ** (1 / 150))

        return max(map(rate, problems))

    case = "greatest mean factor, steps 50 to 200; control: gradient descent, s = 2 / (L + mu)"
    descent = slowest(GradientDescent(2 / 1.01))
    return Verdict(slowest(TripleMomentum(1.0, 0.01)), 0.905, descent, case)


@claim(
    PAPER,
    "The heavy ball with Polyak's choice for L = 25 and mu = 1 cycles for ever on a convex f of "
    "one variable with these constants.",
)
def heavy_ball_cycles(budget: Budget) -> Verdict:
    steps = budget.pick(300, 30_000)

    def nearest(method: Any) -> float:
        return float(np.min(history(_bent(), method, steps)["distance"][100:]))

    case = (
        f"least |y - y*| in steps 100 to {steps} from y = 3.3; control: Polyak's choice for L = 30"
    )
    return Verdict(nearest(_polyak(25)), 0.6, nearest(_polyak(30)), case, at_most=False)


@claim(
    PAPER,
    "On that f Nesterov's method and triple momentum are within 1e-16 of the minimizer after 200 "
    "steps.",
)
def others_converge_where_the_heavy_ball_cycles(_: Budget) -> Verdict:
    def distance(method: Any) -> float:
        return float(history(_bent(), method, 200)["distance"][-1])

    worse = max(map(distance, (Nesterov(1 / 25, 1.0), TripleMomentum(25.0, 1.0))))
    case = "the greater |y - y*| of both; control: the heavy ball with Polyak's choice"
    return Verdict(worse, 1e-16, distance(_polyak(25)), case)


def _polyak(L: float) -> HeavyBall:
    """The heavy ball that is best on quadratics with eigenvalues from 1 to L."""
    root = L**0.5
    return HeavyBall(4 / (root + 1) ** 2, ((root - 1) / (root + 1)) ** 2)


def _potentials(problem: Any, L: Any, mu: Any, told: Any, steps: int) -> Float[Array, " t"]:
    """The potential after each of so many steps, by the true mu."""
    method = TripleMomentum(L, told)
    minimizer, optimum = problem.facts.minimizer, problem.facts.optimum
    r = 1 - (told / L) ** 0.5

    def square(x: Array) -> Array:
        return jnp.sum(x**2)

    def step(carry: Any, _: None) -> tuple[Any, Array]:
        y, state = carry
        after, following = method.step(problem, y, state)
        u = following.current
        z = u + (u - following.previous) * r**2 / (1 - r**2)
        above = state.value - optimum - square(state.gradient) / (2 * L)
        above -= mu * L / (2 * (L - mu)) * square(y - state.gradient / L - minimizer)
        return (after, following), above + mu * L / (L - mu) * square(z - minimizer)

    start = problem.y0, method.init(problem, problem.y0, None)
    return jax.lax.scan(step, start, length=steps)[1]


def _bent() -> Minimize:
    """A convex function of one variable with the slope 25 y, but y + 24 between 1 and 2."""
    facts = Facts(optimum=0.0, minimizer=jnp.zeros(()), lipschitz=25.0, strong_convexity=1.0)
    return Minimize(_bent_value, 3.3, facts=facts)


def _bent_value(y: Float[Array, ""], _: None) -> Float[Array, ""]:
    less_bent = jnp.maximum(y - 1, 0) ** 2 - jnp.maximum(y - 2, 0) ** 2
    return 12.5 * y**2 - 12 * less_bent
