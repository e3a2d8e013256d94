"""Relaxed architecture search: where it ends on a model of two scalars, beside what it replaces."""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..bilevel import RelaxedSplitting
from ..bilevel.problem import AbstractBilevel
from ..engine import solve
from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ..problems import darts_scalar
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="relaxed-splitting",
    title="RARTS: An Efficient First-Order Relaxed Architecture Search Method",
    authors="Xue, Qi, Xin",
    year=2020,
    implements=("raphson.bilevel.RelaxedSplitting",),
    note=(
        "The minimum of the relaxed sum on the scalar model is derived anew. It is biased by "
        "O(1 / weight + 1 / coupling): with both 10 the method ends at 1.081, where the answer is "
        "1. Implicit differentiation is exact there."
    ),
)


class Darts(AbstractMethod[None]):
    """Differentiable architecture search with one inner step unrolled, the control.

    y' = y - xi f_y(x, y), then x descends F_x(x, y') - xi f_xy F_y(x, y'), then y descends f. With
    xi = 0 it is of first order.
    """

    unrolled: float = 0.1
    step_size: float = 0.01

    question: ClassVar[type[AbstractProblem]] = AbstractBilevel

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> None:
        return None

    def step(self, problem: Any, y: PyTree[Array], state: None) -> tuple[PyTree[Array], None]:
        x, y = y
        ahead = y - self.unrolled * problem.lower_gradient(x, y, None)[1]
        F_x, F_y = problem.upper_gradient(x, ahead, None)
        f_xv, _ = problem.lower_product(x, y, F_y, None)
        x = x - self.step_size * (F_x - self.unrolled * f_xv)
        return (x, y - self.step_size * problem.lower_gradient(x, y, None)[1]), state

    def known(self, problem: Any, y: PyTree[Array], state: None) -> Known:
        return Known()


@claim(
    PAPER,
    "Relaxed splitting ends at 2 / (2 - 1 / (2 weight) - 1 / coupling) on the scalar model of "
    "architecture search, for weights of 1 and 10: to 1e-6.",
)
def limit_in_closed_form(budget: Budget) -> Verdict:
    weights, coupling = budget.pick((1.0, 10.0), (1.0, 3.0, 10.0, 30.0)), 10.0
    limits = {weight: 2 / (2 - 1 / (2 * weight) - 1 / coupling) for weight in weights}
    ends = {w: _end(RelaxedSplitting(weight=w, coupling=coupling)) for w in weights}
    found = max(abs(ends[weight] - limits[weight]) for weight in weights)
    control = abs(_end(Darts()) - limits[10.0])
    case = f"greatest error, weight in {weights}, coupling 10; control: second-order search"
    return Verdict(found, 1e-6, control, case)


@claim(
    PAPER,
    "Its bias is at most a fifth of that of second-order architecture search that unrolls one step "
    "of 0.1, and that at most 0.7 times the bias of the first order.",
)
def closer_than_second_order_search(budget: Budget) -> Verdict:
    relaxed, second, first = (
        abs(_end(method) - 1) for method in (RelaxedSplitting(), Darts(), Darts(unrolled=0.0))
    )
    case = (
        f"the greater ratio of biases to their bounds, {relaxed:.4f}, {second:.4f}, {first:.4f}; "
        "control: first order for relaxed"
    )
    found, control = (max(each / (second / 5), second / (0.7 * first)) for each in (relaxed, first))
    return Verdict(found, 1.0, control, case)


def _end(method: AbstractMethod) -> float:
    """x after 20,000 steps from x = 2, y = -2."""
    run = solve(darts_scalar(), method, rtol=0.0, atol=0.0, max_steps=20_000, throw=False)
    return float(jnp.asarray(run.value[0]))
