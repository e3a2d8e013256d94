"""Learning as the composition of lenses: model, loss, optimizer."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..train import Learner, Lens, reverse_derivative
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="categorical-learning",
    title="Categorical Foundations of Gradient-Based Learning",
    authors="Cruttwell, Gavranovic, Ghani, Wilson, Zanasi",
    year=2022,
    implements=(
        "raphson.train.Lens",
        "raphson.train.reverse_derivative",
        "raphson.train.from_optax",
        "raphson.train.to_optax",
    ),
    note=(
        "What a state is at the start is outside of the theory. An optimizer that needs a gradient "
        "to look ahead, such as SAM, is no lens without its own access to the loss."
    ),
)
_RATE, _MOMENTUM = 0.05, 0.9


@claim(
    PAPER,
    "Nesterov's optimizer is the lens of momentum with another `get`: Optax's parameters are where "
    "that looks ahead.",
)
def nesterov_is_momentum_that_looks_ahead(budget: Budget) -> Verdict:
    def put(x: Any, gradient: Array) -> Any:
        velocity, params = x
        velocity = _MOMENTUM * velocity - _RATE * gradient
        return velocity, params + velocity

    steps, theirs = budget.pick(50, 1000), optax.sgd(_RATE, _MOMENTUM, nesterov=True)

    def deviation(ahead: float) -> float:
        lens = Lens(lambda x: x[1] + ahead * x[0], put)
        return _deviation(lens, jnp.zeros_like, theirs, steps)

    case = f"greatest deviation over {steps} steps on a network; control: the identity for `get`"
    return Verdict(deviation(_MOMENTUM), 1e-5, deviation(0.0), case)


@claim(
    PAPER,
    "Schedule-free descent is one, too: its `get` lies between the point that moves and the mean.",
)
def schedule_free_is_a_lens(budget: Budget) -> Verdict:
    def put(x: Any, gradient: Array) -> Any:
        (t, mean), moved = x
        moved = moved - _RATE * gradient
        return (t + 1, mean + (moved - mean) / (t + 1)), moved

    def start(params: Array) -> Any:
        return jnp.zeros(()), params

    steps, theirs = budget.pick(50, 1000), optax.contrib.schedule_free_sgd(_RATE, b1=0.9)

    def deviation(share: float) -> float:
        lens = Lens(lambda x: (1 - share) * x[1] + share * x[0][1], put)
        return _deviation(lens, start, theirs, steps)

    case = (
        f"greatest deviation from Optax's over {steps} steps on a network; control: the gradient "
        "taken at the mean"
    )
    return Verdict(deviation(0.9), 1e-5, deviation(1.0), case)


def _deviation(lens: Lens, start: Any, theirs: optax.GradientTransformation, steps: int) -> float:
    """Between where the lens takes its gradients and where Optax does, over a run."""
    rng = np.random.default_rng(0)
    w, a, b = (jnp.asarray(rng.normal(size=size)) for size in ((20,), (8, 3), (8, 1)))

    def network(x: Any) -> Float[Array, "n 1"]:
        w, a = x
        hidden = jnp.tanh(a @ w[:12].reshape(3, 4) + w[16:][None])
        return hidden @ w[12:16].reshape(4, 1)

    model = reverse_derivative(network, Learner)
    loss = reverse_derivative(lambda out: jnp.mean((out - b) ** 2))
    learning = (lens * Lens()) >> model >> loss

    def ours(x: Any, _: None) -> tuple[Any, Array]:
        x, _ = learning.put((x, a), jnp.ones(()))
        return x, lens.get(x)

    def optax_step(carry: Any, _: None) -> tuple[Any, Array]:
        state, w = carry
        gradient = jax.grad(lambda w: loss.get(network((w, a))))(w)
        updates, state = theirs.update(gradient, state, w)
        return (state, w + updates), w + updates  # pyright: ignore

    _, path = jax.lax.scan(ours, (start(w), w), length=steps)
    _, expected = jax.lax.scan(optax_step, (theirs.init(w), w), length=steps)
    return float(jnp.max(jnp.abs(path - expected)))
