"""Variance-reduced Halpern: steps pulled back to an anchor, with F kept up to date by batches.

Cai, Alacaoglu, Diakonikolas (2024), Variance Reduced Halpern Iteration for Finite-Sum Monotone
Inclusions; Li, Bao, Zhang, Richtarik (2021), PAGE: A Simple and Optimal Probabilistic Gradient
Estimator for Nonconvex Optimization.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, Float, Int, PyTree

from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ..validate import in_range
from ._shared import moved, require_players, require_positive
from .problem import AbstractVariational


class VarianceReducedHalpernState(eqx.Module):
    anchor: PyTree[Array]
    estimate: PyTree[Array]  # of F at the iterate; F itself where the problem is not sampled
    scale: Float[Array, ""]  # the residual at the anchor
    count: Int[Array, ""]  # of steps since the anchor
    key: Array | None


class VarianceReducedHalpern(AbstractMethod[VarianceReducedHalpernState]):
    """Halpern's iteration of a cocoercive operator that is the mean of n others.

    With the anchor u_0, P the resolvent and l = 2 / (k + 4) at the step k = 1, 2, ...:

        u+  =  P(l u_0 + (1 - l) u - s V)
        V+  =  F(u+)                       with the probability 4 / (5 + min(k, sqrt n)), else
               V + F_B(u+) - F_B(u)        where both are of one batch B

    The residual of the last iterate falls like L |u_0 - u*| / k, as it does where V is F always,
    for about n + sqrt n L / eps operators of one sample with batches of sqrt n. On a problem that
    is not sampled V is F: that is Halpern's iteration of the forward-backward step.

    On a strongly monotone F the anchor costs the linear rate. So a restart makes the iterate the
    anchor and k = 0 when the residual, as estimated, has fallen to a fraction of that at the
    anchor.

    Args:
        step_size: s, positive: 1 / (4 L) where E |F_i(u) - F_i(v)|^2 <= L <F(u) - F(v), u - v>
            over the samples i. That L may be far above the same constant of F alone, with which all
            samples at each step may need fewer calls. Where F is monotone but not cocoercive, as of
            bilinear saddles, no step is safe. A pair is one step for each player.
        restart: the fraction, in [0, 1). 0 never restarts, which is the paper's.

    Raises:
        ValueError: if a hyperparameter is outside its range, or the steps are a pair and the
            problem is not one of two players.

    Example:
        >>> import jax
        >>> import raphson as rp
        >>> problem = rp.problems.cocoercive_sum(100, 5, batch_size=10)
        >>> method = rp.saddle.VarianceReducedHalpern(0.25)
        >>> run = rp.solve(problem, method, key=jax.random.key(0), max_steps=2000, throw=False)
        >>> bool(run.certificate.residual < 1e-3)
        True
    """

    step_size: float | tuple[float, float] = 0.1
    restart: float = 0.37

    question: ClassVar[type[AbstractProblem]] = AbstractVariational
    samples: ClassVar[bool] = True

    def __check_init__(self):
        require_positive(self, "step_size", pair=True)
        in_range(self, "restart", 0, 1, closed="left")

    def init(
        self, problem: Any, y: PyTree[Array], key: Array | None
    ) -> VarianceReducedHalpernState:
        require_players(self, problem)
        operator = problem.operator(y)
        scale = otu.norm(problem.natural_residual(y, operator))
        key = key if problem.stochastic else None
        return VarianceReducedHalpernState(y, operator, scale, jnp.array(0, jnp.int32), key)

    def step(
        self, problem: Any, y: PyTree[Array], state: VarianceReducedHalpernState
    ) -> tuple[PyTree[Array], VarianceReducedHalpernState]:
        V, key, k = state.estimate, state.key, state.count.astype(state.scale.dtype) + 1
        pulled = otu.add_scale(y, 2 / (k + 4), otu.sub(state.anchor, y))
        after = problem.resolvent(moved(pulled, self.step_size, V), self.step_size)
        if not problem.stochastic:
            V = problem.operator(after)
        else:
            key, chance, now = jax.random.split(key, 3)  # pyright: ignore[reportArgumentType]
            batch = problem.sample(now)

            def followed() -> PyTree[Array]:
                before, now = (problem.batch_operator(z, batch) for z in (y, after))
                return otu.add(V, otu.sub(now, before))

            refreshed = jax.random.bernoulli(
                chance, 4 / (5 + jnp.minimum(k, problem.num_samples**0.5))
            )
            V = jax.lax.cond(refreshed, lambda: problem.operator(after), followed)

        size = otu.norm(problem.natural_residual(after, V))
        restarted = size < self.restart * state.scale
        anchor = jax.tree.map(lambda u, old: jnp.where(restarted, u, old), after, state.anchor)
        scale = jnp.where(restarted, size, state.scale)
        count = jnp.where(restarted, 0, state.count + 1)
        return after, VarianceReducedHalpernState(anchor, V, scale, count, key)

    def known(self, problem: Any, y: PyTree[Array], state: VarianceReducedHalpernState) -> Known:
        if problem.stochastic:
            return Known()
        return Known(residual=problem.natural_residual(y, state.estimate))
