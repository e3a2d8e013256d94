"""Conjugate gradients or steepest descent, each line minimized by Brent's method from values alone.

Brent (1973), Algorithms for Minimization without Derivatives; Polak, Ribiere (1969), Note sur la
convergence de methodes de directions conjuguees; Andronov, Tkachenko (2013), Comparative Analysis
of Numerical Methods for Parameter Determination.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, Bool, Float, PyTree

from ..method import AbstractMethod
from ..problem import AbstractObjective, AbstractProblem, Known
from ..solution import Status
from ..validate import in_range, one_of

GOLDEN = (3 - 5**0.5) / 2
# A trial this much nearer than the first is none; an interval is widened, or refined, this often.
SHORTEST, MOST = 2.0**-60, 100


class BrentLineState(eqx.Module):
    value: Float[Array, ""]
    gradient: PyTree[Array]
    direction: PyTree[Array]
    length: Float[Array, ""]  # t of the last line
    at_rest: Bool[Array, ""]


class BrentLine(AbstractMethod[BrentLineState]):
    """Descent y+ = y + t d along lines on which f is brought to its least by Brent's method.

    Conjugate gradients, by the formula of Polak and Ribiere, take

        d+ = -g+ + max(<g+, g+ - g> / <g, g>, 0) d.

    A line is tried from t = 0 with the length that suited the last one; the interval that this
    begins is shortened or widened by golden sections until f is lower inside than at its ends. In
    there, Brent's method goes to where a parabola through the three best points is least, or
    divides by a golden section where the parabola is no help. Values tell of a minimum only to the
    square root of their rounding.

    Args:
        conjugate: whether directions are conjugate; False is steepest descent, d = -g.
        line_rtol: to what share of t a line is minimized, in (0, 1).

    Raises:
        ValueError: if `line_rtol` is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.Minimize(lambda y, _: jnp.sum((y - 1.0) ** 4), jnp.zeros(2))
        >>> rp.solve(problem, rp.smooth.BrentLine()).value.round(1).tolist()
        [1.0, 1.0]
    """

    conjugate: bool = eqx.field(static=True, default=True)
    line_rtol: float = 1e-2

    question: ClassVar[type[AbstractProblem]] = AbstractObjective

    def __check_init__(self):
        in_range(self, "line_rtol", 0, 1)
        one_of(self, "conjugate", (False, True))

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> BrentLineState:
        value, g = problem.value_and_gradient(y)
        return BrentLineState(value, g, otu.scale(-1, g), jnp.ones_like(value), jnp.array(False))

    def step(
        self, problem: Any, y: PyTree[Array], state: BrentLineState
    ) -> tuple[PyTree[Array], BrentLineState]:
        g, d = state.gradient, state.direction
        along = lambda t: problem.value(otu.add_scale(y, t, d))
        t, value = line_minimum(along, state.value, state.length, self.line_rtol)
        at_rest = t == 0
        y = otu.add_scale(y, t, d)
        after = problem.gradient(y)
        steepest = otu.scale(-1, after)
        if self.conjugate:
            square = otu.norm(g, squared=True)
            weight = otu.vdot(after, otu.sub(after, g)) / jnp.where(square > 0, square, 1)
            d = otu.add_scale(steepest, jnp.maximum(weight, 0), d)
            # On a line that was left too early it may lead uphill.
            d = otu.where(otu.vdot(d, after) < 0, d, steepest)
        else:
            d = steepest
        length = jnp.where(at_rest, state.length, t)
        return y, BrentLineState(value, after, d, length, at_rest)

    def terminate(self, problem: Any, y: PyTree[Array], state: BrentLineState) -> Any:
        return Status.where(state.at_rest, Status.stalled, Status.running)

    def known(self, problem: Any, y: PyTree[Array], state: BrentLineState) -> Known:
        return Known(state.value, state.gradient)


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
