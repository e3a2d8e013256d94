"""Averaging a contraction with weights 2 / (t + 2): what rate it has, and that it is no gain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..compiled import compiled
from ..problem import Facts
from ..roots import BregmanAveraged, FixedPoint, KrasnoselskiiMann
from . import Budget, Paper, Verdict, claim
from ._history import history

PAPER = Paper(
    slug="iterate-to-accelerate",
    title="Iterate to Accelerate: A Unified Framework for Iterative Reasoning and Feedback "
    "Convergence",
    authors="Fein-Ashley",
    year=2025,
    implements=("raphson.roots.KrasnoselskiiMann", "raphson.roots.BregmanAveraged"),
    note="The rate O(1 / t^2) of the squared distance is not that of every contraction. On g times "
    "a rotation by w the weights 2 / (t + 2) give the error prod |1 - a_t (1 - g e^iw)|, whose "
    "square falls like t^(-4 (1 - g cos w)): the claim holds if g cos w <= 1/2, and at g = 0.9 the "
    "power is -0.4. Picard's iteration is linear on every contraction. With a mirror the same is "
    "so of maps that are linear in the dual. Checked without perturbations; that feed-forward "
    "networks need exponential depth is not.",
)


def _falling(t: Array) -> Array:
    return 2 / (t + 2)


def _slower(t: Array) -> Array:
    return 1 / (t + 1)


@claim(
    PAPER,
    "On g times a rotation by w the squared distance falls like t^(-4 (1 - g cos w)), to 0.02 in "
    "the power.",
)
def averages_have_the_rate_of_the_formula(budget: Budget) -> Verdict:
    cases = [(0.3, 0.0), (0.9, 0.0), (0.9, 1.0), (0.6, 2.5)]

    def deviation(weight: Callable[[Array], Array]) -> float:
        return max(abs(_slope(g, w, weight) + 4 * (1 - g * np.cos(w))) for g, w in cases)

    case = (
        f"greatest difference of powers over {len(cases)} pairs g, w; control: weights 1 / (t + 1)"
    )
    return Verdict(deviation(_falling), 0.02, deviation(_slower), case)


@claim(PAPER, "Where g cos w is at most 1/2 the squared distance falls like 1 / t^2 or faster.")
def averages_are_quadratic_of_strong_contractions(budget: Budget) -> Verdict:
    measured = max(_slope(0.3, 0.0, _falling), _slope(0.9, 1.0, _falling))
    case = "greater power of t at g = 0.3, w = 0 and at g = 0.9, w = 1; control: g = 0.9, w = 0"
    return Verdict(measured, -2.0, _slope(0.9, 0.0, _falling), case)


@claim(
    PAPER,
    "Not reproduced: that the squared distance falls like 1 / t^2 for every contraction. At g = "
    "0.9 and w = 0 its power is -0.4.",
    reproduces=False,
)
def averages_are_not_quadratic_in_general(budget: Budget) -> Verdict:
    case = "power of t at g = 0.9, w = 0; control: g = 0.3, w = 0"
    figures = (_slope(g, 0.0, _falling) for g in (0.9, 0.3))
    return Verdict(next(figures), -0.5, next(figures), case, at_most=False)


@claim(
    PAPER,
    "Not reproduced: that the averages accelerate. After 100 steps at g = 0.9 the distance is over "
    "1000 times that of Picard's iteration.",
    reproduces=False,
)
def averages_do_not_accelerate(budget: Budget) -> Verdict:
    def end(weight: float | Callable[[Array], Array]) -> float:
        return float(
            history(_contraction(0.9, 0.0), KrasnoselskiiMann(weight), 100)["distance"][-1]
        )

    case = "distance over that of Picard; control: the weight 0.95 for ever"
    return Verdict(end(_falling) / end(1.0), 1000.0, end(0.95) / end(1.0), case, at_most=False)


@claim(
    PAPER,
    "With a mirror whose dual makes T linear, g times a rotation by w of the logarithms, they are "
    "after t steps the start's times prod (1 - a_t (1 - g e^iw)).",
)
def mirror_averages_are_linear_in_the_dual(budget: Budget) -> Verdict:
    steps, cases = budget.pick(100, 1000), [(0.3, 0.0), (0.9, 0.0), (0.9, 1.0), (0.6, 2.5)]

    def deviation(method: BregmanAveraged | KrasnoselskiiMann) -> float:
        def one(g: float, w: float) -> float:
            problem = FixedPoint(_turned_logarithms, jnp.exp(jnp.array([2.0, 0.0])), _numbers(g, w))
            found = np.log(compiled(_iterates, problem, method, steps)) @ [1, 1j]
            exact = 2 * np.cumprod(1 - _falling(jnp.arange(steps)) * (1 - g * np.exp(1j * w)))
            return float(np.max(np.abs(found - exact)))

        return max(one(g, w) for g, w in cases)

    case = (
        f"greatest difference in {steps} steps over {len(cases)} pairs g, w; control: averages of "
        "the iterates themselves"
    )
    mirrored = BregmanAveraged((jnp.log, jnp.exp), _falling)
    return Verdict(deviation(mirrored), 1e-10, deviation(KrasnoselskiiMann(_falling)), case)


@claim(
    PAPER,
    "On probabilities, of T = softmax(g log s + (1 - g) log s*), averaged by their logarithms, the "
    "Bregman distance falls like 1 / t^2 or faster if g is below 1/2.",
)
def mirror_averages_are_quadratic_of_strong_contractions(budget: Budget) -> Verdict:
    target, steps = jnp.array([0.7, 0.2, 0.1]), 10_000

    def power(g: float) -> float:
        problem = FixedPoint(_pulled, jnp.array([0.1, 0.1, 0.8]), (jnp.array(g), target))
        method = BregmanAveraged((jnp.log, jax.nn.softmax), _falling)
        ratio = compiled(_iterates, problem, method, steps) / target - 1
        # sum s* (r - log(1 + r)) is the divergence: of small r, without cancellation, by its head.
        t = np.arange(1000, steps)
        divergence = np.asarray(ratio[t] ** 2 / 2 - ratio[t] ** 3 / 3) @ np.asarray(target)
        return float(np.polyfit(np.log(t), np.log(divergence), 1)[0])

    return Verdict(power(0.45), -2.0, power(0.55), "power of t at g = 0.45; control: g = 0.55")


def _turned_logarithms(y: Float[Array, "2"], args: tuple[Array, Array]) -> Float[Array, "2"]:
    return jnp.exp(_turned(jnp.log(y), args))


def _pulled(s: Float[Array, "3"], args: tuple[Array, Array]) -> Float[Array, "3"]:
    g, target = args
    return jax.nn.softmax(g * jnp.log(s) + (1 - g) * jnp.log(target))


def _iterates(problem: FixedPoint, method: Any, steps: int) -> Float[Array, "steps n"]:
    def step(carry: Any, _: None) -> Any:
        y, state = method.step(problem, *carry)
        return (y, state), y

    start = problem.y0, method.init(problem, problem.y0, None)
    return jax.lax.scan(step, start, length=steps)[1]


def _numbers(g: float, w: float) -> tuple[Array, Array]:
    return jnp.array(g), jnp.array(w)


def _contraction(g: float, w: float) -> FixedPoint:
    facts = Facts(minimizer=jnp.zeros(2))
    return FixedPoint(_turned, jnp.array([1.0, 0.0]), _numbers(g, w), facts=facts)


def _turned(y: Float[Array, "2"], args: tuple[Array, Array]) -> Float[Array, "2"]:
    g, w = args
    c, s = g * jnp.cos(w), g * jnp.sin(w)
    return jnp.stack([c * y[0] - s * y[1], s * y[0] + c * y[1]])


def _slope(g: float, w: float, weight: Callable[[Array], Array]) -> float:
    """The power of t with which the squared distance falls."""
    distance = history(_contraction(g, w), KrasnoselskiiMann(weight), 10_000)["distance"]
    t = np.arange(1000, len(distance))
    return float(np.polyfit(np.log(t), np.log(distance[t] ** 2), 1)[0])
