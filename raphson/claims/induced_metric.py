"""The induced metric: gradients clipped smoothly, and what that is worth on steep losses."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..compiled import compiled
from ..problems import perceptron
from ..train import induced_metric
from . import Budget, Paper, Verdict, claim
from ._training import best_losses

PAPER = Paper(
    slug="induced-metric",
    title=(
        "The Optimiser Hidden in Plain Sight: Training with the Loss Landscape's Induced Metric"
    ),
    authors="Harvey",
    year=2025,
    implements=("raphson.train.induced_metric",),
    note=(
        "What xi is best depends on the units of the loss: that of the third claim serves "
        "Rosenbrock's function and fourth powers in the variant log only, which has no such units; "
        "in the others, far from the minimum, steps are as short as 1 / |g|. On the perceptron, "
        "where the paper sees slight gains, plain and momentum come equally low at their best "
        "learning rates; what is gained is that larger ones do less harm."
    ),
)


@claim(
    PAPER,
    "Without averages the step is the gradient by the inverse of the metric: of I + xi g g', of "
    "I + xi g g' / f^2 for log(f), and of P + xi g g' for rms.",
)
def step_inverts_the_metric(budget: Budget) -> Verdict:
    rng, cases, xi, eps = np.random.default_rng(0), budget.pick(100, 10_000), 0.7, 0.1
    gradients, losses = rng.normal(size=(cases, 6)), rng.exponential(size=cases)
    expected = {"plain": [], "log": [], "rms": []}
    for g, f in zip(gradients, losses, strict=True):
        for variant, found in expected.items():
            metric = np.diag(np.abs(g) + eps) if variant == "rms" else np.eye(6)
            h = g / f if variant == "log" else g
            found.append(np.linalg.solve(metric + xi * np.outer(h, h), h))

    def deviation(xi: float) -> float:
        def worst(variant: str) -> float:
            found = compiled(_steps, variant, gradients, losses, xi, eps)
            return float(np.max(np.abs(found + np.array(expected[variant]))))

        return max(map(worst, expected))

    case = f"greatest deviation over {cases} random gradients; control: twice the xi"
    return Verdict(deviation(xi), 1e-10, deviation(2 * xi), case)


@claim(
    PAPER,
    "Without averages no step is longer than 1 / (2 sqrt(xi)) learning rates, and where |g| = "
    "1 / sqrt(xi) it is that long.",
)
def gradients_are_clipped_smoothly(budget: Budget) -> Verdict:
    xi, lengths = 0.25, np.geomspace(1e-3, 1e4, budget.pick(701, 70_001))
    directions = np.random.default_rng(0).normal(size=(len(lengths), 3))
    directions *= lengths[:, None] / np.linalg.norm(directions, axis=1, keepdims=True)

    def departure(bound: float) -> float:
        steps = compiled(_steps, "plain", directions, lengths, xi, 0.0)
        return abs(float(np.max(np.linalg.norm(steps, axis=1))) / bound - 1)

    case = f"relative departure of the longest of {len(lengths)} steps; control: half the bound"
    return Verdict(departure(1 / (2 * xi**0.5)), 1e-3, departure(1 / (4 * xi**0.5)), case)


@claim(
    PAPER,
    "In few dimensions, on Rosenbrock's function and on fourth powers, the variant log comes lower "
    "than Adam, each at its best learning rate.",
)
def beats_adam_in_few_dimensions(budget: Budget) -> Verdict:
    rates = np.geomspace(1e-2, 10.0, budget.pick(13, 100))

    def digits(make: Any) -> float:
        gains = []
        for loss, start in ((_rosenbrock, [-3.0, 5.0]), (_fourth_powers, [30.0, -20.0])):
            ours, adam = (
                max(np.nanmin(compiled(_losses, loss, np.array(start), make, rates)), 1e-30)
                for make in (make, optax.adam)
            )
            gains.append(np.log10(ours / adam))
        return float(max(gains))

    case = "log10 of the ratio of the losses after 2000 steps, the greater; control: plain"
    log = digits(partial(induced_metric, variant="log"))
    return Verdict(log, 0.0, digits(induced_metric), case)


@claim(
    PAPER,
    "On the perceptron on digits, xi = 1 stands twice the best learning rate of momentum: the "
    "training loss stays within 5 times the best of momentum.",
)
def forgives_large_learning_rates(budget: Budget) -> Verdict:
    problem, steps = perceptron("digits", batch_size=32), budget.pick(300, 1000)
    seeds = budget.pick(3, 20)

    def loss(make: Any, rate: float) -> float:
        return best_losses(problem, make, np.array([rate]), seeds, [steps])[0]

    best = loss(_momentum, 2.0)
    case = (
        f"loss after {steps} steps at learning rate 4 over that of momentum at 2, median of "
        f"{seeds} seeds, 32 samples a step; control: momentum at 4"
    )
    ours = loss(partial(induced_metric, xi=1.0), 4.0)
    return Verdict(ours / best, 5.0, loss(_momentum, 4.0) / best, case)


def _steps(
    variant: Any, gradients: Float[Array, "k n"], losses: Float[Array, " k"], xi: Any, eps: Any
) -> Float[Array, "k n"]:
    """The first of a run for each gradient."""
    optimizer = induced_metric(1.0, momentum=0.0, b2=0.0, xi=xi, eps=eps, variant=variant)

    def step(g: Array, f: Array) -> Any:
        x = jnp.zeros_like(g)
        return optimizer.update(g, optimizer.init(x), x, value=f)[0]

    return jax.vmap(step)(gradients, losses)


def _rosenbrock(x: Float[Array, " 2"]) -> Float[Array, ""]:
    return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2


def _fourth_powers(x: Float[Array, " 2"]) -> Float[Array, ""]:
    return jnp.sum(x**4)


def _losses(
    loss: Any, start: Float[Array, " n"], make: Any, rates: Float[Array, " r"]
) -> Float[Array, " r"]:
    def final(rate: Array) -> Array:
        optimizer: Any = optax.with_extra_args_support(make(rate))

        def step(carry: tuple[Array, Any], _: None) -> tuple[tuple[Array, Any], None]:
            x, state = carry
            value, grad = jax.value_and_grad(loss)(x)
            update, state = optimizer.update(grad, state, x, value=value)
            return (x + update, state), None

        (x, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), length=2000)
        return loss(x)

    return jax.vmap(final)(rates)


def _momentum(rate: Array) -> optax.GradientTransformation:
    return optax.chain(optax.ema(0.9), optax.scale_by_learning_rate(rate))
