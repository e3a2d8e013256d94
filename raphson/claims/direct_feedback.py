"""Direct feedback alignment: layers learn to be taught by fixed random matrices."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.tree as otu
from jaxtyping import Array, Float

from ..compiled import compiled
from ..train import feedback_value_and_grad
from . import Budget, Paper, Verdict, claim
from ._digits import Layers, Samples, accuracy, dense, digits, entropy, loss, start

PAPER = Paper(
    slug="direct-feedback-alignment",
    title="Principled Training of Neural Networks with Direct Feedback Alignment",
    authors="Launay, Poli, Krzakala",
    year=2019,
    implements=("raphson.train.feedback_value_and_grad",),
    note=(
        "Checked on dense layers of tanh units on digits, by Adam on all samples at once, not on "
        "CIFAR-10. The first of three hidden layers aligns least, and one of 256 units loses its "
        "alignment again, while the network goes on learning. Of the paper's practices only the "
        "scale of the feedback is a default here: normalization and dropout are left to the layers."
    ),
)


@claim(
    PAPER,
    "Learning aligns: the cosine of a layer's gradient and that of backpropagation rises above "
    "0.2, on the mean over three hidden layers.",
)
def layers_align_with_their_feedback(budget: Budget) -> Verdict:
    width = budget.pick(64, 256)
    _, cosines = _trained("fixed", (width, width, width), 150)
    start, later = np.mean(cosines[0]), np.mean(cosines[75:])
    case = (
        f"mean cosine over three hidden layers of {width}, steps 75 to 150; control: before "
        "the first step"
    )
    return Verdict(float(later), 0.2, float(start), case, at_most=False)


@claim(
    PAPER,
    "Trained so, a network of three hidden layers comes within 3 points of the accuracy that "
    "backpropagation has on held-out digits.",
)
def accuracy_is_near_that_of_backpropagation(budget: Budget) -> Verdict:
    steps = budget.pick(150, 500)
    exact, fixed, redrawn = (
        float(_trained(kind, (64, 64, 64), steps)[0]) for kind in ("exact", "fixed", "redrawn")
    )
    case = (
        f"accuracy lost against backpropagation ({exact:.3f}); control: feedback drawn anew at "
        "every step"
    )
    return Verdict(exact - fixed, 0.03, exact - redrawn, case)


@claim(
    PAPER,
    "A bottleneck hurts what comes before it: ahead of a layer of 4 units, the cosine with "
    "backpropagation's gradient is less than half of that ahead of one of 64.",
)
def bottlenecks_prevent_alignment(budget: Budget) -> Verdict:
    steps = budget.pick(150, 500)

    def ahead(sizes: tuple[int, ...]) -> float:
        _, cosines = _trained("fixed", sizes, steps)
        return float(np.mean(cosines[steps // 2 :, 0]))

    wide, narrow, less = (ahead((64, middle, 64)) for middle in (64, 4, 32))
    case = "mean cosine of the first layer over that of 64 units; control: a layer of 32"
    return Verdict(narrow / wide, 0.5, less / wide, case)


def _trained(kind: str, hidden: tuple[int, ...], steps: int) -> tuple[Any, Any]:
    """Held-out accuracy, and cosines of each hidden layer's gradient along the way."""
    data, held_out = digits()
    found = compiled(_train, kind, start((64, *hidden, 10)), data, held_out, steps)
    return jax.tree.map(np.asarray, found)


def _train(
    kind: str, layers: Layers, data: Samples, held_out: Samples, steps: int
) -> tuple[Float[Array, ""], Float[Array, "steps hidden"]]:
    optimizer = optax.adam(3e-3)
    hidden = len(layers) - 1
    functions = [lambda layer, h: jnp.tanh(dense(layer, h))] * hidden + [dense]

    def step(carry: Any, key: Array) -> tuple[Any, Any]:
        layers, state = carry
        key = key if kind == "redrawn" else jax.random.key(1)
        _, gradients = feedback_value_and_grad(functions, entropy, key)(layers, *data)
        exact = jax.grad(loss)(layers, *data)
        cosines = jnp.array([_cosine(a, b) for a, b in zip(gradients[:-1], exact[:-1])])
        updates, state = optimizer.update(exact if kind == "exact" else gradients, state)
        return (optax.apply_updates(layers, updates), state), cosines

    keys = jax.random.split(jax.random.key(0), steps)
    (layers, _), cosines = jax.lax.scan(step, (layers, optimizer.init(layers)), keys)
    return accuracy(layers, held_out), cosines


def _cosine(a: Any, b: Any) -> Any:
    return otu.vdot(a, b) / jnp.sqrt(otu.vdot(a, a) * otu.vdot(b, b))
