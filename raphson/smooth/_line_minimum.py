"""The least value along a line, from values alone: an interval around it, then Brent's method.

Brent (1973), Algorithms for Minimization without Derivatives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

GOLDEN = (3 - 5**0.5) / 2
# A trial this much nearer than the first is none; an interval is widened, or refined, this often.
SHORTEST, MOST = 2.0**-60, 100


def line_minimum(
    f: Callable[[Array], Array], start: Float[Array, ""], length: Float[Array, ""], rtol: Any
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """A t > 0 where f is least nearby, and f there; 0 and `start` = f(0) if f falls nowhere."""

    def shortened(carry: Any) -> Any:
        t, value, _, _ = carry
        return GOLDEN * t, f(GOLDEN * t), t, value

    def uphill(carry: Any) -> Array:
        t, value, _, _ = carry
        return ~(value < start) & (t > SHORTEST * length)

    first = f(length)
    t, value, end, at_end = jax.lax.while_loop(uphill, shortened, (length, first, length, first))
    falls = value < start

    def widened(carry: Any) -> Any:
        _, middle, _, end, value, count = carry
        further = end + (end - middle) * (1 - GOLDEN) / GOLDEN
        return middle, end, value, further, f(further), count + 1

    def falling(carry: Any) -> Array:
        _, _, at_middle, _, at_end, count = carry
        return (at_end < at_middle) & (count < MOST)

    zero, downhill = jnp.zeros_like(length), first < start
    middle, at_middle = jnp.where(downhill, zero, t), jnp.where(downhill, start, value)
    carry = zero, middle, at_middle, end, at_end, 0
    low, middle, at_middle, high, _, _ = jax.lax.while_loop(falling, widened, carry)
    # Where f falls nowhere there is nothing to refine.
    high, low = (jnp.where(falls, bound, middle) for bound in (high, low))
    t, value = brent(f, low, middle, at_middle, high, rtol)
    return jnp.where(falls, t, 0), jnp.where(falls, value, start)


def brent(
    f: Callable[[Array], Array],
    low: Float[Array, ""],
    middle: Float[Array, ""],
    value: Float[Array, ""],
    high: Float[Array, ""],
    rtol: Any,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The x between low and high where f is least, to `rtol`, and f there; `value` = f(middle)."""

    def open_(carry: Any) -> Array:
        a, b, (x, *_), *_, count = carry
        return (jnp.abs(x - (a + b) / 2) > 2 * rtol * jnp.abs(x) - (b - a) / 2) & (count < MOST)

    def refined(carry: Any) -> Any:
        # x, w and v have the least values so far; d and e are the last two moves.
        a, b, (x, w, v), (fx, fw, fv), d, e, count = carry
        tol, center = rtol * jnp.abs(x), (a + b) / 2
        r, q = (x - w) * (fx - fv), (x - v) * (fx - fw)
        p, q = (x - v) * q - (x - w) * r, 2 * (q - r)
        p, q = jnp.where(q > 0, -p, p), jnp.abs(q)
        inside = (p > q * (a - x)) & (p < q * (b - x))
        good = inside & (jnp.abs(p) < jnp.abs(q * e / 2)) & (jnp.abs(e) > tol)
        jump = p / jnp.where(good, q, 1)
        near_end = (x + jump - a < 2 * tol) | (b - x - jump < 2 * tol)
        jump = jnp.where(near_end, jnp.copysign(tol, center - x), jump)
        rest = jnp.where(x < center, b - x, a - x)
        e, d = jnp.where(good, d, rest), jnp.where(good, jump, GOLDEN * rest)
        # Nearer than `tol` is as good as the same point.
        u = x + jnp.where(jnp.abs(d) >= tol, d, jnp.copysign(tol, d))
        fu = f(u)
        better = fu <= fx
        # The worse of u and x bounds the interval.
        left = (u < x) != better
        bound = jnp.where(better, x, u)
        a, b = jnp.where(left, bound, a), jnp.where(left, b, bound)
        second = (fu <= fw) | (w == x)
        third = (fu <= fv) | (v == x) | (v == w)
        points, values = (
            (
                jnp.where(better, new, x),
                jnp.where(better, x, jnp.where(second, new, w)),
                jnp.where(better | second, w, jnp.where(third, new, v)),
            )
            for new, x, w, v in ((u, x, w, v), (fu, fx, fw, fv))
        )
        return a, b, points, values, d, e, count + 1

    none = jnp.zeros_like(middle)
    carry = low, high, (middle,) * 3, (value,) * 3, none, none, 0
    _, _, (x, *_), (fx, *_), *_ = jax.lax.while_loop(open_, refined, carry)
    return x, fx
