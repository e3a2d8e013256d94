"""Gradient regularization: how a second gradient stands for the penalty, and what it costs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..compiled import compiled
from ..problems import perceptron
from ..train import regularized_value_and_grad
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="gradient-regularization",
    title=(
        "Understanding Gradient Regularization in Deep Learning: Efficient Finite-Difference "
        "Computation and Implicit Bias"
    ),
    authors="Karakida, Takase, Hayase, Osawa",
    year=2022,
    implements=("raphson.train.regularized_value_and_grad",),
    note=(
        "Forward differences shrink the products u_i v_i of a diagonal linear network w = u^2 - "
        "v^2 more than the exact penalty, and backward differences less, as the paper proves; from "
        "which it has better solutions follow. On sparse regression with Gaussian features, whose "
        "least squares are met exactly, they do not: the products shrink most where the features "
        "count most, and the sum of |w| grows. In operations the second gradient costs a tenth "
        "less than differentiating twice, not half."
    ),
)


@claim(
    PAPER,
    "Two steps of flooding, |L - b| + b, of which one goes up and one down, are one step by the "
    "forward difference over the learning rate r, of length r^2.",
)
def flooding_is_a_forward_difference(budget: Budget) -> Verdict:
    rate, seeds = 0.01, budget.pick(20, 1000)
    a, starts = np.random.default_rng(0).normal(size=(2, seeds, 6))

    def deviation(mode: Any) -> float:
        return float(np.max(np.abs(compiled(_flooded, mode, a, starts, rate))))

    case = f"greatest deviation from {seeds} random starts; control: the product with the Hessian"
    return Verdict(deviation("forward"), 1e-12, deviation("exact"), case)


@claim(
    PAPER,
    "A regularized gradient by a forward difference costs two gradients, less than "
    "differentiating the penalty.",
)
def differences_cost_two_gradients(budget: Budget) -> Verdict:
    problem = perceptron("digits")

    def penalized(y: Any) -> Array:
        return problem.value(y) + 0.005 * optax.tree.norm(jax.grad(problem.value)(y), squared=True)

    def operations(fn: Any) -> float:
        cost: Any = jax.jit(fn).lower(problem.y0).compile().cost_analysis()
        return cost["flops"]

    one = operations(jax.value_and_grad(problem.value))
    forward = operations(regularized_value_and_grad(problem.value, 0.01, 0.1))
    twice = operations(jax.value_and_grad(penalized))
    case = "floating-point operations over those of one gradient, perceptron on digits; control: "
    return Verdict(forward / one, 2.01, twice / one, case + "differentiating twice")


@claim(
    PAPER,
    "On a diagonal linear network forward differences leave smaller products u_i v_i than the "
    "exact penalty does, which is what the paper derives its bias to sparsity from.",
)
def forward_differences_shrink_more(budget: Budget) -> Verdict:
    steps = budget.pick(20_000, 100_000)
    exact, forward, backward = (
        _products(_network(2.0, 0.5, mode, 0.3, steps)) for mode in ("exact", "forward", "backward")
    )
    case = (
        "mean of log(u_i v_i) less that by the exact penalty, gamma = 2, epsilon = 1/2; control: "
        "by backward differences"
    )
    return Verdict(float(np.mean(forward - exact)), 0.0, float(np.mean(backward - exact)), case)


@claim(
    PAPER,
    "On sparse regression by a diagonal linear network, forward differences do not make the sum of "
    "|w| smaller than gradient descent alone; a start nearer to 0 does.",
    reproduces=False,
)
def solutions_are_not_sparser(budget: Budget) -> Verdict:
    steps = budget.pick(20_000, 100_000)

    def length(gamma: float, start: float) -> float:
        u, v = _network(gamma, 0.5, "forward", start, steps)
        return float(np.sum(np.abs(u**2 - v**2)))

    plain = length(0.0, 0.3)
    case = (
        "ratio of the sums, 50 Gaussian samples, 5 of 100 weights not 0, gamma = 2, epsilon = 1/2; "
        "control: gradient descent from a third of the start"
    )
    return Verdict(length(2.0, 0.3) / plain, 1.0, length(0.0, 0.1) / plain, case, at_most=False)


def _flooded(
    mode: Any, a: Float[Array, "k n"], starts: Float[Array, "k n"], rate: Array
) -> Float[Array, "k n"]:
    def deviation(a: Array, x: Array) -> Array:
        def loss(x: Array) -> Array:
            return jnp.sum(jnp.sin(a * x)) + jnp.sum(x**2) / 4

        # A level just above the loss at x, so that the first step goes up and the second down.
        level = loss(x) + 1e-9
        y = x
        for _ in range(2):
            y = y - rate * jax.grad(lambda y: jnp.abs(loss(y) - level) + level)(y)
        _, plain = jax.value_and_grad(loss)(x)
        _, penalized = regularized_value_and_grad(loss, 1.0, rate, mode)(x)  # pyright: ignore
        return y - (x - rate**2 * (penalized - plain))

    return jax.vmap(deviation)(a, starts)


def _network(gamma: float, epsilon: float, mode: str, start: float, steps: int) -> Any:
    """The weights u and v of a diagonal linear network after gradient descent."""
    return np.asarray(compiled(_trained, mode, gamma, epsilon, start, steps))


def _trained(mode: Any, gamma: Any, epsilon: Any, start: Array, steps: int) -> Float[Array, "2 n"]:
    rng = np.random.default_rng(0)
    features, rate = rng.normal(size=(50, 100)), 1e-3
    target = features @ (np.arange(100) < 5)

    def loss(weights: Float[Array, "2 n"]) -> Array:
        u, v = weights
        return jnp.mean((features @ (u**2 - v**2) - target) ** 2) / 4

    gradient = regularized_value_and_grad(loss, gamma, epsilon, mode)

    def step(weights: Array, _: None) -> tuple[Array, None]:
        return weights - rate * gradient(weights)[1], None

    return jax.lax.scan(step, jnp.full((2, 100), start), length=steps)[0]


def _products(weights: np.ndarray) -> np.ndarray:
    return np.log(weights[0] * weights[1])
