"""Halpern's iteration of the resolvent, which an inner method finds ever more closely.

Cai, Alacaoglu, Diakonikolas (2024), Variance Reduced Halpern Iteration for Finite-Sum Monotone
Inclusions; Halpern (1967), Fixed Points of Nonexpanding Maps.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, Float, Int, PyTree

from ..method import AbstractMethod, iterate
from ..problem import AbstractProblem, Known
from ..validate import in_range, whole_number
from ._shared import ProximalStep
from .extragradient import Extragradient
from .problem import AbstractVariational


class HalpernProximalPointState(eqx.Module):
    anchor: PyTree[Array]
    operator: PyTree[Array] | None  # F at the iterate; not held where it is sampled
    scale: Float[Array, ""]  # |u - J(u)| at the anchor
    count: Int[Array, ""]  # of steps since the anchor
    key: Array | None


class HalpernProximalPoint(AbstractMethod[HalpernProximalPointState]):
    """Halpern's iteration of J, u+ = u_0 / (k + 2) + (k + 1) / (k + 2) J(u), restarted.

    J(u) is the resolvent of the whole, the z with 0 in F(z) + G(z) + (z - u) / s. It is
    nonexpansive wherever F is monotone, also where F is not cocoercive. An inner method finds it
    from u, to 1 / (k + 2)^2 of its residual there or in a number of steps that grows like log k.
    With a variance-reduced inner method on n samples and s = sqrt n / L, each step takes about n
    operators of one sample, up to logarithms, and n + sqrt n L / eps lead to the residual eps.

    Args:
        step_size: s, positive. The longer, the fewer steps and the harder each.
        inner: the method that finds J(u), one for variational inequalities; on a sampled problem
            one that draws batches too, such as `VarianceReducedExtragradient`. By default
            extragradient that finds its own step.
        inner_steps: how many inner steps at most at k = 0; log2(k + 2) times as many later.
        restart: the iterate becomes the anchor, and k = 0, when |u - J(u)| has fallen to this
            fraction, in [0, 1), of what it was at the anchor. 0 never restarts, which is the
            paper's.

    Raises:
        ValueError: if a hyperparameter is outside its range, or `inner` is no method for
            variational inequalities.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.Saddle(lambda x, y, _: x * y, jnp.array(1.0), jnp.array(1.0))
        >>> x, y = rp.solve(problem, rp.saddle.HalpernProximalPoint()).value
        >>> abs(float(x)) < 1e-2 and abs(float(y)) < 1e-2
        True
    """

    step_size: float = 1.0
    inner: AbstractMethod = Extragradient()
    inner_steps: int = 50
    restart: float = 0.37

    question: ClassVar[type[AbstractProblem]] = AbstractVariational
    samples: ClassVar[bool] = True

    def __check_init__(self):
        in_range(self, "step_size", 0)
        whole_number(self.inner_steps, "inner_steps", 1)
        in_range(self, "restart", 0, 1, closed="left")
        fits = isinstance(self.inner, AbstractMethod)
        if not fits or not issubclass(AbstractVariational, self.inner.question):
            raise ValueError(
                "`inner` of HalpernProximalPoint must be a method for variational inequalities, "
                f"such as Extragradient(), got {self.inner!r}."
            )

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> HalpernProximalPointState:
        operator = None if problem.stochastic else problem.operator(y)
        # Infinite until the first step has found it.
        scale = jnp.full((), jnp.inf, jnp.result_type(*jax.tree.leaves(y)))
        key = key if problem.stochastic else None
        return HalpernProximalPointState(y, operator, scale, jnp.array(0, jnp.int32), key)

    def step(
        self, problem: Any, y: PyTree[Array], state: HalpernProximalPointState
    ) -> tuple[PyTree[Array], HalpernProximalPointState]:
        k = state.count.astype(state.scale.dtype)
        key, now = (None, None) if state.key is None else jax.random.split(state.key)
        J = iterate(
            ProximalStep(problem, y, self.step_size),
            self.inner,
            y,
            now,
            rtol=1 / (k + 2) ** 2,
            atol=0.0,
            max_steps=jnp.ceil(self.inner_steps * jnp.log2(k + 2)),
        ).y
        size = otu.norm(otu.sub(y, J))
        restarted = size < self.restart * state.scale
        scale = jnp.where(restarted | (state.count == 0), size, state.scale)
        anchor = jax.tree.map(lambda u, old: jnp.where(restarted, u, old), y, state.anchor)
        k = jnp.where(restarted, 0, k)
        after = otu.add_scale(J, 1 / (k + 2), otu.sub(anchor, J))
        operator = None if problem.stochastic else problem.operator(after)
        count = jnp.where(restarted, 0, state.count) + 1
        return after, HalpernProximalPointState(anchor, operator, scale, count, key)

    def known(self, problem: Any, y: PyTree[Array], state: HalpernProximalPointState) -> Known:
        if problem.stochastic:
            return Known()
        return Known(residual=problem.natural_residual(y, state.operator))
