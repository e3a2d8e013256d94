"""Newton's method from afar: a path that leads from a problem whose root is the start to F = 0.

Keller (1977), Numerical Solution of Bifurcation and Nonlinear Eigenvalue Problems; Allgower, Georg
(1990), Numerical Continuation Methods; Ding, Cui, Wang, Shi (2023), Two Sides of The Same Coin:
Bridging Deep Equilibrium Models and Neural ODEs via Homotopy Continuation.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as otu
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PyTree

from ..method import AbstractMethod
from ..problem import AbstractProblem, AbstractResidual, Known
from ..solution import Status
from ..validate import Refusal, in_range, one_of
from .problem import FixedPoint, LeastSquares


class HomotopyNewtonState(eqx.Module):
    residual: PyTree[Array]
    start: tuple[Float[Array, " n"], Float[Array, " n"]]  # y_0 and F(y_0)
    parameter: Float[Array, ""]  # s
    derivative: Float[Array, "n n+1"]  # DH
    tangent: Float[Array, " n+1"]
    length: Float[Array, ""]  # h
    at_rest: Bool[Array, ""]


class HomotopyNewton(AbstractMethod[HomotopyNewtonState]):
    """Newton's method along a homotopy H(y, s) = 0 from s = 0, where y_0 solves it, to s = 1.

    The homotopy is, by `mode`,

    - `"newton"`: H = F(y) - (1 - s) F(y_0), on whose path F shrinks but does not turn;
    - `"fixed_point"`: H = s F(y) + (1 - s) (y - y_0), for an F that grows with y; in a fixed point
      problem F is y - T(y).

    The path is followed by its length, so that s may fall on the way and folds, where the Jacobian
    of F is singular, are passed. From u = (y, s) a step goes along the unit tangent t and is
    corrected across it:

        DH(u) t = 0,    v = u + h t,    DH(u) w = -H(v), <t, w> = 0,    u+ = v + w.

    It is taken back if it bends too much, and h follows the bend. At s = 1 the steps are Newton's,
    as long as they lower |F|. There need be no path to s = 1: it may close, or lead to infinity,
    and then only `max_steps` ends the run.

    Args:
        mode: `"newton"` or `"fixed_point"`.
        bend: how much a step may bend, in (0, 1): |w| / h where u is on the path, and |H(u+)| /
            |H(v)|.
        backwards: whether to leave the start the other way, with s falling at first: where the path
            does not lead to s = 1, its other end may.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.RootFind(lambda y, _: jnp.arctan(y - 1), jnp.array(9.0))
        >>> round(float(rp.solve(problem, rp.roots.HomotopyNewton()).value), 2)
        1.0
    """

    mode: str = "newton"
    bend: float = 0.3
    backwards: bool = False

    question: ClassVar[type[AbstractProblem]] = AbstractResidual

    def __check_init__(self):
        one_of(self, "mode", ("newton", "fixed_point"))
        in_range(self, "bend", 0, 1)
        one_of(self, "backwards", (False, True))

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> HomotopyNewtonState:
        residual = problem.residual(y)
        start, F = ravel_pytree(y)[0], ravel_pytree(residual)[0]
        if F.size != start.size:
            raise Refusal(
                f"`fn` must return as many equations as there are unknowns for {self.name}, got "
                f"{F.size} for {start.size}."
            )
        u, origin = jnp.append(start, 0), (start, F)
        derivative = self._derivative(problem, origin, y, u[-1], residual)
        tangent = jnp.linalg.svd(derivative)[2][-1]
        tangent = jnp.where((tangent[-1] < 0) ^ self.backwards, -tangent, tangent)
        # A tenth of Newton's step, or of 1 where there is none.
        length = 0.1 / jnp.where(tangent[-1] != 0, jnp.abs(tangent[-1]), 1)
        return HomotopyNewtonState(
            residual, origin, u[-1], derivative, tangent, length, jnp.array(False)
        )

    def step(
        self, problem: Any, y: PyTree[Array], state: HomotopyNewtonState
    ) -> tuple[PyTree[Array], HomotopyNewtonState]:
        flat, unravel = ravel_pytree(y)
        s, t, u = state.parameter, state.tangent, jnp.append(flat, state.parameter)
        upwards = jnp.zeros_like(t).at[-1].set(1)
        # The last step along the path ends at s = 1, and corrections stay there.
        arrived = s >= 1
        last = arrived | (s + state.length * t[-1] >= 1)
        h = jnp.where(last, jnp.where(arrived, 0, (1 - s) / t[-1]), state.length)
        v = jnp.where(last & (upwards > 0), 1, u + h * t)
        ahead = jax.lax.cond(
            arrived, lambda: state.residual, lambda: problem.residual(unravel(v[:-1]))
        )
        H = self._homotopy(problem, state.start, v, ahead)
        # What H was at u it would still be at v if the path were straight.
        bent = H - self._homotopy(problem, state.start, u, state.residual)
        across = jnp.where(last, upwards, t)
        goals = jnp.append(jnp.stack([H, bent], axis=1), jnp.zeros((1, 2), t.dtype), axis=0)
        border = jnp.append(state.derivative, across[None, :], axis=0)
        w, bent = jnp.linalg.solve(border, -goals).T
        trial = jnp.where(last & (upwards > 0), 1, v + w)
        y_trial = unravel(trial[:-1])
        residual = problem.residual(y_trial)

        before = jnp.linalg.norm(H)
        after = jnp.linalg.norm(self._homotopy(problem, state.start, trial, residual))
        rounding = jnp.sqrt(jnp.finfo(t.dtype).eps) * jnp.linalg.norm(state.start[1])
        left = jnp.where(after <= rounding, 0, after / before)
        # Both are in proportion to h. That s = 1 is passed unawares is too much of either.
        bend = jnp.maximum(jnp.linalg.norm(bent) / h, left)
        bend = jnp.where((trial[-1] > 1) & ~last, jnp.inf, bend)
        taken = jnp.where(arrived, after < before, bend <= self.bend)
        factor = jnp.where(jnp.isnan(bend), 0.25, jnp.clip(0.7 * self.bend / bend, 0.25, 4))
        at_rest = jnp.where(arrived, ~taken, jnp.all(v == u))

        y, residual, s = otu.where(taken, (y_trial, residual, trial[-1]), (y, state.residual, s))
        derivative = jax.lax.cond(
            taken,
            lambda: self._derivative(problem, state.start, y, s, residual),
            lambda: state.derivative,
        )
        tangent = jnp.linalg.solve(jnp.append(derivative, t[None, :], axis=0), upwards)
        tangent = jnp.where(taken & ~last, tangent / jnp.linalg.norm(tangent), t)
        return y, HomotopyNewtonState(
            residual, state.start, s, derivative, tangent, h * factor, at_rest
        )

    def terminate(self, problem: Any, y: PyTree[Array], state: HomotopyNewtonState) -> Any:
        status = Status.where(state.at_rest, Status.stalled, Status.running)
        return Status.where(jnp.all(jnp.isfinite(state.tangent)), status, Status.nonfinite)

    def known(self, problem: Any, y: PyTree[Array], state: HomotopyNewtonState) -> Known:
        if isinstance(problem, LeastSquares):
            value = otu.norm(state.residual, squared=True) / 2
            return Known(value, problem.vjp(y, state.residual))
        return Known(residual=state.residual)

    def _homotopy(
        self, problem: Any, start: Any, u: Float[Array, " n+1"], residual: PyTree[Array]
    ) -> Float[Array, " n"]:
        """H(u)."""
        F, s = ravel_pytree(residual)[0], u[-1]
        if self.mode == "newton":
            return F - (1 - s) * start[1]
        return s * _sign(problem) * F + (1 - s) * (u[:-1] - start[0])

    def _derivative(
        self, problem: Any, start: Any, y: PyTree[Array], s: Array, residual: PyTree[Array]
    ) -> Float[Array, "n n+1"]:
        """DH(y, s)."""
        J = problem.jacobian(y).as_matrix()
        if self.mode == "newton":
            return jnp.append(J, start[1][:, None], axis=1)
        F, sign = ravel_pytree(residual)[0], _sign(problem)
        moved = ravel_pytree(y)[0] - start[0]
        by_y = s * sign * J + (1 - s) * jnp.eye(F.size, dtype=F.dtype)
        return jnp.append(by_y, (sign * F - moved)[:, None], axis=1)


def _sign(problem: Any) -> int:
    """What makes T(y) - y, the residual of a fixed point problem, grow with y."""
    return -1 if isinstance(problem, FixedPoint) else 1
