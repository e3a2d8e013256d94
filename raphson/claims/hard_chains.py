"""Hard chains: to find a stationary point takes a query for each coordinate, or 1 / q of them."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.tree as otu
from jaxtyping import Array

from ..compiled import compiled
from ..lifts import as_method
from ..problems import hard_nonconvex_chain, hard_stochastic_chain
from ..smooth import GradientDescent, HeavyBall
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="hard-chains",
    title="Quantum Lower Bounds for Finding Stationary Points of Nonconvex Functions",
    authors="Zhang, Li",
    year=2022,
    implements=(
        "raphson.problems.hard_nonconvex_chain",
        "raphson.problems.hard_stochastic_chain",
    ),
    note="That quantum queries are no faster is not programmable; checked are the classical "
    "instances it builds on, those of Carmon, Duchi, Hinder, Sidford (2017) and Arjevani, Carmon, "
    "Duchi, Foster, Srebro, Woodworth (2019). The factor 1 / q is seen at steps so long that one "
    "sight of a coordinate suffices; with short steps a coordinate takes many, and a hidden "
    "gradient that is 1 / q times longer makes up for its being rare.",
)

# Steps by the sign of the gradient, as long as the links of the chain: none is faster on it.
LEAPS = optax.sign_sgd(1.0)


def _methods() -> list[Any]:
    smoothness = hard_nonconvex_chain().facts.lipschitz
    short = 1 / smoothness  # pyright: ignore[reportOptionalOperand]
    return [GradientDescent(short), HeavyBall(short), optax.adam(0.1), LEAPS]


@claim(
    PAPER,
    "After k gradients, gradient descent, heavy ball, Adam and sign descent have moved at most k "
    "coordinates, and sign descent exactly k.",
)
def each_gradient_moves_one_coordinate_more(budget: Budget) -> Verdict:
    n = 30
    gradients = np.arange(1, n + 1)

    def excess(problem: Any) -> float:
        moved = [_run(problem, method, n)["moved"] for method in _methods()]
        return float(max(np.max(count - gradients) for count in moved))

    plain = hard_nonconvex_chain(n)
    exact = bool(np.all(_run(plain, LEAPS, n)["moved"] == gradients))
    case = f"most coordinates beyond k over {n} steps, n = {n}; control: the chain rotated"
    measured = excess(plain) if exact else np.inf
    return Verdict(measured, 0.0, excess(hard_nonconvex_chain(n, seed=0)), case)


@claim(
    PAPER,
    "The gradient of gradient descent, heavy ball, Adam and sign descent stays above 1 until the "
    "last coordinate has come to 1.",
)
def the_gradient_stays_until_the_end_of_the_chain(budget: Budget) -> Verdict:
    n = budget.pick(10, 30)
    steps = 400 * n
    before, after = [], []
    for method in _methods():
        run = _run(hard_nonconvex_chain(n), method, steps)
        arrived = int(np.argmax(np.abs(run["last"]) >= 1))
        before.append(np.min(run["slope"][:arrived]))
        after.append(np.min(run["slope"][arrived:]))
    case = f"least |g| until then, n = {n}; control: greatest of the least |g| from then on"
    return Verdict(float(min(before)), 1.0, float(max(after)), case, at_most=False)


@claim(
    PAPER,
    "If the next link shows in one of 10 samples, sign descent takes about 10 times the queries to "
    "reach the end of the chain, at least 8 times.",
)
def hidden_links_cost_their_rarity(budget: Budget) -> Verdict:
    n, seeds = 30, budget.pick(16, 128)
    exact = _arrival(_run(hard_nonconvex_chain(n), LEAPS, n)["last"])
    keys = jax.random.split(jax.random.key(0), seeds)

    def queries(batch_size: int) -> float:
        problem = hard_stochastic_chain(n, 10, batch_size=batch_size)
        run = compiled(_runs, problem, as_method(LEAPS), 30 * n, keys)
        return float(np.median([_arrival(last) for last in np.asarray(run["last"])]))

    case = f"median of {seeds} runs over {exact:.0f} steps, n = {n}; control: batches of 10 samples"
    return Verdict(queries(1) / exact, 8.0, queries(10) / exact, case, at_most=False)


def _arrival(last: np.ndarray) -> float:
    """After how many steps the last coordinate has come to 1, infinity for never."""
    arrived = np.abs(last) >= 1
    return float(np.argmax(arrived) + 1) if np.any(arrived) else np.inf


def _run(problem: Any, method: Any, steps: int) -> dict[str, np.ndarray]:
    run = compiled(partial(_seen, key=None), problem, as_method(method), steps)
    return {name: np.asarray(column) for name, column in run.items()}


def _runs(problem: Any, method: Any, steps: int, keys: Array) -> dict[str, Array]:
    return jax.vmap(lambda key: _seen(problem, method, steps, key))(keys)


def _seen(problem: Any, method: Any, steps: int, key: Array | None) -> dict[str, Array]:
    """After each step: how many coordinates are not 0, the last of them, and |g|."""
    door = problem.without_facts

    def step(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], dict[str, Array]]:
        y, state = method.step(door, *carry)
        slope = otu.norm(problem.gradient(y))
        return (y, state), {"moved": jnp.sum(y != 0), "last": y[-1], "slope": slope}

    start = problem.y0, method.init(door, problem.y0, key)
    return jax.lax.scan(step, start, length=steps)[1]
