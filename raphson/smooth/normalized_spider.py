"""Normalized SPIDER: steps of a set length along a gradient that small batches keep up to date.

Chen, Zhou, Liang, Lu (2023), Generalized-Smooth Nonconvex Optimization is As Efficient As Smooth
Nonconvex Optimization; Fang, Li, Lin, Zhang (2018), SPIDER: Near-Optimal Non-Convex Optimization
via Stochastic Path Integrated Differential Estimator.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, Float, Int, PyTree

from ..method import AbstractMethod
from ..problem import AbstractObjective, AbstractProblem, Known
from ..validate import in_range, whole_number
from ._shared import gradient_change


class NormalizedSpiderState(eqx.Module):
    value: Float[Array, ""]
    estimate: PyTree[Array]
    age: Int[Array, ""]
    key: Array | None


class NormalizedSpider(AbstractMethod[NormalizedSpiderState]):
    """Normalized SPIDER, y+ = y - v min(s, r / |v|).

    The estimate v is the gradient on all data once every `refresh_every` steps, and in between
    v+ = v + g(y+) - g(y), with both gradients g taken on one batch. Its error grows with the path
    since then, which a limit r on the length of each step keeps short, also where the curvature of
    f grows with its gradient. On a problem that is not sampled v is the gradient.

    The paper's method is `NormalizedSpider(math.inf, radius)`: all its steps are as long as r, and
    none settles. With the default radius, which is infinite, nothing is normalized, and this is
    SARAH, y+ = y - s v, for an f of bounded curvature.

    Args:
        step_size: s, positive; it may be infinite if `radius` is not.
        radius: r, positive, in the units of y, for which no finite default fits.
        refresh_every: how many steps share a full gradient; for n samples the theory takes about
            sqrt n, and as many samples in a batch.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax
        >>> import raphson as rp
        >>> problem = rp.problems.logistic_synthetic(100, 2, batch_size=10)
        >>> method = rp.smooth.NormalizedSpider(1.0, radius=0.1)
        >>> run = rp.solve(problem, method, key=jax.random.key(0), max_steps=500, throw=False)
        >>> bool(run.certificate.residual < 1e-3)
        True
    """

    step_size: float = 0.1
    radius: float = math.inf
    refresh_every: int = 10

    question: ClassVar[type[AbstractProblem]] = AbstractObjective
    samples: ClassVar[bool] = True

    def __check_init__(self):
        in_range(self, "step_size", 0, closed="right")
        in_range(self, "radius", 0, closed="right")
        whole_number(self.refresh_every, "refresh_every", 1)

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> NormalizedSpiderState:
        value, gradient = problem.value_and_gradient(y)
        key = key if problem.stochastic else None
        return NormalizedSpiderState(value, gradient, jnp.array(0, jnp.int32), key)

    def step(
        self, problem: Any, y: PyTree[Array], state: NormalizedSpiderState
    ) -> tuple[PyTree[Array], NormalizedSpiderState]:
        v, size = state.estimate, otu.norm(state.estimate)
        # Where v is 0 nothing moves, whatever s and r.
        moving = size > 0
        step_size = jnp.minimum(self.step_size, self.radius / jnp.where(moving, size, 1))
        after = otu.add_scale(y, -jnp.where(moving, step_size, 0), v)
        if not problem.stochastic:
            value, gradient = problem.value_and_gradient(after)
            return after, NormalizedSpiderState(value, gradient, state.age, None)

        key, now = jax.random.split(state.key)  # pyright: ignore[reportArgumentType]
        batch = problem.sample(now)

        def followed() -> tuple[Array, PyTree[Array]]:
            value, change = gradient_change(problem, y, after, batch)
            return value, otu.add(v, change)

        age = (state.age + 1) % self.refresh_every
        value, v = jax.lax.cond(age == 0, lambda: problem.value_and_gradient(after), followed)
        return after, NormalizedSpiderState(value, v, age, key)

    def known(self, problem: Any, y: PyTree[Array], state: NormalizedSpiderState) -> Known:
        return Known() if problem.stochastic else Known(state.value, state.estimate)
