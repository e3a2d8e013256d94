"""Loopless SVRG: samples tell only how the gradient differs from where it is known on all data.

Kovalev, Horvath, Richtarik (2020), Don't Jump Through Hoops and Remove Those Loops: SVRG and
Katyusha are Better Without the Outer Loop; Tran-Dinh, van Dijk (2022), Gradient Descent-Type
Methods: Background and Simple Unified Convergence Analysis.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import optax.tree as otu
from jaxtyping import Array, Float, PyTree

from ..method import AbstractMethod
from ..problem import AbstractObjective, AbstractProblem, Known
from ..validate import in_range
from ._shared import gradient_change


class LooplessSVRGState(eqx.Module):
    reference: PyTree[Array]  # w
    value: Float[Array, ""]  # f(w)
    gradient: PyTree[Array]  # g(w)
    key: Array | None


class LooplessSVRG(AbstractMethod[LooplessSVRGState]):
    """L-SVRG, y+ = y - s v with v = g(w) + g_B(y) - g_B(w).

    At the reference w the gradient g of f is known; g_B is that of a batch B. After each step w+ is
    y with probability p, and w otherwise. The noise of v vanishes with |y - w|, so that a constant
    step leads to the solution, at the price of 2 b + p n gradients of one sample a step for n
    samples and batches of b. On a problem that is not sampled v is g.

    Args:
        step_size: s, positive; the theory takes 1 / (6 L) for the L of the roughest sample.
        probability: p, in (0, 1]; by default b / n, at most 1.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax
        >>> import raphson as rp
        >>> problem = rp.problems.logistic_synthetic(100, 2, batch_size=10)
        >>> method = rp.smooth.LooplessSVRG(0.5)
        >>> run = rp.solve(problem, method, key=jax.random.key(0), max_steps=2000, throw=False)
        >>> bool(run.certificate.residual < 1e-6)
        True
    """

    step_size: float = 0.1
    probability: float | None = None

    question: ClassVar[type[AbstractProblem]] = AbstractObjective
    samples: ClassVar[bool] = True

    def __check_init__(self):
        in_range(self, "step_size", 0)
        if self.probability is not None:
            in_range(self, "probability", 0, 1, closed="right")

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> LooplessSVRGState:
        key = key if problem.stochastic else None
        value, gradient = problem.value_and_gradient(y)
        return LooplessSVRGState(y, value, gradient, key)

    def step(
        self, problem: Any, y: PyTree[Array], state: LooplessSVRGState
    ) -> tuple[PyTree[Array], LooplessSVRGState]:
        w = state.reference
        if not problem.stochastic:
            after = otu.add_scale(y, -self.step_size, state.gradient)
            value, gradient = problem.value_and_gradient(after)
            return after, LooplessSVRGState(after, value, gradient, None)

        p = self.probability
        if p is None:
            p = min(1.0, problem.batch_size / problem.num_samples)
        key, chance, now = jax.random.split(state.key, 3)  # pyright: ignore[reportArgumentType]
        _, change = gradient_change(problem, w, y, problem.sample(now))
        after = otu.add_scale(y, -self.step_size, otu.add(state.gradient, change))
        w, value, gradient = jax.lax.cond(
            jax.random.bernoulli(chance, p),
            lambda: (y, *problem.value_and_gradient(y)),
            lambda: (w, state.value, state.gradient),
        )
        return after, LooplessSVRGState(w, value, gradient, key)

    def known(self, problem: Any, y: PyTree[Array], state: LooplessSVRGState) -> Known:
        return Known() if problem.stochastic else Known(state.value, state.gradient)
