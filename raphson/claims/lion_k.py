"""Lion-K: decay of weights is a bound on weights, and a Lyapunov function shows it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.tree as otu
from jaxtyping import Array, Float

from ..compiled import compiled
from ..train import lion_k
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="lion-k",
    title="Lion Secretly Solves Constrained Optimization: As Lyapunov Predicts",
    authors="Chen, Liu, Liang, Liu",
    year=2023,
    implements=("raphson.train.lion_k",),
    note=(
        "optax.lion is Lion-K with the sign, to rounding. Both multiply the decay by the learning "
        "rate, so that the bound 1 / weight_decay does not depend on it."
    ),
)

# f = sum of a (x - c)^2 / 2, and its least point within [-1, 1]^3.
_A, _C = np.array([1.0, 5.0, 20.0]), np.array([3.0, -2.0, 0.2])
_NEAREST = np.array([1.0, -1.0, 0.2])


@claim(
    PAPER,
    "Whatever the gradients are, what exceeds the bound in lambda |x|_inf <= 1 shrinks by "
    "1 - learning_rate lambda at every step.",
)
def weights_come_within_the_bound_whatever_the_gradients(budget: Budget) -> Verdict:
    decay, rate, steps = 0.5, 0.01, budget.pick(500, 5000)
    # Some entries are pushed outwards at every step, the others at random.
    gradients = np.random.default_rng(0).normal(size=(steps, 20))
    gradients[:, ::2] = -1
    start = 10.0

    def excess(coupled: bool) -> float:
        plain = lion_k(rate, weight_decay=0.0 if coupled else decay)
        optimizer = optax.chain(optax.add_decayed_weights(decay if coupled else 0.0), plain)
        path, _ = compiled(_path, optimizer, np.full(20, start), 0.0, gradients)
        outside = decay * np.max(np.abs(path), axis=1) - 1
        bound = (1 - rate * decay) ** np.arange(1, steps + 1) * (decay * start - 1)
        return float(np.max(outside - bound))

    case = f"greatest excess over the bound in {steps} steps; control: decay within the gradient"
    return Verdict(excess(False), 1e-5, excess(True), case)


@claim(
    PAPER,
    "Lion with weight decay lambda minimizes f subject to |x|_inf <= 1 / lambda.",
)
def lion_solves_the_problem_in_a_box(budget: Budget) -> Verdict:
    rate, steps = 2e-3, budget.pick(5000, 50_000)

    def distance(coupled: bool) -> float:
        plain = lion_k(rate, weight_decay=0.0 if coupled else 1.0)
        optimizer = optax.chain(optax.add_decayed_weights(1.0 if coupled else 0.0), plain)
        path, _ = compiled(_path, optimizer, np.zeros(3), _A, np.tile(-_A * _C, (steps, 1)))
        return float(np.max(np.abs(path[-1] - _NEAREST)))

    case = "distance to (1, -1, 0.2), a = (1, 5, 20); control: decay within the gradient"
    return Verdict(distance(False), 2 * rate, distance(True), case)


@claim(
    PAPER,
    "With a smooth K and small steps, alpha f + (gamma / lambda) K*(lambda x) + (1 - e gamma) / "
    "(1 + e lambda) (K*(lambda x) + K(m) - lambda m'x) falls all the way, which f does not.",
)
def lyapunov_function_falls(budget: Budget) -> Verdict:
    b1, b2, rate, smooth = 0.9, 0.999, 1e-3, 0.1
    # The rates of the paper's differential equation that these stand for.
    gamma = (1 - b2) / rate
    optimizer = lion_k(rate, b1, b2, lambda m: m / jnp.sqrt(m**2 + smooth**2), weight_decay=1.0)
    # Two entries are nearly at rest, and the third swings about its own.
    start = np.array([0.9, -0.9, -0.9])
    shifts = np.tile(-_A * _C, (budget.pick(10_000, 50_000), 1))
    path, momenta = map(np.asarray, compiled(_path, optimizer, start, _A, shifts))
    value = np.sum(_A * (path - _C) ** 2, axis=1) / 2
    conjugate = -smooth * np.sum(np.sqrt(1 - path**2), axis=1)
    k = np.sum(np.sqrt(momenta**2 + smooth**2), axis=1)
    coupling = b1 / (1 + (1 - b1) / gamma) * (conjugate + k + np.sum(momenta * path, axis=1))
    lyapunov = gamma * value + gamma * conjugate + coupling

    def greatest_rise(along: Float[np.ndarray, " t"]) -> float:
        return float(np.max(along - np.minimum.accumulate(along)) / np.ptp(along))

    case = "greatest rise over the whole fall, K = sum of sqrt(m^2 + 0.01), lambda = 1; control: f"
    return Verdict(greatest_rise(lyapunov), 1e-5, greatest_rise(value), case)


def _path(
    optimizer: optax.GradientTransformation,
    x: Float[Array, " n"],
    curvature: Float[Array, " n"],
    shifts: Float[Array, "t n"],
) -> tuple[Float[Array, "t n"], Float[Array, "t n"]]:
    """Where gradients curvature x + shift bring x, and the momentum there."""

    def step(carry: tuple[Any, Any], shift: Float[Array, " n"]) -> tuple[Any, Any]:
        x, state = carry
        change, state = optimizer.update(curvature * x + shift, state, x)
        return (x + change, state), (x + change, otu.get(state, "m"))

    return jax.lax.scan(step, (x, optimizer.init(x)), shifts)[1]
