"""Reverse derivative ascent: what the derivative of a circuit says, and what is learned by it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..compiled import compiled
from ..train import boolean_step, lookup_table, parity
from . import Budget, Paper, Verdict, claim
from ._digits import digits

PAPER = Paper(
    slug="reverse-derivative-ascent",
    title="Reverse Derivative Ascent: A Categorical Approach to Learning Boolean Circuits",
    authors="Wilson, Zanasi",
    year=2021,
    implements=(
        "raphson.train.boolean_step",
        "raphson.train.parity",
        "raphson.train.lookup_table",
    ),
    note=(
        "The derivative is that of a circuit, not of the function it computes: of x AND x it is 0, "
        "of x it is 1. The digits are learned by a vote of tables that see six pixels each, not by "
        "the paper's model."
    ),
)


@claim(
    PAPER,
    "The reverse derivative of a polynomial in which no bit is multiplied with itself is the "
    "Boolean difference: which flips of an input flip the output.",
)
def derivative_is_the_difference(budget: Budget) -> Verdict:
    n = budget.pick(6, 10)
    table = jnp.asarray(np.random.default_rng(0).integers(2, size=2**n), float)

    def wrong(circuit: Any) -> float:
        return float(compiled(_wrong_differences, circuit, table, _bits(n)))

    case = (
        f"share of wrong bits over all inputs, a random function of {n}; control: the same "
        "function of x AND x for each x"
    )
    return Verdict(wrong(lookup_table), 0.0, wrong(_squared), case)


@claim(
    PAPER,
    "After one pass over samples that do not contradict each other, a lookup table makes no error.",
)
def table_is_learned_in_one_pass(budget: Budget) -> Verdict:
    n = budget.pick(6, 10)
    rng = np.random.default_rng(0)
    x = rng.permutation(_bits(n))[: 2**n * 3 // 4]
    target = rng.integers(2, size=(len(x), 1)).astype(float)

    def errors(circuit: Any, parameters: int) -> float:
        return float(compiled(_errors, circuit, jnp.zeros(parameters), x, target))

    case = f"share of errors on {len(x)} samples of {n} bits; control: the XOR of some inputs"
    return Verdict(errors(lookup_table, 2**n), 0.0, errors(_linear, n), case)


@claim(
    PAPER,
    "Learned in one pass over binarized images, circuits tell at least 40 % of held-out digits.",
)
def binarized_digits_are_learned(budget: Budget) -> Verdict:
    rng, tables = np.random.default_rng(0), budget.pick(50, 400)
    pixels = np.stack([rng.choice(64, 6, replace=False) for _ in range(tables)])
    (x, y), (x_after, y_after) = (
        (jnp.asarray(np.asarray(features) > 0.5, float), np.asarray(target))
        for features, target in digits()
    )

    def accuracy(y: np.ndarray) -> float:
        return float(compiled(_voted, pixels, x, np.eye(10)[y], x_after, y_after))

    case = (
        f"accuracy of the vote of {tables} tables for each digit, on 6 random pixels each; "
        "control: labels shuffled"
    )
    return Verdict(accuracy(y), 0.4, accuracy(rng.permutation(y)), case, at_most=False)


def _bits(n: int) -> Float[np.ndarray, "2**n n"]:
    return np.array(np.unravel_index(np.arange(2**n), (2,) * n), float).T


def _squared(table: Array, x: Array) -> Array:
    return lookup_table(table, x * x)


def _linear(p: Array, x: Array) -> Array:
    return parity(jnp.sum(p * x, keepdims=True))


def _wrong_differences(circuit: Any, table: Array, x: Float[Array, "samples n"]) -> Array:
    def wrong(x: Float[Array, " n"]) -> Array:
        value, pull = jax.vjp(lambda x: circuit(table, x), x)
        flipped = jax.vmap(lambda unit: circuit(table, parity(x + unit)))(jnp.eye(x.size))
        return parity(pull(jnp.ones(1))[0]) != parity(flipped[:, 0] + value)

    return jnp.mean(jax.vmap(wrong)(x))


def _learned(circuit: Any, p: Array, x: Array, target: Array) -> Array:
    def step(p: Array, sample: Any) -> tuple[Array, None]:
        return boolean_step(circuit, p, *sample), None

    return jax.lax.scan(step, p, (x, target))[0]


def _errors(circuit: Any, p: Array, x: Array, target: Array) -> Float[Array, ""]:
    p = _learned(circuit, p, x, target)
    return jnp.mean(jax.vmap(circuit, (None, 0))(p, x) != target)


def _voted(pixels: Any, x: Array, target: Array, x_after: Array, y_after: Array) -> Array:
    def circuit(p: Float[Array, "tables k 64"], x: Float[Array, " n"]) -> Float[Array, "tables k"]:
        def read(tables: Array, seen: Array) -> Array:
            return jax.vmap(lookup_table, (0, None))(tables, x[seen])[:, 0]

        return jax.vmap(read)(p, pixels)

    shape = (len(pixels), 10, 2 ** pixels.shape[1])
    each = jnp.broadcast_to(target[:, None], (len(target), *shape[:2]))
    p = _learned(circuit, jnp.zeros(shape), x, each)
    votes = jnp.sum(jax.vmap(circuit, (None, 0))(p, x_after), axis=1)
    return jnp.mean(jnp.argmax(votes, axis=1) == y_after)
