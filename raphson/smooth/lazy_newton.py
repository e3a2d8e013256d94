"""Newton's method with a Hessian that is renewed only now and then, regularized to be global.

Doikov, Chayti, Jaggi (2022), Second-Order Optimization with Lazy Hessians.
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
from ..validate import in_range, one_of, whole_number
from ._shared import cubic_step, spectrum


class LazyNewtonState(eqx.Module):
    value: Float[Array, ""]
    gradient: PyTree[Array]
    eigenvalues: Float[Array, " n"]
    eigenvectors: Float[Array, "n n"]
    age: Int[Array, ""]
    smoothness: Float[Array, ""]
    at_rest: Bool[Array, ""]


class LazyNewton(AbstractMethod[LazyNewtonState]):
    """Regularized Newton steps, the Hessian's eigendecomposition reused `refresh_every` times.

    The step from y with gradient g and a Hessian H that may be old is, by `regularization`,

    - `"cubic"`: the least point of <g, h> + <H h, h> / 2 + M |h|^3 / 6, for any smooth f;
    - `"quadratic"`: h = -(H + sqrt(M |g|) I)^-1 g, for convex f.

    M stands for how fast the Hessian changes. If it is not given it is found along the way: a step
    that does not fall as far as its model promised is taken back and M raised, one that does lowers
    it.

    Args:
        refresh_every: m, the number of accepted steps that share a Hessian; 1 is Newton's method,
            and the paper's choice when a Hessian costs as much as n gradients is m = n.
        regularization: `"cubic"` or `"quadratic"`.
        smoothness: M, positive; for a Hessian with Lipschitz constant L the theory takes 6 m L
            (cubic) or 3 m L (quadratic), far too careful in practice. By default adaptive.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> rosenbrock = lambda y, _: (1 - y[0]) ** 2 + 100 * (y[1] - y[0] ** 2) ** 2
        >>> problem = rp.Minimize(rosenbrock, jnp.array([-1.2, 1.0]))
        >>> rp.solve(problem, rp.smooth.LazyNewton()).value.round(2).tolist()
        [1.0, 1.0]
    """

    refresh_every: int = 1
    regularization: str = "cubic"
    smoothness: float | None = None

    question: ClassVar[type[AbstractProblem]] = AbstractObjective

    def __check_init__(self):
        whole_number(self.refresh_every, "refresh_every", 1)
        one_of(self, "regularization", ("cubic", "quadratic"))
        if self.smoothness is not None:
            in_range(self, "smoothness", 0)

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> LazyNewtonState:
        value, gradient = problem.value_and_gradient(y)
        eigenvalues, eigenvectors = spectrum(problem.hessian(y).as_matrix())
        smoothness = self.smoothness
        if smoothness is None:
            # The first regularization is a tenth of the curvature at a step against the gradient.
            curvature = jnp.max(jnp.abs(eigenvalues), initial=0)
            length = jnp.linalg.norm(ravel_pytree(gradient)[0])
            smoothness = jnp.where(
                (curvature > 0) & (length > 0), 0.2 * curvature * curvature / length, 1.0
            )
        return LazyNewtonState(
            value,
            gradient,
            eigenvalues,
            eigenvectors,
            jnp.array(0, jnp.int32),
            jnp.asarray(smoothness, eigenvalues.dtype),
            jnp.array(False),
        )

    def step(
        self, problem: Any, y: PyTree[Array], state: LazyNewtonState
    ) -> tuple[PyTree[Array], LazyNewtonState]:
        flat, unravel = ravel_pytree(y)
        g = state.eigenvectors.T @ ravel_pytree(state.gradient)[0]
        if self.regularization == "cubic":
            h = cubic_step(state.eigenvalues, g, state.smoothness)
        else:
            shift = jnp.sqrt(state.smoothness * jnp.linalg.norm(g))
            h = -g / (state.eigenvalues + shift)
        trial = flat + state.eigenvectors @ h
        value, gradient = problem.value_and_gradient(unravel(trial))

        if self.smoothness is None:
            accepted, smoothness = self._judged(state, g, h, value, ravel_pytree(gradient)[0])
        else:
            accepted, smoothness = jnp.array(True), state.smoothness

        at_rest = jnp.all(trial == flat)
        y = unravel(jnp.where(accepted, trial, flat))
        value = jnp.where(accepted, value, state.value)
        gradient = jax.tree.map(
            lambda new, old: jnp.where(accepted, new, old), gradient, state.gradient
        )
        age = state.age + accepted
        eigenvalues, eigenvectors = jax.lax.cond(
            age >= self.refresh_every,
            lambda: spectrum(problem.hessian(y).as_matrix()),
            lambda: (state.eigenvalues, state.eigenvectors),
        )
        age = jnp.where(age >= self.refresh_every, 0, age)
        return y, LazyNewtonState(
            value, gradient, eigenvalues, eigenvectors, age, smoothness, at_rest
        )

    def terminate(self, problem: Any, y: PyTree[Array], state: LazyNewtonState) -> Any:
        return Status.where(state.at_rest, Status.stalled, Status.running)

    def known(self, problem: Any, y: PyTree[Array], state: LazyNewtonState) -> Known:
        return Known(state.value, state.gradient)

    def _judged(
        self,
        state: LazyNewtonState,
        g: Float[Array, " n"],
        h: Float[Array, " n"],
        value: Float[Array, ""],
        gradient: Float[Array, " n"],
    ) -> tuple[Bool[Array, ""], Float[Array, ""]]:
        """Whether to accept the trial, and M for the next step."""
        m = state.smoothness
        if self.regularization == "quadratic":
            shift = jnp.sqrt(m * jnp.linalg.norm(g))
            progress = -jnp.vdot(gradient, state.eigenvectors @ h)
            accepted = progress >= jnp.vdot(gradient, gradient) / (4 * shift)
            return accepted, jnp.where(accepted, m / 4, m * 4)
        cubic = m / 6 * jnp.linalg.norm(h) ** 3
        promised = -jnp.vdot(g, h) - jnp.sum(state.eigenvalues * h**2) / 2 - cubic
        # Near a solution the decrease drowns in the rounding of f, which must not reject a step.
        rounding = 10 * jnp.finfo(value.dtype).eps * jnp.abs(state.value)
        fallen, promised = state.value - value + rounding, promised + rounding
        accepted = fallen >= 0.1 * jnp.maximum(promised, 0)
        kept = fallen >= 0.9 * promised
        return accepted, m * jnp.where(accepted, jnp.where(kept, 0.25, 1.0), 4.0)
