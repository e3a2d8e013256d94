"""Gradients through time: when they must vanish, what clipping and a penalty do about it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..compiled import compiled
from ..problems import temporal_order
from ..train import vanishing_gradient_penalty
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="recurrent-gradients",
    title="On the difficulty of training Recurrent Neural Networks",
    authors="Pascanu, Mikolov, Bengio",
    year=2013,
    implements=("optax.clip_by_global_norm", "raphson.train.vanishing_gradient_penalty"),
    note=(
        "Optax has the paper's clipping. Before an optimizer that divides by the size of "
        "gradients, such as Adam, it does little. Of the paper's tasks of long memory there is "
        "temporal order, with 20 symbols; the penalty is not tried on it."
    ),
)


@claim(
    PAPER,
    "Gradients of a tanh network shrink through k steps at least as fast as the largest singular "
    "value of the recurrent matrix to the k.",
)
def largest_singular_value_bounds_gradients(budget: Budget) -> Verdict:
    rng = np.random.default_rng(0)
    worst = np.zeros(2)
    for _ in range(budget.pick(20, 1000)):
        w, x, product = rng.normal(size=(20, 20)) / 10, 0.1 * rng.normal(size=20), np.eye(20)
        bases = np.linalg.norm(w, 2), np.max(np.abs(np.linalg.eigvals(w)))
        for k in range(1, 21):
            product = w * (1 - np.tanh(x) ** 2) @ product
            x = w @ np.tanh(x) + 0.1 * rng.normal(size=20)
            ratios = [np.linalg.norm(product, 2) / base**k for base in bases]
            worst = np.maximum(worst, ratios)
    case = "greatest ratio of the norm to the bound, k up to 20; control: the largest eigenvalue"
    return Verdict(float(worst[0]), 1 + 1e-12, float(worst[1]), case)


@claim(
    PAPER,
    "On the paper's network of one unit, whose loss has walls, gradient descent with gradients cut "
    "to norm 1 comes to the minimum from everywhere.",
)
def clipping_climbs_down_walls(budget: Budget) -> Verdict:
    points = budget.pick(15, 101)
    w, b = np.meshgrid(np.linspace(3, 7, points), np.linspace(-3.5, -1.5, points))
    starts = np.stack([w.ravel(), b.ravel()], axis=1)

    def solved(optimizer: optax.GradientTransformation) -> float:
        return float(np.mean(compiled(_wall_losses, optimizer, starts) < 1e-4))

    sgd = optax.sgd(0.3)
    case = (
        f"share of {points**2} starts with a loss below 1e-4 after 1000 steps; control: no clipping"
    )
    clipped = solved(optax.chain(optax.clip_by_global_norm(1.0), sgd))
    return Verdict(clipped, 0.99, solved(sgd), case, at_most=False)


@claim(
    PAPER,
    "With gradients cut to norm 1, stochastic gradient descent teaches a tanh network to tell in "
    "which order two of 20 symbols came; without, no better than chance.",
)
def clipping_learns_temporal_order(budget: Budget) -> Verdict:
    steps = budget.pick(2000, 4000)
    keys = jax.random.split(jax.random.key(0), budget.pick(1, 10))

    def loss(max_norm: float) -> float:
        return float(np.median(compiled(_learned, max_norm, steps, keys)))

    case = (
        f"held-out cross-entropy after {steps} batches of 20, learning rate 0.1, median over "
        f"{len(keys)} streams of batches; chance is log 4 = 1.39; control: without clipping"
    )
    return Verdict(loss(1.0), 0.1, loss(np.inf), case)


@claim(
    PAPER,
    "Minimizing the penalty brings gradients through time whose length was lost: through 20 steps "
    "to more than 0.1 of it.",
)
def penalty_keeps_gradients(budget: Budget) -> Verdict:
    rng = np.random.default_rng(0)
    w = rng.normal(size=(10, 10)) / 10
    inputs = 0.3 * rng.normal(size=(budget.pick(10, 100), 20, 10))
    before, after = compiled(_kept, w, inputs)
    case = "median |dE/dx| at the first step over that at the last; control: before"
    return Verdict(float(after), 0.1, float(before), case, at_most=False)


def _wall_losses(optimizer: Any, starts: Float[Array, "n 2"]) -> Float[Array, " n"]:
    def loss(params: Float[Array, "2"]) -> Float[Array, ""]:
        w, b = params

        def unit(x: Array, _: None) -> tuple[Array, None]:
            return w * jax.nn.sigmoid(x) + b, None

        x, _ = jax.lax.scan(unit, jnp.array(0.0), length=50)
        return (jax.nn.sigmoid(x) - 0.7) ** 2

    def descended(params: Float[Array, "2"]) -> Float[Array, ""]:
        def step(carry: tuple[Array, Any], _: None) -> tuple[tuple[Array, Any], None]:
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params), state)
            return (params + updates, state), None

        (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), length=1000)
        return loss(params)

    return jax.vmap(descended)(starts)


def _kept(
    w: Float[Array, "n n"], inputs: Float[Array, "batch t n"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The share of the gradient's length that comes through time, before and after."""

    def cell(w: Array, x: Array, u: Array) -> Array:
        return w @ jnp.tanh(x) + u

    def last(states: Array) -> Array:
        return jnp.sum(states[-1])

    start = jnp.zeros(len(w))

    def share(w: Array, us: Array) -> Array:
        def step(x: Array, u: Array) -> tuple[Array, Array]:
            x = cell(w, x, u)
            return x, x

        def end(x: Array) -> Array:
            return last(jax.lax.scan(step, x, us)[1])

        return jnp.linalg.norm(jax.grad(end)(start)) / jnp.sqrt(len(w))

    def penalty(w: Array) -> Array:
        each = jax.vmap(lambda us: vanishing_gradient_penalty(cell, last, w, start, us))
        return jnp.mean(each(inputs))

    def step(_: Array, carry: tuple[Array, Any]) -> tuple[Array, Any]:
        w, state = carry
        updates, state = optimizer.update(jax.grad(penalty)(w), state)
        return w + updates, state

    optimizer: Any = optax.adam(0.01)
    after, _ = jax.lax.fori_loop(0, 300, step, (w, optimizer.init(w)))
    shares = jax.vmap(share, (None, 0))
    return jnp.median(shares(w, inputs)), jnp.median(shares(after, inputs))


def _learned(max_norm: Any, steps: int, keys: Array) -> Float[Array, " keys"]:
    """The held-out loss on temporal order."""
    problem = temporal_order(batch_size=20)
    optimizer = optax.chain(optax.clip_by_global_norm(max_norm), optax.sgd(0.1))

    def step(carry: tuple[Any, Any], key: Array) -> tuple[tuple[Any, Any], None]:
        y, state = carry
        _, gradient = problem.batch_value_and_gradient(y, problem.sample(key))
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(y, updates), state), None

    def learned(key: Array) -> Float[Array, ""]:
        start = problem.y0, optimizer.init(problem.y0)
        (y, _), _ = jax.lax.scan(step, start, jax.random.split(key, steps))
        return problem.measures(y)["held_out"]

    return jax.lax.map(learned, keys)
