"""Cubic Newton steps from points that remember all gradients: faster by a power of the count.

Nesterov (2008), Accelerating the Cubic Regularization of Newton's Method on Convex Problems;
Agafonov, Kamzolov, Gasnikov, Kavis, Antonakopoulos, Cevher, Takac (2023), Advancing the Lower
Bounds: An Accelerated, Stochastic, Second-Order Method with Optimal Adaptation to Inexactness.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..method import AbstractMethod
from ..problem import AbstractObjective, AbstractProblem, Known
from ..solution import Status
from ..validate import in_range
from ._shared import cubic_step, spectrum


class AcceleratedCubicNewtonState(eqx.Module):
    value: Float[Array, ""]
    gradient: PyTree[Array]
    start: Float[Array, " n"]
    slopes: Float[Array, " n"]
    count: Int[Array, ""]
    lipschitz: Float[Array, ""]
    greatest: Float[Array, ""]
    at_rest: Bool[Array, ""]
    key: Array | None


class AcceleratedCubicNewton(AbstractMethod[AcceleratedCubicNewtonState]):
    """Nesterov's accelerated cubic Newton method for convex f, also with inexact derivatives.

    From the k-th point x, with g and H taken at the point y between x and v,

        v = argmin <s, z> + b/2 |z - x_0|^2 + 2 L |z - x_0|^3,
        y = (k x + 3 v) / (k + 3),
        z = y + argmin <g, h> + <H h, h> / 2 + d/2 |h|^2 + L/3 |h|^3,
        s+ = s + (k + 1) (k + 2) / 2 grad f(z),

    d = 2 delta + (k + 3)^(3/2) sigma / R and b = 3 (k + 1) (k + 2) / (k + 3) d, both 0 where the
    derivatives are exact. Then x+ is the lower of z and x, and f - f* <= 12 L R^3 / (k (k + 1)
    (k + 2)), R the distance from the start to a solution. Where they are not x+ is z, and errors of
    the order of sigma R / sqrt k and delta R^2 / k^2 are added.

    The theory is for the worst case: on many convex problems, and near any solution where f is
    strongly convex, plain cubic steps (`LazyNewton`) are faster.

    Args:
        hessian_lipschitz: L, positive; by default adaptive: a step that does not gain what the
            theory needs is taken back and L raised, one that gains amply lowers it.
        gradient_noise: sigma, a bound on the root of the mean square error of gradients, at least
            0. On a `FiniteSum` with a `batch_size` each step draws two batches.
        hessian_error: delta, a bound on the error of the Hessian, at least 0.
        distance: R, positive, an estimate; without noise it does not matter.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import raphson as rp
        >>> problem = rp.problems.logistic_synthetic(100, 2)
        >>> run = rp.solve(problem, rp.smooth.AcceleratedCubicNewton(), rtol=1e-3)
        >>> bool(problem.value(run.value) - problem.facts.optimum < 1e-5)
        True
    """

    hessian_lipschitz: float | None = None
    gradient_noise: float = 0.0
    hessian_error: float = 0.0
    distance: float = 1.0

    question: ClassVar[type[AbstractProblem]] = AbstractObjective
    samples: ClassVar[bool] = True

    def __check_init__(self):
        if self.hessian_lipschitz is not None:
            in_range(self, "hessian_lipschitz", 0)
        in_range(self, "gradient_noise", 0, closed="left")
        in_range(self, "hessian_error", 0, closed="left")
        in_range(self, "distance", 0)

    def init(
        self, problem: Any, y: PyTree[Array], key: Array | None
    ) -> AcceleratedCubicNewtonState:
        value, gradient = problem.value_and_gradient(y)
        flat = ravel_pytree(y)[0]
        # The first step knows what to begin with.
        unknown = 0.0 if self.hessian_lipschitz is None else self.hessian_lipschitz
        return AcceleratedCubicNewtonState(
            value,
            gradient,
            flat,
            jnp.zeros_like(flat),
            jnp.array(0, jnp.int32),
            jnp.asarray(unknown, flat.dtype),
            jnp.zeros((), flat.dtype),
            jnp.array(False),
            key if problem.stochastic else None,
        )

    def step(
        self, problem: Any, y: PyTree[Array], state: AcceleratedCubicNewtonState
    ) -> tuple[PyTree[Array], AcceleratedCubicNewtonState]:
        x, unravel = ravel_pytree(y)
        k, s = state.count.astype(x.dtype), state.slopes
        keys = (None,) * 3
        if problem.stochastic:
            keys = jax.random.split(state.key, 3)  # pyright: ignore[reportArgumentType]
        batch, fresh = problem.sample(keys[0]), problem.sample(keys[1])

        d = 2 * self.hessian_error + (k + 3) ** 1.5 * self.gradient_noise / self.distance
        b = 3 * (k + 1) * (k + 2) / (k + 3) * d
        N = 12 * jnp.maximum(state.greatest, state.lipschitz)
        pull = b + jnp.sqrt(b**2 + 2 * N * jnp.linalg.norm(s))
        v = state.start - 2 / jnp.where(pull > 0, pull, 1) * s
        middle = (k * x + 3 * v) / (k + 3)

        _, g = problem.batch_value_and_gradient(unravel(middle), batch)
        g = ravel_pytree(g)[0]
        eigenvalues, basis = spectrum(problem.batch_hessian(unravel(middle), batch).as_matrix())
        L = state.lipschitz
        if self.hessian_lipschitz is None:
            # At first the cubic term weighs about a tenth of the curvature in a gradient step.
            curvature, slope = jnp.max(jnp.abs(eigenvalues), initial=0), jnp.linalg.norm(g)
            fit = (curvature > 0) & (slope > 0)
            guess = jnp.where(fit, 0.1 * curvature**2 / jnp.where(fit, slope, 1), 1)
            L = jnp.where(L > 0, L, guess)
        h = basis @ cubic_step(eigenvalues + d, basis.T @ g, 2 * L)
        there = middle + h
        trial = unravel(there)
        value, gradient = problem.batch_value_and_gradient(trial, fresh)

        accepted, lipschitz, of_trial = jnp.array(True), L, ravel_pytree(gradient)[0]
        if self.hessian_lipschitz is None:
            judge = of_trial
            if problem.stochastic:  # by the batch that the step was made for
                judge = ravel_pytree(problem.batch_value_and_gradient(trial, batch)[1])[0]
            scale = jnp.max(jnp.abs(eigenvalues), initial=0) * jnp.linalg.norm(middle)
            rounding = 10 * jnp.finfo(x.dtype).eps * (jnp.linalg.norm(g) + scale)
            accepted, lipschitz = _judged(judge, h, d, L, rounding)

        # Where the fall of f drowns in its rounding, gradients tell of it.
        drowned = jnp.abs(value - state.value) <= 10 * jnp.finfo(x.dtype).eps * jnp.abs(value)
        flatter = jnp.linalg.norm(of_trial) < jnp.linalg.norm(ravel_pytree(state.gradient)[0])
        better = jnp.where(drowned, flatter, value < state.value)
        noisy = problem.stochastic | (jnp.asarray(self.gradient_noise) > 0)
        taken = accepted & (better | noisy)
        at_rest = jnp.all(there == x) | ~jnp.isfinite(lipschitz)

        y, value, gradient = jax.tree.map(
            lambda new, old: jnp.where(taken, new, old),
            (trial, value, gradient),
            (y, state.value, state.gradient),
        )
        return y, AcceleratedCubicNewtonState(
            value,
            gradient,
            state.start,
            jnp.where(accepted, s + (k + 1) * (k + 2) / 2 * of_trial, s),
            state.count + accepted,
            lipschitz,
            jnp.where(accepted, jnp.maximum(state.greatest, L), state.greatest),
            at_rest,
            keys[2],
        )

    def terminate(self, problem: Any, y: PyTree[Array], state: AcceleratedCubicNewtonState) -> Any:
        status = Status.where(state.at_rest, Status.stalled, Status.running)
        return Status.where(jnp.all(jnp.isfinite(state.slopes)), status, Status.nonfinite)

    def known(self, problem: Any, y: PyTree[Array], state: AcceleratedCubicNewtonState) -> Known:
        return Known() if problem.stochastic else Known(state.value, state.gradient)


def _judged(
    gradient: Float[Array, " n"],
    h: Float[Array, " n"],
    d: Float[Array, ""],
    L: Float[Array, ""],
    rounding: Float[Array, ""],
) -> tuple[Bool[Array, ""], Float[Array, ""]]:
    """Whether the step h gained enough, by the gradient it led to, and L for the next step."""
    size, gain = jnp.linalg.norm(gradient), -jnp.vdot(gradient, h)
    cubic = jnp.sqrt(L) * gain / size**1.5
    enough = (cubic >= (2 / 3) ** 0.5) | (4 * d * gain >= size**2)
    # Less than its rounding, the gradient tells nothing of the step.
    accepted = enough | (size <= rounding)
    factor = jnp.where(enough, jnp.where(cubic >= (8 / 9) ** 0.5, 0.25, 1.0), 4.0)
    return accepted, L * jnp.where(size <= rounding, 1.0, factor)
