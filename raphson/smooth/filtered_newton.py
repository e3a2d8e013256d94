"""Stochastic Newton steps that a Kalman filter of the gradients lends momentum.

Burkhart (2021), Discriminative Bayesian Filtering Lends Momentum to the Stochastic Newton Method
for Minimizing Log-Convex Functions.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PyTree

from ..method import AbstractMethod
from ..problem import AbstractObjective, AbstractProblem, Known
from ..solution import Status
from ..validate import in_range
from ._shared import spectrum


class FilteredNewtonState(eqx.Module):
    value: Float[Array, ""]
    gradient: PyTree[Array]
    direction: Float[Array, " n"]
    covariance: Float[Array, "n n"]
    begun: Bool[Array, ""]
    at_rest: Bool[Array, ""]
    key: Array | None


class FilteredNewton(AbstractMethod[FilteredNewtonState]):
    """The stochastic Newton method with filtered gradients and Hessians, y+ = y + t d.

    The gradient is taken for a state that fades by alpha and is disturbed by beta I at each step,
    so that by itself it would have the covariance S = beta / (1 - alpha^2) I. A batch's gradient g
    and Hessian H observe it. The filter's estimate m, of covariance P, gives d = -P^-1 m, which is

        d+ = alpha (alpha^2 P + beta I)^-1 P d - Q^-1 g,
        P+ = ((alpha^2 P + beta I)^-1 + Q^-1 - S^-1)^-1,

    with Q = H where that is less than S, and else Q = (H^-1 + S^-1)^-1, from d = 0 and P = H. For
    alpha = 0 and beta above all curvatures this is the stochastic Newton method.

    Momentum helps steps that are short: where t is near 1 a step on a quadratic forgets where it
    came from, and older directions only add to it. The line search halves t until the f of the
    batch falls by 1e-4 t <g, d>, and starts from -Q^-1 g where d does not go down; the author's
    code asks for 0.99 of it, which no t that it tries on a quadratic meets, and so takes its last,
    1/16.

    Args:
        alpha: how much of the state lasts, in [0, 1).
        beta: the variance of its disturbance, positive, in the units of H.
        step_size: t, positive; by default found at each step by the line search.
        ridge: what is added to H for batches that leave it singular, as a share of its greatest
            eigenvalue; positive. Of eigenvalues below 0 the size is taken.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax
        >>> import raphson as rp
        >>> problem = rp.problems.logistic_synthetic(100, 2, batch_size=20)
        >>> method = rp.smooth.FilteredNewton(step_size=0.1)
        >>> run = rp.solve(problem, method, key=jax.random.key(0), max_steps=50, throw=False)
        >>> bool(run.certificate.residual < 0.3 * run.certificate.scale)
        True
    """

    alpha: float = 0.9
    beta: float = 1.0
    step_size: float | None = None
    ridge: float = 1e-6

    question: ClassVar[type[AbstractProblem]] = AbstractObjective
    samples: ClassVar[bool] = True

    def __check_init__(self):
        in_range(self, "alpha", 0, 1, closed="left")
        in_range(self, "beta", 0)
        in_range(self, "ridge", 0)
        if self.step_size is not None:
            in_range(self, "step_size", 0)

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> FilteredNewtonState:
        value, gradient = problem.value_and_gradient(y)
        flat = ravel_pytree(y)[0]
        return FilteredNewtonState(
            value,
            gradient,
            jnp.zeros_like(flat),
            jnp.eye(flat.size, dtype=flat.dtype),
            jnp.array(False),
            jnp.array(False),
            key if problem.stochastic else None,
        )

    def step(
        self, problem: Any, y: PyTree[Array], state: FilteredNewtonState
    ) -> tuple[PyTree[Array], FilteredNewtonState]:
        key, batch, value, gradient = None, None, state.value, state.gradient
        if problem.stochastic:
            key, now = jax.random.split(state.key)  # pyright: ignore[reportArgumentType]
            batch = problem.sample(now)
            value, gradient = problem.batch_value_and_gradient(y, batch)
        flat, unravel = ravel_pytree(y)
        g, one = ravel_pytree(gradient)[0], jnp.eye(flat.size, dtype=flat.dtype)

        eigenvalues, basis = spectrum(problem.batch_hessian(y, batch).as_matrix())
        sizes = jnp.abs(eigenvalues)
        greatest = jnp.max(sizes, initial=0)
        sizes = sizes + self.ridge * jnp.where(greatest > 0, greatest, 1)
        stationary = self.beta / (1 - self.alpha**2)
        below = 1 / jnp.max(sizes, initial=0) - 1 / stationary > 1e-6 / stationary
        # Q^-1 - S^-1 in the eigenbasis, positive in either case.
        gain = jnp.where(below, 1 / sizes - 1 / stationary, 1 / sizes)
        newton = -basis @ ((gain + 1 / stationary) * (basis.T @ g))

        P, faded = state.covariance, self.alpha**2 * state.covariance + self.beta * one
        d = self.alpha * jnp.linalg.solve(faded, P @ state.direction) + newton
        P = jnp.linalg.inv(jnp.linalg.inv(faded) + (basis * gain[None]) @ basis.T)
        # The first step is Newton's, and its Hessian all that is known.
        d = jnp.where(state.begun, d, -basis @ ((basis.T @ g) / sizes))
        P = jnp.where(state.begun, (P + P.T) / 2, (basis * sizes[None]) @ basis.T)

        t = jnp.ones_like(value) * (1 if self.step_size is None else self.step_size)
        if self.step_size is None:
            d = jnp.where(jnp.vdot(g, d) < 0, d, newton)
            rounding = 10 * jnp.finfo(flat.dtype).eps * jnp.abs(value)
            asked = 1e-4 * jnp.vdot(g, d)

            def tried(t: Array) -> tuple[Array, Array]:
                return t, problem.batch_value(unravel(flat + t * d), batch)

            def rejected(attempt: tuple[Array, Array]) -> Array:
                t, reached = attempt
                return ~(reached <= value + t * asked + rounding) & (t > jnp.finfo(t.dtype).tiny)

            halve = lambda attempt: tried(attempt[0] / 2)
            t, _ = jax.lax.while_loop(rejected, halve, tried(t))
        after = flat + t * d
        y, at_rest = unravel(after), jnp.all(after == flat) & (not problem.stochastic)
        if not problem.stochastic:
            value, gradient = problem.value_and_gradient(y)
        return y, FilteredNewtonState(value, gradient, d, P, jnp.array(True), at_rest, key)

    def terminate(self, problem: Any, y: PyTree[Array], state: FilteredNewtonState) -> Any:
        return Status.where(state.at_rest, Status.stalled, Status.running)

    def known(self, problem: Any, y: PyTree[Array], state: FilteredNewtonState) -> Known:
        return Known() if problem.stochastic else Known(state.value, state.gradient)
