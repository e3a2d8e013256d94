"""Levenberg-Marquardt that bends its steps, and learns the curvature of large residuals.

Transtrum, Sethna (2012), Improvements to the Levenberg-Marquardt Algorithm for Nonlinear
Least-Squares Minimization; the second model is that of Dennis, Gay, Welsch (1981), An Adaptive
Nonlinear Least-Squares Algorithm.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..method import AbstractMethod
from ..problem import AbstractObjective, AbstractProblem, AbstractResidual, Known
from ..solution import Status
from ..validate import in_range
from .levenberg_marquardt import PATIENCE, at_rest, damped_steps, fall


class AdaptiveLevenbergMarquardtState(eqx.Module):
    residual: Float[Array, " m"]
    jacobian: Float[Array, "m n"]
    second: Float[Array, "n n"]
    factor: Float[Array, ""]
    scale: Float[Array, " n"]
    augmented: Bool[Array, ""]
    idle: Int[Array, ""]


class AdaptiveLevenbergMarquardt(AbstractMethod[AdaptiveLevenbergMarquardtState]):
    """Levenberg-Marquardt with geodesic acceleration and a second model.

    In the unknowns D y the velocity v and the acceleration a solve

        (J^T J + mu I) v = -J^T h,    (J^T J + mu I) a = -J^T h''[v, v],

    with the residual h, its second derivative along v, and mu = c |h|. The step is v + a / 2, which
    follows curved valleys; v alone where 2 |a| > bend |v|. One that does not fall is taken back and
    c doubled; one that falls as promised divides c by 3; one that falls short and ends on a steeper
    slope multiplies it by 300, so that the next returns to the valley's floor.

    Where residuals stay large J^T J is a poor curvature. What it lacks, the sum S of h_i times the
    Hessian of h_i, is learned from the change of J^T h with J alone, by the sized secant update of
    Dennis, Gay, Welsch. Where J^T J + S foretold the gradient after a step ten times as well as J^T
    J it takes over, with c raised until it is positive definite with mu I, for as long as it stays
    the better prophet.

    D_j^2 is the curvature along unknown j, the diagonal of J^T J plus |S_jj|; from steeper places
    D_j fades with every step since.

    Args:
        bend: the greatest 2 |a| / |v| of a bent step, at least 0; 0 bends none.
        switch: S is used below this ratio of the errors of both foretold gradients, at least 0
            and at most 1; 0 never uses it.
        fade: what D keeps of itself with every step that is taken, at least 0 and at most 1; 1
            counts the greatest ever, as More (1978) does with columns of J.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> t = jnp.array([0.0, 1.0, 2.0, 3.0])
        >>> fit = lambda k, _: jnp.exp(-k[0] * t) - k[1] / (1 + t)
        >>> problem = rp.LeastSquares(fit, jnp.array([3.0, 2.0]))
        >>> rp.solve(problem, rp.roots.AdaptiveLevenbergMarquardt()).value.round(3).tolist()
        [0.55, 1.017]
    """

    bend: float = 0.75
    switch: float = 0.1
    fade: float = 0.8

    question: ClassVar[type[AbstractProblem]] = AbstractResidual

    def __check_init__(self):
        in_range(self, "bend", 0, closed="left")
        in_range(self, "switch", 0, 1, closed="both")
        in_range(self, "fade", 0, 1, closed="both")

    def init(
        self, problem: Any, y: PyTree[Array], key: Array | None
    ) -> AdaptiveLevenbergMarquardtState:
        residual = ravel_pytree(problem.residual(y))[0]
        jacobian = problem.jacobian(y).as_matrix()
        second = jnp.zeros((jacobian.shape[1],) * 2, jacobian.dtype)
        return AdaptiveLevenbergMarquardtState(
            residual,
            jacobian,
            second,
            factor=jnp.ones((), residual.dtype),
            scale=_scale(jacobian, second),
            augmented=jnp.array(False),
            idle=jnp.array(0, jnp.int32),
        )

    def step(
        self, problem: Any, y: PyTree[Array], state: AdaptiveLevenbergMarquardtState
    ) -> tuple[PyTree[Array], AdaptiveLevenbergMarquardtState]:
        flat, unravel = ravel_pytree(y)
        D, h = state.scale, state.residual
        J, S = state.jacobian / D[None], state.second / D[:, None] / D[None]
        g, mu = J.T @ h, state.factor * jnp.linalg.norm(h)

        def gauss() -> tuple[Array, Array]:
            to_step = damped_steps(J, mu)
            v = to_step(h)
            return v, to_step(ravel_pytree(problem.curvature(y, unravel(v / D)))[0])

        def augmented() -> tuple[Array, Array]:
            # Where this is not positive definite its factor is NaN, and so are step and residual.
            factor = jnp.linalg.cholesky(J.T @ J + S + mu * jnp.eye(g.size, dtype=g.dtype))
            return -jax.scipy.linalg.cho_solve((factor, True), g), jnp.zeros_like(g)

        v, a = jax.lax.cond(state.augmented, augmented, gauss)
        bent = 2 * jnp.linalg.norm(a) <= self.bend * jnp.linalg.norm(v)
        d = jnp.where(bent, v + a / 2, v)
        trial = flat + d / D
        residual = ravel_pytree(problem.residual(unravel(trial)))[0]

        Jv, Sv = J @ v, S @ v
        along = jnp.sum(Jv**2) + jnp.where(state.augmented, v @ Sv, 0)
        promised = along + 2 * mu * jnp.sum(v**2)
        ratio, drowned, fell = fall(h, residual, promised)
        jacobian = jax.lax.cond(
            ratio >= 1e-3,
            lambda: problem.jacobian(unravel(trial)).as_matrix(),
            lambda: state.jacobian,
        )
        slope = (jacobian / D[None]).T @ residual
        # Where the fall drowns in the rounding of |h|^2, gradients tell of it.
        by_gradients = -jnp.vdot(g + slope, v) / promised
        ratio = jnp.where((ratio >= 1e-3) & drowned, by_gradients, ratio)
        accepted = ratio >= 1e-3
        # In a curved valley falls are seldom as promised: only near failures damp more. A step that
        # ends on a steeper slope has left its floor, to which a short one leads back.
        grown = jnp.where(ratio < 0.01, 2.0, jnp.where(ratio >= 0.75, 1 / 3, 1.0))
        steeper = jnp.linalg.norm(slope) > jnp.linalg.norm(g)
        grown = jnp.where(accepted & (ratio < 0.25) & steeper, 300.0, grown)
        c = state.factor * jnp.where(jnp.isfinite(ratio), grown, 16.0).astype(mu.dtype)

        missed = g + J.T @ Jv - slope
        error, gauss_error = jnp.linalg.norm(missed + Sv), jnp.linalg.norm(missed)
        better = error < jnp.where(state.augmented, 1.0, self.switch) * gauss_error
        second = D[:, None] * _secant(S, d, slope - J.T @ residual, slope - g) * D[None]

        held = mu * jnp.linalg.norm(v) > jnp.linalg.norm(g) / 2
        rest = at_rest(jnp.any(trial != flat), promised, h, held)
        idle = jnp.where(rest, PATIENCE, jnp.where(fell, 0, state.idle + 1))
        y, residual, jacobian, second, better, faded = jax.tree.map(
            lambda new, old: jnp.where(accepted, new, old),
            (unravel(trial), residual, jacobian, second, better, self.fade * D),
            (y, h, state.jacobian, state.second, state.augmented, D),
        )
        scale = jnp.maximum(faded, _scale(jacobian, second)).astype(D.dtype)
        return y, AdaptiveLevenbergMarquardtState(
            residual, jacobian, second, c, scale, better, idle
        )

    def terminate(
        self, problem: Any, y: PyTree[Array], state: AdaptiveLevenbergMarquardtState
    ) -> Any:
        status = Status.where(state.idle >= PATIENCE, Status.stalled, Status.running)
        return Status.where(jnp.all(jnp.isfinite(state.jacobian)), status, Status.nonfinite)

    def known(
        self, problem: Any, y: PyTree[Array], state: AdaptiveLevenbergMarquardtState
    ) -> Known:
        if isinstance(problem, AbstractObjective):
            value = jnp.sum(state.residual**2) / 2
            return Known(value, state.jacobian.T @ state.residual)
        return Known(residual=state.residual)


def _secant(
    S: Float[Array, "n n"], d: Float[Array, " n"], turned: Array, change: Array
) -> Float[Array, "n n"]:
    """The sized update of Dennis, Gay, Welsch, after which S d = turned.

    Args:
        S: what J^T J lacked of the Hessian.
        d: the step.
        turned: how much J^T h changed along d with J alone, at the new h.
        change: how much it changed in all.
    """
    own = jnp.abs(d @ S @ d)
    S = S * jnp.where(own > 0, jnp.minimum(1, jnp.abs(d @ turned) / own), 1)
    missing, along = turned - S @ d, change @ d
    fit = jnp.abs(along) > jnp.finfo(S.dtype).eps * jnp.linalg.norm(change) * jnp.linalg.norm(d)
    w = change / jnp.where(fit, along, 1)
    update = jnp.outer(missing, w) + jnp.outer(w, missing) - (d @ missing) * jnp.outer(w, w)
    return jnp.where(fit, S + update, S)


def _scale(jacobian: Float[Array, "m n"], second: Float[Array, "n n"]) -> Float[Array, " n"]:
    """D of one Jacobian and S."""
    size = jnp.sqrt(jnp.sum(jacobian**2, axis=0) + jnp.abs(jnp.diagonal(second)))
    return jnp.where((size > 0) & jnp.isfinite(size), size, 1)
