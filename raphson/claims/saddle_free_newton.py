"""Saddle-free Newton: what holds Newton's method and gradient descent does not hold it."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from scipy.stats import rankdata

import raphson as rp

from ..compiled import compiled
from ..problems import perceptron
from ..smooth import GradientDescent, LazyNewton, SaddleFreeNewton
from . import Budget, Paper, Verdict, claim
from ._history import history

PAPER = Paper(
    slug="saddle-free-newton",
    title="On the Saddle Point Problem for Non-Convex Optimization",
    authors="Pascanu, Dauphin, Ganguli, Bengio",
    year=2014,
    implements=(
        "raphson.smooth.SaddleFreeNewton",
        "raphson.train.saddle_free",
        "raphson.probes.hessian_index",
    ),
    note="The damping is sought around that of the step before, in units of the largest curvature, "
    "and a step that does not lower f is taken back; `saddle_free` seeks it as the paper does, in "
    "these units. The index falls with the loss along the way from a saddle; along gradient "
    "descent it rises again, as the last claim says.",
)


def _saddle(y: Array, curvature: Array) -> Array:
    """A saddle at 0 between the minimizers (0, 1) and (0, -1)."""
    return y[0] ** 2 / 2 + curvature * (y[1] ** 4 / 4 - y[1] ** 2 / 2)


def _near_saddle(curvature: float) -> rp.Minimize:
    return rp.Minimize(_saddle, jnp.array([1.0, 1e-3]), curvature)


@claim(
    PAPER,
    "The method leaves a saddle to which Newton's method converges.",
)
def leaves_the_saddle_that_newton_goes_to(budget: Budget) -> Verdict:
    problem = _near_saddle(1.0)

    def above(method: Any) -> float:
        return float(history(problem, method, 30)["value"][-1]) + 0.25

    worst = max(above(SaddleFreeNewton(rank=rank)) for rank in (None, 2))
    newton = LazyNewton(1, "quadratic", 1e-30)
    case = "f - f* after 30 steps from (1, 1e-3), dense and by products; control: Newton's method"
    return Verdict(worst, 1e-10, above(newton), case)


@claim(
    PAPER,
    "Where the negative curvature is 1e-3 of the positive one, a saddle holds gradient descent for "
    "thousands of steps and the method for none.",
)
def does_not_slow_down_at_a_flat_saddle(budget: Budget) -> Verdict:
    problem = _near_saddle(1e-3)

    def steps(method: Any) -> float:
        solution = rp.solve(problem, method, rtol=0.0, atol=1e-8, max_steps=50_000)
        at_minimizer = abs(float(solution.value[1])) > 0.99
        return float(solution.stats.steps) if at_minimizer else math.inf

    case = "steps to a minimizer, |g| <= 1e-8; control: gradient descent with s = 1 / L"
    return Verdict(steps(SaddleFreeNewton()), 30, steps(GradientDescent(1.0)), case)


@claim(
    PAPER,
    "From a start near the saddle at zero weights 30 steps of 10 products train a network further "
    "than 300 steps of gradient descent.",
)
def trains_a_network_from_near_a_saddle(budget: Budget) -> Verdict:
    problem = perceptron("digits", hidden=budget.pick(4, 16), batch_size=None)
    near = jax.tree.map(lambda leaf: leaf / 100, problem.y0)
    problem = eqx.tree_at(lambda p: p.y0, problem, near)

    def loss(method: Any, steps: int) -> float:
        options = {"rtol": 0.0, "atol": 0.0, "max_steps": steps, "throw": False}
        return float(problem.value(rp.solve(problem, method, **options).value))

    descent = loss(GradientDescent(), 300)
    trained = loss(SaddleFreeNewton(rank=10), 30)
    case = (
        f"loss on the digits over that of gradient descent ({descent:.2g}); control: 30 steps that "
        "know the curvature along the gradient and the last step alone, rank 1"
    )
    control = loss(SaddleFreeNewton(rank=1), 30)
    return Verdict(trained / descent, 0.6, control / descent, case)


@claim(
    PAPER,
    "Along 20 steps from near the saddle at zero weights of a network the index, the share of "
    "negative curvatures, falls with the loss.",
)
def index_falls_with_the_loss(budget: Budget) -> Verdict:
    seeds = range(budget.pick(1, 3))

    def correlation(method: Any, every: int) -> float:
        def of_run(seed: int) -> float:
            problem = perceptron("breast_cancer", hidden=3, batch_size=None, seed=seed)
            near = jax.tree.map(lambda leaf: leaf / 100, problem.y0)
            ranks = rankdata(compiled(_seen, problem, method, near, every), axis=1)
            return float(np.corrcoef(ranks)[0, 1])

        return float(np.median([of_run(seed) for seed in seeds]))

    case = (
        f"rank correlation of the index and the loss, median of {len(seeds)} starts; control: 200 "
        "steps of gradient descent, seen after every 10, which leaves the saddle within the first"
    )
    measured, control = (
        correlation(SaddleFreeNewton(rank=10), 1),
        correlation(GradientDescent(), 10),
    )
    return Verdict(measured, 0.5, control, case, at_most=False)


def _seen(problem: Any, method: Any, y: Any, every: int) -> tuple[Array, Array]:
    """The loss and the index at the start and 20 times along a run."""
    door = problem.without_facts

    def steps(carry: Any, _: None) -> tuple[Any, tuple[Array, Array]]:
        seen = problem.value(carry[0]), rp.probes.hessian_index(problem, carry[0])
        step = lambda _, carry: method.step(door, *carry)
        return jax.lax.fori_loop(0, every, step, carry), seen

    return jax.lax.scan(steps, (y, method.init(door, y, None)), length=21)[1]
