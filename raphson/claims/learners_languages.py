"""Learners as machines: what stays true of their state whatever they are shown."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..train import Learner, Lens, from_optax, reverse_derivative
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="learners-languages",
    title="Learners' Languages",
    authors="Spivak",
    year=2021,
    implements=("raphson.train.Learner", "raphson.train.from_optax"),
    note=(
        "A learner is a machine: its state gives the function and its reverse, and a sample moves "
        "it. Only sets of states that no sample leads out of are checked; nothing is computed in "
        "the logic that the paper finds there."
    ),
)


@claim(
    PAPER,
    "The states of a learner that trains by Lion with decay whose weights are within "
    "1 / weight_decay make a machine of their own: no stream of samples leads out.",
)
def lion_has_a_closed_set_of_states(budget: Budget) -> Verdict:
    streams = budget.pick(100, 10_000)

    def farthest(optimizer: optax.GradientTransformation) -> float:
        return float(_farthest(optimizer, streams))

    case = f"largest weight over {streams} streams of 200 samples, weight_decay = 1; control: SGD"
    sgd = optax.chain(optax.add_decayed_weights(1.0), optax.sgd(0.05))
    lion = optax.lion(0.05, weight_decay=1.0)
    return Verdict(farthest(lion), 1 + 1e-5, farthest(sgd), case)


@claim(
    PAPER,
    "With weights whose unit is never on, a layer's machine gives the same outputs for ever.",
)
def dead_units_stay_dead(budget: Budget) -> Verdict:
    streams = budget.pick(100, 10_000)

    def greatest_change(bias: float) -> float:
        rng = np.random.default_rng(0)
        a, b = rng.uniform(-1, 1, size=(streams, 50, 3)), rng.normal(size=(streams, 50))
        w = jnp.array([0.5, -0.3, 0.1, bias])
        model = reverse_derivative(lambda x: jax.nn.relu(x[0][:3] @ x[1] + x[0][3]), Learner)
        machine = _machine(optax.sgd(0.1), model)

        def change(a: Any, b: Any) -> Any:
            (_, after), _ = jax.lax.scan(machine, (optax.sgd(0.1).init(w), w), (a, b))
            return jnp.max(jnp.abs(after - w))

        return float(jnp.max(jax.jit(jax.vmap(change))(jnp.asarray(a), jnp.asarray(b))))

    case = (
        f"greatest change of a weight over {streams} streams of inputs in [-1, 1], bias -1; "
        "control: bias 0"
    )
    return Verdict(greatest_change(-1.0), 0.0, greatest_change(0.0), case)


def _machine(optimizer: optax.GradientTransformation, model: Learner) -> Any:
    """The step of the state (of the optimizer, parameters) by a sample, for `jax.lax.scan`."""

    def step(state: Any, sample: Any) -> tuple[Any, None]:
        a, b = sample
        loss = reverse_derivative(lambda out: jnp.sum((out - b) ** 2) / 2)
        learning = (from_optax(optimizer) * Lens()) >> model >> loss
        return learning.put((state, a), jnp.ones(()))[0], None

    return step


def _farthest(optimizer: optax.GradientTransformation, streams: int) -> Any:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(streams, 200, 3)), 10 * rng.normal(size=(streams, 1)) + np.zeros(200)
    machine = _machine(optimizer, reverse_derivative(lambda x: x[0] @ x[1], Learner))

    def run(a: Any, b: Any) -> Any:
        w = jnp.zeros(3)
        (_, w), _ = jax.lax.scan(machine, (optimizer.init(w), w), (a, b))
        return jnp.max(jnp.abs(w))

    return jnp.max(jax.jit(jax.vmap(run))(jnp.asarray(a), jnp.asarray(b)))
