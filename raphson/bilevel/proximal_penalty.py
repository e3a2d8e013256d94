"""The proximal penalty: lower levels with many minima, held by slow centers of both copies.

Kwon, Kwon, Wright, Nowak (2024), On Penalty Methods for Nonconvex Bilevel Optimization and
First-Order Stochastic Approximation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, Int, PyTree

from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ..validate import in_range, whole_number
from ._shared import estimated, scan_keys
from .problem import AbstractBilevel


class ProximalPenaltyState(eqx.Module):
    z: PyTree[Array]  # follows a minimum of f alone
    centers: tuple[PyTree[Array], PyTree[Array]]  # of y and of z
    estimates: PyTree[Array]  # of the gradients by y and by x, where there is momentum
    before: PyTree[Array]  # the points x, y, z of these estimates, likewise
    count: Int[Array, ""]
    key: Array | None


class ProximalPenalty(AbstractMethod[ProximalPenaltyState]):
    """The penalty method whose lower problems are solved by proximal steps.

    With P the projections on the sets, centers c of y and d of z, and sigma the penalty, each step
    takes N inner steps of y and z, then one of the centers and of x:

        y  =  P(y - g (sigma F_y(x, y) + f_y(x, y) + (y - c) / r))
        z  =  P(z - g (f_y(x, z) + (z - d) / r))
        c  =  c + b (y - c)         d  =  d + b (z - d)
        x  =  P(x - s (F_x(x, y) + (f_x(x, y) - f_x(x, z)) / sigma))

    So x descends the penalized objective (min_y (sigma F + f) - min_y f) / sigma. Where the lower
    minima obey a proximal error bound, for all penalties from 0 to sigma alike, it is within
    O(sigma) of the true one, be they many; where they jump with x it need not be near. Many inner
    steps and b = 1 are the double-loop form, N = 1 and a small b the single-loop form.

    Args:
        step_size: s, positive.
        penalty: sigma, positive, or a function of the step count from 0, such as an Optax
            schedule. What it leaves of bias the run cannot tell: it ends at `max_steps`.
        inner_step_size: g, positive; below 2 / (L + 1 / r) where sigma F + f is L-smooth in y.
        radius: r, positive: how far a proximal step reaches.
        center: b, in (0, 1].
        inner_steps: N, at least 1.
        momentum: m, in (0, 1], or a function of the step count. Each gradient is then estimated as
            g + (1 - m) (estimate - g_before), both g on one batch, which averages noise away. By
            default it is g.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> upper = lambda x, y, _: jnp.sum((y - jnp.array([1.0, 0.0])) ** 2) / 2 + x**2 / 4
        >>> lower = lambda x, y, _: (y[0] + y[1] - x) ** 2 / 2
        >>> problem = rp.Bilevel(upper, lower, 2.0, jnp.zeros(2))
        >>> run = rp.solve(problem, rp.bilevel.ProximalPenalty(), max_steps=3000, throw=False)
        >>> round(float(run.value[0]), 2)
        0.5
    """

    step_size: float = 0.1
    penalty: float | Callable[[Array], Any] = 0.01
    inner_step_size: float = 0.2
    radius: float = 1.0
    center: float = 1.0
    inner_steps: int = 10
    momentum: float | Callable[[Array], Any] | None = None

    question: ClassVar[type[AbstractProblem]] = AbstractBilevel
    samples: ClassVar[bool] = True

    def __check_init__(self):
        for name in ("step_size", "inner_step_size", "radius"):
            in_range(self, name, 0)
        if not callable(self.penalty):
            in_range(self, "penalty", 0)
        in_range(self, "center", 0, 1, closed="right")
        whole_number(self.inner_steps, "inner_steps", 1)
        if self.momentum is not None and not callable(self.momentum):
            in_range(self, "momentum", 0, 1, closed="right")

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> ProximalPenaltyState:
        x, y = y
        z = problem.project((x, y))[1]
        estimates = before = None
        if self.momentum is not None:
            before = (x, y, z), (x, y, z)
            estimates = otu.zeros_like(((y, y, y), (x, x, x)))
        key = key if problem.stochastic else None
        return ProximalPenaltyState(z, (z, z), estimates, before, jnp.array(0, jnp.int32), key)

    def step(
        self, problem: Any, y: PyTree[Array], state: ProximalPenaltyState
    ) -> tuple[PyTree[Array], ProximalPenaltyState]:
        (x, y), z = y, state.z
        key, last, keys = scan_keys(state.key, self.inner_steps)
        dtype = jnp.result_type(*jax.tree.leaves(x))
        # 1 / (k + 1) of an int32 would come in single precision.
        k = state.count.astype(dtype)
        sigma: Any = self.penalty(k) if callable(self.penalty) else self.penalty
        m: Any = self.momentum(k) if callable(self.momentum) else self.momentum
        m = None if m is None else jnp.where(k == 0, 1, jnp.asarray(m, dtype))
        sigma, g, r = (
            jnp.asarray(each, dtype) for each in (sigma, self.inner_step_size, self.radius)
        )
        by_y, by_x = state.estimates or (None, None)
        before_y, before_x = state.before or (None, None)

        def inner(carry: Any, key: Array | None) -> tuple[Any, None]:
            y, z, estimate, before = carry
            now, (upper, lower) = (x, y, z), problem.sample(key)
            batches = upper, lower, lower
            F_y, f_y, f_z = estimate = estimated(problem, 1, now, batches, before, estimate, m)
            slopes = otu.add_scale(f_y, sigma, F_y), f_z

            def moved(y: Any, slope: Any, center: Any) -> Any:
                slope = otu.add_scale(slope, 1 / r, otu.sub(y, center))
                return problem.project((x, otu.add_scale(y, -g, slope)))[1]

            y, z = map(moved, (y, z), slopes, state.centers)
            return (y, z, *((None, None) if m is None else (estimate, now))), None

        (y, z, by_y, before_y), _ = jax.lax.scan(
            inner, (y, z, by_y, before_y), keys, self.inner_steps
        )
        centers = otu.add_scale(state.centers, self.center, otu.sub((y, z), state.centers))

        now, (upper, lower) = (x, y, z), problem.sample(last)
        batches = upper, lower, lower
        F_x, f_x, f_z = by_x = estimated(problem, 0, now, batches, before_x, by_x, m)
        slope = otu.add_scale(F_x, 1 / sigma, otu.sub(f_x, f_z))
        x = problem.project((otu.add_scale(x, -self.step_size, slope), y))[0]
        estimates = before = None
        if m is not None:
            estimates, before = (by_y, by_x), (before_y, now)
        return (x, y), ProximalPenaltyState(z, centers, estimates, before, state.count + 1, key)

    def known(self, problem: Any, y: PyTree[Array], state: ProximalPenaltyState) -> Known:
        return Known()
