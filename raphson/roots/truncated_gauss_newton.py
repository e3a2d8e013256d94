"""Gauss-Newton steps by products with the Jacobian alone, inside a trust region.

Steihaug (1983), The Conjugate Gradient Method and Trust Regions in Large Scale Optimization.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, PyTree

from ..method import AbstractMethod
from ..problem import AbstractObjective, AbstractProblem, AbstractResidual, Known
from ..smooth.truncated_newton import TruncatedNewton, TruncatedNewtonState
from ..validate import in_range, whole_number


class TruncatedGaussNewtonState(eqx.Module):
    newton: TruncatedNewtonState
    residual: PyTree[Array]


class TruncatedGaussNewton(AbstractMethod[TruncatedGaussNewtonState]):
    """The Gauss-Newton method for many unknowns: a handful of vectors, and no matrix.

    It is `smooth.TruncatedNewton` for |F|^2 / 2 with J'J, which neither needs second derivatives
    nor has negative curvature, in the place of the Hessian: conjugate gradients on J'J h = -J'F end
    at a part of |J'F| that shrinks, or on the border of the trust region.

    Args:
        radius: of the first trust region, positive; by default the length of the start, at least 1.
        max_products: how many products with J'J a step may take, at least 1.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.RootFind(lambda y, _: jnp.stack([y[0] ** 2 - 2, y[1] - y[0]]), jnp.ones(2))
        >>> rp.solve(problem, rp.roots.TruncatedGaussNewton()).value.round(3).tolist()
        [1.414, 1.414]
    """

    radius: float | None = None
    max_products: int = 5000

    question: ClassVar[type[AbstractProblem]] = AbstractResidual

    def __check_init__(self):
        whole_number(self.max_products, "max_products", 1)
        if self.radius is not None:
            in_range(self, "radius", 0)

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> TruncatedGaussNewtonState:
        residual = problem.residual(y)
        newton = self._newton.init(_Squares(problem, residual), y, key)
        return TruncatedGaussNewtonState(newton, residual)

    def step(
        self, problem: Any, y: PyTree[Array], state: TruncatedGaussNewtonState
    ) -> tuple[PyTree[Array], TruncatedGaussNewtonState]:
        y, newton = self._newton.step(_Squares(problem), y, state.newton)
        # Once more, beside many products.
        return y, TruncatedGaussNewtonState(newton, problem.residual(y))

    def terminate(self, problem: Any, y: PyTree[Array], state: TruncatedGaussNewtonState) -> Any:
        return self._newton.terminate(problem, y, state.newton)

    def known(self, problem: Any, y: PyTree[Array], state: TruncatedGaussNewtonState) -> Known:
        if isinstance(problem, AbstractObjective):
            return self._newton.known(problem, y, state.newton)
        return Known(residual=state.residual)

    @property
    def _newton(self) -> TruncatedNewton:
        return TruncatedNewton(self.radius, self.max_products)


class _Squares(eqx.Module):
    """What Newton's method asks of |F|^2 / 2, by the oracles of F."""

    problem: Any
    known: PyTree[Array] | None = None  # F where it is asked for, if that is at hand

    def value_and_gradient(self, y: PyTree[Array]) -> tuple[Array, PyTree[Array]]:
        F = self.problem.residual(y) if self.known is None else self.known
        return jnp.asarray(otu.vdot(F, F)) / 2, self.problem.vjp(y, F)

    def hvp(self, y: PyTree[Array], v: PyTree[Array]) -> PyTree[Array]:
        return self.problem.vjp(y, self.problem.jvp(y, v))
