"""Shampoo's square: one step of the power method to the nearest Kronecker product."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..compiled import compiled
from ..problems import perceptron
from ..train import shampoo
from . import Budget, Paper, Verdict, claim
from ._digits import Layers, digits, loss, outputs, start
from ._training import best_losses, updates

PAPER = Paper(
    slug="shampoo-square",
    title="A New Perspective on Shampoo's Preconditioner",
    authors="Morwani, Shapira, Vyas, Malach, Kakade, Janson",
    year=2024,
    implements=("raphson.train.shampoo",),
    note=(
        "With the exponent 1/4, Shampoo trains the perceptron on digits about as fast: what the "
        "square gains there is nearness to Adagrad, not speed."
    ),
)


@claim(
    PAPER,
    "With H, the mean of vec(G) vec(G)', so rearranged that Kronecker products have rank 1, one "
    "step of the power method from the identity gives the means of G G' and G' G.",
)
def factors_are_a_power_step(budget: Budget) -> Verdict:
    rng = np.random.default_rng(0)
    g = rng.normal(size=(budget.pick(50, 500), 6, 4)) * rng.exponential(size=(6, 4))
    hessian, left, right = _moments(g)

    def deviation(rearranged: np.ndarray) -> float:
        found = rearranged @ np.eye(4).ravel(), np.eye(6).ravel() @ rearranged
        both = zip(found, (left, right), strict=True)
        return max(float(np.max(np.abs(a - b.ravel()))) for a, b in both)

    case = "greatest deviation on random 6 x 4 gradients; control: without the rearrangement"
    flat = hessian.reshape(36, 16)
    return Verdict(deviation(_rearranged(hessian, 6, 4)), 1e-12, deviation(flat), case)


@claim(
    PAPER,
    "In either layer of a perceptron on digits, with sampled labels, the product of L and R is as "
    "near to H as the best Kronecker product but for 5 %, in cosine; Shampoo's, of their roots, is "
    "not.",
)
def square_is_near_the_best_product(budget: Budget) -> Verdict:
    layers = compiled(_trained, start((64, 16, 10)), budget.pick(100, 400))
    gradients = [np.asarray(w) for w, _ in compiled(_sampled_gradients, layers)]

    def share(power: float) -> float:
        return min(_share_of_best(g, power) for g in gradients)

    case = "least cosine with H over the best one's, of both layers; control: of the roots"
    return Verdict(share(1.0), 0.95, share(0.5), case, at_most=False)


@claim(
    PAPER,
    "Where gradients have a Kronecker product for their covariance, Shampoo with the exponent 1/2 "
    "takes the direction of full Adagrad.",
)
def half_is_full_adagrad(budget: Budget) -> Verdict:
    rng, count = np.random.default_rng(0), budget.pick(3000, 30_000)
    left, right = np.geomspace(1, 100, 5), np.geomspace(1, 30, 4)
    turns = [np.linalg.qr(rng.normal(size=(n, n)))[0] for n in (5, 4)]
    scales = np.sqrt(np.outer(left, right))
    gradients = turns[0] @ (rng.normal(size=(count, 5, 4)) * scales) @ turns[1].T
    adagrad = turns[0] @ ((turns[0].T @ gradients[-1] @ turns[1]) / scales) @ turns[1].T

    def angle(exponent: float) -> float:
        optimizer = shampoo(1.0, 0.0, 1 - 1 / count, exponent, grafting=False, every=count - 1)
        found = -updates(optimizer, gradients)[-1]
        return float(1 - np.vdot(found, adagrad) / np.linalg.norm(found) / np.linalg.norm(adagrad))

    case = f"1 - cosine of the angle after {count} gradients; control: the exponent 1/4"
    return Verdict(angle(0.5), 0.01, angle(0.25), case)


@claim(
    PAPER,
    "On the perceptron on digits, Shampoo with the exponent 1/2 reaches with half the epochs the "
    "training loss that Adam reaches, each at its best learning rate.",
)
def half_the_epochs_of_adam_suffice(budget: Budget) -> Verdict:
    problem, epochs = perceptron("digits", batch_size=64), 10
    rates, seeds = np.geomspace(0.025, 0.1, budget.pick(3, 5)), budget.pick(3, 15)
    steps = epochs * (problem.num_samples // 64)
    marks = [steps // 2, steps]

    def square(rate: Any) -> optax.GradientTransformation:
        return shampoo(rate, every=5, output_first=False)

    half, _ = best_losses(problem, square, rates, seeds, marks)
    slow, adam = best_losses(problem, optax.adam, rates, seeds, marks)
    case = (
        f"loss after {epochs // 2} epochs, powers anew every 5 steps, over Adam's after {epochs}; "
        f"control: Adam's after {epochs // 2}"
    )
    return Verdict(half / adam, 1.0, slow / adam, case)


def _moments(g: Float[np.ndarray, "N m n"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The means of vec(G) vec(G)', G G' and G' G."""
    flat = g.reshape(len(g), -1)
    left, right = (np.einsum(form, g, g) / len(g) for form in ("bij,bkj->ik", "bij,bik->jk"))
    return flat.T @ flat / len(g), left, right


def _rearranged(hessian: np.ndarray, m: int, n: int) -> Float[np.ndarray, "m*m n*n"]:
    return hessian.reshape(m, n, m, n).transpose(0, 2, 1, 3).reshape(m * m, n * n)


def _share_of_best(g: np.ndarray, power: float) -> float:
    """The cosine of L^power and R^power's product with H, over that of the best product."""
    hessian, left, right = _moments(g)
    rearranged = _rearranged(hessian, *g.shape[1:])
    best = np.linalg.eigvalsh(rearranged.T @ rearranged)[-1] ** 0.5
    left, right = (_power(factor, power) for factor in (left, right))
    product = left.ravel() @ rearranged @ right.ravel()
    return float(product / np.linalg.norm(left) / np.linalg.norm(right) / best)


def _power(factor: np.ndarray, power: float) -> np.ndarray:
    eigenvalues, vectors = np.linalg.eigh(factor)
    return (vectors * np.maximum(eigenvalues, 0) ** power) @ vectors.T


def _trained(layers: Layers, steps: int) -> Layers:
    (features, target), _ = digits()
    optimizer = optax.adam(1e-2)

    def step(carry: Any, key: Array) -> tuple[Any, None]:
        layers, state = carry
        batch = jax.random.choice(key, len(target), (64,))
        gradient = jax.grad(loss)(layers, jnp.asarray(features)[batch], jnp.asarray(target)[batch])
        change, state = optimizer.update(gradient, state)
        return (optax.apply_updates(layers, change), state), None

    keys = jax.random.split(jax.random.key(0), steps)
    return jax.lax.scan(step, (layers, optimizer.init(layers)), keys)[0][0]  # pyright: ignore


def _sampled_gradients(layers: Layers) -> Layers:
    """Of each sample, with a label that the network draws itself."""
    features = jnp.asarray(digits()[0][0])
    labels = jax.random.categorical(jax.random.key(1), outputs(layers, features)[-1])
    one = jax.vmap(lambda x, label: jax.grad(loss)(layers, x[None], label[None]))
    return one(features, labels)
