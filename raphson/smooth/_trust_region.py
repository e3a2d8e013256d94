"""What the methods share that step to the least point of a model of f inside a ball |h| <= r."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

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
    inverse: PyTree[Array] | None = None,
) -> tuple[PyTree[Array], Float[Array, ""]]:
    """The step h that goes down <g, h> + <H h, h> / 2 by conjugate gradients, and how far it falls.

    Args:
        product: v to H v.
        g: the gradient.
        radius: of the ball |h|_W <= r, |h|_W^2 = <h, W h>; h ends on its border where a direction
            has no positive curvature, too.
        tolerance: of g + H h, in the norm of W^-1.
        max_products: how many products may be taken.
        inverse: the diagonal of W^-1, which preconditions; ones by default.
    """
    downhill = lambda v: otu.scale(-1, v if inverse is None else otu.mul(inverse, v))

    def going(carry: Any) -> Array:
        *_, ended, count = carry
        return ~ended & (count < max_products)

    def body(carry: Any) -> Any:
        # The inner products <., W .> follow from each other: of many unknowns each would read its
        # vectors once more.
        h, residual, p, fall, square, (hh, hp, pp), _, count = carry
        Hp = product(p)
        curvature = otu.vdot(p, Hp)
        # Where there is no Hessian the model is linear along p.
        there = jnp.isfinite(curvature)
        Hp, curvature = otu.where(there, Hp, otu.zeros_like(Hp)), jnp.where(there, curvature, 0)
        room = jnp.maximum(radius**2 - hh, 0)
        to_border = (jnp.sqrt(hp**2 + pp * room) - hp) / pp
        alpha = square / curvature
        leaves = ~jnp.greater(curvature, 0) | (alpha >= to_border)
        alpha = jnp.where(leaves, to_border, alpha)
        h, residual = otu.add_scale(h, alpha, p), otu.add_scale(residual, alpha, Hp)
        fall += alpha * (square - alpha * curvature / 2)
        last, square = square, squared(residual, inverse)
        beta = square / last
        p = otu.add_scale(downhill(residual), beta, p)
        hh += alpha * (2 * hp + alpha * pp)
        hp, pp = beta * (hp + alpha * pp), square + beta**2 * pp
        ended = leaves | (jnp.sqrt(square) <= tolerance)
        return h, residual, p, fall, square, (hh, hp, pp), ended, count + 1

    square = squared(g, inverse)
    zero = jnp.zeros_like(square)
    start = otu.zeros_like(g), g, downhill(g), zero, square
    carry = *start, (zero, zero, square), jnp.array(False), 0
    h, _, _, fall, *_ = jax.lax.while_loop(going, body, carry)
    return h, fall


def squared(v: PyTree[Array], weights: PyTree[Array] | None = None) -> Float[Array, ""]:
    """|v|_W^2 = <v, W v> for a diagonal W, ones by default."""
    if weights is None:
        return jnp.asarray(otu.norm(v, squared=True))
    # A sum reads both once, where an inner product would write W v first.
    return jnp.asarray(otu.sum(jax.tree.map(lambda v, w: v * v * w, v, weights)))


def moved(
    problem: Any,
    y: PyTree[Array],
    region: TrustRegion,
    h: PyTree[Array],
    promised: Float[Array, ""],
    norm: Callable[[PyTree[Array]], Array] = otu.norm,
) -> tuple[PyTree[Array], TrustRegion]:
    """The step h, of which the model promised a decrease, if f bears it out, and the next region.

    Where f falls over 1.5 times as far as promised, the curvature that bounds h is gone beyond it:
    h is doubled as long as f falls.

    Args:
        problem: the problem.
        y: the iterate.
        region: the region at the iterate.
        h: the model's least point inside the region.
        promised: how much the model falls along h.
        norm: in which the region is a ball.
    """
    # Near a solution the decrease drowns in the rounding of f, which must not reject a step; nor
    # does one that may be rounding tell of the model.
    eps = jnp.finfo(region.value.dtype).eps
    rounding = 10 * eps * jnp.abs(region.value)
    told = promised > 100 * rounding

    def going(carry: Any) -> Array:
        return carry[-1]

    def doubled(carry: Any) -> Any:
        last, first_ratio, *reached, _ = carry
        first, stretch = last < 1, 2 * last
        trial = otu.add_scale(y, stretch, h)
        value, gradient = problem.value_and_gradient(trial)
        slope = otu.norm(gradient)
        ratio = (region.value - value + rounding) / (promised + rounding)
        better = jnp.where(first, ratio >= 0.1, value < reached[1]) & jnp.isfinite(slope)
        beyond = told & (region.value - value >= 1.5 * promised)
        reached = jax.tree.map(
            lambda new, old: jnp.where(better, new, old), [trial, value, gradient, slope], reached
        )
        stretch = jnp.where(first | better, stretch, last)
        return stretch, jnp.where(first, ratio, first_ratio), *reached, better & (beyond | ~first)

    # The step itself is the doubled half.
    half, none, far = (jnp.full((), n, region.value.dtype) for n in (0.5, 0, jnp.inf))
    start = half, none, y, region.value, region.gradient, far, jnp.array(True)
    stretch, ratio, after, value, gradient, slope, _ = jax.lax.while_loop(going, doubled, start)

    length = stretch * norm(h)
    at_border = length >= 0.99 * region.radius
    grown = jnp.where((ratio >= 0.75) & at_border, 2 * length, region.radius)
    radius = jnp.where(ratio >= 0.25, grown, length / 2)

    def still() -> Array:
        same = jax.tree.map(lambda y, h: jnp.all(y + h == y), y, h)
        return jnp.all(jnp.array(jax.tree.leaves(same)))

    halved = slope <= region.least / 2
    won = halved | (region.value - value > rounding)
    rests = jax.lax.cond(won, lambda: jnp.array(False), still)
    idle = jnp.where(rests, PATIENCE, jnp.where(won, 0, region.idle + 1))
    least = jnp.where(halved, slope, region.least)
    return after, TrustRegion(value, gradient, radius, least, idle)
