"""Backpropagation is a functor: to compose networks is to compose how they learn."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..train import Learner, gradient_learner
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="backprop-as-functor",
    title="Backprop as Functor: A compositional perspective on supervised learning",
    authors="Fong, Spivak, Tuyeras",
    year=2019,
    implements=("raphson.train.gradient_learner", "raphson.train.Learner"),
    note=(
        "Checked on tanh layers with half the squared error, and with the cross-entropy of logits, "
        "whose slope can be inverted in the target, too. A slope that cannot be, such as that of "
        "the hinge, gives no learner."
    ),
)


@claim(
    PAPER,
    "The composite of the learners of layers is the learner of the network: the same parameters "
    "after a step, and the same request to what comes before.",
)
def composition_is_kept(budget: Budget) -> Verdict:
    layers = budget.pick(3, 10)

    def deviation(error: Any, first: Any) -> float:
        rest = [gradient_learner(_layer, 0.1, *error) for _ in range(layers - 1)]
        composite = gradient_learner(_layer, 0.1, *first)
        for learner in rest:
            composite = composite >> learner
        return _apart(composite, layers, error)

    measured = max(deviation(error, error) for error in (_SQUARES, _LOGISTIC))
    case = (
        f"greatest deviation, {layers} layers of 5 tanh units, two errors; control: the first "
        "layer has the other error"
    )
    return Verdict(measured, 1e-5, deviation(_SQUARES, _LOGISTIC), case)


@claim(
    PAPER,
    "The request goes back through the parameters from before the step: this, and no other order, "
    "gives the gradient.",
)
def requests_use_the_old_parameters(budget: Budget) -> Verdict:
    layers, plain = budget.pick(3, 10), gradient_learner(_layer, 0.1)

    def eager(x: Any, b: Array) -> Any:
        p, _ = plain.put(x, b)
        return p, plain.put((p, x[1]), b)[1]

    def deviation(learner: Learner) -> float:
        composite = learner
        for _ in range(layers - 1):
            composite = composite >> learner
        return _apart(composite, layers, _SQUARES)

    case = (
        f"greatest deviation from the learner of the network, {layers} layers; control: each layer "
        "asks after it has learned"
    )
    return Verdict(deviation(plain), 1e-5, deviation(Learner(plain.get, eager)), case)


_SQUARES = ((lambda x, y: x - y), (lambda x, s: x - s))
_LOGISTIC = ((lambda x, y: jax.nn.sigmoid(x) - y), (lambda x, s: jax.nn.sigmoid(x) - s))


def _layer(x: Any) -> Float[Array, " n"]:
    weight, a = x
    return jnp.tanh(weight @ a)


def _apart(composite: Learner, layers: int, error: Any) -> float:
    """The greatest difference between what a composite and the whole network make of a sample."""
    rng = np.random.default_rng(0)
    nested: Any = jnp.asarray(rng.normal(size=(5, 5)))
    for _ in range(layers - 1):
        nested = nested, jnp.asarray(rng.normal(size=(5, 5)))
    a, b = jnp.asarray(rng.normal(size=(2, 5)))

    def network(x: Any) -> Float[Array, " n"]:
        nested, h = x
        if not isinstance(nested, tuple):
            return _layer((nested, h))
        return _layer((nested[1], network((nested[0], h))))

    whole = gradient_learner(network, 0.1, *error)
    differences = jax.tree.map(
        lambda x, y: jnp.max(jnp.abs(x - y)),
        composite.put((nested, a), b),
        whole.put((nested, a), b),
    )
    return float(max(jax.tree.leaves(differences)))
