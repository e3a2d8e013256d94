"""The fully first-order method: hypergradients of two lower copies, without a Hessian product."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..bilevel import Bilevel, BilevelSum, FullyFirstOrder, ImplicitGradient
from ..bilevel.problem import AbstractBilevel
from ..compiled import compiled
from ..engine import solve
from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ..problems import quartic_levels
from ..wrappers import Counted
from . import Budget, Paper, Verdict, claim
from ._history import history

PAPER = Paper(
    slug="fully-first-order",
    title="A Fully First-Order Method for Stochastic Bilevel Optimization",
    authors="Kwon, Kwon, Wright, Nowak",
    year=2023,
    implements=("raphson.bilevel.FullyFirstOrder",),
    note=(
        "The powers of the steps with momentum and its weight k^-2q are derived anew from the "
        "rates 2/5, 1/2 and 2/3. Where both levels are noisy momentum gains little within 10^4 "
        "steps of these problems, whose error is then the bias: see the claim for what it gains "
        "where the upper level alone is. A public benchmark of the method evaluates the upper "
        "gradients at the lower copy z, which is another method."
    ),
)


class Alternating(AbstractMethod[None]):
    """Descent of both levels without a second copy, the control: x follows F_x alone."""

    question: ClassVar[type[AbstractProblem]] = AbstractBilevel

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> None:
        return None

    def step(self, problem: Any, y: PyTree[Array], state: None) -> tuple[PyTree[Array], None]:
        x, y = y
        y = y - 0.1 * problem.lower_gradient(x, y, None)[1]
        return (x - 0.1 * problem.upper_gradient(x, y, None)[0], y), state

    def known(self, problem: Any, y: PyTree[Array], state: None) -> Known:
        return Known()


@claim(
    PAPER,
    "The penalty w leaves a bias of C / w: where the method comes to rest, w |x - x*| changes by "
    "at most 5 % as w goes from 10 to 100 to 1000.",
)
def bias_falls_like_one_over_the_penalty(budget: Budget) -> Verdict:
    exact, penalties, b, far = quartic_levels(), (10.0, 100.0, 1000.0), 0.8, 1e15

    def lower_gradient(x: Array, y: Array, batch: None, args: None) -> tuple[Array, Array]:
        return jnp.zeros_like(x), exact.lower_gradient(x, y, batch)[1]

    def change(problem: Bilevel) -> float:
        biases = []
        for w in penalties:
            # From a k this large on the steps, and w = b / (2 a) with them, do not change.
            a = b / (2 * w)
            method = FullyFirstOrder(a * far ** (1 / 3), b, 0.5 / a, inner_steps=20, offset=far)
            run = solve(problem, method, rtol=0.0, atol=0.0, max_steps=300, throw=False)
            biases.append(w * abs(float(run.value[0] - exact.facts.minimizer[0])))
        return max(abs(after / before - 1) for before, after in pairwise(biases))

    blind = Bilevel(exact.upper, exact.lower_fn, *exact.y0, lower_gradient=lower_gradient)
    case = f"greatest change, w in {penalties}; control: without the difference of f_x"
    return Verdict(change(exact), 0.05, change(blind), case)


@claim(
    PAPER,
    "With exact gradients the error falls like the bias, k^(-1/3): at ten times the steps it is at "
    "most 1.05 times 10^(-1/3) of what it was.",
)
def error_falls_like_the_bias(budget: Budget) -> Verdict:
    problem, steps = quartic_levels(), budget.pick(10_000, 100_000)

    def fall(method: AbstractMethod) -> float:
        errors = history(problem, method, steps)["distance"]
        return float(errors[steps] / errors[steps // 10])

    case = f"error after {steps} steps / after {steps // 10}; control: no second copy"
    return Verdict(fall(FullyFirstOrder()), 1.05 * 10 ** (-1 / 3), fall(Alternating()), case)


@claim(PAPER, "Not one product with a Hessian is asked.")
def fully_first_order_asks_no_hessian_product(budget: Budget) -> Verdict:
    def products(method: AbstractMethod) -> float:
        run = solve(Counted(quartic_levels()), method, rtol=0, atol=0, max_steps=100, throw=False)
        return float(run.stats.counts["product"])

    case = "products asked in 100 steps; control: implicit differentiation"
    return Verdict(products(FullyFirstOrder()), 0, products(ImplicitGradient()), case)


@claim(
    PAPER,
    "Where the upper level alone is noisy, momentum ends nearer to the solution than the plain "
    "method after as many gradients: at most 3/4 of its error.",
)
def momentum_pays_for_itself(budget: Budget) -> Verdict:
    steps, seeds = 2000, budget.pick(32, 256)
    draws = np.random.default_rng(0).normal(size=4000)
    exact = quartic_levels()
    problem = BilevelSum(
        _noisy, _quartic, *exact.y0, draws - draws.mean(), np.zeros(1), batch_size=1
    )

    def error(momentum: bool, steps: int) -> float:
        method = FullyFirstOrder(0.05, inner_steps=1, noise="upper", momentum=momentum)
        keys = jax.random.split(jax.random.key(0), seeds)
        ends = compiled(ends_of, problem, method, keys, steps)
        return float(np.sqrt(np.mean((ends - exact.facts.minimizer[0]) ** 2)))  # pyright: ignore

    # Momentum asks for each gradient at two points.
    plain, carried = error(False, 2 * steps), error(True, steps)
    case = f"root mean square of |x - x*| over {seeds} seeds, {steps} steps; control: plain, twice"
    return Verdict(carried, 0.75 * plain, plain, case)


def _noisy(x: Array, y: Array, draw: Array, args: None) -> Array:
    return (y - 2) ** 2 / 2 + x**2 / 10 + draw * (x + y)


def _quartic(x: Array, y: Array, draw: Array, args: None) -> Array:
    return y**2 / 2 + y**4 / 40 - x * y


def ends_of(problem: BilevelSum, method: AbstractMethod, keys: Array, steps: int) -> Array:
    """x after so many steps, for each key."""

    def one(key: Array) -> Array:
        def step(carry: Any, _: None) -> Any:
            return method.step(problem, *carry), None

        start = problem.y0, method.init(problem, problem.y0, key)
        return jax.lax.scan(step, start, length=steps)[0][0][0]

    return jax.vmap(one)(keys)
