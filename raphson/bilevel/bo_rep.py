"""BO-REP: normalized momentum above, refined once and then now and then below.

Hao, Gong, Liu (2024), Bilevel Optimization under Unbounded Smoothness: A New Algorithm and
Convergence Analysis.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, Int, PyTree

from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ..validate import Refusal, in_range, whole_number
from .problem import AbstractBilevel


class BORepState(eqx.Module):
    z: PyTree[Array]  # follows f_yy z = F_y
    momentum: PyTree[Array]
    count: Int[Array, ""]
    key: Array | None


class BORep(AbstractMethod[BORepState]):
    """BO-REP, bilevel optimization with initial refinement and periodic updates.

    A round is N steps of gradient descent from y within a ball around it, and the average of them
    the next y. Step 0 takes many rounds, every I-th step one, all others none. Then, with m = 0 and
    z = F_y of the start first, and all on the right from before:

        z  =  z - tracking (f_yy z - F_y)         m  =  momentum m + (1 - momentum) (F_x - f_xy z)
        x  =  x - m min(s, r / |m|)

    The limit r on the length of its steps keeps x from running away where the curvature of F grows
    with its gradient; and as the lower answer cannot run away either, it need not be followed at
    every step.

    Args:
        upper_step_size: s, positive; infinite in the paper, where all steps are as long as r and
            none settles.
        length: r, positive, in the units of x; infinite for a step without a limit.
        lower_step_size: of y, positive.
        inner_steps: N, at least 1.
        period: I, at least 1.
        refinement: the rounds of step 0, at least 1.
        radius: of the ball around y that a round after step 0 keeps to, positive.
        tracking: positive, below 2 / L where f is L-smooth in y.
        momentum: in [0, 1).

    Raises:
        ValueError: if a hyperparameter is outside its range, or y has a set.

    Example:
        >>> import raphson as rp
        >>> upper = lambda x, y, _: (y - 1.0) ** 2 + x**2
        >>> lower = lambda x, y, _: (y - 2.0 * x) ** 2
        >>> problem = rp.Bilevel(upper, lower, 0.0, 0.0)
        >>> x, y = rp.solve(problem, rp.bilevel.BORep(), max_steps=3000).value
        >>> round(float(x), 3), round(float(y), 3)
        (0.4, 0.8)
    """

    upper_step_size: float = 0.1
    length: float = 0.05
    lower_step_size: float = 0.05
    inner_steps: int = 10
    period: int = 2
    refinement: int = 10
    radius: float = math.inf
    tracking: float = 0.01
    momentum: float = 0.9

    question: ClassVar[type[AbstractProblem]] = AbstractBilevel
    samples: ClassVar[bool] = True

    def __check_init__(self):
        for name in ("upper_step_size", "length", "radius"):
            in_range(self, name, 0, closed="right")
        in_range(self, "lower_step_size", 0)
        in_range(self, "tracking", 0)
        in_range(self, "momentum", 0, 1, closed="left")
        for name in ("inner_steps", "period", "refinement"):
            whole_number(getattr(self, name), name, 1)

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> BORepState:
        if problem.sets[1] is not None:
            raise Refusal("`sets` must leave y free for BORep.")
        F_x, F_y = problem.upper_gradient(*y, None)
        key = key if problem.stochastic else None
        return BORepState(F_y, otu.zeros_like(F_x), jnp.array(0, jnp.int32), key)

    def step(
        self, problem: Any, y: PyTree[Array], state: BORepState
    ) -> tuple[PyTree[Array], BORepState]:
        (x, y), z, key, below, now = y, state.z, state.key, None, None
        if key is not None:
            key, below, now = jax.random.split(key, 3)
        y = self._updated(problem, x, y, state.count, below)
        upper, lower = problem.sample(now)
        F_x, F_y = problem.upper_gradient(x, y, upper)
        f_xz, f_yyz = problem.lower_product(x, y, z, lower)
        m = otu.add_scale(
            otu.scale(self.momentum, state.momentum), 1 - self.momentum, otu.sub(F_x, f_xz)
        )
        z = otu.add_scale(z, -self.tracking, otu.sub(f_yyz, F_y))
        x = problem.project((otu.sub(x, _limited(m, self.upper_step_size, self.length)), y))[0]
        return (x, y), BORepState(z, m, state.count + 1, key)

    def known(self, problem: Any, y: PyTree[Array], state: BORepState) -> Known:
        return Known()

    def _updated(
        self, problem: Any, x: PyTree[Array], y: PyTree[Array], count: Array, key: Array | None
    ) -> PyTree[Array]:
        """y after the rounds of this step."""
        first = count == 0
        rounds = jnp.where(first, self.refinement, jnp.where(count % self.period == 0, 1, 0))
        radius = jnp.where(first, jnp.inf, self.radius)

        def one_round(i: Array, y: PyTree[Array]) -> PyTree[Array]:
            keys = None
            if key is not None:
                keys = jax.random.split(jax.random.fold_in(key, i), self.inner_steps)

            def descend(carry: Any, key: Array | None) -> tuple[Any, None]:
                away, total = carry
                _, f_y = problem.lower_gradient(x, otu.add(y, away), problem.sample(key)[1])
                away = otu.add_scale(away, -self.lower_step_size, f_y)
                away = _limited(away, 1, radius)
                return (away, otu.add(total, away)), None

            zeros = otu.zeros_like(y)
            (_, total), _ = jax.lax.scan(descend, (zeros, zeros), keys, self.inner_steps)
            return otu.add_scale(y, 1 / self.inner_steps, total)

        return jax.lax.fori_loop(0, rounds, one_round, y)


def _limited(step: PyTree[Array], scale: Any, length: Any) -> PyTree[Array]:
    """The step times the scale, or as long as the length where that is shorter."""
    size = otu.norm(step)
    moving = size > 0
    factor = jnp.minimum(scale, length / jnp.where(moving, size, 1))
    # Where nothing moves nothing does, whatever the scale and the length.
    return otu.scale(jnp.where(moving, factor, 0).astype(size.dtype), step)
