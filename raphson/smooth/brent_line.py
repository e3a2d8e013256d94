"""Conjugate gradients or steepest descent, each line minimized by Brent's method from values alone.

Brent (1973), Algorithms for Minimization without Derivatives; Polak, Ribiere (1969), Note sur la
convergence de methodes de directions conjuguees; Andronov, Tkachenko (2013), Comparative Analysis
of Numerical Methods for Parameter Determination.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, Bool, Float, PyTree

from ..method import AbstractMethod
from ..problem import AbstractObjective, AbstractProblem, Known
from ..solution import Status
from ..validate import in_range, one_of
from ._line_minimum import line_minimum


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
