"""Newton's method damped by the Newton decrement: no line search, and no norm but the Hessian's.

Hanzely, Abdukhakimov, Takac (2024), Damped Newton Method with Near-Optimal Global O(k^-3)
Convergence Rate.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Bool, Float, PyTree

from ..method import AbstractMethod
from ..problem import AbstractObjective, AbstractProblem, Known
from ..solution import Status
from ..validate import in_range, one_of


class DampedNewtonState(eqx.Module):
    value: Float[Array, ""]
    gradient: PyTree[Array]
    factor: Float[Array, "n n"]
    smoothness: Float[Array, ""]
    at_rest: Bool[Array, ""]


class DampedNewton(AbstractMethod[DampedNewtonState]):
    """Newton steps of the length that the local norm allows, y+ = y - a H^-1 g, for convex f.

    a in (0, 1] solves a + M G^(q-2) a^(q-1) = 1, where G = <g, H^-1 g>^(1/2) is the Newton
    decrement: the step is the least point of <g, h> + |h|^2 / 2 + M |h|^q / q in the local norm
    |h|^2 = <H h, h>, whatever the coordinates of y. M stands for how fast the Hessian (q = 3) or
    the third derivative (q = 4) changes in that norm. If it is not given it is found along the way:
    a step is taken back and M doubled unless f falls by a G^2 / 4, as it must for every M that is
    great enough; a step that is kept halves M. Where H is not positive definite, its norm times the
    identity stands for it.

    Args:
        q: 3 or 4.
        smoothness: M, positive; with L the Lipschitz constant of the Hessian (q = 3) or of the
            third derivative (q = 4) in the local norm, L / 2 or 7 L / 18 is great enough. By
            default adaptive, from 1.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.Minimize(lambda y, _: jnp.sum(jnp.sqrt(1 + y**2)), jnp.array([5.0, -9.0]))
        >>> rp.solve(problem, rp.smooth.DampedNewton()).value.round(2).tolist()
        [0.0, 0.0]
    """

    q: int = 3
    smoothness: float | None = None

    question: ClassVar[type[AbstractProblem]] = AbstractObjective

    def __check_init__(self):
        one_of(self, "q", (3, 4))
        if self.smoothness is not None:
            in_range(self, "smoothness", 0)

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> DampedNewtonState:
        value, gradient = problem.value_and_gradient(y)
        smoothness = 1.0 if self.smoothness is None else self.smoothness
        smoothness = jnp.asarray(smoothness, value.dtype)
        return DampedNewtonState(value, gradient, _factor(problem, y), smoothness, jnp.array(False))

    def step(
        self, problem: Any, y: PyTree[Array], state: DampedNewtonState
    ) -> tuple[PyTree[Array], DampedNewtonState]:
        flat, unravel = ravel_pytree(y)
        # H = L L', so that the local norm of g is the length of L^-1 g.
        w = solve_triangular(state.factor, ravel_pytree(state.gradient)[0], lower=True)
        G, M = jnp.linalg.norm(w), state.smoothness
        a = _damping(M * G ** (self.q - 2), self.q)
        trial = flat - a * solve_triangular(state.factor, w, lower=True, trans=1)
        value, gradient = problem.value_and_gradient(unravel(trial))

        accepted, smoothness = jnp.array(True), M
        if self.smoothness is None:
            fallen = state.value - value
            # Near a solution the decrease drowns in the rounding of f, and only g tells.
            drowned = jnp.abs(fallen) <= 10 * jnp.finfo(value.dtype).eps * jnp.abs(state.value)
            w_there = solve_triangular(state.factor, ravel_pytree(gradient)[0], lower=True)
            accepted = (fallen >= a * G**2 / 4) | (drowned & (jnp.linalg.norm(w_there) < G))
            smoothness = M * jnp.where(accepted, 0.5, 2.0)

        at_rest = jnp.all(trial == flat)
        y, value, gradient = jax.tree.map(
            lambda new, old: jnp.where(accepted, new, old),
            (unravel(trial), value, gradient),
            (y, state.value, state.gradient),
        )
        factor = jax.lax.cond(accepted, lambda: _factor(problem, y), lambda: state.factor)
        return y, DampedNewtonState(value, gradient, factor, smoothness, at_rest)

    def terminate(self, problem: Any, y: PyTree[Array], state: DampedNewtonState) -> Any:
        return Status.where(state.at_rest, Status.stalled, Status.running)

    def known(self, problem: Any, y: PyTree[Array], state: DampedNewtonState) -> Known:
        return Known(state.value, state.gradient)


def _damping(c: Float[Array, ""], q: int) -> Float[Array, ""]:
    """The root a of a + c a^(q-1) = 1 in (0, 1], in forms that do not cancel."""
    if q == 3:
        return 2 / (1 + jnp.sqrt(1 + 4 * c))
    root = jnp.sqrt(3 * jnp.maximum(c, jnp.finfo(c.dtype).tiny))
    return 2 / root * jnp.sinh(jnp.arcsinh(1.5 * root) / 3)


def _factor(problem: Any, y: PyTree[Array]) -> Float[Array, "n n"]:
    """L with L L' = H, or what takes its place where H is not positive definite."""
    H = problem.hessian(y).as_matrix()
    factor, size = jnp.linalg.cholesky(H), jnp.linalg.norm(H)
    size = jnp.where(jnp.isfinite(size) & (size > 0), size, 1)
    instead = jnp.sqrt(size) * jnp.eye(len(H), dtype=H.dtype)
    return jnp.where(jnp.all(jnp.isfinite(factor)), factor, instead)
