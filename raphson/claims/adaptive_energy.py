"""Gradient descent with energy: stable at any step size, which is not to converge at any."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..compiled import compiled
from ..problem import Facts
from ..problems import quadratic, rosenbrock
from ..smooth import EnergyGradient, GradientDescent, Minimize
from . import Budget, Paper, Verdict, claim
from ._history import history

PAPER = Paper(
    slug="adaptive-energy",
    title="Adaptive Preconditioned Gradient Descent with Energy",
    authors="Liu, Nurbekyan, Tian, Yang",
    year=2023,
    implements=(
        "raphson.smooth.EnergyGradient",
        "raphson.smooth.hessian_riemannian",
        "raphson.train.aegd",
    ),
    note=(
        "The energy is one number, unless `elementwise` gives each unknown its own (AEGD, of Liu "
        "and Tian, 2020). That the method converges at any step size does not hold, as the claims "
        "on the energy that is used up say; nor that steps in the entropy's metric keep y > 0, "
        "which short steps only do."
    ),
)


@claim(PAPER, "The energy never grows, whatever the step size.")
def energy_never_grows(budget: Budget) -> Verdict:
    steps, sizes = budget.pick(200, 5000), (1e-3, 1e-2, 1.0, 1e3)

    def greatest_rise(make: Any) -> float:
        def rise(eta: float) -> Any:
            energy = make(eta)
            return np.max(np.diff(energy) / energy[0])

        return float(np.nan_to_num(np.max([rise(eta) for eta in sizes]), nan=np.inf))

    def of_descent(eta: float) -> np.ndarray:
        return np.sqrt(history(rosenbrock(), GradientDescent(eta), steps)["value"] + 1)

    case = (
        f"greatest rise of r over r_0 in {steps} steps, eta = 1e-3 to 1e3, Rosenbrock's function; "
        "control: sqrt(f + c) under gradient descent"
    )
    energies = lambda eta: np.asarray(compiled(_energies, rosenbrock(), EnergyGradient(eta), steps))
    return Verdict(greatest_rise(energies), 0.0, greatest_rise(of_descent), case)


@claim(
    PAPER,
    "In the entropy's metric least squares over y > 0 are solved to 1e-3 of f at the start with "
    "step sizes of a whole decade, 0.75 to 7.5, with each of which gradient descent diverges.",
)
def converges_where_descent_diverges(budget: Budget) -> Verdict:
    problem, steps = _positive_least_squares(), budget.pick(500, 5000)
    sizes = np.geomspace(0.75, 7.5, budget.pick(3, 9))

    def share(make: Any, pick: Any) -> float:
        values = [history(problem, make(float(eta)), steps)["value"] for eta in sizes]
        return float(pick(np.nan_to_num([v[-1] / v[0] for v in values], nan=np.inf)))

    case = (
        f"greatest f over that at the start after {steps} steps; control: the least of gradient "
        "descent"
    )
    entropic = lambda eta: EnergyGradient(eta, preconditioner=_entropy)
    return Verdict(share(entropic, np.max), 1e-3, share(GradientDescent, np.min), case)


@claim(
    PAPER,
    "Stable is not convergent: on quadratics of condition number 100 and with step sizes 10 to 100 "
    "times 1/L, the energy is used up and f stays above 0.1; a restart at 0.003 mends it.",
    reproduces=False,
)
def energy_is_used_up(_: Budget) -> Verdict:
    problem, steps = quadratic(np.geomspace(1, 100, 10)), 2000

    def values(restart: float) -> list[float]:
        methods = (EnergyGradient(eta, restart=restart) for eta in (0.1, 1.0))
        return [float(history(problem, method, steps)["value"][-1]) for method in methods]

    case = f"least f after {steps} steps, eta = 0.1 and 1; control: the greatest with restarts"
    return Verdict(min(values(0.0)), 0.1, max(values(0.003)), case, at_most=False)


@claim(
    PAPER,
    "On Rosenbrock's function with step sizes 0.01 and 0.1, at which gradient descent diverges, "
    "the method does not converge either: f, 24 at the start, stays above 2; with a restart at "
    "0.01 it does not.",
    reproduces=False,
)
def energy_is_used_up_in_rosenbrocks_valley(_: Budget) -> Verdict:
    steps = 2000

    def values(restart: float) -> list[float]:
        methods = (EnergyGradient(eta, restart=restart) for eta in (0.01, 0.1))
        return [float(history(rosenbrock(), method, steps)["value"][-1]) for method in methods]

    case = f"least f after {steps} steps; control: the greatest with restarts"
    return Verdict(min(values(0.0)), 2.0, max(values(0.01)), case, at_most=False)


@claim(
    PAPER,
    "A step in the entropy's metric may leave y > 0: from y = 1 on y^2 / 2 each step size above "
    "3/2 does at once.",
    reproduces=False,
)
def entropic_steps_may_leave_the_domain(_: Budget) -> Verdict:
    problem = Minimize(_half_square, jnp.ones(1), facts=Facts(minimizer=jnp.full(1, -10.0)))

    def reached(eta: float) -> float:
        method = EnergyGradient(eta, preconditioner=_entropy)
        return float(history(problem, method, 1)["distance"][1]) - 10

    return Verdict(reached(1.51), 0.0, reached(1.49), "y after one step, 1.51; control: 1.49")


def _energies(problem: Any, method: EnergyGradient, steps: int) -> Array:
    def step(carry: Any, _: None) -> tuple[Any, Array]:
        return method.step(problem, *carry), carry[1].energy

    start = problem.y0, method.init(problem, problem.y0, None)
    return jax.lax.scan(step, start, length=steps)[1]


def _positive_least_squares() -> Minimize:
    rng = np.random.default_rng(0)
    A, y = rng.uniform(size=(30, 10)), np.maximum(rng.normal(size=10), 0)
    return Minimize(_mean_square, jnp.ones(10), (jnp.asarray(A), jnp.asarray(A @ y)))


def _mean_square(y: Float[Array, " n"], args: tuple[Array, Array]) -> Float[Array, ""]:
    A, b = args
    return jnp.mean((A @ y - b) ** 2) / 2


def _half_square(y: Float[Array, " n"], _: None) -> Float[Array, ""]:
    return jnp.vdot(y, y) / 2


def _entropy(y: Array, v: Array) -> Array:
    return y * v
