"""M-FAC: exact products with the inverse Fisher matrix at linear cost, and what they prune."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..compiled import compiled
from ..train import inverse_fisher, magnitude_mask, mfac, obs_scores, obs_update
from . import Budget, Paper, Verdict, claim
from ._digits import Layers, Samples, accuracy, digits, loss, start
from ._training import updates

PAPER = Paper(
    slug="mfac",
    title="M-FAC: Efficient Matrix-Free Approximations of Second-Order Information",
    authors="Frantar, Kurtic, Alistarh",
    year=2021,
    implements=(
        "raphson.train.mfac",
        "raphson.train.inverse_fisher",
        "raphson.train.obs_scores",
        "raphson.train.obs_update",
    ),
    note=(
        "One solve in the m unknowns takes the place of the paper's two recursions, which compute "
        "the same. Pruning is checked at once and without training on, on a network of two dense "
        "layers on digits: at 70 % it keeps what magnitude loses, at 90 % neither keeps enough to "
        "be of use. Training is not checked against other optimizers."
    ),
)


@claim(
    PAPER,
    "The dynamic algorithm gives the product with the inverse Fisher matrix of the last m "
    "gradients, exactly, however often gradients have been replaced.",
)
def dynamic_algorithm_is_exact(budget: Budget) -> Verdict:
    count, size, m = budget.pick(100, 1000), 300, 32
    gradients = np.random.default_rng(0).normal(size=(count, size))
    ours = -updates(mfac(1.0, history=m), gradients)[-1]

    def deviation(window: int) -> float:
        rows = gradients[-window:]
        inverse = np.linalg.inv(1e-5 * np.eye(size) + rows.T @ rows / window)
        expected = inverse @ gradients[-1]
        return float(np.max(np.abs(ours - expected)) / np.max(np.abs(expected)))

    case = f"relative deviation after {count} gradients of {size} entries; control: m - 1 gradients"
    return Verdict(deviation(m), 1e-6, deviation(m - 1), case)


@claim(PAPER, "The cost of a product with the inverse is linear in the number of parameters.")
def cost_is_linear(budget: Budget) -> Verdict:
    size = budget.pick(1000, 10_000)

    def dense(rows: Float[Array, "m n"], x: Float[Array, " n"]) -> Float[Array, " n"]:
        return x @ (1e-5 * jnp.eye(x.size, dtype=x.dtype) + rows.T @ rows / len(rows))

    def growth(product: Callable[..., Any]) -> float:
        def operations(n: int) -> float:
            shapes = jax.ShapeDtypeStruct((32, n), float), jax.ShapeDtypeStruct((n,), float)
            cost: Any = jax.jit(product).lower(*shapes).compile().cost_analysis()
            return cost["flops"]

        return operations(4 * size) / operations(size)

    case = f"operations with {4 * size} parameters over those with {size}; control: F x of F formed"
    return Verdict(growth(inverse_fisher), 4.1, growth(dense), case)


@claim(
    PAPER,
    "With 70 % of the weights taken out at once, chosen by optimal-brain-surgeon scores, and the "
    "others updated, the network is at least 5 points more accurate than pruned by magnitude.",
)
def surgeon_keeps_more_than_magnitude(budget: Budget) -> Verdict:
    surgeon, magnitude, shuffled = _accuracies(0.7, budget)
    case = (
        "gain in mean held-out accuracy, one sample a gradient; control: the entries of the "
        "gradients are shuffled"
    )
    return Verdict(surgeon - magnitude, 0.05, shuffled - magnitude, case, at_most=False)


@claim(
    PAPER,
    "With 90 % taken out at once, the surgeon's network is as useless as any: less than half of "
    "the samples are told right.",
    reproduces=False,
)
def surgeon_does_not_save_what_is_cut_to_a_tenth(budget: Budget) -> Verdict:
    case = "mean held-out accuracy; control: at 70 %"
    return Verdict(_accuracies(0.9, budget)[0], 0.5, _accuracies(0.7, budget)[0], case)


def _accuracies(sparsity: float, budget: Budget) -> list[float]:
    """Held-out, the mean over seeds: by the surgeon, by magnitude, by shuffled gradients."""
    training, held_out = digits()
    training = jax.tree.map(lambda leaf: leaf[:: budget.pick(3, 1)], training)
    found = [
        compiled(_pruned, start((64, 32, 10), seed), training, held_out, sparsity)
        for seed in range(budget.pick(2, 10))
    ]
    return np.mean(found, axis=0).tolist()


def _pruned(
    layers: Layers, training: Samples, held_out: Samples, sparsity: Any
) -> Float[Array, "3"]:
    adam = optax.adam(3e-3)

    def step(_: Array, carry: Any) -> Any:
        layers, state = carry
        updates, state = adam.update(jax.grad(loss)(layers, *training), state)
        return optax.apply_updates(layers, updates), state

    layers, _ = jax.lax.fori_loop(0, 300, step, (layers, adam.init(layers)))
    samples = jax.tree.map(lambda leaf: leaf[:200, None], training)
    gradients = jax.vmap(lambda x, target: jax.grad(loss)(layers, x, target))(*samples)

    def by_surgeon(gradients: Any) -> Layers:
        weights = jax.tree.map(lambda leaf: leaf.ndim > 1, layers)
        scores = obs_scores(layers, gradients)
        return obs_update(layers, magnitude_mask(scores, sparsity, 0, weights), gradients)

    shuffled = jax.tree.map(
        lambda leaf: jax.random.permutation(jax.random.key(0), leaf.ravel()).reshape(leaf.shape),
        gradients,
    )
    by_magnitude = jax.tree.map(jnp.multiply, layers, magnitude_mask(layers, sparsity))
    networks = [by_surgeon(gradients), by_magnitude, by_surgeon(shuffled)]
    return jnp.stack([accuracy(network, held_out) for network in networks])
