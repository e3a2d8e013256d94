"""Holomorphic equilibrium propagation: what asymmetric weights cost, and homeostasis to pay it."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

import raphson as rp

from ..probes import jacobian_symmetry
from ..roots import KrasnoselskiiMann, holomorphic_gradient, jacobian_homeostasis
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="holomorphic-equilibrium-propagation",
    title="Improving Equilibrium Propagation without Weight Symmetry through Jacobian Homeostasis",
    authors="Laborieux, Zenke",
    year=2023,
    implements=(
        "raphson.roots.holomorphic_gradient",
        "raphson.roots.jacobian_homeostasis",
        "raphson.probes.jacobian_symmetry",
    ),
    note="On nets of 10 units; the accuracy on images is left out. How fast more nudges help hangs "
    "on their size, for the error of N is of the order (r / R)^N, with R the nearest nudge that "
    "leaves no equilibrium: the loss is a mean over three outputs, and with their sum, which puts "
    "R near 1, two more nudges of size 0.5 shrink it about fourfold only.",
)

_N = 10
Weights = tuple[Array, Array]


def _field(u: Array, args: Weights) -> Array:
    """Units that take half steps down Hopfield's energy if W is symmetric."""
    W, inputs = args
    s = jnp.tanh(u)
    return ((1 - s**2) * (W @ s + inputs) - u) / 2


def _loss(u: Array, args: Any) -> Array:
    # Halved again as the field is, so that nudges have the size that they have with full steps.
    return jnp.mean((u[:3] - 0.5) ** 2) / 4


def _equilibrium(args: Weights) -> Array:
    problem = rp.FixedPoint(lambda u, args: u + _field(u, args), jnp.zeros(_N), args)
    return rp.solve(problem, KrasnoselskiiMann(), rtol=0.0, atol=1e-12).value


def _exact(args: Weights) -> Weights:
    """By implicit differentiation, which transposes the Jacobian."""
    return jax.grad(lambda args: _loss(_equilibrium(args), args))(args)


def _nets(count: int, *, symmetric: bool) -> Weights:
    rng = np.random.default_rng(0)
    W = rng.normal(size=(count, _N, _N)) / np.sqrt(_N)
    if symmetric:
        W = (W + np.swapaxes(W, 1, 2)) / 2
    return jnp.asarray(0.8 * W), jnp.asarray(rng.normal(size=(count, _N)) / 2)


def _estimate(args: Weights, points: int) -> Weights:
    u = _equilibrium(args)
    return holomorphic_gradient(_field, _loss, u, args, points=points, steps=200)


@functools.cache
def _compared(count: int, symmetric: bool) -> tuple[np.ndarray, np.ndarray]:
    """Relative errors and cosines of the gradients by 2, 4 and 6 points, medians over nets."""

    def one(args: Weights) -> tuple[Array, Array]:
        exact = ravel_pytree(_exact(args))[0]
        found = jnp.stack([ravel_pytree(_estimate(args, N))[0] for N in (2, 4, 6)])
        size = jnp.linalg.norm(exact)
        cosines = found @ exact / size / jnp.linalg.norm(found, axis=1)
        return jnp.linalg.norm(found - exact, axis=1) / size, cosines

    errors, cosines = jax.jit(jax.vmap(one))(_nets(count, symmetric=symmetric))
    return np.median(errors, axis=0), np.median(cosines, axis=0)


@claim(
    PAPER,
    "With symmetric weights two more nudges shrink the error of the gradient more than tenfold, "
    "for 2, 4 and 6 nudges of size 0.5.",
)
def nudges_converge_to_the_gradient(budget: Budget) -> Verdict:
    count = budget.pick(10, 100)

    def factor(symmetric: bool) -> float:
        errors = _compared(count, symmetric)[0]
        return float(np.min(errors[:-1] / errors[1:]))

    case = f"least factor, medians over {count} nets of 10 units; control: asymmetric weights"
    return Verdict(factor(True), 10.0, factor(False), case, at_most=False)


@claim(
    PAPER,
    "With asymmetric weights the cosine of the estimate with the gradient is below 0.9, however "
    "many the nudges.",
)
def asymmetric_weights_mislead(budget: Budget) -> Verdict:
    count = budget.pick(10, 100)
    cosine = lambda symmetric: float(np.max(_compared(count, symmetric)[1]))
    case = f"greatest of 2, 4, 6 nudges, medians over {count} nets; control: symmetric weights"
    return Verdict(cosine(False), 0.9, cosine(True), case)


@claim(
    PAPER,
    "After 200 steps of descent on the homeostatic loss alone the cosine exceeds 0.98.",
)
def homeostasis_restores_the_gradient(budget: Budget) -> Verdict:
    count, rate = budget.pick(10, 100), 12.0

    def one(args: Weights, key: Array) -> tuple[Array, Array, Array]:
        def step(carry: tuple[Array, Weights], key: Array) -> Any:
            u, (W, inputs) = carry
            for _ in range(10):  # the equilibrium moves little with a step
                u = u + _field(u, (W, inputs))
            uneven = lambda W: jacobian_homeostasis(_field, u, (W, inputs), key, samples=4)
            return (u, (W - rate * jax.grad(uneven)(W), inputs)), None

        start = _equilibrium(args), args
        (u, after), _ = jax.lax.scan(step, start, jax.random.split(key, 200))

        def cosine(args: Weights) -> Array:
            found, exact = (ravel_pytree(g)[0] for g in (_estimate(args, 4), _exact(args)))
            return found @ exact / jnp.linalg.norm(found) / jnp.linalg.norm(exact)

        symmetry = jacobian_symmetry(rp.RootFind(_field, u, after), u)
        return cosine(after), cosine(args), symmetry

    keys = jax.random.split(jax.random.key(0), count)
    run = jax.jit(jax.vmap(one))(_nets(count, symmetric=False), keys)
    after, before, symmetry = (float(jnp.median(column)) for column in run)
    case = (
        f"medians over {count} nets, the symmetric share is {symmetry:.3f} then; "
        "control: the cosine before"
    )
    return Verdict(after, 0.98, before, case, at_most=False)
