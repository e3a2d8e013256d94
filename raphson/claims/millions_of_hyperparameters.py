"""Implicit differentiation by the Neumann series: what it equals, how it errs, what it tunes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from ..bilevel import Bilevel, ImplicitGradient
from ..compiled import compiled
from ..engine import solve
from ..linear import Neumann
from ..problems import ridge_penalty
from ..problems.data import split
from ..smooth import GradientDescent
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="millions-of-hyperparameters",
    title="Optimizing Millions of Hyperparameters by Implicit Differentiation",
    authors="Lorraine, Vicol, Duvenaud",
    year=2020,
    implements=("raphson.bilevel.ImplicitGradient", "raphson.linear.Neumann"),
    note=(
        "The authors' released routine leaves out the step size in front of the series, which the "
        "upper learning rate then absorbs: the controls. Where a decay outgrows 2 / s the series "
        "of the digits grows, and the run ends in a breakdown."
    ),
)


class Unscaled(Neumann):
    """The series without the step size in front of it, the control."""

    def compute(self, state: Any, vector: Any, options: dict[str, Any]) -> Any:
        y, result, stats = super().compute(state, vector, options)
        return jax.tree.map(lambda leaf: leaf / self.step_size, y), result, stats


@claim(
    PAPER,
    "At the minimum of f, the hypergradient of K Neumann terms is that of K unrolled steps of "
    "gradient descent.",
)
def neumann_is_unrolling(budget: Budget) -> Verdict:
    def apart(solver: type[Neumann]) -> float:
        pairs = [(case.of(solver), case.unrolled) for case in cases]
        return max(abs(ours - theirs) / abs(theirs) for ours, theirs in pairs)

    cases = _cases(budget)
    case = (
        f"greatest relative difference in {len(cases)} cases, ridge regressions and K up to 80; "
        "control: without the step size in front"
    )
    return Verdict(apart(Neumann), 1e-12, apart(Unscaled), case)


@claim(
    PAPER,
    "With s <= 1 / L on a mu-strongly convex f, K terms err by at most (1 - s mu)^K / (s mu) "
    "|F_y| |s f_yx|.",
)
def neumann_error_bound(budget: Budget) -> Verdict:
    def excess(solver: type[Neumann]) -> float:
        return max(abs(case.of(solver) - case.exact) / case.bound for case in cases)

    cases = _cases(budget)
    case = f"greatest error / bound over {len(cases)} cases, s = 1 / L; control: as above"
    return Verdict(excess(Neumann), 1.0, excess(Unscaled), case)


@claim(
    PAPER,
    "One weight decay for each weight, tuned by implicit gradients, brings the validation loss "
    "below the best that one decay for all weights can do.",
)
def a_decay_for_each_weight(budget: Budget) -> Verdict:
    fitted, validated, steps = budget.pick((60, 120, 60), (300, 300, 150))
    (features, labels), _ = split("digits", ("digits",), constant=True)
    rows = slice(0, fitted), slice(fitted, fitted + validated)
    data = tuple((jnp.asarray(features[r]), jnp.asarray(labels[r])) for r in rows)
    steepest = np.linalg.eigvalsh(features[rows[0]].T @ features[rows[0]] / fitted)[-1] / 2
    step_size = float(1 / (steepest + 1))
    weights = jnp.zeros((features.shape[1], 10))

    def loss(x: Any) -> float:
        return float(compiled(_validation_loss, x + weights, data, step_size))

    best, start = min((loss(x), x) for x in np.linspace(-9, 0, 20))

    def tuned(shape: tuple[int, ...]) -> float:
        problem = Bilevel(_held_out, _decayed, jnp.full(shape, start), weights, data)
        inner, solver = GradientDescent(step_size), Neumann(10, step_size)
        method = ImplicitGradient(optax.adam(0.1), inner, 10, solver)
        return loss(solve(problem, method, max_steps=steps, throw=False).value[0]) / best

    case = (
        f"validation loss / the best of 20 decays, {fitted} digits, 650 weights, {steps} steps "
        "from the best decay; control: one decay tuned likewise"
    )
    return Verdict(tuned(weights.shape), 0.8, tuned(()), case)


class _Case:
    """A ridge regression at x = -1 and the minimum of f, and so many terms K with s = 1 / L."""

    def __init__(self, seed: int, terms: int):
        problem = ridge_penalty(seed=seed)
        A, b, A_out, b_out = (np.asarray(data, float) for data in problem.args)
        x, H = -1.0, A.T @ A / len(b) + np.exp(-1.0) * np.eye(A.shape[1])
        y = np.linalg.solve(H, A.T @ b / len(b))
        F_y, f_xy = A_out.T @ (A_out @ y - b_out) / len(b_out), np.exp(x) * y
        spectrum = np.linalg.eigvalsh(H)
        s, shrunk = float(1 / spectrum[-1]), spectrum[0] / spectrum[-1]
        self.at = problem, (jnp.asarray(x), jnp.asarray(y))
        self.terms, self.step_size = terms, s
        self.exact = float(-f_xy @ np.linalg.solve(H, F_y))
        length = np.linalg.norm(F_y) * np.linalg.norm(s * f_xy)
        # What rounding may leave is no breach of the bound.
        self.bound = float((1 - shrunk) ** terms / shrunk * length) + 1e-14
        self.unrolled = float(compiled(_unrolled, *self.at, s, terms))

    def of(self, solver: Callable[[int, float], Neumann]) -> float:
        """The hypergradient by this solver."""
        method = ImplicitGradient(
            1.0, GradientDescent(self.step_size), 1, solver(self.terms, self.step_size)
        )
        return float(compiled(_first, *self.at, method))


def _cases(budget: Budget) -> list[_Case]:
    seeds = range(budget.pick(2, 20))
    return [_Case(seed, terms) for seed in seeds for terms in (1, 5, 20, 80)]


def _first(problem: Any, z: Any, method: ImplicitGradient) -> Array:
    return method.init(problem, z, None).residual[0]


def _unrolled(problem: Any, z: Any, step_size: Array, steps: int) -> Array:
    """dF/dx through steps from y, by automatic differentiation."""
    x, y = z

    def after(x: Array) -> Array:
        step = lambda _, y: y - step_size * problem.lower_gradient(x, y, None)[1]
        return problem.upper_value(x, jax.lax.fori_loop(0, steps, step, y), None)

    return jax.grad(after)(x)


def _cross_entropy(y: Array, data: tuple[Array, Array]) -> Array:
    features, labels = data
    return optax.softmax_cross_entropy_with_integer_labels(features @ y, labels).mean()


def _decayed(x: Array, y: Array, data: Any) -> Array:
    return _cross_entropy(y, data[0]) + jnp.sum(jnp.exp(x) * y**2) / 2


def _held_out(x: Array, y: Array, data: Any) -> Array:
    return _cross_entropy(y, data[1])


def _validation_loss(x: Array, data: Any, step_size: Array) -> Array:
    """The loss on held-out data with these decays, f solved by 1500 steps from 0."""
    # The curvature of f is 1 / step_size with a decay of 1, and more with a greater one.
    shorter = step_size / (1 + step_size * jnp.max(jnp.exp(x)))
    step = lambda _, y: y - shorter * jax.grad(_decayed, 1)(x, y, data)
    return _cross_entropy(jax.lax.fori_loop(0, 1500, step, jnp.zeros_like(x)), data[1])
