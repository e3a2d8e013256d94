"""Feed-forward computation in parallel: the states of a sequence, exactly, in fewer sweeps."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..compiled import compiled
from ..roots import solve_feedforward
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="parallel-feedforward",
    title="Accelerating Feedforward Computation via Parallel Nonlinear Equation Solving",
    authors="Song, Meng, Liao, Ermon",
    year=2021,
    implements=("raphson.roots.solve_feedforward",),
    note="Checked by Jacobi sweeps over recurrent cells and on images of 64 bits, in place of the "
    "paper's networks. Sweeps are counted, which are seconds where a sweep fits the device. Random "
    "gated cells forget less the larger their recurrent weights: 200 steps take 27 to 32 sweeps at "
    "spectral radius 0.5, 39 to 57 at 1.5 and 113 to 200 at 3, until nothing changes by more than "
    "1e-6.",
)

T = 200
BITS = 64
Weights = tuple[tuple[Array, Array], tuple[Array, Array]]


@claim(
    PAPER,
    "Of a gated recurrent cell with recurrent weights of spectral radius 0.5, the states of 200 "
    "steps settle to 1e-6 in at most a quarter as many sweeps.",
)
def sweeps_are_few_where_the_chain_forgets(budget: Budget) -> Verdict:
    def most(radius: float) -> float:
        runs = [_swept(radius, seed, 1e-6)[1] for seed in range(budget.pick(3, 10))]
        return max(runs) / T

    return Verdict(most(0.5), 0.25, most(3.0), "most sweeps over the steps; control: radius 3")


@claim(
    PAPER,
    "Swept until nothing changes the states are those of the sequence to rounding, after no more "
    "sweeps than steps, also where the chain forgets slowly.",
)
def sweeps_are_exact(budget: Budget) -> Verdict:
    def greatest_error(atol: float) -> float:
        return max(_swept(radius, 0, atol)[0] for radius in (0.5, 1.5, 3.0))

    case = "greatest error in a state at spectral radii 0.5, 1.5 and 3; control: stopped at 1e-3"
    return Verdict(greatest_error(0.0), 1e-12, greatest_error(1e-3), case)


@claim(
    PAPER,
    "Sampled from a masked autoregressive network that has learned the digits, images of 64 bits "
    "take at most half as many sweeps as bits, the noise held fixed.",
)
def images_take_few_sweeps(budget: Budget) -> Verdict:
    made, parity = (_images(kind, 0.0, budget)[1] / BITS for kind in ("made", "parity"))
    case = "most sweeps over the bits; control: bits that are, but for noise, odd where the two "
    return Verdict(made, 0.5, parity, case + "before them differ")


@claim(PAPER, "The bits are those of sampling one after the other by the same noise.")
def images_are_those_of_the_order(budget: Budget) -> Verdict:
    exact, loose = (_images("made", atol, budget)[0] for atol in (0.0, 1.0))
    return Verdict(exact, 0.0, loose, "share of bits that differ; control: a single sweep")


def _swept(radius: float, seed: int, atol: float) -> tuple[float, int]:
    """The greatest error in the states of a random gated unit, and the sweeps that it took."""
    n = 16
    rng = np.random.default_rng(seed)
    U = rng.normal(size=(3, n, n))
    U *= radius / np.abs(np.linalg.eigvals(U)).max(axis=1)[:, None, None]
    V = rng.normal(size=(3, n, n)) / np.sqrt(n)
    error, sweeps = compiled(_gated, U, V, rng.normal(size=(T, n)), atol)
    return float(error), int(sweeps)


def _gated(U: Array, V: Array, inputs: Float[Array, "T n"], atol: Any) -> tuple[Array, Array]:
    def cell(s: Float[Array, " n"], x: Float[Array, " n"]) -> Float[Array, " n"]:
        update = jax.nn.sigmoid(V[0] @ x + U[0] @ s)
        reset = jax.nn.sigmoid(V[1] @ x + U[1] @ s)
        return (1 - update) * s + update * jnp.tanh(V[2] @ x + U[2] @ (reset * s))

    start = jnp.zeros(U.shape[-1])
    states, sweeps = solve_feedforward(cell, start, inputs, atol=atol)

    def step(s: Array, x: Array) -> tuple[Array, Array]:
        s = cell(s, x)
        return s, s

    _, exact = jax.lax.scan(step, start, inputs)
    return jnp.max(jnp.abs(states - exact)), sweeps


@functools.cache
def _images(kind: str, atol: float, budget: Budget) -> tuple[float, int]:
    """Of sampled images the share of bits that differ from those in order, and the most sweeps."""
    from sklearn.datasets import load_digits

    bits = jnp.asarray(load_digits(return_X_y=True)[0] >= 8, float)
    noise = jnp.asarray(np.random.default_rng(0).logistic(size=(budget.pick(50, 500), BITS)))
    share, sweeps = compiled(_sampled, kind, bits, noise, atol)
    return float(share), int(sweeps)


def _sampled(kind: str, bits: Array, noise: Array, atol: Any) -> tuple[Array, Array]:
    logits = functools.partial(_made, _trained(bits)) if kind == "made" else _odd

    def step(past: Array, drawn: tuple[Array, Array]) -> Array:
        t, noise = drawn
        return logits(past)[t] + noise > 0

    def one(past: Array, drawn: tuple[Array, Array]) -> tuple[Array, Array]:
        bit = step(past, drawn)
        return past.at[drawn[0] + 1].set(bit), bit

    def image(noise: Array) -> tuple[Array, Array]:
        drawn, none = (jnp.arange(BITS), noise), jnp.zeros(BITS, bool)
        swept, sweeps = solve_feedforward(step, none[0], drawn, history=True, atol=atol)
        return jnp.mean(swept != jax.lax.scan(one, none, drawn)[1]), sweeps

    differ, sweeps = jax.vmap(image)(noise)
    return jnp.mean(differ), jnp.max(sweeps)


def _trained(bits: Float[Array, "n bits"]) -> Weights:
    """A masked autoregressive network, after 100 steps of Adam on all images."""
    late = jnp.pad(bits[:, :-1], ((0, 0), (1, 0)))
    rng, adam = np.random.default_rng(0), optax.adam(0.02)
    inward, outward = jnp.asarray(rng.normal(size=(2, BITS, BITS)) / BITS**0.5)
    weights = (inward, jnp.zeros(BITS)), (outward, jnp.zeros(BITS))

    def loss(weights: Weights) -> Array:
        logits = jax.vmap(functools.partial(_made, weights))(late)
        return jnp.mean(optax.losses.sigmoid_binary_cross_entropy(logits, bits))

    def step(_: Array, carry: Any) -> Any:
        weights, state = carry
        updates, state = adam.update(jax.grad(loss)(weights), state)
        return optax.apply_updates(weights, updates), state

    return jax.lax.fori_loop(0, 100, step, (weights, adam.init(weights)))[0]


def _made(weights: Weights, past: Array) -> Array:
    """The logits of all bits from those before; in `past` each bit is one place late."""
    (inward, bias), (outward, offset) = weights
    return jnp.tril(outward) @ jnp.tanh(jnp.tril(inward) @ past + bias) + offset


def _odd(past: Array) -> Array:
    return jnp.where(past ^ jnp.append(past[:1], past[:-1]), 4.0, -4.0)
