"""Hard chains: to find a stationary point takes a query for each coordinate, or 1 / q of them."""

from __future__ import annotations

from typing import Any

import equinox as eqx
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
from ..wrappers import Scaled
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


def _methods(smoothness: float = 152.0, length: float = 1.0) -> list[Any]:
    """Four methods on a chain of that smoothness, whose links are so long."""
    short = 1 / smoothness
    leaps = LEAPS if length == 1 else optax.sign_sgd(length)
    return [GradientDescent(short), HeavyBall(short), optax.adam(0.1 * length), leaps]


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
    "Rescaled to L s^2/152 f(y / s), s = 152 e / L, a chain of n = L D / (1824 e^2) links with "
    "f(0) - inf f <= D lets gradient descent, heavy ball, Adam and sign descent find no |g| <= e "
    "with n gradients: that takes of the order L D / e^2.",
)
def stationary_points_take_the_inverse_square(budget: Budget) -> Verdict:
    L, D = 10.0, 7.0
    links = budget.pick((5, 20), (5, 20, 80))

    def least(n: int) -> np.ndarray:
        """The least |g| / e that a method sees from 0, and from 0.6 s in all entries."""
        e = (L * D / (1824 * n)) ** 0.5
        s = 152 * e / L
        scale = L * s**2 / 152
        methods, chain = _methods(L, s), hard_nonconvex_chain(n)
        falls = scale * (chain.value(chain.y0) - chain.facts.optimum)

        def seen(shown: float) -> float:
            start = eqx.tree_at(lambda p: p.y0, chain, jnp.full(n, shown))
            problem = Scaled(start, 1 / s, scale)
            later = [np.min(_run(problem, method, n - 1)["slope"]) for method in methods]
            return float(min(otu.norm(problem.gradient(problem.y0)), *later)) / e

        return np.array([seen(0.0) if falls <= D else 0.0, seen(0.6)])

    measured, control = np.min([least(n) for n in links], axis=0)
    case = (
        f"least |g| / e among the first n gradients of each method, L = {L:g}, D = {D:g}, e such "
        f"that n = {', '.join(map(str, links))}; control: from 0.6 s in all entries, which shows "
        "all links"
    )
    return Verdict(float(measured), 1.0, float(control), case, at_most=False)


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
    run = compiled(_seen, problem, as_method(method), steps)
    return {name: np.asarray(column) for name, column in run.items()}


def _runs(problem: Any, method: Any, steps: int, keys: Array) -> dict[str, Array]:
    return jax.vmap(lambda key: _seen(problem, method, steps, key))(keys)


def _seen(problem: Any, method: Any, steps: int, key: Array | None = None) -> dict[str, Array]:
    """After each step: how many coordinates are not 0, the last of them, and |g|."""
    door = problem.without_facts

    def step(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], dict[str, Array]]:
        y, state = method.step(door, *carry)
        slope = otu.norm(problem.gradient(y))
        return (y, state), {"moved": jnp.sum(y != 0), "last": y[-1], "slope": slope}

    start = problem.y0, method.init(door, problem.y0, key)
    return jax.lax.scan(step, start, length=steps)[1]
