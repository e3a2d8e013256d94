"""Hybrid SARAH: small batches keep a gradient up to date, and a share of a fresh one renews it.

Tran-Dinh, Pham, Phan, Nguyen (2019), Hybrid Stochastic Gradient Descent Algorithms for Stochastic
Nonconvex Optimization; Tran-Dinh, van Dijk (2022), Gradient Descent-Type Methods: Background and
Simple Unified Convergence Analysis.
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


class HybridSARAHState(eqx.Module):
    value: Float[Array, ""]
    estimate: PyTree[Array]
    key: Array | None


class HybridSARAH(AbstractMethod[HybridSARAHState]):
    """Hybrid SARAH, y+ = y - s v with v+ = (1 - w) (v + g_B(y+) - g_B(y)) + w g_C(y+).

    B and C are two batches, drawn apart. The error that v gathers along the path fades over 1 / w
    steps, and the noise of g_C is averaged over as many: all data are asked for once, at the start.
    On a problem that is not sampled v is the gradient.

    With w = 0 this is SARAH whose estimate is never renewed; `NormalizedSpider` with its infinite
    `radius` is SARAH that renews it on all data now and then.

    Args:
        step_size: s, positive.
        weight: w, in [0, 1]; 1 is stochastic gradient descent.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax
        >>> import raphson as rp
        >>> problem = rp.problems.logistic_synthetic(100, 2, batch_size=10)
        >>> method = rp.smooth.HybridSARAH(0.1, weight=0.01)
        >>> run = rp.solve(problem, method, key=jax.random.key(0), max_steps=2000, throw=False)
        >>> bool(run.certificate.residual < 0.05)
        True
    """

    step_size: float = 0.1
    weight: float = 0.1

    question: ClassVar[type[AbstractProblem]] = AbstractObjective
    samples: ClassVar[bool] = True

    def __check_init__(self):
        in_range(self, "step_size", 0)
        in_range(self, "weight", 0, 1, closed="both")

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> HybridSARAHState:
        key = key if problem.stochastic else None
        value, gradient = problem.value_and_gradient(y)
        return HybridSARAHState(value, gradient, key)

    def step(
        self, problem: Any, y: PyTree[Array], state: HybridSARAHState
    ) -> tuple[PyTree[Array], HybridSARAHState]:
        after = otu.add_scale(y, -self.step_size, state.estimate)
        if not problem.stochastic:
            value, gradient = problem.value_and_gradient(after)
            return after, HybridSARAHState(value, gradient, None)

        key, now, apart = jax.random.split(state.key, 3)  # pyright: ignore[reportArgumentType]
        value, change = gradient_change(problem, y, after, problem.sample(now))
        _, fresh = problem.batch_value_and_gradient(after, problem.sample(apart))
        followed = otu.add(state.estimate, change)
        v = otu.add_scale(followed, self.weight, otu.sub(fresh, followed))
        return after, HybridSARAHState(value, v, key)

    def known(self, problem: Any, y: PyTree[Array], state: HybridSARAHState) -> Known:
        return Known() if problem.stochastic else Known(state.value, state.estimate)
