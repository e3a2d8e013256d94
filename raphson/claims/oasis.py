"""OASIS: a step size that finds itself, in a metric that finds the scales."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..compiled import compiled
from ..problems import logistic, quadratic
from ..train import oasis
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="oasis",
    title=("Doubly Adaptive Scaled Algorithm for Machine Learning Using Second-Order Information"),
    authors="Jahani, Rusakov, Shi, Richtárik, Mahoney, Takáč",
    year=2021,
    implements=("raphson.train.oasis",),
    note=(
        "A gain on bad scales, not invariance to them: in good units the same data take about 400 "
        "steps, and without the curvature 343, since draws are noisy. On bad scales the default "
        "alpha hides the curvature of the smallest columns, and 20,000 steps do not suffice."
    ),
)
REGULARIZATION = 1e-3


@claim(
    PAPER,
    "With columns scaled by 10^-2 to 10^2 OASIS solves logistic regression to 1e-6 within 15,000 "
    "steps; the same step size without the curvature does not come near.",
)
def curvature_helps_with_bad_scales(budget: Budget) -> Verdict:
    scales = 10 ** np.random.default_rng(0).uniform(-2, 2, 31)
    keys = jax.random.split(jax.random.key(0), budget.pick(1, 15))

    def reached(keys: Array, rate: float, alpha: float) -> float:
        def make(key: Array) -> optax.GradientTransformation:
            return oasis(rate, alpha=alpha, key=key)

        return float(np.median(compiled(_found, make, keys, _signed_rows(), scales, 15_000)[1]))

    case = (
        f"norm of the gradient in the unscaled units, median over {len(keys)} keys, breast cancer; "
        "control: a constant metric, with which it is adaptive gradient descent"
    )
    return Verdict(reached(keys, 1e-3, 1e-5), 1e-6, reached(keys[:1], 1.0, 1e6), case)


@claim(
    PAPER,
    "On logistic regression the steps that OASIS needs hardly depend on the learning rate that it "
    "begins with.",
)
def first_rate_does_not_matter(budget: Budget) -> Verdict:
    rates = np.geomspace(1e-6, 1.0, budget.pick(4, 13))

    def spread(make: Callable[[Any], optax.GradientTransformation]) -> float:
        scales = np.ones(31)
        steps, _ = compiled(_found, make, rates, _signed_rows(), scales, 20_000)
        return float(np.max(steps) / np.min(steps))

    case = (
        "most steps to 1e-6 over fewest on breast cancer, at first rates 1e-6 to 1, at most 20,000 "
        "steps; control: gradient descent at such rates"
    )
    return Verdict(spread(oasis), 2.0, spread(optax.sgd), case)


@claim(
    PAPER,
    "On convex losses, while the metric B rests, the energy of a step from x to x+, |x+ - x*|_B^2 "
    "+ |x+ - x|_B^2 / 2 + 2 r (1 + growth) (f(x) - f*), never rises.",
)
def energy_never_rises(budget: Budget) -> Verdict:
    spectrum = np.geomspace(1e-2, 1, 20)
    problem, steps = quadratic(spectrum), budget.pick(200, 1000)
    rises = compiled(_rises, problem.without_facts, oasis(1.0, alpha=1e4), problem.facts, steps)
    too_long = optax.sgd(2.2 / problem.facts.lipschitz)  # pyright: ignore
    control = compiled(_rises, problem.without_facts, too_long, problem.facts, steps)
    case = (
        f"greatest relative rise in {steps} steps on a quadratic, by a constant metric; "
        "control: gradient descent with the step size 2.2 / L"
    )
    return Verdict(float(rises), 1e-9, float(control), case)


@claim(
    PAPER,
    "At a fixed rate r up to alpha / L each step on a strongly convex loss shrinks f - f* by the "
    "factor 1 - r mu / gamma or more, with no entry of the metric over gamma.",
)
def fixed_rates_converge_linearly(budget: Budget) -> Verdict:
    alpha, steps = 0.3, budget.pick(200, 2000)
    problem = quadratic(np.geomspace(1e-2, 1, 20))
    facts = problem.facts
    # |z_i (H z)_i| with signs z is a row sum at most.
    gamma = float(np.max(np.sum(np.abs(jax.hessian(problem.value)(problem.y0)), axis=1)))

    def excess(rate: float) -> float:
        optimizer = oasis(alpha=alpha, learning_rate=rate)
        shrink = compiled(_greatest_ratio, problem.without_facts, optimizer, steps)
        return float(shrink) - (1 - rate * facts.strong_convexity / gamma)  # pyright: ignore

    case = (
        f"greatest ratio of f - f* in {steps} steps on a quadratic, less the factor; control: four "
        "times the rate"
    )
    rate = alpha / facts.lipschitz  # pyright: ignore
    return Verdict(excess(rate), 0.0, excess(4 * rate), case)


def _greatest_ratio(problem: Any, optimizer: Any, steps: int) -> Float[Array, ""]:
    """Of the value, whose least is 0, after a step over that before."""

    def step(carry: tuple[Array, Any], _: None) -> tuple[tuple[Array, Any], Array]:
        x, state = carry
        change, state = optimizer.update(problem.gradient(x), state, x, value_fn=problem.value)
        return (x + change, state), problem.value(x)

    _, values = jax.lax.scan(step, (problem.y0, optimizer.init(problem.y0)), length=steps)
    in_range = (values[:-1] > 1e-20 * values[0]) & jnp.isfinite(values[1:])
    return jnp.max(jnp.where(in_range, values[1:] / values[:-1], 0))


def _rises(problem: Any, optimizer: Any, facts: Any, steps: int) -> Float[Array, ""]:
    optimizer = optax.with_extra_args_support(optimizer)

    def step(carry: tuple[Array, Any], _: None) -> tuple[tuple[Array, Any], Array]:
        x, state = carry
        value, g = problem.value_and_gradient(x)
        change, state = optimizer.update(g, state, x, value_fn=problem.value)
        # The metric is a multiple of the identity: r / B is the rate of gradient descent.
        rate = jnp.linalg.norm(change) / jnp.linalg.norm(g)
        growth = getattr(state, "growth", 1.0)
        energy = jnp.sum((x + change - facts.minimizer) ** 2) + jnp.sum(change**2) / 2
        return (x + change, state), energy + 2 * rate * (1 + growth) * (value - facts.optimum)

    _, energy = jax.lax.scan(step, (problem.y0, optimizer.init(problem.y0)), length=steps)
    energy = energy[1:]  # the first has an infinite growth
    above_rounding = energy[:-1] > 1e-20 * energy[0]
    return jnp.max(jnp.where(above_rounding, energy[1:] / energy[:-1] - 1, -1))


def _signed_rows() -> Float[np.ndarray, "456 31"]:
    features, signs = logistic().data  # pyright: ignore
    return features * signs[:, None]


def _found(make: Any, choices: Array, rows: Array, scales: Array, most: int) -> tuple[Array, Array]:
    """How many steps lead to a gradient of 1e-6, `most` at most, and the gradient there."""

    def loss(x: Array) -> Array:
        y = scales * x
        return jnp.mean(jnp.logaddexp(0, -rows @ y)) + REGULARIZATION / 2 * jnp.vdot(y, y)

    def found(choice: Array) -> tuple[Array, Array]:
        optimizer = optax.with_extra_args_support(make(choice))

        def norm(x: Array) -> Array:
            return jnp.linalg.norm(jax.grad(loss)(x) / scales)

        def far(carry: Any) -> Array:
            steps, x, _ = carry
            return (steps < most) & ~(norm(x) <= 1e-6)

        def step(carry: Any) -> Any:
            steps, x, state = carry
            change, state = optimizer.update(jax.grad(loss)(x), state, x, value_fn=loss)
            return steps + 1, x + change, state

        x = jnp.zeros_like(scales)
        steps, x, _ = jax.lax.while_loop(far, step, (jnp.array(0), x, optimizer.init(x)))
        return steps, norm(x)

    return jax.lax.map(found, choices)
