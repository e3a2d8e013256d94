"""Averaged multipliers: both levels and the multiplier between them by one step each.

Liu, Liu, Yao, Zeng, Zhang (2023), Averaged Method of Multipliers for Bi-Level Optimization without
Lower-Level Strong Convexity.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, Bool, Int, PyTree

from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ..solution import Status
from ..validate import Refusal, in_range, one_of
from ._shared import at_rest
from .problem import AbstractBilevel


class AveragedMultipliersState(eqx.Module):
    v: PyTree[Array]
    left: PyTree[Array]  # F_y - psi_yy v, before the last step
    count: Int[Array, ""]
    at_rest: Bool[Array, ""]
    key: Array | None


class AveragedMultipliers(AbstractMethod[AveragedMultipliersState]):
    """The averaged method of multipliers, on psi = mu F + (1 - mu) f with a weight mu that falls.

    At step k = 0, 1, ..., with v = 0 first and everything on the right from before the step:

        mu  =  weight (k + 1)^-weight_power       y  =  y - step_size psi_y
        e   =  (k + 1)^-step_power                v  =  v - step_size e (psi_yy v - F_y)
        x   =  x - upper_step_size mu^3 e^3 (F_x - psi_xy v)

    Where F is strongly convex in y, f may have many minima: psi has one. What the weight leaves in
    x and y is of the size of mu, unless F_y is 0 at the answer. It must fall slowly nevertheless:
    of what f_yy does not see of F_y, v takes 1 / mu times as much.

    Args:
        upper_step_size: positive; that of x falls by itself, like mu^3.
        step_size: of y and v, positive, below 2 / L where psi is L-smooth in y.
        weight: mu at first, in (0, 1).
        weight_power: by which mu falls, positive; 0.1 in the paper.
        step_power: by which the steps fall, at least 0.
        line_search: whether the step of v is the one that is best for psi_yy v = F_y instead,
            |r|^2 / (r^T psi_yy r) with r what is left, for two products more.

    Raises:
        ValueError: if a hyperparameter is outside its range, or y has a set.

    Example:
        >>> import raphson as rp
        >>> problem = rp.problems.non_singleton()
        >>> x, y = rp.solve(problem, rp.bilevel.AveragedMultipliers(), max_steps=20_000).value
        >>> round(float(x), 3), y.round(3).tolist()
        (1.0, [1.0, 1.0])
    """

    upper_step_size: float = 0.1
    step_size: float = 0.1
    weight: float = 0.9
    weight_power: float = 0.1
    step_power: float = 1 / 80
    line_search: bool = eqx.field(static=True, default=False)

    question: ClassVar[type[AbstractProblem]] = AbstractBilevel
    samples: ClassVar[bool] = True

    def __check_init__(self):
        one_of(self, "line_search", (False, True))
        for name in ("upper_step_size", "step_size", "weight_power"):
            in_range(self, name, 0)
        in_range(self, "weight", 0, 1)
        in_range(self, "step_power", 0, closed="left")

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> AveragedMultipliersState:
        if problem.sets[1] is not None:
            raise Refusal("`sets` must leave y free for AveragedMultipliers.")
        _, F_y = problem.upper_gradient(*y, None)
        v, count = otu.zeros_like(F_y), jnp.array(0, jnp.int32)
        key = key if problem.stochastic else None
        return AveragedMultipliersState(v, F_y, count, jnp.array(False), key)

    def step(
        self, problem: Any, y: PyTree[Array], state: AveragedMultipliersState
    ) -> tuple[PyTree[Array], AveragedMultipliersState]:
        (x, y), v, key, now = y, state.v, state.key, None
        if key is not None:
            key, now = jax.random.split(key)
        batches = upper, lower = problem.sample(now)
        k = state.count.astype(jnp.result_type(*jax.tree.leaves(y))) + 1
        mu, e = self.weight * k**-self.weight_power, k**-self.step_power

        F_x, F_y = problem.upper_gradient(x, y, upper)
        _, f_y = problem.lower_gradient(x, y, lower)
        psi_y = _averaged(mu, F_y, f_y)
        psi_xv, psi_yyv = _products(problem, mu, x, y, v, batches)
        r = otu.sub(F_y, psi_yyv)
        step_size = self.step_size * e
        if self.line_search:
            size = otu.norm(r, squared=True)
            curvature = jnp.asarray(otu.vdot(r, _products(problem, mu, x, y, r, batches)[1]))
            convex = curvature > 0
            step_size = jnp.where(convex, size / jnp.where(convex, curvature, 1), step_size)

        by_x = otu.scale(self.upper_step_size * (mu * e) ** 3, otu.sub(F_x, psi_xv))
        after = otu.sub(x, by_x), otu.add_scale(y, -self.step_size, psi_y)
        after, v = (problem.project(after)[0], after[1]), otu.add_scale(v, step_size, r)
        resting = at_rest(None, (x, y, state.v), (*after, v))
        return after, AveragedMultipliersState(v, r, state.count + 1, resting, key)

    def known(self, problem: Any, y: PyTree[Array], state: AveragedMultipliersState) -> Known:
        return Known()

    def terminate(self, problem: Any, y: PyTree[Array], state: AveragedMultipliersState) -> Any:
        return Status.where(state.at_rest, Status.stalled, Status.running)


def _averaged(mu: Array, of_F: PyTree[Array], of_f: PyTree[Array]) -> PyTree[Array]:
    return jax.tree.map(lambda F, f: mu * F + (1 - mu) * f, of_F, of_f)


def _products(
    problem: Any, mu: Array, x: PyTree[Array], y: PyTree[Array], v: PyTree[Array], batches: Any
) -> PyTree[Array]:
    """The products psi_xy v and psi_yy v."""
    upper, lower = batches
    of_F = problem.upper_product(x, y, v, upper)
    return _averaged(mu, of_F, problem.lower_product(x, y, v, lower))
