"""What several methods of smooth minimization share."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, Float, PyTree


def descent(
    problem: Any,
    y: PyTree[Array],
    value: Float[Array, ""],
    gradient: PyTree[Array],
    smoothness: Float[Array, ""],
    direction: PyTree[Array] | None = None,
    share: float = 0.5,
) -> tuple[PyTree[Array], Float[Array, ""]]:
    """A gradient step that the descent lemma accepts, and the smoothness L that it took.

    L is doubled until f(y - d/L) <= f(y) - <g, d> / (2 L), which holds for every L from the
    gradient's Lipschitz constant on. The direction d is g, the gradient, or the gradient in another
    metric, in which that constant is meant then. A `share` of a little less than 1/2 keeps rounding
    from refusing an L that is just right.
    """
    direction = gradient if direction is None else direction
    square = otu.vdot(gradient, direction)
    # Near a solution the decrease drowns in the rounding of f, which must not reject a step.
    rounding = 4 * jnp.finfo(value.dtype).eps * jnp.abs(value)

    def tried(smoothness: Array) -> tuple[Array, PyTree[Array], Array]:
        trial = otu.add_scale(y, -1 / smoothness, direction)
        return smoothness, trial, problem.value(trial)

    def rejected(attempt: tuple[Array, PyTree[Array], Array]) -> Array:
        smoothness, _, reached = attempt
        enough = value - reached + rounding >= share * square / smoothness
        return ~enough & jnp.isfinite(smoothness)

    smoothness, trial, _ = jax.lax.while_loop(
        rejected, lambda attempt: tried(2 * attempt[0]), tried(smoothness)
    )
    return trial, smoothness


def eased(
    value: Float[Array, ""], slope: Float[Array, ""], smoothness: Float[Array, ""]
) -> Float[Array, ""]:
    """Half of L, from where `descent` seeks it anew along a direction d with <g, d> = `slope`."""
    # Where the decrease drowns in the rounding of f, a longer step would go untested.
    resolved = slope / smoothness > 8 * jnp.finfo(value.dtype).eps * jnp.abs(value)
    return jnp.where(resolved, smoothness / 2, smoothness)


def sampled_gradient(
    problem: Any, y: PyTree[Array], key: Array | None
) -> tuple[Float[Array, ""], PyTree[Array], Array | None]:
    """f and its gradient at y, on a batch where the problem is sampled, and the key to go on."""
    if not problem.stochastic:
        return *problem.value_and_gradient(y), None
    now, key = jax.random.split(key)  # pyright: ignore[reportArgumentType]
    return *problem.batch_value_and_gradient(y, problem.sample(now)), key


def gradient_change(
    problem: Any, before: PyTree[Array], after: PyTree[Array], batch: PyTree[Array]
) -> tuple[Float[Array, ""], PyTree[Array]]:
    """By how much the gradient of a batch has changed, and the value of the batch afterwards."""
    _, gradient_before = problem.batch_value_and_gradient(before, batch)
    value, gradient_after = problem.batch_value_and_gradient(after, batch)
    return value, otu.sub(gradient_after, gradient_before)


def cubic_step(
    eigenvalues: Float[Array, " n"], gradient: Float[Array, " n"], smoothness: Float[Array, ""]
) -> Float[Array, " n"]:
    """argmin <g, h> + <H h, h> / 2 + M |h|^3 / 6, in the eigenbasis of H.

    The minimizer is h = -(H + s I)^-1 g with s = M |h| / 2 and H + s I positive semidefinite, so
    that one unknown is left: a root in s of 1 - M |h(s)| / (2 s), which rises. It is sought as
    t = s - s_0 from the least s_0 that is allowed, to which s alone may be equal but for rounding.

    Args:
        eigenvalues: of H, ascending.
        gradient: g, in the eigenbasis.
        smoothness: M, positive.
    """
    eps, tiny = jnp.finfo(gradient.dtype).eps, jnp.finfo(gradient.dtype).tiny
    least = -jnp.min(eigenvalues, initial=0)
    gaps = eigenvalues + least
    high = tiny + jnp.sqrt(smoothness * jnp.linalg.norm(gradient) / 2)
    # |h| is at least each of its entries.
    low = jnp.max(smoothness * jnp.abs(gradient) / (2 * (least + high)) - gaps, initial=0)
    low = jnp.minimum(tiny + (1 - 4 * eps) * low, high)

    def step(t: Array) -> Array:
        return -gradient / (gaps + t)

    def off(carry: Any) -> Array:
        low, high, _, error, count = carry
        return (jnp.abs(error) > 1e-8) & (high - low > 4 * eps * high) & (count < 60)

    def narrow(carry: Any) -> Any:
        low, high, t, _, count = carry
        h, shift = step(t), least + t
        length = jnp.linalg.norm(h)
        error = 1 - smoothness * length / (2 * shift)
        low, high = jnp.where(error < 0, t, low), jnp.where(error < 0, high, t)
        slope = jnp.sum((h / length) ** 2 / (gaps + t))
        newton = t - error / (slope + smoothness * length / (2 * shift**2))
        inside = (newton >= low) & (newton <= high)
        return low, high, jnp.where(inside, newton, (low + high) / 2), error, count + 1

    start = (low, high, jnp.where(least > 0, low, high), jnp.ones_like(high), 0)
    _, _, t, _, _ = jax.lax.while_loop(off, narrow, start)
    h = step(t)
    # The hard case: g has no part along the lowest curvature, and the length that is missing lies
    # along it.
    missing = (2 * (least + t) / smoothness) ** 2 - jnp.sum(h**2)
    hard = (least > 0) & (missing > 1e-3 * jnp.sum(h**2))
    along = jnp.where(hard, jnp.sqrt(jnp.maximum(missing, 0)), 0)
    lowest = jnp.arange(h.size) == 0
    return h + jnp.where(lowest, jnp.where(gradient > 0, -along, along), 0)


def spectrum(H: Float[Array, "n n"]) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
    """The eigenvalues, ascending, and eigenvectors of a Hessian; of 0 where it is not finite."""
    H = H.astype(jnp.promote_types(H.dtype, jnp.float32))
    # Without a Hessian a step still follows the gradient.
    H = jnp.where(jnp.all(jnp.isfinite(H)), H, 0)
    return tuple(jnp.linalg.eigh((H + H.T) / 2))
