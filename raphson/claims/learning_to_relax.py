"""The relaxation parameter of SOR, learned across a sequence of linear systems."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..compiled import compiled
from ..linear import SOR, ChebCB, TsallisINF
from ..linear.tune_online import AbstractTuner
from ..method import iterate
from ..problems import poisson
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="learning-to-relax",
    title=(
        "Learning to Relax: Setting Solver Parameters Across a Sequence of Linear System Instances"
    ),
    authors="Khodak, Chow, Balcan, Talwalkar",
    year=2024,
    implements=(
        "raphson.linear.TsallisINF",
        "raphson.linear.ChebCB",
        "raphson.linear.SOR",
        "raphson.linear.SSOR",
        "raphson.linear.solve_sequence",
    ),
    note=(
        "The paper's experiment: 10 x 10 five-point Laplacians plus c I, c = -0.15 + 0.6 "
        "Beta(1/2, 3/2), right-hand sides from a truncated normal, 20 values of omega, relative "
        "residual 1e-8 (double precision). Sequences are drawn with replacement from a pool of "
        "systems whose costs are computed once. Tsallis-INF settles slowly: with 20 values it is "
        "within a fifth of the best fixed omega only after some 1000 systems. ChebCB keeps the "
        "form of the bound in the authors' code, with the regret of the regression bounded by "
        "its squared error, and fits a value anew only when that value was tried."
    ),
)

GRID = jnp.linspace(1.0, 1.95, 20)
INTERVAL = (-0.15, 0.65)
ROUNDS = 5000
SEEDS = 3


@claim(
    PAPER,
    "Tsallis-INF, which sees nothing but iteration counts, approaches the best fixed omega in "
    "hindsight.",
)
def tsallis_inf_approaches_the_best_fixed_omega(budget: Budget) -> Verdict:
    costs, shifts = _pool(budget)
    orders = _orders(len(costs))
    half = orders[:, ROUNDS // 2 :]
    best = costs[half].sum(1).min(1)
    learned = _paid(TsallisINF(GRID), costs, shifts, orders)[:, ROUNDS // 2 :]
    arms = np.random.default_rng(0).integers(0, len(GRID), half.shape)
    case = (
        f"iterations over the last {half.shape[1]} of {ROUNDS} systems (pool of {len(costs)}) by "
        f"those of the best fixed omega, median of {SEEDS} seeds; control: omega at random"
    )
    return Verdict(
        measured=np.median(learned.sum(1) / best).item(),
        threshold=1.2,
        control=np.median(costs[half, arms].sum(1) / best).item(),
        case=case,
    )


@claim(
    PAPER,
    "ChebCB, which sees the shift as well, approaches the policy that takes the best omega for "
    "each system.",
)
def cheb_cb_approaches_the_instance_optimal_policy(budget: Budget) -> Verdict:
    costs, shifts = _pool(budget)
    orders = _orders(len(costs))
    half = orders[:, ROUNDS // 2 :]
    best = costs.min(1)[half].sum(1)

    def ratio(contexts: np.ndarray) -> float:
        learned = _paid(ChebCB(GRID, INTERVAL), costs, contexts, orders)[:, ROUNDS // 2 :]
        return np.median(learned.sum(1) / best).item()

    case = (
        f"iterations over the last {half.shape[1]} of {ROUNDS} systems (pool of {len(costs)}) by "
        f"those of the best omega for each, median of {SEEDS} seeds; control: shifts interchanged"
    )
    shuffled = np.random.default_rng(0).permutation(shifts)
    return Verdict(ratio(shifts), 1.2, ratio(shuffled), case)


@claim(
    PAPER,
    "Learning pays from the first system on: all systems together take less than a third of the "
    "iterations of Gauss-Seidel, omega = 1.",
)
def learning_pays_from_a_cold_start(budget: Budget) -> Verdict:
    costs, shifts = _pool(budget)
    orders = _orders(len(costs))
    plain = costs[orders, 0].sum(1)
    learned = _paid(TsallisINF(GRID), costs, shifts, orders).sum(1)
    arms = np.random.default_rng(0).integers(0, len(GRID), orders.shape)
    case = (
        f"iterations of Tsallis-INF over {ROUNDS} systems (pool of {len(costs)}) by those of "
        f"omega = 1, median of {SEEDS} seeds; control: omega at random"
    )
    return Verdict(
        measured=np.median(learned / plain).item(),
        threshold=1 / 3,
        control=np.median(costs[orders, arms].sum(1) / plain).item(),
        case=case,
    )


@functools.cache
def _pool(budget: Budget) -> tuple[np.ndarray, np.ndarray]:
    """What each omega costs on each system, shape (systems, 20), and the shifts of the systems."""
    rng = np.random.default_rng(0)
    shifts = -0.15 + 0.6 * rng.beta(0.5, 1.5, budget.pick(16, 200))
    # A normal vector truncated to the ball of radius sqrt(n), by rejection.
    normal = rng.normal(size=(12 * len(shifts), 100))
    each = 5
    inside = normal[np.linalg.norm(normal, axis=1) <= 10][: each * len(shifts)]
    costs = compiled(_costs, jnp.array(shifts), jnp.array(inside.reshape(len(shifts), each, 100)))
    return np.asarray(costs, float).reshape(-1, len(GRID)), np.repeat(shifts, each)


def _costs(shifts: Any, rhs: Any) -> Any:
    """Iterations, shape (shifts, right-hand sides, 20)."""

    def cost(shift: Any, omega: Any, b: Any) -> Any:
        problem = poisson((10, 10), shift, b)
        run = iterate(problem, SOR(omega), problem.y0, rtol=1e-8, atol=0.0, max_steps=10_000)
        return run.step

    def of_shift(given: Any) -> Any:
        shift, b = given
        # Systems that share a matrix are solved side by side.
        return jax.lax.map(lambda omega: jax.vmap(lambda b: cost(shift, omega, b))(b), GRID).T

    return jax.lax.map(of_shift, (shifts, rhs))


def _orders(systems: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, systems, (SEEDS, ROUNDS))


def _paid(
    tuner: AbstractTuner, costs: np.ndarray, contexts: np.ndarray, orders: np.ndarray
) -> np.ndarray:
    """What the tuner's choices cost, round by round, for each order of the systems."""
    keys = jax.random.split(jax.random.key(0), orders.shape)
    return np.asarray(compiled(_played, tuner, costs[orders], contexts[orders], keys))


def _played(tuner: AbstractTuner, costs: Any, contexts: Any, keys: Any) -> Any:
    def one_round(state: Any, given: Any) -> Any:
        row, context, key = given
        _, state = tuner.suggest(state, key, context)
        cost = row[state.arm]
        return tuner.observe(state, cost), cost

    def one_order(*given: Any) -> Any:
        return jax.lax.scan(one_round, tuner.init(), given)[1]

    return jax.vmap(one_order)(costs, contexts, keys)
