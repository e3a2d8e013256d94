"""Exact Gauss-Newton: the small system is exact, cheap, and worth its steps."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from ..compiled import compiled
from ..train import egn
from . import Budget, Paper, Verdict, claim
from ._digits import Samples, digits, loss, outputs, start

PAPER = Paper(
    slug="exact-gauss-newton",
    title="Exact Gauss-Newton Optimization for Training Deep Neural Networks",
    authors="Korbit, Adeoye, Bemporad, Zanon",
    year=2024,
    implements=("raphson.train.egn",),
    note=(
        "The momentum and the rule of adaptive damping are reconstructed from their description: "
        "the proximal term is centered at momentum times the last direction, and damping changes "
        "by factors of 2. On small batches that rule fails: each batch says that its own model is "
        "good, damping falls, and the loss on all samples explodes, so that the last claim has a "
        "fixed one. The paper's line search is Optax's, after it. Steps are compared, not seconds."
    ),
)


@claim(
    PAPER,
    "The system in the batch's outputs gives the direction of the damped Gauss-Newton system in "
    "all parameters, exactly.",
)
def small_system_is_exact(budget: Budget) -> Verdict:
    (features, target), _ = digits()
    layers = start((64, 8, 10))
    size = budget.pick(8, 32)
    found, dense, gradient = compiled(_directions, layers, features[:size], target[:size])
    scale = float(jnp.max(jnp.abs(dense)))

    def deviation(direction: Float[Array, " n"]) -> float:
        return float(jnp.max(jnp.abs(direction - dense))) / scale

    case = (
        f"relative deviation, {dense.size} parameters and {10 * size} outputs; control: the "
        "gradient over the damping"
    )
    return Verdict(deviation(found), 1e-8, deviation(gradient), case)


@claim(
    PAPER,
    "On a linear model and squares, one step without damping ends at the least squares solution.",
)
def one_step_solves_least_squares(budget: Budget) -> Verdict:
    rng, samples = np.random.default_rng(0), budget.pick(30, 100)
    inputs, targets = rng.normal(size=(samples, 10)), rng.normal(size=(samples, 1))
    solution = np.linalg.lstsq(inputs, targets[:, 0], rcond=None)[0]

    def deviation(damping: float) -> float:
        found = compiled(_linear_step, inputs, targets, damping)
        return float(np.max(np.abs(found - solution)))

    case = f"greatest deviation, {samples} samples, damping 1e-8; control: damping 1"
    return Verdict(deviation(1e-8), 1e-6, deviation(1.0), case)


@claim(
    PAPER,
    "On a perceptron on digits, in 30 batches of 20, exact Gauss-Newton comes to at most half of "
    "the training loss of Adam, each at its best learning rate.",
)
def needs_fewer_steps_than_adam(budget: Budget) -> Verdict:
    training, _ = digits()
    batch, steps = 20, budget.pick(30, 70)
    rng = np.random.default_rng(0)
    size = budget.pick(400, len(training[1]))
    order = np.concatenate([rng.permutation(size) for _ in range(4)])[: steps * batch]
    batches = jax.tree.map(lambda leaf: leaf[order.reshape(steps, batch)], training)
    seen = jax.tree.map(lambda leaf: leaf[:size], training)
    losses = {
        name: [float(compiled(_trained, name, batches, seen, rate)) for rate in rates]
        for name, rates in (
            ("egn", [0.1, 0.3, 1.0]),
            ("adam", np.geomspace(3e-3, 0.1, 5).tolist()),
            ("nadam", np.geomspace(3e-3, 0.1, 5).tolist()),
        )
    }
    egns, adam, nadam = (min(each) for each in losses.values())
    case = f"loss after {steps} batches of {batch} over that of Adam ({adam:.3f}); control: Nadam"
    return Verdict(egns / adam, 0.5, nadam / adam, case)


def _logits(layers: Any, features: Float[Array, "64"]) -> Float[Array, "10"]:
    return outputs(layers, features[None])[-1][0]


def _directions(layers: Any, features: Array, target: Array) -> tuple[Array, Array, Array]:
    """By EGN, by the dense system, and along the gradient."""
    damping = 0.1
    optimizer = egn(_logits, 1.0, "softmax", damping)
    state = optimizer.init(layers)
    updates: Any
    updates, _ = optimizer.update(layers, state, layers, inputs=features, targets=target)
    flat, unravel = ravel_pytree(layers)

    def logits(flat: Array) -> Array:
        return outputs(unravel(flat), features)[-1]

    def entropies(logits: Array) -> Array:
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, target)

    jacobian = jax.jacrev(logits)(flat)
    p = jax.nn.softmax(logits(flat))
    mean = jnp.einsum("bk,bkn->bn", p, jacobian)
    hessian = jnp.einsum("bk,bkn,bkm->nm", p, jacobian, jacobian) - mean.T @ mean
    gradient = jax.grad(lambda flat: jnp.mean(entropies(logits(flat))))(flat)
    system = hessian / len(features) + damping * jnp.eye(flat.size)
    found = ravel_pytree(updates)[0]
    return found, -jnp.linalg.solve(system, gradient), -gradient / damping


def _linear_step(inputs: Array, targets: Array, damping: Any) -> Float[Array, " n"]:
    start = jnp.zeros(inputs.shape[1])
    optimizer = egn(lambda w, x: (x @ w)[None], damping=damping)
    updates: Any
    updates, _ = optimizer.update(
        start, optimizer.init(start), start, inputs=inputs, targets=targets
    )
    return updates


def _trained(name: str, batches: Samples, seen: Samples, rate: Any) -> Float[Array, ""]:
    makers: dict[str, Any] = {"adam": optax.adam, "nadam": optax.nadam}
    exact = name == "egn"
    made = egn(_logits, rate, "softmax", damping=0.1) if exact else makers[name](rate)
    optimizer = optax.with_extra_args_support(made)
    layers = start((64, 16, 10))

    def step(carry: Any, batch: Samples) -> tuple[Any, None]:
        layers, state = carry
        gradient = layers if exact else jax.grad(loss)(layers, *batch)
        updates, state = optimizer.update(
            gradient, state, layers, inputs=batch[0], targets=batch[1]
        )
        return (optax.apply_updates(layers, updates), state), None

    (layers, _), _ = jax.lax.scan(step, (layers, optimizer.init(layers)), batches)
    return loss(layers, *seen)
