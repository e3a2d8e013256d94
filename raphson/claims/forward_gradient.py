"""Forward gradients: what an unbiased estimate without a backward pass costs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..compiled import compiled
from ..train import forward_value_and_grad
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="forward-gradient",
    title="Gradients without Backpropagation",
    authors="Baydin, Pearlmutter, Syme, Wood, Torr",
    year=2022,
    implements=("raphson.train.forward_value_and_grad",),
    note=(
        "The paper reports training up to twice as fast as by backpropagation on small networks; "
        "what is checked is the price of that: an error that grows with the number of parameters. "
        "Signs as directions are not the paper's, and have the least variance."
    ),
)


@claim(PAPER, "The forward gradient with directions of mean 0 and variance 1 is unbiased.")
def estimates_are_unbiased(budget: Budget) -> Verdict:
    draws, x = budget.pick(20_000, 1_000_000), np.linspace(-1, 1, 10)
    exact = np.asarray(jax.grad(_loss)(x))
    found = _estimates(draws, x)
    lengths = np.linalg.norm(found, axis=1, keepdims=True) / np.linalg.norm(exact)

    def deviation(estimates: Float[np.ndarray, "draws n"]) -> float:
        errors = np.std(estimates, axis=0) / np.sqrt(draws)
        return float(np.max(np.abs(np.mean(estimates, axis=0) - exact) / errors))

    case = f"greatest deviation in standard errors, {draws} draws; control: each of the length of g"
    return Verdict(deviation(found), 5.0, deviation(found / lengths), case)


@claim(
    PAPER, "With n parameters and normal directions, the mean of |estimate - g|^2 is (n + 1) |g|^2."
)
def error_grows_with_the_number_of_parameters(budget: Budget) -> Verdict:
    sizes, draws = (5, 10, 20), budget.pick(20_000, 1_000_000)

    def deviation(directions: str) -> float:
        def ratio(n: int) -> float:
            x = np.linspace(-1, 1, n)
            exact = np.asarray(jax.grad(_loss)(x))
            errors = np.sum((_estimates(draws, x, directions) - exact) ** 2, axis=1)
            return float(np.mean(errors) / (n + 1) / (exact @ exact))

        return max(abs(ratio(n) - 1) for n in sizes)

    case = f"greatest relative deviation, n = 5, 10, 20, {draws} draws; control: signs, with n - 1"
    return Verdict(deviation("normal"), 0.05, deviation("rademacher"), case)


@claim(
    PAPER,
    "The memory that a forward gradient needs does not grow with the depth of a network; that of "
    "backpropagation does.",
)
def memory_does_not_grow_with_depth(budget: Budget) -> Verdict:
    depths, weight = (10, budget.pick(100, 10_000)), np.eye(20)

    def growth(transform: Callable[..., Any], *key: Array) -> float:
        def needed(depth: int) -> int:
            call = jax.jit(transform(functools.partial(_recurrent, depth)))
            memory: Any = call.lower(*key, weight).compile().memory_analysis()
            return memory.temp_size_in_bytes

        few, many = map(needed, depths)
        return many / few

    case = f"bytes at depth {depths[1]} over those at {depths[0]}; control: backpropagation"
    forward = growth(forward_value_and_grad, jax.random.key(0))
    return Verdict(forward, 1.1, growth(jax.value_and_grad), case)


def _loss(x: Float[Array, " n"]) -> Float[Array, ""]:
    return jnp.sum(jnp.sin(x) + jnp.cumsum(x) ** 2)


def _recurrent(depth: int, weight: Float[Array, "n n"]) -> Float[Array, ""]:
    start = jnp.ones((weight.shape[0], 50))
    return jnp.sum(jax.lax.fori_loop(0, depth, lambda _, h: jnp.tanh(weight @ h), start))


def _estimates(
    draws: int, x: Float[np.ndarray, " n"], directions: str = "normal"
) -> Float[np.ndarray, "draws n"]:
    keys = jax.random.split(jax.random.key(0), draws)
    return np.asarray(compiled(_estimate, directions, keys, x))


def _estimate(directions: str, keys: Array, x: Float[Array, " n"]) -> Float[Array, "draws n"]:
    estimate = forward_value_and_grad(_loss, directions=directions)
    return jax.vmap(lambda key: estimate(key, x)[1])(keys)
