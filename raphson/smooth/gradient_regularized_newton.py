"""Newton's method with an approximate Hessian, regularized in proportion to the gradient.

Semenov, Jaggi, Doikov (2025), Gradient-Normalized Smoothness for Optimization with Approximate
Hessians.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import solve
from jaxtyping import Array, Bool, Float, PyTree

from ..method import AbstractMethod
from ..problem import AbstractObjective, AbstractProblem, AbstractResidual, Known
from ..solution import Status
from ..validate import Refusal, as_operator, in_range, require_operator_on


class GradientRegularizedNewtonState(eqx.Module):
    value: Float[Array, ""]
    gradient: PyTree[Array]
    hessian: Float[Array, "n n"] | None
    radius: Float[Array, ""]
    at_rest: Bool[Array, ""]


class GradientRegularizedNewton(AbstractMethod[GradientRegularizedNewtonState]):
    """Newton steps regularized by |g|, y+ = y - (H + s B)^-1 g with s = |g| / gamma.

    H stands for the Hessian, by `hessian`,

    - `"exact"`: it is the Hessian;
    - `"gauss_newton"`: J^T J, with J the Jacobian of the residuals of a `LeastSquares` problem;
    - `"zero"`: none, which makes gradient descent of steps of length gamma;
    - a function of the problem and y: what it returns, such as a Fisher matrix.

    gamma, a length, bounds the step where H >= 0. Where f is convex and H errs along it by at most
    |g| |h| / gamma, f falls by at least |g+|^2 / (2 s). A step that falls by less than |g+|^2 /
    (8 s) is taken back and gamma halved; one that does not doubles it. Lengths are measured by B,
    |h|^2 = <B h, h>, and gradients by its inverse, |g|^2 = <g, B^-1 g>.

    Args:
        hessian: `"exact"`, `"gauss_newton"`, `"zero"`, or `(problem, y) -> H` with H a symmetric
            Lineax operator on y, or a matrix of shape (n, n) on its n entries as one vector.
        radius: gamma of the first step, positive, in the units of y (as B measures them).
        metric: B, a positive definite Lineax operator on the entries of y as one vector, or a
            matrix; by default I.

    Raises:
        ValueError: if a hyperparameter is outside its range, H or B does not fit the start, or
            `hessian="gauss_newton"` meets a problem that is not `LeastSquares`.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.Minimize(lambda y, _: jnp.sum(jnp.cosh(y - 1.0)), jnp.full(2, 9.0))
        >>> method = rp.smooth.GradientRegularizedNewton()
        >>> rp.solve(problem, method).value.round(2).tolist()
        [1.0, 1.0]
    """

    hessian: str | Callable[[Any, Any], Any] = "exact"
    radius: float = 1.0
    metric: lx.AbstractLinearOperator | None = eqx.field(
        default=None, converter=lambda B: None if B is None else as_operator(B, "metric")
    )

    question: ClassVar[type[AbstractProblem]] = AbstractObjective

    def __check_init__(self):
        if not callable(self.hessian) and self.hessian not in ("exact", "gauss_newton", "zero"):
            raise ValueError(
                "`hessian` of GradientRegularizedNewton must be 'exact', 'gauss_newton', 'zero' or "
                f"a function of the problem and y, got {self.hessian!r}."
            )
        in_range(self, "radius", 0)

    def init(
        self, problem: Any, y: PyTree[Array], key: Array | None
    ) -> GradientRegularizedNewtonState:
        if self.metric is not None:
            require_operator_on(self, "metric", y)
        value, gradient = problem.value_and_gradient(y)
        radius = jnp.asarray(self.radius, value.dtype)
        return GradientRegularizedNewtonState(
            value, gradient, self.curvature(problem, y), radius, jnp.array(False)
        )

    def step(
        self, problem: Any, y: PyTree[Array], state: GradientRegularizedNewtonState
    ) -> tuple[PyTree[Array], GradientRegularizedNewtonState]:
        flat, unravel = ravel_pytree(y)
        g = ravel_pytree(state.gradient)[0]
        downhill, slope = self._dual(g)
        shift = slope / state.radius
        if state.hessian is None:
            h = -downhill / shift
        else:
            B = jnp.eye(g.size, dtype=g.dtype) if self.metric is None else self.metric.as_matrix()
            # Where the matrix is not positive definite h is NaN, and rejected.
            h = -solve(state.hessian + shift * B, g, assume_a="pos")
        trial = flat + h
        value, gradient = problem.value_and_gradient(unravel(trial))

        fallen, slope_there = state.value - value, self._dual(ravel_pytree(gradient)[0])[1]
        enough = fallen >= slope_there**2 / (8 * shift)
        # Near a solution the decrease drowns in the rounding of f, and only the gradient tells.
        drowned = jnp.abs(fallen) <= 10 * jnp.finfo(value.dtype).eps * jnp.abs(state.value)
        accepted = enough | (drowned & (slope_there < slope))

        at_rest = jnp.all(trial == flat)
        y, value, gradient = jax.tree.map(
            lambda new, old: jnp.where(accepted, new, old),
            (unravel(trial), value, gradient),
            (y, state.value, state.gradient),
        )
        hessian = jax.lax.cond(accepted, lambda: self.curvature(problem, y), lambda: state.hessian)
        radius = state.radius * jnp.where(accepted, 2.0, 0.5)
        return y, GradientRegularizedNewtonState(value, gradient, hessian, radius, at_rest)

    def terminate(
        self, problem: Any, y: PyTree[Array], state: GradientRegularizedNewtonState
    ) -> Any:
        return Status.where(state.at_rest, Status.stalled, Status.running)

    def known(self, problem: Any, y: PyTree[Array], state: GradientRegularizedNewtonState) -> Known:
        return Known(state.value, state.gradient)

    def curvature(self, problem: Any, y: PyTree[Array]) -> Float[Array, "n n"] | None:
        """H at y; None stands for zero."""
        if self.hessian == "zero":
            return None
        if callable(self.hessian):
            flat = ravel_pytree(y)[0]
            H = self.hessian(problem, y)
            H = H.as_matrix() if isinstance(H, lx.AbstractLinearOperator) else H
            if np.shape(H) != 2 * flat.shape:
                raise Refusal(
                    "`hessian` of GradientRegularizedNewton must return a Lineax operator or a "
                    f"matrix of shape {2 * flat.shape}, got one of shape {np.shape(H)}."
                )
            H = jnp.asarray(H, flat.dtype)
        elif self.hessian == "exact":
            H = problem.hessian(y).as_matrix()
        elif isinstance(problem, AbstractResidual):
            J = problem.jacobian(y).as_matrix()
            H = J.T @ J
        else:
            raise Refusal(
                '`hessian="gauss_newton"` of GradientRegularizedNewton needs a LeastSquares '
                f"problem, got a {type(problem).__name__}."
            )
        # Without a Hessian a step still follows the gradient.
        return jnp.where(jnp.all(jnp.isfinite(H)), H, 0)

    def _dual(self, g: Float[Array, " n"]) -> tuple[Float[Array, " n"], Float[Array, ""]]:
        """B^-1 g and |g|."""
        if self.metric is None:
            return g, jnp.linalg.norm(g)
        dual = solve(self.metric.as_matrix(), g, assume_a="pos")
        return dual, jnp.sqrt(jnp.vdot(g, dual))
