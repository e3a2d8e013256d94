"""Extragradient: step by the operator of a point ahead, in two calls of the operator or in one.

Korpelevich (1976), The Extragradient Method for Finding Saddle Points and Other Problems;
Popov (1980), A Modification of the Arrow-Hurwicz Method for Search of Saddle Points;
Hsieh, Iutzeler, Malick, Mertikopoulos (2019), On the Convergence of Single-Call Stochastic
Extra-Gradient Methods; Chae, Kim, Kim (2024), Two-Timescale Extragradient for Finding Local Minimax
Points; Gorbunov, Danilova, Dobre, Dvurechensky, Gasnikov, Gidel (2022), Clipped Stochastic Methods
for Variational Inequalities with Heavy-Tailed Noise; Diakonikolas, Daskalakis, Jordan (2021),
Efficient Methods for Structured Nonconvex-Nonconcave Min-Max Optimization.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, Float, Int, PyTree

from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ..validate import in_range, one_of, require_number
from ._shared import asked, clipped, moved, require_players, require_positive, scheduled
from .problem import AbstractVariational

# Step size times the Lipschitz constant: just below the limits 1, 1/2, sqrt(2) - 1 and 1/2.
SAFE = {"extragradient": 0.9, "past": 0.45, "reflected": 0.4, "optimistic": 0.45}
# Backtracking accepts a step size times the local Lipschitz constant of at most this.
ACCEPTED = 0.9
# How much longer a step is tried after each accepted one: a rejection costs a call.
GROWTH = 1.1


class ExtragradientState(eqx.Module):
    base: PyTree[Array]  # X_t
    operator: PyTree[Array] | None  # F at the iterate; not held where two calls are sampled
    average: PyTree[Array] | None  # of the leading points
    step_size: Float[Array, ""]  # the last that backtracking accepted
    count: Int[Array, ""]
    key: Array | None


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

    On a sampled problem each call is answered on a batch. There noise may be heavy-tailed: then
    `clip` keeps single answers from throwing the iterate far off, whatever their length.

    Where F is not monotone, but <F(z) - F(w), z - w> >= -rho |F(z) - F(w)|^2, the second step must
    be shorter than the first: r s with r = `update`, for s above 2 rho.

    Args:
        step_size: s, positive, below 1 / L where F is L-Lipschitz, 0.5 / L for past and optimistic,
            0.41 / L for reflected. A pair is one step for each player, on a set for each player:
            `(eta / tau, eta)` is the two-timescale method. A function of the step count from 0,
            such as an Optax schedule, suits noise. By default found at each step by backtracking:
            extragradient only, and not where the problem is sampled.
        variant: "extragradient", "past", "reflected" or "optimistic".
        average: whether to answer the mean of the leading points, which converges at the rate
            O(1 / t) wherever F is monotone. F is not known there: such a run ends at `max_steps`.
        clip: the length, positive, to which each answer of F is scaled where it is longer, or a
            function of the step count; by default none is. Too short a length slows the run, and
            biases it where the noise is not symmetric.
        shared_sample: whether both calls of a two-call step are answered on one batch. On batches
            of their own, as in the papers on noise, they may diverge at a constant step where F is
            monotone, but not strongly.
        update: r, in (0, 1]: what part of s steps by W, of extragradient and past. By default all.

    Raises:
        ValueError: if a hyperparameter is outside its range, or a single-call form or a sampled
            problem has no step size, or the steps are a pair and the problem is not one of two
            players.

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
    clip: float | Callable[[Array], Any] | None = None
    shared_sample: bool = eqx.field(static=True, default=True)
    update: float | None = None

    question: ClassVar[type[AbstractProblem]] = AbstractVariational
    samples: ClassVar[bool] = True

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
        for name in ("average", "shared_sample"):
            one_of(self, name, (False, True))
        one_of(self, "variant", tuple(SAFE))
        if self.step_size is None and self.variant != "extragradient":
            raise ValueError(
                f"`step_size` of Extragradient must be given for the variant {self.variant!r}, got "
                "None; for an L-Lipschitz operator 0.45 / L is safe for past and optimistic, "
                "0.4 / L for reflected."
            )
        if self.step_size is not None:
            require_positive(self, "step_size", pair=True, schedule=True)
        if self.clip is not None:
            require_positive(self, "clip", schedule=True)
        if self.update is not None:
            in_range(self, "update", 0, 1, closed="right")
            if self.variant not in ("extragradient", "past"):
                raise ValueError(
                    "`update` of Extragradient must be left out for the variant "
                    f"{self.variant!r}, whose leading point hangs on the last step, got "
                    f"{self.update!r}."
                )

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> ExtragradientState:
        require_players(self, problem)
        if self.step_size is None and problem.stochastic:
            raise ValueError(
                "`step_size` of Extragradient must be given where the problem is sampled, got "
                "None: backtracking needs answers without noise."
            )
        key, now = (None, None) if key is None else jax.random.split(key)
        dtype = jnp.result_type(*jax.tree.leaves(y))
        return ExtragradientState(
            base=y,
            operator=None if self._asks_anew(problem) else asked(problem, y, problem.sample(now)),
            average=y if self.average else None,
            step_size=jnp.ones((), dtype),
            count=jnp.array(0, jnp.int32),
            key=key,
        )

    def step(
        self, problem: Any, y: PyTree[Array], state: ExtragradientState
    ) -> tuple[PyTree[Array], ExtragradientState]:
        # 1 / (t + 1) of an int32 would come in single precision.
        t = state.count.astype(jnp.result_type(*jax.tree.leaves(y)))
        s, clip = scheduled(self.step_size, t), scheduled(self.clip, t)
        key, *keys = (None,) * 3 if state.key is None else jax.random.split(state.key, 3)
        X, V, batch = state.base, state.operator, problem.sample(keys[0])
        if self._asks_anew(problem):
            V = asked(problem, X, batch)
            batch = batch if self.shared_sample else problem.sample(keys[1])
        V = clipped(V, clip)

        if self.variant == "reflected":
            # The iterate is Z already, and V its operator: step, then reflect for the next.
            base = problem.resolvent(moved(X, s, V), s)
            Z = otu.sub(otu.scale(2, base), X)
            W = asked(problem, Z, batch)
        else:
            if s is None:
                s, Z, W = _backtracked(problem, X, V, GROWTH * state.step_size, clip)
            else:
                Z = problem.resolvent(moved(X, s, V), s)
                W = asked(problem, Z, batch)
            if self.variant == "optimistic":
                base = moved(Z, s, otu.sub(clipped(W, clip), V))
            else:
                r = 1 if self.update is None else self.update
                shorter = jax.tree.map(lambda s: r * s, s)
                base = problem.resolvent(moved(X, shorter, clipped(W, clip)), shorter)

        y, operator = Z, W
        if self.variant == "extragradient":
            y = base
            operator = None if self._asks_anew(problem) else problem.operator(base)
        average, count = state.average, state.count + 1
        if self.average:
            average = jax.tree.map(lambda a, z: a + (z - a) / count, average, Z)
        accepted = s if self.step_size is None else state.step_size
        return y, ExtragradientState(base, operator, average, accepted, count, key)

    def known(self, problem: Any, y: PyTree[Array], state: ExtragradientState) -> Known:
        # Free of calls: F is held at the iterate, though not at the average of leading points.
        if self.average or problem.stochastic:
            return Known()
        return Known(residual=problem.natural_residual(y, state.operator))

    def answer(self, problem: Any, y: PyTree[Array], state: ExtragradientState) -> PyTree[Array]:
        return state.average if self.average else y

    def _asks_anew(self, problem: Any) -> bool:
        """Whether F at the base point is asked again, on the batch of the step."""
        return problem.stochastic and self.variant == "extragradient"


def _backtracked(
    problem: Any,
    z: PyTree[Array],
    operator: PyTree[Array],
    step_size: Float[Array, ""],
    clip: Any,
) -> tuple[Float[Array, ""], PyTree[Array], PyTree[Array]]:
    """A step size s with s |F(Z) - F(z)| <= 0.9 |Z - z|, its leading point Z, and F(Z).

    Khobotov (1987), Modification of the Extra-Gradient Method for Solving Variational Inequalities.
    """
    # Near a solution the change of F drowns in the rounding of z, which must not reject a step.
    norm = otu.norm(z)
    rounding = 4 * jnp.finfo(norm.dtype).eps * norm

    def tried(step_size: Array) -> tuple[Array, PyTree[Array], PyTree[Array]]:
        ahead = problem.resolvent(moved(z, step_size, operator), step_size)
        return step_size, ahead, clipped(problem.operator(ahead), clip)

    def rejected(trial: tuple[Array, PyTree[Array], PyTree[Array]]) -> Array:
        step_size, ahead, operator_ahead = trial
        distance = otu.norm(otu.sub(ahead, z))
        change = otu.norm(otu.sub(operator_ahead, operator))
        return ~(step_size * change <= ACCEPTED * distance + rounding) & (step_size > 0)

    return jax.lax.while_loop(rejected, lambda trial: tried(trial[0] / 2), tried(step_size))
