"""ReinMax: a gradient through a drawn category that is right to second order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..train import reinmax, straight_through
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="reinmax",
    title="Bridging Discrete and Backpropagation: Straight-Through and Beyond",
    authors="Liu, Dong, Liu, Yu, Gao",
    year=2023,
    implements=("raphson.train.reinmax", "raphson.train.straight_through"),
    note=(
        "Means over the draws are sums over all categories, without error. The paper's experiments "
        "(polynomial programming, autoencoders, ListOps, architecture search) are not repeated."
    ),
)


@claim(PAPER, "On the mean over the draws, ReinMax gives the gradient of a quadratic mean loss.")
def right_for_quadratic_losses(budget: Budget) -> Verdict:
    rng, losses = np.random.default_rng(0), budget.pick(5, 100)
    shapes = (5,), (5, 5), (5,)
    linear, square, logits = (rng.normal(size=(losses, *shape)) for shape in shapes)

    def worst(draw: Callable[..., Any]) -> float:
        return float(np.max(_relative_errors(draw, _quadratic, (linear, square), logits)))

    case = (
        f"greatest relative error over {losses} losses of 5 categories; control: straight-through"
    )
    return Verdict(worst(reinmax), 1e-5, worst(straight_through), case)


@claim(
    PAPER,
    "For a smooth loss f(eps D), the relative error of ReinMax falls as eps^2, that of "
    "straight-through as eps.",
)
def second_order_for_smooth_losses(budget: Budget) -> Verdict:
    rng = np.random.default_rng(0)
    slope, logits = rng.normal(size=(2, 5))
    slopes, logits = np.outer([0.2, 0.1], slope), np.tile(logits, (2, 1))

    def order(draw: Callable[..., Any]) -> float:
        whole, half = _relative_errors(draw, _exponential, slopes, logits)
        return float(np.log2(whole / half))

    case = (
        "log2 of the error at eps = 0.2 over that at 0.1, f = exp <a, D>; control: straight-through"
    )
    return Verdict(order(reinmax), 1.8, order(straight_through), case, at_most=False)


def _quadratic(d: Float[Array, " k"], data: Any) -> Float[Array, ""]:
    linear, square = data
    return d @ linear + d @ square @ d


def _exponential(d: Float[Array, " k"], slope: Any) -> Float[Array, ""]:
    return jnp.exp(d @ slope)


def _relative_errors(draw: Any, loss: Any, data: Any, logits: Any) -> Float[np.ndarray, " losses"]:
    """Of the mean estimate, over all categories, each by a key that draws it."""

    def relative_error(data: Any, logits: Float[Array, " k"]) -> Float[Array, ""]:
        def of_draw(logits: Array, key: Array) -> tuple[Array, Array]:
            drawn, _ = draw(key, logits)
            return loss(drawn, data), drawn

        def mean_loss(logits: Array) -> Array:
            categories = jnp.eye(logits.size)
            return jax.nn.softmax(logits) @ jax.vmap(loss, (0, None))(categories, data)

        estimates = jax.vmap(jax.grad(of_draw, has_aux=True), (None, 0))
        gradients, drawn = estimates(logits, jax.random.split(jax.random.key(0), 1000))
        each = gradients[jnp.argmax(drawn, axis=0)]  # by the first key that draws it
        exact = jax.grad(mean_loss)(logits)
        error = jax.nn.softmax(logits) @ each - exact
        return jnp.linalg.norm(error) / jnp.linalg.norm(exact)

    return np.asarray(jax.jit(jax.vmap(relative_error))(data, logits))
