"""Global minimization by a modulus of continuity: what it proves, and what it takes for granted."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..smooth import Minimize, certified_minimum
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="searchable-minimizer",
    title="A Constructive, Type-Theoretic Approach to Regression via Global Optimisation",
    authors="Ghica, Ambridge",
    year=2020,
    implements=("raphson.smooth.certified_minimum",),
    note="The paper searches a compact set for a point that satisfies a predicate, inside type "
    "theory. The branch and bound here is another rendering of the same proof, and its arithmetic "
    "rounds.",
)

SPIKE = np.array([1.234, -0.77])


@claim(
    PAPER,
    "From a modulus of continuity alone the least value of Rastrigin's function is found to eps.",
)
def the_least_value_is_found(budget: Budget) -> Verdict:
    eps = budget.pick(0.1, 0.01)
    low, high = -5.0, 4.3
    modulus = 2 * (10 + 20 * np.pi)
    found = certified_minimum(Minimize(_rastrigin, jnp.zeros(2)), low, high, modulus, eps)
    side = int(found.evaluations**0.5)
    line = low + (high - low) * (np.arange(side) + 0.5) / side
    grid = np.stack(np.meshgrid(line, line), axis=-1)
    case = f"f - f* after {found.evaluations} values; control: a grid of as many"
    return Verdict(found.value, eps, float(jnp.min(_rastrigin(jnp.asarray(grid), None))), case)


@claim(PAPER, "The bound that is proved is nowhere above the function, convex or not.")
def the_bound_is_valid(budget: Budget) -> Verdict:
    eps = budget.pick(0.05, 0.005)
    problem = Minimize(_spiked, jnp.zeros(2))
    least = float(_spiked(jnp.asarray(SPIKE), None))

    def above(modulus: float) -> float:
        return certified_minimum(problem, -2.0, 2.0, modulus, eps).lower_bound - least

    case = "bound less f*, a spike of slope 30 in a bowl of slope 8; control: the modulus 8"
    return Verdict(above(38.0), 0.0, above(8.0), case)


@claim(
    PAPER,
    "A model that is fitted to a distorted oracle has a loss within the distortion and eps.",
)
def a_fit_to_a_distorted_oracle_is_within_the_distortion(budget: Budget) -> Verdict:
    eps, distortion = budget.pick(0.02, 0.005), 0.05
    t = np.linspace(0, 2, 20)
    seen = 1.3 * np.sin(2.1 * t) + distortion * (-1.0) ** np.arange(t.size)
    problem = Minimize(_greatest_error, jnp.ones(2), (t, seen))

    def loss(modulus: float) -> float:
        return certified_minimum(problem, 0.0, np.array([2.0, 4.0]), modulus, eps).value

    # The slope of the model is 1 in the amplitude, and in the rate at most 2 * 2.
    case = (
        "greatest error of a sine in [0, 2] x [0, 4], distortion 0.05, modulus 5; control: the "
        "modulus 1, which forgets the slope in the rate"
    )
    return Verdict(loss(5.0), distortion + eps, loss(1.0), case)


def _greatest_error(y: Float[Array, "2"], args: tuple[Array, Array]) -> Float[Array, ""]:
    t, seen = args
    return jnp.max(jnp.abs(y[0] * jnp.sin(y[1] * t) - seen))


def _rastrigin(y: Float[Array, "... n"], _: None) -> Float[Array, "..."]:
    return jnp.sum(10 + y**2 - 10 * jnp.cos(2 * jnp.pi * y), axis=-1)


def _spiked(y: Float[Array, "2"], _: None) -> Float[Array, ""]:
    return jnp.sum(y**2) - jnp.maximum(0, 3 - 30 * jnp.max(jnp.abs(y - SPIKE)))
