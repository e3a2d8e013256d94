"""Implicit differentiation: a derivative from what an answer satisfies, not from how it came."""

from __future__ import annotations

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import raphson as rp

from ..problems import ridge
from ..roots import KrasnoselskiiMann
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="implicit-differentiation",
    title="Efficient and Modular Implicit Differentiation",
    authors="Blondel, Berthet, Cuturi, Frostig, Hoyer, Llinares-Lopez, Pedregosa, Vert",
    year=2022,
    implements=(
        "raphson.implicit",
        "raphson.conditions.stationary",
        "raphson.conditions.fixed_point",
        "raphson.conditions.projected_gradient",
        "raphson.conditions.proximal_gradient",
        "raphson.conditions.block_proximal_gradient",
        "raphson.conditions.mirror_descent",
        "raphson.conditions.newton_step",
        "raphson.conditions.kkt",
    ),
    note="Ridge regression has one parameter here, in the paper one for each coefficient.",
)

_MU = 0.1


def _objective(y: Array, mu: Any) -> Array:
    """Ridge regression on the diabetes data."""
    return eqx.tree_at(lambda p: p.args, ridge("diabetes"), mu).value(y)


@functools.cache
def _truncated(budget: Budget) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Along gradient descent the errors of the iterate, of both derivatives, and the curvature."""
    steps = budget.pick(200, 400)
    problem = ridge("diabetes", regularization=_MU)
    facts = problem.facts
    gradient = jax.grad(_objective)

    def descent(mu: Any) -> Array:
        def step(y: Array, _: None) -> tuple[Array, Array]:
            y = y - gradient(y, mu) / facts.lipschitz
            return y, y

        return jax.lax.scan(step, problem.y0, length=steps)[1]

    # A solver that returns its start is gradient descent that was stopped there.
    stopped = rp.implicit(rp.conditions.stationary(_objective))(lambda y, mu: y)

    @jax.jit
    def run() -> Any:
        iterates, unrolled = jax.jvp(descent, (_MU,), (1.0,))
        implicit = jax.vmap(lambda y: jax.jvp(lambda mu: stopped(y, mu), (_MU,), (1.0,))[1])
        hessian = jax.hessian(_objective)(problem.y0, _MU)
        exact = -jnp.linalg.solve(hessian, facts.minimizer)
        size = lambda rows: jnp.linalg.norm(rows, axis=1)
        errors = size(iterates - facts.minimizer), size(implicit(iterates) - exact)
        return *errors, size(unrolled - exact)

    answer, implicit, unrolled = map(np.asarray, run())
    return answer, implicit, unrolled, float(facts.strong_convexity)


@claim(
    PAPER,
    "At an unfinished answer the error of the implicit derivative is proportional to that of the "
    "answer: on ridge regression, solved by gradient descent, with the exponent 1 within 0.1.",
)
def error_of_the_derivative_is_proportional(budget: Budget) -> Verdict:
    answer, implicit, unrolled, _ = _truncated(budget)
    settled = slice(len(answer) // 10, None)

    def departure(derivative: np.ndarray) -> float:
        slope = np.polyfit(np.log(answer[settled]), np.log(derivative[settled]), 1)[0]
        return float(abs(slope - 1))

    case = f"|slope - 1|, {len(answer)} steps; control: derivatives of the unrolled steps"
    return Verdict(departure(implicit), 0.1, departure(unrolled), case)


@claim(
    PAPER,
    "The error of the implicit derivative is bounded at every iterate of gradient descent, for "
    "ridge regression by |y - y*| / m with the strong convexity m; that of the unrolled steps lags "
    "behind.",
)
def error_of_the_derivative_is_bounded(budget: Budget) -> Verdict:
    answer, implicit, unrolled, curvature = _truncated(budget)
    worst = lambda derivative: float(np.max(curvature * derivative / answer))
    case = f"greatest error over its bound, {len(answer)} steps; control: the unrolled steps"
    rounding = 1e-4  # the bound is attained in the limit
    return Verdict(worst(implicit), 1 + rounding, worst(unrolled), case)


def _soft(y: Array, a: Any, step_size: Any) -> Array:
    return jnp.sign(y) * jnp.maximum(jnp.abs(y) - step_size * a, 0)


@claim(
    PAPER,
    "A proximal gradient step that leads nowhere gives the derivative of the lasso by its "
    "penalty, as central differences do within 1e-4.",
)
def lasso_has_derivatives_by_its_prox(budget: Budget) -> Verdict:
    smooth = lambda y, _: _objective(y, 0.0)
    conditions = rp.conditions
    by_prox = conditions.proximal_gradient(smooth, _soft, 0.2)

    def solver(y0: Array, a: Any) -> Array:
        problem = rp.FixedPoint(lambda y, a: by_prox(y, a) + y, y0, a)
        options = {"rtol": 0.0, "atol": 1e-11, "max_steps": 100_000}
        return rp.solve(problem, KrasnoselskiiMann(), **options).value

    penalties = jnp.array(budget.pick((0.03, 0.1), (0.01, 0.03, 0.1, 0.3)))
    start = jnp.zeros(11)

    @jax.jit
    def run() -> Any:
        def error(condition: Any) -> Array:
            lasso = functools.partial(rp.implicit(condition)(solver), start)

            def of(a: Array) -> Array:
                slope, width = jax.jacrev(lasso)(a), 1e-5
                numeric = (lasso(a + width) - lasso(a - width)) / (2 * width)
                return jnp.linalg.norm(slope - numeric) / jnp.linalg.norm(numeric)

            return jnp.max(jax.lax.map(of, penalties))

        as_if_smooth = lambda y, a: smooth(y, a) + a * jnp.sum(jnp.abs(y))
        return error(by_prox), error(conditions.stationary(as_if_smooth))

    measured, control = map(float, run())
    case = (
        f"relative error on the diabetes data, {len(penalties)} penalties; "
        "control: the gradient with the penalty, as if it were smooth"
    )
    return Verdict(measured, 1e-4, control, case)
