"""Newton's method for one equation in many unknowns: the residual's size, brought to zero at once.

Samuel, Meiri, Maron, Tewel, Darshan, Avidan, Chechik, Ben-Ari (2023), Regularized Newton Raphson
Inversion for Text-to-Image Diffusion Models.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, Float, Int, PyTree

from ..method import AbstractMethod, finite
from ..problem import AbstractProblem, Known
from ..solution import Status
from ..validate import as_function, in_range, one_of
from .problem import FixedPoint

# |r|_1 need not fall at each step, even where every step comes closer.
PATIENCE = 100


class ScalarNewtonState(eqx.Module):
    residual: PyTree[Array]
    best: PyTree[Array]  # the iterate of the least |r|_1
    best_residual: PyTree[Array]
    idle: Int[Array, ""]  # steps since then


class ScalarNewton(AbstractMethod[ScalarNewtonState]):
    """Newton's steps for the scalar equation F(y) = |y - T(y)|_1 + penalty(y) = 0.

    One equation leaves the step open. With the gradient g of F it is, by `form`,

    - `"minimal_norm"`: the shortest, y+ = y - F g / |g|^2. For a convex F without a penalty it is
      Polyak's subgradient step: no step leads away from a fixed point, and the rate is linear;
    - `"componentwise"`: the paper's for n unknowns, y_i+ = y_i - F / (n g_i), no entry by more than
      `cap`, where the paper adds a small number to g_i. It is for few unknowns of one unit.

    The answer is the iterate of the least |y - T(y)|_1. A step costs a residual and a product with
    its transposed Jacobian.

    Args:
        form: `"minimal_norm"` or `"componentwise"`.
        cap: the longest move of an entry in the componentwise form, positive.
        penalty: a function of y, at least 0, small for likely y. The steps are then for a zero that
            F need not have, and a few of them are enough; by default there is none.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.FixedPoint(lambda y, _: 3 - 2 * y, jnp.zeros(2))
        >>> rp.solve(problem, rp.roots.ScalarNewton()).value.round(3).tolist()
        [1.0, 1.0]
    """

    form: str = "minimal_norm"
    cap: float = 1.0
    penalty: Callable[[Any], Float[Array, ""]] | None = None

    question: ClassVar[type[AbstractProblem]] = FixedPoint

    def __check_init__(self):
        one_of(self, "form", ("minimal_norm", "componentwise"))
        in_range(self, "cap", 0)
        if self.penalty is not None:
            as_function(self.penalty, "penalty")

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> ScalarNewtonState:
        residual = problem.residual(y)
        return ScalarNewtonState(residual, y, residual, jnp.array(0, jnp.int32))

    def step(
        self, problem: Any, y: PyTree[Array], state: ScalarNewtonState
    ) -> tuple[PyTree[Array], ScalarNewtonState]:
        F = otu.norm(state.residual, ord=1)
        g = problem.vjp(y, jax.tree.map(jnp.sign, state.residual))
        if self.penalty is not None:
            value, slope = jax.value_and_grad(self.penalty)(y)
            F, g = F + value, otu.add(g, slope)
        if self.form == "minimal_norm":
            square = otu.norm(g, squared=True)
            move = otu.scale(jnp.where(square > 0, F / jnp.where(square > 0, square, 1), 0), g)
        else:
            share = F / otu.size(y)
            move = jax.tree.map(
                lambda g: jnp.where(g == 0, 0, jnp.clip(share / g, -self.cap, self.cap)), g
            )
        after = otu.sub(y, move)
        residual = problem.residual(after)

        better = otu.norm(residual, ord=1) < otu.norm(state.best_residual, ord=1)
        best, best_residual = jax.tree.map(
            lambda new, old: jnp.where(better, new, old),
            (after, residual),
            (state.best, state.best_residual),
        )
        at_rest = otu.norm(otu.sub(after, y)) == 0
        idle = jnp.where(better, 0, jnp.where(at_rest, PATIENCE, state.idle + 1))
        return after, ScalarNewtonState(residual, best, best_residual, idle)

    def terminate(self, problem: Any, y: PyTree[Array], state: ScalarNewtonState) -> Any:
        status = Status.where(state.idle >= PATIENCE, Status.stalled, Status.running)
        return Status.where(finite(state.residual), status, Status.nonfinite)

    def known(self, problem: Any, y: PyTree[Array], state: ScalarNewtonState) -> Known:
        return Known(residual=state.best_residual)

    def answer(self, problem: Any, y: PyTree[Array], state: ScalarNewtonState) -> PyTree[Array]:
        return state.best
