"""Gradient descent ascent: each player steps along its own gradient, all players at once.

Arrow, Hurwicz, Uzawa (1958), Studies in Linear and Non-Linear Programming; Lin, Jin, Jordan (2020),
On Gradient Descent Ascent for Nonconvex-Concave Minimax Problems; Gorbunov, Danilova, Dobre,
Dvurechensky, Gasnikov, Gidel (2022), Clipped Stochastic Methods for Variational Inequalities with
Heavy-Tailed Noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ..validate import one_of
from ._shared import clipped, moved, require_players, require_positive, scheduled
from .problem import AbstractVariational


class GradientDescentAscentState(eqx.Module):
    operator: PyTree[Array] | None  # F at the iterate; not held where it is sampled
    average: PyTree[Array] | None  # of the iterates
    count: Int[Array, ""]
    key: Array | None


class GradientDescentAscent(AbstractMethod[GradientDescentAscentState]):
    """Gradient descent ascent, z+ = P(z - s F(z)) with P the resolvent: the forward-backward step.

    It converges where F is cocoercive or, for s below 2 mu / L^2, mu-strongly monotone and
    L-Lipschitz. Where the players only oppose each other, as in f = x y, it spirals outward
    whatever s: extragradient is made for that, and this is what to hold it against.

    Args:
        step_size: s, positive. A pair is one step for each player, on a set for each player; a
            function of the step count from 0, such as an Optax schedule, suits noise.
        average: whether to answer the mean of the iterates after the start. F is not known there:
            such a run ends at `max_steps`.
        clip: the length, positive, to which each answer of F is scaled where it is longer, or a
            function of the step count; by default none is. Suits noise of heavy tails.

    Raises:
        ValueError: if a hyperparameter is outside its range, or the steps are a pair and the
            problem is not one of two players.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> fn = lambda x, y, _: (x - 1) ** 2 / 2 + x * y - (y - 1) ** 2 / 2
        >>> problem = rp.Saddle(fn, jnp.array(0.0), jnp.array(0.0))
        >>> x, y = rp.solve(problem, rp.saddle.GradientDescentAscent(0.2)).value
        >>> round(float(x), 3), round(float(y), 3)
        (0.0, 1.0)
    """

    step_size: float | tuple[float, float] | Callable[[Array], Any] = 0.1
    average: bool = eqx.field(static=True, default=False)
    clip: float | Callable[[Array], Any] | None = None

    question: ClassVar[type[AbstractProblem]] = AbstractVariational
    samples: ClassVar[bool] = True

    def __check_init__(self):
        one_of(self, "average", (False, True))
        require_positive(self, "step_size", pair=True, schedule=True)
        if self.clip is not None:
            require_positive(self, "clip", schedule=True)

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> GradientDescentAscentState:
        require_players(self, problem)
        operator = None if problem.stochastic else problem.operator(y)
        average = y if self.average else None
        key = key if problem.stochastic else None
        return GradientDescentAscentState(operator, average, jnp.array(0, jnp.int32), key)

    def step(
        self, problem: Any, y: PyTree[Array], state: GradientDescentAscentState
    ) -> tuple[PyTree[Array], GradientDescentAscentState]:
        # 1 / (t + 1) of an int32 would come in single precision.
        t = state.count.astype(jnp.result_type(*jax.tree.leaves(y)))
        s, clip = scheduled(self.step_size, t), scheduled(self.clip, t)
        key, operator = None, state.operator
        if problem.stochastic:
            key, now = jax.random.split(state.key)  # pyright: ignore[reportArgumentType]
            operator = problem.batch_operator(y, problem.sample(now))
        y = problem.resolvent(moved(y, s, clipped(operator, clip)), s)
        operator = None if problem.stochastic else problem.operator(y)
        average, count = state.average, state.count + 1
        if self.average:
            average = jax.tree.map(lambda a, z: a + (z - a) / count, average, y)
        return y, GradientDescentAscentState(operator, average, count, key)

    def known(self, problem: Any, y: PyTree[Array], state: GradientDescentAscentState) -> Known:
        if self.average or problem.stochastic:
            return Known()
        return Known(residual=problem.natural_residual(y, state.operator))

    def answer(
        self, problem: Any, y: PyTree[Array], state: GradientDescentAscentState
    ) -> PyTree[Array]:
        return state.average if self.average else y
