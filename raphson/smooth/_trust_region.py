"""What the methods share that step to the least point of a model of f inside a ball |h| <= r."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

from ..method import finite

# So many steps in a row that win nothing beyond rounding are taken for rest.
PATIENCE = 50


class TrustRegion(eqx.Module):
    """The iterate's f and gradient, the radius r, and what tells of rest.

    Attributes:
        value: f at the iterate.
        gradient: its gradient there.
        radius: r of the next step.
        least: |g| when it last had fallen by half.
        idle: how many steps have passed since f or |g| fell; `PATIENCE` is rest.
    """

    value: Float[Array, ""]
    gradient: PyTree[Array]
    radius: Float[Array, ""]
    least: Float[Array, ""]
    idle: Int[Array, ""]

    @property
    def at_rest(self) -> Array:
        return self.idle >= PATIENCE


def trust_region(problem: Any, y: PyTree[Array], radius: ArrayLike) -> TrustRegion:
    """The region at the start."""
    value, gradient = problem.value_and_gradient(y)
    radius = jnp.asarray(radius, value.dtype)
    return TrustRegion(value, gradient, radius, otu.norm(gradient), jnp.array(0, jnp.int32))


def steihaug(
    product: Callable[[PyTree[Array]], PyTree[Array]],
    g: PyTree[Array],
    radius: Float[Array, ""],
    tolerance: Float[Array, ""],
    max_products: int,
) -> tuple[PyTree[Array], Float[Array, ""]]:
    """The step h that goes down <g, h> + <H h, h> / 2 by conjugate gradients, and how far it falls.

    Args:
        product: v to H v.
        g: the gradient.
        radius: of the ball; h ends on its border where a direction has no positive curvature, too.
        tolerance: of |g + H h|.
        max_products: how many products may be taken.
    """

    def going(carry: Any) -> Array:
        *_, ended, count = carry
        return ~ended & (count < max_products)

    def body(carry: Any) -> Any:
        h, residual, p, square, _, count = carry
        Hp = product(p)
        # Where there is no Hessian the model is linear along p.
        Hp = otu.where(finite(Hp), Hp, otu.zeros_like(Hp))
        curvature = otu.vdot(p, Hp)
        pp, hp, hh = otu.vdot(p, p), otu.vdot(h, p), otu.vdot(h, h)
        room = jnp.maximum(radius**2 - hh, 0)
        to_border = (jnp.sqrt(hp**2 + pp * room) - hp) / pp
        alpha = square / curvature
        leaves = ~jnp.greater(curvature, 0) | (alpha >= to_border)
        alpha = jnp.where(leaves, to_border, alpha)
        h, residual = otu.add_scale(h, alpha, p), otu.add_scale(residual, alpha, Hp)
        last, square = square, otu.vdot(residual, residual)
        p = otu.add_scale(otu.scale(-1, residual), square / last, p)
        return h, residual, p, square, leaves | (jnp.sqrt(square) <= tolerance), count + 1

    start = (otu.zeros_like(g), g, otu.scale(-1, g), otu.vdot(g, g), jnp.array(False), 0)
    h, residual, *_ = jax.lax.while_loop(going, body, start)
    # The residual is g + H h, so that this is -<g, h> - <H h, h> / 2.
    return h, jnp.asarray(otu.vdot(otu.add(g, residual), otu.scale(-0.5, h)))


def moved(
    problem: Any,
    y: PyTree[Array],
    region: TrustRegion,
    h: PyTree[Array],
    promised: Float[Array, ""],
    norm: Callable[[PyTree[Array]], Array] = otu.norm,
) -> tuple[PyTree[Array], TrustRegion]:
    """The step h, of which the model promised a decrease, if f bears it out, and the next region.

    Args:
        problem: the problem.
        y: the iterate.
        region: the region at the iterate.
        h: the model's least point inside the region.
        promised: how much the model falls along h.
        norm: in which the region is a ball.
    """
    eps = jnp.finfo(region.value.dtype).eps
    stretch, trial, value, gradient = _stretched(problem, y, region, h, promised)

    # Near a solution the decrease drowns in the rounding of f, which must not reject a step.
    rounding = 10 * eps * jnp.abs(region.value)
    ratio = (region.value - value + rounding) / (promised + rounding)
    accepted = (ratio >= 0.1) & finite(gradient)
    length = stretch * norm(h)
    at_border = length >= 0.99 * region.radius
    grown = jnp.where((ratio >= 0.75) & at_border, 2 * length, region.radius)
    radius = jnp.where(ratio >= 0.25, grown, length / 2)

    still = [jnp.all(a == b) for a, b in zip(*map(jax.tree.leaves, (trial, y)), strict=True)]
    slope = otu.norm(gradient)
    halved = accepted & (slope <= region.least / 2)
    won = halved | (accepted & (region.value - value > rounding))
    idle = jnp.where(jnp.all(jnp.array(still)), PATIENCE, jnp.where(won, 0, region.idle + 1))
    y, value, gradient = jax.tree.map(
        lambda new, old: jnp.where(accepted, new, old),
        (trial, value, gradient),
        (y, region.value, region.gradient),
    )
    least = jnp.where(halved, slope, region.least)
    return y, TrustRegion(value, gradient, radius, least, idle)


def _stretched(
    problem: Any,
    y: PyTree[Array],
    region: TrustRegion,
    h: PyTree[Array],
    promised: Float[Array, ""],
) -> tuple[Array, PyTree[Array], Array, PyTree[Array]]:
    """How often h is taken, the point that it leads to, and f and its gradient there.

    Where f falls over 1.5 times as far as promised, the curvature that bounds h is gone beyond it:
    h is doubled as long as f falls.
    """
    # A decrease that may be rounding tells nothing of the model.
    told = promised > 1e3 * jnp.finfo(region.value.dtype).eps * jnp.abs(region.value)

    def going(carry: Any) -> Array:
        return carry[-1]

    def doubled(carry: Any) -> Any:
        last, *reached, _ = carry
        first, stretch = last < 1, 2 * last
        trial = otu.add_scale(y, stretch, h)
        value, gradient = problem.value_and_gradient(trial)
        farther = (value < reached[1]) & finite(gradient)
        beyond = told & (region.value - value >= 1.5 * promised)
        stretch, *reached = jax.tree.map(
            lambda new, old: jnp.where(first | farther, new, old),
            (stretch, trial, value, gradient),
            (last, *reached),
        )
        return stretch, *reached, farther & (beyond | ~first)

    # The step itself is the doubled half.
    half = jnp.full((), 0.5, region.value.dtype)
    start = (half, y, region.value, region.gradient, jnp.array(True))
    stretch, trial, value, gradient, _ = jax.lax.while_loop(going, doubled, start)
    return stretch, trial, value, gradient
