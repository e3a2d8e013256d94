"""Levenberg-Marquardt under Hoelder subregularity: what the power eta does to the rate."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import raphson as rp

from ..compiled import compiled
from ..problems import circle_of_roots, cubic_root, moiety_network
from ..roots import LevenbergMarquardt, RootFind
from . import Budget, Paper, Verdict, claim
from ._history import history

PAPER = Paper(
    slug="levenberg-marquardt-holder",
    title="Local Convergence of the Levenberg-Marquardt Method under Hoelder Metric Subregularity",
    authors="Ahookhosh, Aragon Artacho, Fleming, Vuong",
    year=2019,
    implements=("raphson.roots.LevenbergMarquardt",),
    note="The theorems are local, and checked with the globalization off. The claim on networks is "
    "of any start, and checked with it on. The paper's biochemical networks are replaced by random "
    "ones with the same conservation laws.",
)


def _local(eta: float) -> LevenbergMarquardt:
    return LevenbergMarquardt(eta, globalized=False)


@claim(
    PAPER,
    "Near a curve of zeros to which |h| bounds the distance (delta = 1), eta = 1 and eta = 2 "
    "converge quadratically to the curve.",
)
def converges_quadratically_to_a_curve_of_zeros(budget: Budget) -> Verdict:
    rng = np.random.default_rng(0)
    starts = rng.standard_normal((budget.pick(10, 200), 2))
    starts *= rng.uniform(1.1, 1.3, (len(starts), 1)) / np.linalg.norm(starts, axis=1)[:, None]

    def order(method: LevenbergMarquardt) -> float:
        ys = np.asarray(compiled(_paths, circle_of_roots(), method, jnp.asarray(starts)))
        distance = np.abs(np.linalg.norm(ys, axis=2) - 1)

        def slope(d: np.ndarray) -> float:
            kept = d[1:] > 1e-13  # below is rounding
            return float(np.polyfit(np.log(d[:-1][kept]), np.log(d[1:][kept]), 1)[0])

        return float(np.median([slope(d) for d in distance]))

    fixed = LevenbergMarquardt(eta=1e-6, xi=1e-2, globalized=False)  # mu stays at 1e-2
    case = (
        "order of convergence of the distance to the circle, fitted from |y| in [1.1, 1.3], median "
        f"of {len(starts)} starts, the lesser of eta = 1 and 2; control: mu = 1e-2 for ever"
    )
    return Verdict(min(map(order, map(_local, (1.0, 2.0)))), 1.8, order(fixed), case, at_most=False)


def _paths(problem: RootFind, method: LevenbergMarquardt, starts: Array) -> Float[Array, "k 9 2"]:
    """The iterates from each start, with it."""

    def path(y: Array) -> Array:
        step = lambda carry, _: (method.step(problem, *carry), carry[0])
        return jax.lax.scan(step, (y, method.init(problem, y, None)), length=9)[1]

    return jax.vmap(path)(starts)


@claim(
    PAPER,
    "On h = x^3 (delta = 1/3) the step shrinks x by exactly 0.7 at eta = 4/3 with xi = 1, the "
    "power that separates linear from sublinear convergence.",
)
def power_of_the_cube_is_four_thirds(budget: Budget) -> Verdict:
    problem = cubic_root()

    def error(eta: float) -> float:
        x = np.cbrt(history(problem, _local(eta), 40)["residual"])
        return float(abs(x[-1] / x[-2] - 0.7))

    return Verdict(
        error(4 / 3), 1e-6, error(1.2), "|ratio - 0.7| after 40 steps; control: eta = 1.2"
    )


@claim(
    PAPER,
    "On h = x^3 a power above 4/3 keeps Newton's rate 2/3, and one below is sublinear.",
)
def larger_powers_keep_the_rate_of_newton(budget: Budget) -> Verdict:
    problem = cubic_root()

    def ratio(eta: float) -> float:
        x = np.cbrt(history(problem, _local(eta), 40)["residual"])
        return float(x[-1] / x[-2])

    return Verdict(
        ratio(2.0), 2 / 3 + 1e-3, ratio(1.0), "ratio after 40 steps, eta = 2; control: eta = 1"
    )


@claim(
    PAPER,
    "Not reproduced: that steady states of networks with conserved moieties are found to 1e-10 in "
    "100 steps from any random start. On a random network they are from 38 of 64, where in the "
    "others concentrations run off to 0, and from all starts near the root.",
    reproduces=False,
)
def not_every_start_finds_the_steady_state(budget: Budget) -> Verdict:
    problem = moiety_network()
    keys = jax.random.split(jax.random.key(0), budget.pick(16, 64))

    def share(center: jax.Array | float, spread: float) -> float:
        def solved(key: jax.Array) -> jax.Array:
            start = center + spread * jax.random.normal(key, problem.y0.shape)
            moved = eqx.tree_at(lambda p: p.y0, problem, start)
            options = {"rtol": 0.0, "atol": 1e-10, "max_steps": 100, "throw": False}
            return rp.solve(moved, LevenbergMarquardt(), **options).converged

        return float(jnp.mean(jax.vmap(solved)(keys)))

    case = f"share of {len(keys)} standard normal starts; control: of starts near the root"
    return Verdict(share(0.0, 1.0), 0.8, share(problem.facts.minimizer, 0.1), case)
