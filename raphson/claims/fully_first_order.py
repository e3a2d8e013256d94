"""The fully first-order method: hypergradients of two lower copies, without a Hessian product."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..bilevel import BilevelSum, FullyFirstOrder, ImplicitGradient
from ..bilevel.problem import AbstractBilevel
from ..compiled import compiled
from ..engine import solve
from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ..problems import quartic_levels
from ..smooth.problem import Minimize
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
    "The gradient of the penalized problem has a bias of C / w: w times the bias changes by at "
    "most 5 % between w = 100 and 1000.",
)
def bias_falls_like_one_over_the_penalty(budget: Budget) -> Verdict:
    problem, x, penalties = quartic_levels(), jnp.array(1.0), (100.0, 1000.0)

    def least(fn: Any, w: float) -> Array:
        return solve(Minimize(fn, problem.y0[1], w), rtol=0.0, atol=1e-12).value

    def lower(y: Array, w: Any) -> Array:
        return problem.lower_objective(x, y, None)

    def penalized(y: Array, w: Any) -> Array:
        return problem.upper_objective(x, y, None) + w * lower(y, w)

    def biases(difference: bool) -> np.ndarray:
        found = []
        for w in penalties:
            y = least(penalized, w)
            F_x, f_x, f_z = (
                problem.upper_gradient(x, y, None)[0],
                problem.lower_gradient(x, y, None)[0],
                problem.lower_gradient(x, z, None)[0],
            )
            found.append(w * abs(float(F_x + difference * w * (f_x - f_z) - exact)))
        return np.array(found)

    z = least(lower, 0.0)
    f_xy, f_yy = problem.lower_product(x, z, jnp.array(1.0), None)
    F_x, F_y = problem.upper_gradient(x, z, None)
    exact = F_x - f_xy / f_yy * F_y
    by_penalty, by_none = (float(w[1] / w[0] - 1) for w in map(biases, (True, False)))
    case = f"change of w |bias| at x = 1, w in {penalties}; control: F_x without the difference"
    return Verdict(abs(by_penalty), 0.05, abs(by_none), case)


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
        ends = compiled(_ends, problem, method, keys, steps)
        return float(np.sqrt(np.mean((ends - exact.facts.minimizer[0]) ** 2)))  # pyright: ignore

    # Momentum asks for each gradient at two points.
    plain, carried = error(False, 2 * steps), error(True, steps)
    case = f"root mean square of |x - x*| over {seeds} seeds, {steps} steps; control: plain, twice"
    return Verdict(carried, 0.75 * plain, plain, case)


def _noisy(x: Array, y: Array, draw: Array, args: None) -> Array:
    return (y - 2) ** 2 / 2 + x**2 / 10 + draw * (x + y)


def _quartic(x: Array, y: Array, draw: Array, args: None) -> Array:
    return y**2 / 2 + y**4 / 40 - x * y


def _ends(problem: BilevelSum, method: AbstractMethod, keys: Array, steps: int) -> Array:
    """x after so many steps, for each key."""

    def one(key: Array) -> Array:
        def step(carry: Any, _: None) -> Any:
            return method.step(problem, *carry), None

        start = problem.y0, method.init(problem, problem.y0, key)
        return jax.lax.scan(step, start, length=steps)[0][0][0]

    return jax.vmap(one)(keys)
