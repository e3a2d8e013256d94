"""Newton's method where the Hessian is positive definite, steepest descent where it is not.

Tkachenko, Andronov (2014), Determination of Characteristics of Eclipsing Binaries with Spots:
Phenomenological vs Physical Models.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Bool, Float, PyTree

from ..method import AbstractMethod
from ..problem import AbstractObjective, AbstractProblem, Known
from ..solution import Status

# A step that is this much too long is none.
SHORTEST = 2.0**-60


class CombinedNewtonDescentState(eqx.Module):
    value: Float[Array, ""]
    gradient: PyTree[Array]
    at_rest: Bool[Array, ""]


class CombinedNewtonDescent(AbstractMethod[CombinedNewtonDescentState]):
    """Newton's step y+ = y - t H^-1 g where H is positive definite, elsewhere steepest descent.

    Cholesky's factorization is the test. A step of descent is y+ = y - t |g|^2 / |g'H g| g, as long
    as for a quadratic. From 1 on t is halved until f falls by at least 1e-4 of what the slope
    promises.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.Minimize(lambda y, _: jnp.sum(y**4 - y**2), jnp.array([0.1, 2.0]))
        >>> rp.solve(problem, rp.smooth.CombinedNewtonDescent()).value.round(2).tolist()
        [0.71, 0.71]
    """

    question: ClassVar[type[AbstractProblem]] = AbstractObjective

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> CombinedNewtonDescentState:
        value, gradient = problem.value_and_gradient(y)
        return CombinedNewtonDescentState(value, gradient, jnp.array(False))

    def step(
        self, problem: Any, y: PyTree[Array], state: CombinedNewtonDescentState
    ) -> tuple[PyTree[Array], CombinedNewtonDescentState]:
        flat, unravel = ravel_pytree(y)
        g, H = ravel_pytree(state.gradient)[0], problem.hessian(y).as_matrix()
        newton = -cho_solve((jnp.linalg.cholesky(H), True), g)
        definite = jnp.all(jnp.isfinite(newton))  # a factorization that failed is NaN
        # Where f is straight along g no length is better than another.
        curvature = jnp.abs(jnp.vdot(g, H @ g))
        bent = (curvature > 0) & jnp.isfinite(curvature)
        length = jnp.where(bent, jnp.vdot(g, g) / jnp.where(bent, curvature, 1), 1)
        direction = jnp.where(definite, newton, -length * g)
        promised = -1e-4 * jnp.vdot(g, direction)
        # Near a solution the decrease drowns in the rounding of f, which must not reject a step.
        rounding = 10 * jnp.finfo(state.value.dtype).eps * jnp.abs(state.value)

        def tried(t: Array) -> tuple[Array, Array]:
            return t, problem.value(unravel(flat + t * direction))

        def rejected(attempt: tuple[Array, Array]) -> Array:
            t, value = attempt
            return ~(state.value - value + rounding >= t * promised) & (t > SHORTEST)

        halved = lambda attempt: tried(attempt[0] / 2)
        t, _ = jax.lax.while_loop(rejected, halved, tried(jnp.ones_like(state.value)))
        trial = jnp.where(t > SHORTEST, flat + t * direction, flat)
        value, gradient = problem.value_and_gradient(unravel(trial))
        at_rest = jnp.all(trial == flat)
        return unravel(trial), CombinedNewtonDescentState(value, gradient, at_rest)

    def terminate(self, problem: Any, y: PyTree[Array], state: CombinedNewtonDescentState) -> Any:
        return Status.where(state.at_rest, Status.stalled, Status.running)

    def known(self, problem: Any, y: PyTree[Array], state: CombinedNewtonDescentState) -> Known:
        return Known(state.value, state.gradient)
