"""Variance-reduced extragradient: samples tell only how F differs from where it is known.

Alacaoglu, Malitsky (2022), Stochastic Variance Reduction for Variational Inequality Methods.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import optax.tree as otu
from jaxtyping import Array, PyTree

from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ._shared import moved, require_players, require_positive
from .problem import AbstractVariational


class VarianceReducedExtragradientState(eqx.Module):
    snapshot: PyTree[Array]  # w
    operator: PyTree[Array]  # F(w)
    key: Array | None


class VarianceReducedExtragradient(AbstractMethod[VarianceReducedExtragradientState]):
    """Extragradient on a monotone F that is the mean of n others, with a snapshot w of the iterate.

    With s the step size, P the resolvent, b the size of a batch B and p = 2 b / n, at most 1:

        m   =  (1 - p) z + p w
        Z   =  P(m - s F(w))
        z+  =  P(m - s (F(w) + F_B(Z) - F_B(w)))
        w+  =  z+  with probability p, and w otherwise

    The noise vanishes with the distance of Z from w, so that a constant step leads to the solution,
    at the price of some 4 b operators of one sample a step. On a problem that is not sampled p is 1
    and B all samples: that is extragradient.

    Args:
        step_size: s, positive: below sqrt(p) / L where E |F_i(u) - F_i(v)|^2 <= L^2 |u - v|^2 over
            the samples i, for L above that of F alone. A pair is one step for each player.

    Raises:
        ValueError: if `step_size` is unfit, or a pair and the problem is not one of two players.

    Example:
        >>> import jax
        >>> import raphson as rp
        >>> problem = rp.problems.monotone_sum(100, 4, batch_size=2)
        >>> method = rp.saddle.VarianceReducedExtragradient(0.2)
        >>> run = rp.solve(problem, method, key=jax.random.key(0), max_steps=5000, throw=False)
        >>> bool(run.certificate.residual < 1e-3)
        True
    """

    step_size: float | tuple[float, float] = 0.1

    question: ClassVar[type[AbstractProblem]] = AbstractVariational
    samples: ClassVar[bool] = True

    def __check_init__(self):
        require_positive(self, "step_size", pair=True)

    def init(
        self, problem: Any, y: PyTree[Array], key: Array | None
    ) -> VarianceReducedExtragradientState:
        require_players(self, problem)
        key = key if problem.stochastic else None
        return VarianceReducedExtragradientState(y, problem.operator(y), key)

    def step(
        self, problem: Any, y: PyTree[Array], state: VarianceReducedExtragradientState
    ) -> tuple[PyTree[Array], VarianceReducedExtragradientState]:
        w, F_w, s = state.snapshot, state.operator, self.step_size
        if not problem.stochastic:
            ahead = problem.resolvent(moved(y, s, F_w), s)
            after = problem.resolvent(moved(y, s, problem.operator(ahead)), s)
            return after, VarianceReducedExtragradientState(after, problem.operator(after), None)

        p = min(1.0, 2 * problem.batch_size / problem.num_samples)
        key, chance, now = jax.random.split(state.key, 3)  # pyright: ignore[reportArgumentType]
        batch = problem.sample(now)
        m = otu.add_scale(y, p, otu.sub(w, y))
        ahead = problem.resolvent(moved(m, s, F_w), s)
        at_ahead, at_w = (problem.batch_operator(z, batch) for z in (ahead, w))
        V = otu.add(F_w, otu.sub(at_ahead, at_w))
        after = problem.resolvent(moved(m, s, V), s)
        w, F_w = jax.lax.cond(
            jax.random.bernoulli(chance, p),
            lambda: (after, problem.operator(after)),
            lambda: (w, F_w),
        )
        return after, VarianceReducedExtragradientState(w, F_w, key)

    def known(
        self, problem: Any, y: PyTree[Array], state: VarianceReducedExtragradientState
    ) -> Known:
        if problem.stochastic:
            return Known()
        return Known(residual=problem.natural_residual(y, state.operator))
