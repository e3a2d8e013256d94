"""Gradient descent on the root of f, with an energy that no step size makes grow.

Liu, Nurbekyan, Tian, Yang (2023), Adaptive Preconditioned Gradient Descent with Energy; Liu, Tian
(2020), AEGD: Adaptive Gradient Descent with Energy, on energies for each unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as otu
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PyTree

from ..method import AbstractMethod
from ..problem import AbstractObjective, AbstractProblem, Known
from ..solution import Status
from ..validate import as_function, in_range, one_of


class EnergyGradientState(eqx.Module):
    value: Float[Array, ""]
    gradient: PyTree[Array]
    energy: PyTree[Array]
    offset: Float[Array, ""]
    positive: Bool[Array, ""]
    at_rest: Bool[Array, ""]


class EnergyGradient(AbstractMethod[EnergyGradientState]):
    """Adaptive preconditioned gradient descent with an energy r, AEPG.

    With l = sqrt(f + c), r_0 = l(y_0) and v the gradient of l, g / (2 l),

        r+ = r / (1 + 2 eta <v, A v>),  y+ = y - 2 eta r+ A v.

    Whatever eta, r falls: r+^2 = r^2 - (r+ - r)^2 - |y+ - y|^2 / eta, in the metric A^-1. But
    stable is not convergent: where eta is large r is used up before f is least, which a restart
    mends. Where f + c is not positive c becomes the paper's plus 2 |f|, and r is restarted.

    Args:
        eta: step size, positive.
        c: what is added to f to make it positive; positive. A c far greater than f makes the
            method plain gradient descent.
        preconditioner: A, as a function of y and v that returns A(y) v, with A positive definite:
            the inverse of a metric in natural gradients, or of the Hessian of a convex phi, as
            `hessian_riemannian` makes it. Of these the entropy's is `lambda y, v: y * v`, for
            y > 0, where eta must be small enough for no step to leave the domain. By default the
            identity.
        restart: r becomes l(y) again where it is less than this share of it, in [0, 1); 0, the
            paper's choice, is never.
        elementwise: whether each unknown has an energy of its own, which its part of <v, A v> takes
            from: AEGD. For a diagonal A.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.Minimize(lambda y, _: jnp.sum((y - 1.0) ** 2), jnp.zeros(2))
        >>> rp.solve(problem, rp.smooth.EnergyGradient()).value.round(3).tolist()
        [1.0, 1.0]
    """

    eta: float = 0.1
    c: float = 1.0
    preconditioner: Callable[[Any, Any], Any] | None = eqx.field(default=None, static=True)
    restart: float = 0.0
    elementwise: bool = eqx.field(default=False, static=True)

    question: ClassVar[type[AbstractProblem]] = AbstractObjective

    def __check_init__(self):
        one_of(self, "elementwise", (False, True))
        in_range(self, "eta", 0)
        in_range(self, "c", 0)
        in_range(self, "restart", 0, 1, closed="left")
        if self.preconditioner is not None:
            as_function(self.preconditioner, "preconditioner")

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> EnergyGradientState:
        value, gradient = problem.value_and_gradient(y)
        offset = jnp.full_like(value, self.c)
        none_yet = otu.full_like(y if self.elementwise else value, -1)
        energy, offset = self._restarted(value, none_yet, offset)
        return EnergyGradientState(
            value, gradient, energy, offset, jnp.array(True), jnp.array(False)
        )

    def step(
        self, problem: Any, y: PyTree[Array], state: EnergyGradientState
    ) -> tuple[PyTree[Array], EnergyGradientState]:
        v = otu.scale(0.5 / jnp.sqrt(state.value + state.offset), state.gradient)
        Av = v if self.preconditioner is None else self.preconditioner(y, v)
        slope = otu.mul(v, Av) if self.elementwise else otu.vdot(v, Av)
        energy = jax.tree.map(lambda r, s: r / (1 + 2 * self.eta * s), state.energy, slope)
        sizes = jax.tree.broadcast(otu.scale(-2 * self.eta, energy), Av)
        after = otu.add(y, otu.mul(sizes, Av))
        at_rest = jnp.all(ravel_pytree(after)[0] == ravel_pytree(y)[0])
        value, gradient = problem.value_and_gradient(after)
        energy, offset = self._restarted(value, energy, state.offset)
        positive = ~jnp.any(ravel_pytree(slope)[0] < 0)  # a NaN is told of by itself
        return after, EnergyGradientState(value, gradient, energy, offset, positive, at_rest)

    def terminate(self, problem: Any, y: PyTree[Array], state: EnergyGradientState) -> Any:
        status = Status.where(state.at_rest, Status.stalled, Status.running)
        return Status.where(state.positive, status, Status.breakdown)

    def known(self, problem: Any, y: PyTree[Array], state: EnergyGradientState) -> Known:
        return Known(state.value, state.gradient)

    def _restarted(
        self, value: Float[Array, ""], energy: PyTree[Array], offset: Float[Array, ""]
    ) -> tuple[PyTree[Array], Float[Array, ""]]:
        """r and c with which to go on from a point of this value; r < 0 has yet to begin."""
        low = value + offset <= 0
        offset = jnp.where(low, self.c + 2 * jnp.abs(value), offset)
        root = jnp.sqrt(value + offset)

        def renewed(energy: Array) -> Array:
            return jnp.where(low | (energy < self.restart * root), root, energy)

        return jax.tree.map(renewed, energy), offset


def hessian_riemannian(
    phi: Callable[[PyTree[Array]], Float[Array, ""]],
) -> Callable[[PyTree[Array], PyTree[Array]], PyTree[Array]]:
    """The preconditioner of the Hessian-Riemannian metric of phi: v -> H^-1 v, H that of phi at y.

    Where phi is a barrier of a domain, which H grows towards the boundary of, short steps stay in
    it. H is formed and factored at each step; where it is known, write H^-1 v down instead: for the
    entropy, the sum of y log y - y, it is y v.

    Args:
        phi: strictly convex and twice differentiable where y goes; where H is not positive
            definite, H^-1 v is NaN.

    Returns:
        A function of y and v, for `EnergyGradient`.

    Raises:
        ValueError: if `phi` is no function.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> metric = rp.smooth.hessian_riemannian(lambda y: -jnp.sum(jnp.log(y)))
        >>> metric(jnp.array([1.0, 2.0]), jnp.ones(2)).tolist()
        [1.0, 4.0]
        >>> problem = rp.Minimize(lambda y, _: jnp.sum((y - 1.0) ** 2), jnp.full(2, 0.2))
        >>> method = rp.smooth.EnergyGradient(preconditioner=metric)
        >>> rp.solve(problem, method).value.round(3).tolist()
        [1.0, 1.0]
    """
    as_function(phi, "phi")

    def preconditioner(y: PyTree[Array], v: PyTree[Array]) -> PyTree[Array]:
        flat, unravel = ravel_pytree(y)
        H = jax.hessian(lambda flat: phi(unravel(flat)))(flat)
        return unravel(jax.scipy.linalg.solve(H, ravel_pytree(v)[0], assume_a="pos"))

    return preconditioner
