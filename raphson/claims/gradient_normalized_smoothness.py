"""Gradient-normalized smoothness: one length that tells how far to trust any Hessian."""

from __future__ import annotations

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import raphson as rp

from ..probes import gradient_normalized_smoothness
from ..problems import logistic, logistic_synthetic
from ..smooth import GradientDescent, GradientRegularizedNewton
from . import Budget, Paper, Verdict, claim
from ._history import history

PAPER = Paper(
    slug="gradient-normalized-smoothness",
    title="Gradient-Normalized Smoothness for Optimization with Approximate Hessians",
    authors="Semenov, Jaggi, Doikov",
    year=2025,
    implements=(
        "raphson.smooth.GradientRegularizedNewton",
        "raphson.probes.gradient_normalized_smoothness",
    ),
    note="In the norm of y only, and without Fisher matrices. A step that is taken back counts as "
    "a step. gamma is estimated from above.",
)


@claim(
    PAPER,
    "With the exact Hessian and nothing tuned, logistic regression is solved to |g| <= 1e-8 from "
    "far away in at most 30 steps.",
)
def solves_logistic_regression_from_afar(budget: Budget) -> Verdict:
    problem = logistic("breast_cancer")
    problem = eqx.tree_at(lambda p: p.y0, problem, jnp.full_like(problem.y0, 10.0))

    def steps(method: Any) -> float:
        return float(rp.solve(problem, method, rtol=0.0, atol=1e-8).stats.steps)

    case = "steps on breast_cancer from 10 in every entry; control: gradient descent"
    return Verdict(steps(GradientRegularizedNewton()), 30, steps(GradientDescent()), case)


@claim(
    PAPER,
    "Where f is convex, a step with gamma no more than gamma(y) lowers f by at least "
    "|g+|^2 gamma / (2 |g|).",
)
def a_step_within_gamma_falls_as_promised(budget: Budget) -> Verdict:
    rng = np.random.default_rng(0)
    data = jnp.array(rng.normal(size=(12, 4))), jnp.array(rng.normal(size=12))
    problem = rp.Minimize(_log_sum_exp, jnp.zeros(4), data)
    keys = jax.random.split(jax.random.key(0), budget.pick(20, 200))

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0))
    def fall(share: Array, key: Array) -> Array:
        y = 3 * jax.random.normal(key, (4,))
        gamma: Any = share * gradient_normalized_smoothness(problem, y, key)
        method = GradientRegularizedNewton(radius=gamma)
        state = method.init(problem, y, None)
        value, g = state.value, state.gradient
        state = eqx.tree_at(lambda s: s.value, state, jnp.inf)  # so that the step is accepted
        _, state = method.step(problem, y, state)
        square = jnp.vdot(state.gradient, state.gradient)
        return (value - state.value) * 2 * jnp.linalg.norm(g) / (gamma * square)

    def least_fall(share: float) -> float:
        return float(jnp.min(fall(jnp.array(share), keys)))

    case = f"least ratio over {len(keys)} points of a log-sum-exp; control: 10 gamma(y)"
    return Verdict(least_fall(1.0), 1.0, least_fall(10.0), case, at_most=False)


def _log_sum_exp(y: Array, data: tuple[Array, Array]) -> Array:
    A, b = data
    return jax.nn.logsumexp(A @ y - b)


@claim(
    PAPER,
    "Near a solution gamma shrinks as sqrt(|g|) with an exact Hessian, as |g| without one: it "
    "tells by itself which order of smoothness helps.",
)
def gamma_finds_the_class_of_the_function(budget: Budget) -> Verdict:
    problem = logistic_synthetic(100, budget.pick(5, 20))
    way = jax.random.normal(jax.random.key(1), problem.y0.shape)
    ys = problem.facts.minimizer + jnp.logspace(-4, -2, 5)[:, None] * way

    def power(hessian: str) -> float:
        def pair(y: Array) -> tuple[Array, Array]:
            gamma = gradient_normalized_smoothness(problem, y, jax.random.key(0), hessian=hessian)
            return jnp.linalg.norm(problem.gradient(y)), gamma

        slope, gamma = jax.jit(jax.vmap(pair))(ys)
        return float(np.polyfit(np.log(slope), np.log(gamma), 1)[0])

    case = "fitted power of |g| on logistic regression, less 1/2; control: H = 0"
    return Verdict(abs(power("exact") - 0.5), 0.05, abs(power("zero") - 0.5), case)


@claim(
    PAPER,
    "With the Gauss-Newton matrix the fourth power of the norm of a residual, which has no "
    "curvature at its zeros, is minimized at a linear rate.",
)
def gauss_newton_is_linear_on_a_power_of_the_norm(budget: Budget) -> Verdict:
    n = budget.pick(10, 50)
    rng = np.random.default_rng(0)
    data = jnp.array(rng.normal(size=(n, n))), jnp.array(rng.normal(size=n))
    problem = rp.LeastSquares(_squared_length, jnp.full(n, 10.0), data)

    def factor(hessian: str) -> float:
        value = history(problem, GradientRegularizedNewton(hessian), 60)["value"]
        return float((value[-1] / value[0]) ** (1 / 60))

    case = f"mean factor of f = |u|^4 / 4 over 60 steps, {n} residuals that bend; control: H = 0"
    return Verdict(factor("gauss_newton"), 0.5, factor("zero"), case)


def _squared_length(y: Array, data: tuple[Array, Array]) -> Array:
    A, b = data
    u = A @ y + 0.3 * jnp.sin(A @ y) - b
    return jnp.linalg.norm(u) * u / jnp.sqrt(2)
