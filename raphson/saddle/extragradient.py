"""Extragradient: step by the operator of a point ahead, in two calls of the operator or in one.

Korpelevich (1976), The Extragradient Method for Finding Saddle Points and Other Problems;
Popov (1980), A Modification of the Arrow-Hurwicz Method for Search of Saddle Points;
Hsieh, Iutzeler, Malick, Mertikopoulos (2019), On the Convergence of Single-Call Stochastic
Extra-Gradient Methods; Chae, Kim, Kim (2024), Two-Timescale Extragradient for Finding Local Minimax
Points.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as otu
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PyTree

from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ..validate import in_range, one_of, require_number
from .problem import AbstractVariational, Saddle

# Step size times the Lipschitz constant: just below the limits 1, 1/2, sqrt(2) - 1 and 1/2.
SAFE = {"extragradient": 0.9, "past": 0.45, "reflected": 0.4, "optimistic": 0.45}
# Backtracking accepts a step size times the local Lipschitz constant of at most this.
ACCEPTED = 0.9
# How much longer a step is tried after each accepted one: a rejection costs a call.
GROWTH = 1.1


class ExtragradientState(eqx.Module):
    base: PyTree[Array]  # X_t
    operator: PyTree[Array]  # F at the iterate
    average: PyTree[Array] | None  # of the leading points
    step_size: Float[Array, ""]  # the last that backtracking accepted
    count: Int[Array, ""]


class Extragradient(AbstractMethod[ExtragradientState]):
    """The extragradient method and its single-call forms.

    From the base point X the operator F is asked at a leading point Z, and steps from X. With s the
    step size, P the resolvent (the projection on a set), V and W the operator at the leading point
    before and at Z:

        extragradient  Z = P(X - s F(X)),  X+ = P(X - s W)    two calls of F a step
        past           Z = P(X - s V),     X+ = P(X - s W)    Popov's method
        reflected      Z = 2 X - X-,       X+ = P(X - s W)    Malitsky's; F is asked outside the set
        optimistic     Z = P(X - s V),     X+ = Z + s (V - W)

    The iterate is the point at which F is known: X for the two-call form, Z for the others. A
    reflected Z may lie outside the set, but by no more than its residual. Without a set, past and
    optimistic are one method, known as optimistic gradient descent ascent.

    Args:
        step_size: s, positive, below 1 / L where F is L-Lipschitz, 0.5 / L for past and optimistic,
            0.41 / L for reflected. A pair is one step for each player, on a set for each player:
            `(eta / tau, eta)` is the two-timescale method. A function of the step count from 0,
            such as an Optax schedule, suits noise. By default found at each step by backtracking:
            extragradient only.
        variant: "extragradient", "past", "reflected" or "optimistic".
        average: whether to answer the mean of the leading points, which converges at the rate
            O(1 / t) wherever F is monotone. F is not known there: such a run ends at `max_steps`.

    Raises:
        ValueError: if a hyperparameter is outside its range, or a single-call form has no step
            size, or the steps are a pair and the problem is not one of two players.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.Saddle(lambda x, y, _: x * y, jnp.array(1.0), jnp.array(1.0))
        >>> method = rp.saddle.Extragradient(0.45, variant="past")
        >>> x, y = rp.solve(problem, method).value
        >>> abs(float(x)) < 1e-2 and abs(float(y)) < 1e-2
        True
    """

    step_size: float | tuple[float, float] | Callable[[Array], Any] | None = None
    variant: str = eqx.field(static=True, default="extragradient")
    average: bool = eqx.field(static=True, default=False)

    question: ClassVar[type[AbstractProblem]] = AbstractVariational

    @classmethod
    def from_lipschitz(
        cls, lipschitz: float, variant: str = "extragradient", *, average: bool = False
    ) -> Self:
        """The method with the step size that is safe for an L-Lipschitz operator.

        Args:
            lipschitz: L, positive.
            variant: as in the class; the step is 0.9 / L for extragradient, 0.45 / L for past and
                optimistic, 0.4 / L for reflected.
            average: as in the class.

        Returns:
            The method.

        Raises:
            ValueError: if `lipschitz` is not positive or `variant` is none of the four.
        """
        require_number(lipschitz, "`lipschitz`", 0)
        return cls(SAFE.get(variant, 1.0) / lipschitz, variant, average)

    def __check_init__(self):
        one_of(self, "variant", tuple(SAFE))
        if self.step_size is None and self.variant != "extragradient":
            raise ValueError(
                f"`step_size` of Extragradient must be given for the variant {self.variant!r}, got "
                "None; for an L-Lipschitz operator 0.45 / L is safe for past and optimistic, "
                "0.4 / L for reflected."
            )
        if isinstance(self.step_size, tuple) and len(self.step_size) != 2:
            raise ValueError(
                "`step_size` of Extragradient must be one number or a pair, for x and for y, got "
                f"{self.step_size!r}."
            )
        unknown = any(isinstance(s, Tracer) for s in jax.tree.leaves(self.step_size))
        if not (self.step_size is None or callable(self.step_size) or unknown):
            in_range(self, "step_size", 0)

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> ExtragradientState:
        if isinstance(self.step_size, tuple) and not isinstance(problem, Saddle):
            raise ValueError(
                "`step_size` of Extragradient may be a pair only for a Saddle, whose iterate is "
                f"the pair of players, got a {type(problem).__name__}."
            )
        dtype = jnp.result_type(*jax.tree.leaves(y))
        return ExtragradientState(
            base=y,
            operator=problem.operator(y),
            average=y if self.average else None,
            step_size=jnp.ones((), dtype),
            count=jnp.array(0, jnp.int32),
        )

    def step(
        self, problem: Any, y: PyTree[Array], state: ExtragradientState
    ) -> tuple[PyTree[Array], ExtragradientState]:
        X, V = state.base, state.operator
        # 1 / (t + 1) of an int32 would come in single precision.
        t = state.count.astype(jnp.result_type(*jax.tree.leaves(y)))
        s: Any = self.step_size(t) if callable(self.step_size) else self.step_size
        if self.variant == "reflected":
            # The iterate is Z already, and V its operator: step, then reflect for the next.
            base = problem.resolvent(_moved(X, s, V), s)
            Z = otu.sub(otu.scale(2, base), X)
            W = problem.operator(Z)
        else:
            if s is None:
                s, Z, W = _backtracked(problem, X, V, GROWTH * state.step_size)
            else:
                Z = problem.resolvent(_moved(X, s, V), s)
                W = problem.operator(Z)
            if self.variant == "optimistic":
                base = _moved(Z, s, otu.sub(W, V))
            else:
                base = problem.resolvent(_moved(X, s, W), s)

        y, operator = Z, W
        if self.variant == "extragradient":
            y, operator = base, problem.operator(base)
        average, count = state.average, state.count + 1
        if self.average:
            average = jax.tree.map(lambda a, z: a + (z - a) / count, average, Z)
        accepted = s if self.step_size is None else state.step_size
        return y, ExtragradientState(base, operator, average, accepted, count)

    def known(self, problem: Any, y: PyTree[Array], state: ExtragradientState) -> Known:
        # Free of calls: F is held at the iterate, though not at the average of leading points.
        if self.average:
            return Known()
        return Known(residual=problem.natural_residual(y, state.operator))

    def answer(self, problem: Any, y: PyTree[Array], state: ExtragradientState) -> PyTree[Array]:
        return state.average if self.average else y


def _moved(z: PyTree[Array], step_size: Any, direction: PyTree[Array]) -> PyTree[Array]:
    """z - s d, with one step size s for all of z or one for each player."""

    def along(s: Any, z: PyTree[Array], d: PyTree[Array]) -> PyTree[Array]:
        return jax.tree.map(lambda z, d: z - jnp.asarray(s, z.dtype) * d, z, d)

    return jax.tree.map(along, step_size, z, direction)


def _backtracked(
    problem: Any, z: PyTree[Array], operator: PyTree[Array], step_size: Float[Array, ""]
) -> tuple[Float[Array, ""], PyTree[Array], PyTree[Array]]:
    """A step size s with s |F(Z) - F(z)| <= 0.9 |Z - z|, its leading point Z, and F(Z).

    Khobotov (1987), Modification of the Extra-Gradient Method for Solving Variational Inequalities.
    """
    # Near a solution the change of F drowns in the rounding of z, which must not reject a step.
    norm = otu.norm(z)
    rounding = 4 * jnp.finfo(norm.dtype).eps * norm

    def tried(step_size: Array) -> tuple[Array, PyTree[Array], PyTree[Array]]:
        ahead = problem.resolvent(_moved(z, step_size, operator), step_size)
        return step_size, ahead, problem.operator(ahead)

    def rejected(trial: tuple[Array, PyTree[Array], PyTree[Array]]) -> Array:
        step_size, ahead, operator_ahead = trial
        distance = otu.norm(otu.sub(ahead, z))
        change = otu.norm(otu.sub(operator_ahead, operator))
        return ~(step_size * change <= ACCEPTED * distance + rounding) & (step_size > 0)

    return jax.lax.while_loop(rejected, lambda trial: tried(trial[0] / 2), tried(step_size))
