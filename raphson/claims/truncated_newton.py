"""Truncated Newton: conjugate gradients reach half of what the trust region holds."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import raphson as rp

from ..problems import logistic_synthetic, rosenbrock
from ..roots import LeastSquares, TruncatedGaussNewton
from ..smooth import TruncatedNewton
from . import Budget, Paper, Verdict, claim
from ._history import history

PAPER = Paper(
    slug="truncated-newton",
    title="The Conjugate Gradient Method and Trust Regions in Large Scale Optimization",
    authors="Steihaug",
    year=1983,
    implements=("raphson.smooth.TruncatedNewton", "raphson.roots.TruncatedGaussNewton"),
    note="That a step falls at least half as far as the best one of its length is Yuan's (2000); "
    "the scaling is not of the paper.",
)


def _farthest_fall(curvature: np.ndarray, slope: np.ndarray, radius: float) -> float:
    """How far <g, h> + <H h, h> / 2 falls at most where |h| <= r, for a diagonal H > 0."""
    low, high = 0.0, float(np.linalg.norm(slope) / radius)
    for _ in range(200):
        shift = (low + high) / 2
        longer = np.linalg.norm(slope / (curvature + shift)) > radius
        low, high = (shift, high) if longer else (low, shift)
    h = -slope / (curvature + high)
    return float(-slope @ h - curvature @ h**2 / 2)


@claim(
    PAPER,
    "On a convex quadratic a step that ends on the border falls at least half as far as the best "
    "step of its length, however bad the condition.",
)
def truncated_step_falls_half_as_far_as_the_best(budget: Budget) -> Verdict:
    n, cases = budget.pick((20, 100), (60, 1000))
    rng = np.random.default_rng(0)
    curvatures = 10 ** rng.uniform(-3, 3, (cases, n))
    # The minimum lies a few times as far as the border.
    slopes = curvatures * rng.normal(size=(cases, n)) * 3 / np.sqrt(n)
    best = [_farthest_fall(c, g, 1.0) for c, g in zip(curvatures, slopes)]

    def least_ratio(max_products: int) -> float:
        method = TruncatedNewton(1.0, max_products)

        def fall(curvature: jax.Array, slope: jax.Array) -> jax.Array:
            f = lambda y, _: jnp.vdot(slope, y) + jnp.vdot(curvature, y**2) / 2
            run = rp.solve(rp.Minimize(f, jnp.zeros(n)), method, max_steps=1, throw=False)
            return -run.state.region.value

        # Of all steps: the few that end inside, where the tolerance is met, are no worse.
        found = jax.jit(jax.vmap(fall))(jnp.asarray(curvatures), jnp.asarray(slopes))
        return float(np.min(np.asarray(found) / best))

    case = f"least ratio over {cases} quadratics of {n} unknowns; control: the Cauchy step"
    return Verdict(least_ratio(5000), 0.5, least_ratio(1), case, at_most=False)


@claim(
    PAPER,
    "With a tolerance of sqrt |g| inside, the convergence is superlinear: the factor by which a "
    "step shrinks |g| falls towards 0.",
)
def truncated_newton_is_superlinear(budget: Budget) -> Verdict:
    n, d = budget.pick((200, 30), (500, 100))
    problem = logistic_synthetic(n, d, regularization=1e-3)

    def best_factor(max_products: int) -> float:
        norm = history(problem, TruncatedNewton(max_products=max_products), 25)["residual"]
        ahead = norm[1:] > 1e-13  # below, |g| is rounding
        return float(np.min((norm[1:] / norm[:-1])[ahead]))

    case = "least |g+| / |g| above rounding; control: three products a step"
    return Verdict(best_factor(5000), 1e-2, best_factor(3), case)


@claim(
    PAPER,
    "Conjugate gradients need few products where a quadratic has few different curvatures: with "
    "five of them between 1 and 1e4 some thirty products minimize it to |g| <= 1e-8.",
)
def conjugate_directions_spare_products(budget: Budget) -> Verdict:
    curvature = jnp.asarray(np.repeat(np.geomspace(1, 1e4, 5), budget.pick(4, 40)))
    f = lambda y, c: jnp.vdot(c, y**2) / 2
    problem = rp.Counted(rp.Minimize(f, jnp.ones_like(curvature), curvature))

    def products(max_products: int) -> float:
        method = TruncatedNewton(1e6, max_products)
        solution = rp.solve(problem, method, rtol=0.0, atol=1e-8, throw=False)
        return float(solution.stats.counts["product"])

    case = f"products in {curvature.size} unknowns; control: one a step, which is steepest descent"
    return Verdict(products(5000), 30, products(1), case)


@claim(
    PAPER,
    "Where random signs tell the sizes of the unknowns, units from 1e-4 to 1e4 do not keep it from "
    "the end of Rosenbrock's valley.",
)
def scaled_unknowns_bear_bad_units(budget: Budget) -> Verdict:
    n = budget.pick(20, 100)
    units = jnp.asarray(10 ** np.random.default_rng(0).uniform(-4, 4, n))
    valley = rosenbrock(n).fn
    problem = rp.Minimize(lambda y, units: valley(y / units, None), -units, units)
    steps = 10 * n

    def reached(scaled_after: int) -> float:
        method = TruncatedNewton(scaled_after=scaled_after)
        return float(history(problem, method, steps)["value"][-1])

    case = f"f after {steps} steps, {n} unknowns; control: in the unknowns as they are"
    return Verdict(reached(0), 1e-12, reached(steps), case)


@claim(
    PAPER,
    "With J'J in the place of the Hessian the convergence is superlinear, too, where the residual "
    "is 0 in the end.",
)
def truncated_gauss_newton_is_superlinear_at_a_root(budget: Budget) -> Verdict:
    n = budget.pick(100, 1000)

    def equations(y: jax.Array, weight: jax.Array) -> jax.Array:
        beside = jnp.roll(y, 1)
        return jnp.concatenate([3 * y + y**2 - beside - 1, weight * (y**2 + 1)])

    def best_factor(weight: float) -> float:
        problem = LeastSquares(equations, jnp.linspace(-1.0, 2.0, n), jnp.array(weight))
        norm = history(problem, TruncatedGaussNewton(), 25)["residual"]
        ahead = norm[1:] > 1e-13  # below, |g| is rounding
        return float(np.min((norm[1:] / norm[:-1])[ahead]))

    case = f"least |g+| / |g| above rounding, {n} unknowns; control: equations without a root"
    return Verdict(best_factor(0.0), 1e-2, best_factor(1.0), case)
