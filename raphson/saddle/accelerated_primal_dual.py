"""Accelerated primal-dual: Nesterov's acceleration in one part, extrapolation in the coupling.

Khalafi, Boob (2023), Accelerated Primal-Dual Methods for Convex-Strongly-Concave Saddle Point
Problems; Chen, Lan, Ouyang (2014), Optimal Primal-Dual Methods for a Class of Saddle Point
Problems.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, Float, Int, PyTree

from ..method import AbstractMethod, iterate
from ..problem import AbstractProblem, Known
from ..validate import in_range, one_of, whole_number
from ._shared import ProximalStep
from .composite import CompositeSaddle

Pair = tuple[PyTree[Array], PyTree[Array]]

# Steps of the power iteration, and how much is added to what it found, which is never too much.
POWER_STEPS, MARGIN = 30, 1.1


class AcceleratedPrimalDualState(eqx.Module):
    x: PyTree[Array]
    y: PyTree[Array]
    slope: PyTree[Array] | None  # phi_y at the pair before
    lipschitz: Float[Array, ""]
    coupling: Float[Array, ""] | None
    count: Int[Array, ""]


class AcceleratedPrimalDual(AbstractMethod[AcceleratedPrimalDualState]):
    """The accelerated linearized primal-dual method for f(x) + phi(x, y) + g(x) - h(y).

    With w = 2 / (k + 2), t = k / (k + 1), p = 1 / tau and s the step sizes, k = 0, 1, ...:

        m   = (1 - w) x' + w x
        y+  = prox_h(y + (q + t (q - q-)) / p, 1 / p)     with q = phi_y(x, y), q- the one before
        x+  = prox_g(x - s (f_x(m) + phi_x(x, y+)), s)
        x'+ = (1 - w) x' + w x+,  y'+ = (1 - w) y' + w y+

    and the iterate is the pair (x', y'). Let f_x be L-Lipschitz, A the bound on |phi_xy|, and h
    strongly convex with modulus mu. Then

        p = mu k / 2 + mu / (k + 1),    (k + 1) / s = 2 L + 2 A^2 / mu

    keep f + max_y within (C |x0 - x|^2 + mu |y0 - y|^2) / (N (N + 1)) of its least value after N
    steps, where C = 2 L + 2 A^2 / mu. Without mu, p = A / r and (k + 1) / s = 2 L + (k + 1) A r,
    which on bounded sets gives O(L / N^2 + A / N). F is not known at the iterate: a run ends at
    `max_steps`, and its certificate judges.

    Args:
        lipschitz: L, positive; by default found at the start by power iteration, in 31 calls of
            f_x: to 10 % where f is quadratic, a local guess, and no bound, where it is not.
        coupling: A, positive; by default found likewise, in 62 calls of the coupling, to 10 % where
            phi is bilinear.
        strong_concavity: mu, positive: too large a value breaks the rate silently. None for an h
            that is only convex.
        ratio: r, positive, without mu: how much farther y has to go than x.
        curvature: Lipschitz constants of phi_x by x and of phi_y by y, at least 0; both are 0 where
            phi is bilinear, and the rate is optimal where one is.
        accelerated: whether f_x is asked at m; at x otherwise, with (k + 1) L in place of 2 L:
            the linearized primal-dual method, whose rate in L is O(L / N).
        inner: a method for variational inequalities, such as `Extragradient()`, that takes both
            proximal steps at once: it asks the coupling more often, and f_x as rarely as if there
            were no coupling, for A is then 0 in s. Needs mu.
        inner_steps: how many steps of it, at least 1, from where it ended before.
        restart_every: after how many steps all begins anew at the iterate; None for never, as in
            the papers, whose rate is that of problems without strong convexity in x.

    Raises:
        ValueError: if a hyperparameter is outside its range, or `inner` comes without mu.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> f, coupling = lambda x, _: (x - 2.0) ** 2 / 2, lambda x, y, _: x * y
        >>> parts = None, rp.composite.SquaredNorm(1.0)
        >>> start = jnp.array(0.0), jnp.array(0.0)
        >>> problem = rp.CompositeSaddle(f, coupling, *start, nonsmooth=parts)
        >>> method = rp.saddle.AcceleratedPrimalDual(1.0, 1.0, strong_concavity=1.0)
        >>> x, y = rp.solve(problem, method).value
        >>> round(float(x), 3), round(float(y), 3)
        (1.0, 1.0)
    """

    lipschitz: float | None = None
    coupling: float | None = None
    strong_concavity: float | None = None
    ratio: float = 1.0
    curvature: tuple[float, float] = (0.0, 0.0)
    accelerated: bool = eqx.field(static=True, default=True)
    inner: AbstractMethod | None = None
    inner_steps: int = eqx.field(static=True, default=10)
    restart_every: int | None = eqx.field(static=True, default=1000)

    question: ClassVar[type[AbstractProblem]] = CompositeSaddle

    def __check_init__(self):
        one_of(self, "accelerated", (False, True))
        for name in ("lipschitz", "coupling", "strong_concavity", "ratio"):
            if getattr(self, name) is not None:
                in_range(self, name, 0)
        if not (isinstance(self.curvature, tuple) and len(self.curvature) == 2):
            raise ValueError(
                "`curvature` of AcceleratedPrimalDual must be a pair, for x and for y, got "
                f"{self.curvature!r}."
            )
        in_range(self, "curvature", 0, closed="left")
        whole_number(self.inner_steps, "inner_steps", 1)
        if self.restart_every is not None:
            whole_number(self.restart_every, "restart_every", 1)
        if self.inner is not None and self.strong_concavity is None:
            raise ValueError(
                "`strong_concavity` of AcceleratedPrimalDual must be given with `inner`, got None."
            )

    def init(self, problem: Any, y: Pair, key: Array | None) -> AcceleratedPrimalDualState:
        dtype = jnp.result_type(*jax.tree.leaves(y))
        L, A, slope = self.lipschitz, None, None
        if L is None:
            L = _smoothness(problem, y)
        if self.inner is None:
            slope = problem.coupling_y(y)
            A = _coupling(problem, y, slope) if self.coupling is None else self.coupling
            A = jnp.asarray(A, dtype)
        return AcceleratedPrimalDualState(
            *y, slope, jnp.asarray(L, dtype), A, jnp.array(0, jnp.int32)
        )

    def step(
        self, problem: Any, y: Pair, state: AcceleratedPrimalDualState
    ) -> tuple[Pair, AcceleratedPrimalDualState]:
        mean, last = y, (state.x, state.y)
        k = state.count if self.restart_every is None else state.count % self.restart_every
        x, y = jax.tree.map(lambda new, z: jnp.where(k == 0, new, z), mean, last)
        k = k.astype(jnp.result_type(*jax.tree.leaves(x)))
        p, s = self._steps(state.lipschitz, state.coupling, k)
        w = 2 / (k + 2)
        at = _between(mean[0], x, w) if self.accelerated else x
        slope = None
        if self.inner is None:
            slope = problem.coupling_y((x, y))
            q = otu.add_scale(slope, k / (k + 1), otu.sub(slope, state.slope))
            _, y = problem.resolvent((x, otu.add_scale(y, 1 / p, q)), (s, 1 / p))
            descent = otu.add(problem.gradient((at, y)), problem.coupling_x((x, y)))
            x, _ = problem.resolvent((otu.add_scale(x, -s, descent), y), (s, 1 / p))
        else:
            slope_f = problem.gradient((at, y))

            def linearized(z: Pair) -> Pair:
                by_x = otu.add(slope_f, problem.coupling_x(z))
                return by_x, otu.scale(-1, problem.coupling_y(z))

            inner = ProximalStep(problem, (x, y), (s, 1 / p), linearized)
            run = iterate(
                inner, self.inner, inner.y0, rtol=0.0, atol=0.0, max_steps=self.inner_steps
            )
            x, y = inner.unscaled(self.inner.answer(inner, run.y, run.state))
        mean = _between(mean[0], x, w), _between(mean[1], y, w)
        return mean, AcceleratedPrimalDualState(
            x, y, slope, state.lipschitz, state.coupling, state.count + 1
        )

    def known(self, problem: Any, y: Pair, state: AcceleratedPrimalDualState) -> Known:
        return Known()

    def _steps(self, L: Array, A: Array | None, k: Array) -> tuple[Array, Array]:
        """p and s at the step k."""
        mu, (L_x, L_y) = self.strong_concavity, self.curvature
        coupled: Any
        if mu is None:
            assert A is not None
            p, coupled = A / self.ratio + 2 * L_y, (k + 1) * A * self.ratio
        else:
            # Where phi is curved in y too, half of p keeps up with it at every k.
            curved = jnp.asarray(L_y, k.dtype) > 0
            first = jnp.where(curved, jnp.maximum(mu, (2 * L_y + mu / 4) ** 2 / mu), mu)
            p = mu * k / 2 + first / (k + 1)
            coupled = 0.0 if A is None else jnp.where(curved, 4, 2) * A**2 / mu
        smooth = 2 * L if self.accelerated else (k + 1) * L
        return p, (k + 1) / (smooth + coupled + (k + 1) * L_x)


def _between(a: PyTree[Array], b: PyTree[Array], weight: Array) -> PyTree[Array]:
    return otu.add_scale(a, weight, otu.sub(b, a))


def _smoothness(problem: Any, z: Pair) -> Float[Array, ""]:
    """The norm of f_xx at x, by differences of gradients, which are products with it."""
    x, y = z
    at = problem.gradient(z)
    return _norm(lambda v: otu.sub(problem.gradient((otu.add(x, v), y)), at), x)


def _coupling(problem: Any, z: Pair, slope: PyTree[Array]) -> Float[Array, ""]:
    """The norm of phi_xy at z, likewise: the root of that of phi_yx phi_xy."""
    x, y = z
    at = problem.coupling_x(z)

    def squared(v: PyTree[Array]) -> PyTree[Array]:
        u = otu.sub(problem.coupling_x((x, otu.add(y, v))), at)
        return otu.sub(problem.coupling_y((otu.add(x, u), y)), slope)

    return jnp.sqrt(_norm(squared, y))


def _norm(times: Callable[[Any], PyTree[Array]], like: PyTree[Array]) -> Float[Array, ""]:
    """The norm of a positive semidefinite linear map, by power iteration."""

    def powered(_: Array, v: PyTree[Array]) -> PyTree[Array]:
        return times(_unit(v))

    start = otu.random_like(jax.random.key(0), like)
    norm = MARGIN * otu.norm(jax.lax.fori_loop(0, POWER_STEPS, powered, start))
    # A map without effect limits no step size, which must be some number nevertheless.
    return jnp.where(norm > 0, norm, 1)


def _unit(v: PyTree[Array]) -> PyTree[Array]:
    norm = otu.norm(v)
    return otu.scale(1 / jnp.where(norm > 0, norm, 1), v)
