"""The ellipsoid method: each subgradient halves an ellipsoid that holds the minimizer.

Yudin, Nemirovski (1976), Informational Complexity and Efficient Methods for the Solution of Convex
Extremal Problems; Shor (1977), Cut-off Method with Space Extension in Convex Programming Problems;
Bland, Goldfarb, Todd (1981), The Ellipsoid Method: A Survey, for its factored form; Bubeck (2015),
Convex Optimization: Algorithms and Complexity, section 2.2.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import optax.tree as otu
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ..method import AbstractMethod
from ..problem import AbstractObjective, AbstractProblem, Known
from ..solution import Status
from ..validate import in_range


class EllipsoidState(eqx.Module):
    value: Float[Array, ""]
    gradient: PyTree[Array]
    center: Float[Array, " n"]
    subgradient: Float[Array, " n"]  # at the center
    axes: Float[Array, "n n"]


class Ellipsoid(AbstractMethod[EllipsoidState]):
    """The ellipsoid method with central cuts, for a convex f of few unknowns, with kinks or not.

    The ellipsoid {c + B u: |u| <= 1} is cut through its center c by a subgradient g of f there, and
    the half that holds the minimizer put into the smallest ellipsoid, with p = B'g / |B'g|

        c+ = c - B p / (n + 1),  B+ = n / sqrt(n^2 - 1) (B - (1 - sqrt((n - 1) / (n + 1))) B p p').

    The iterate is the best center so far. After t of them f - f* is at most exp(-t / (2 n^2)) of
    how much f varies in the ball of the start; a step costs n^2, and memory as much. Centers may
    lie outside of the ball, where f is asked for, too.

    Args:
        radius: R, positive: the ball of this radius around the start must hold a minimizer. One of
            ten times the radius costs 4.6 n^2 steps more.

    Raises:
        ValueError: if `radius` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.Minimize(lambda y, _: jnp.sum(jnp.abs(y - 1.0)), jnp.zeros(2))
        >>> solution = rp.solve(problem, rp.smooth.Ellipsoid(10.0), throw=False)
        >>> solution.value.round(3).tolist()
        [1.0, 1.0]
    """

    radius: float = 100.0

    question: ClassVar[type[AbstractProblem]] = AbstractObjective

    def __check_init__(self):
        in_range(self, "radius", 0)

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> EllipsoidState:
        value, gradient = problem.value_and_gradient(y)
        center = ravel_pytree(y)[0]
        axes = self.radius * jnp.eye(center.size, dtype=center.dtype)
        return EllipsoidState(value, gradient, center, ravel_pytree(gradient)[0], axes)

    def step(
        self, problem: Any, y: PyTree[Array], state: EllipsoidState
    ) -> tuple[PyTree[Array], EllipsoidState]:
        n, (p, move) = state.center.size, _cut(state)
        center = state.center + move
        # An interval is halved; of it the formula would make 0 times infinity.
        stretch, less = 1.0, 0.5
        if n > 1:
            stretch, less = n / (n**2 - 1) ** 0.5, 1 - ((n - 1) / (n + 1)) ** 0.5
        axes = stretch * (state.axes - less * jnp.outer(state.axes @ p, p))
        at = ravel_pytree(y)[1](center)
        value, gradient = problem.value_and_gradient(at)
        worse = value > state.value  # NaN is not, and is heard
        y, best, slope = otu.where(worse, (y, state.value, state.gradient), (at, value, gradient))
        return y, EllipsoidState(best, slope, center, ravel_pytree(gradient)[0], axes)

    def terminate(self, problem: Any, y: PyTree[Array], state: EllipsoidState) -> Any:
        at_rest = jnp.all(state.center + _cut(state)[1] == state.center)
        return Status.where(at_rest, Status.stalled, Status.running)

    def known(self, problem: Any, y: PyTree[Array], state: EllipsoidState) -> Known:
        return Known(state.value, state.gradient)


def _cut(state: EllipsoidState) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """p, and how far the center moves; 0 both where there is no slope."""
    p = state.axes.T @ state.subgradient
    size = jnp.linalg.norm(p)
    p = p / jnp.where(size > 0, size, 1)
    return p, -(state.axes @ p) / (p.size + 1)
