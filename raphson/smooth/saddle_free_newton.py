"""Saddle-free Newton: negative curvature counts by its size, so that saddles repel.

Pascanu, Dauphin, Ganguli, Bengio (2014), On the Saddle Point Problem for Non-Convex Optimization.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PyTree

from ..method import AbstractMethod
from ..problem import AbstractObjective, AbstractProblem, Known
from ..solution import Status
from ..validate import in_range, whole_number
from ._krylov import krylov_spectrum
from ._shared import spectrum

# The powers of ten by which the damping may change in a step.
POWERS = (-3, -2, -1, 0, 1, 2, 3)


class SaddleFreeNewtonState(eqx.Module):
    value: Float[Array, ""]
    gradient: PyTree[Array]
    damping: Float[Array, ""]
    move: Float[Array, " n"]
    at_rest: Bool[Array, ""]


class SaddleFreeNewton(AbstractMethod[SaddleFreeNewtonState]):
    """The saddle-free Newton method, y+ = y - (|H| + d I)^-1 g.

    |H| has the eigenvectors of H and the absolute values of its eigenvalues. Newton's method goes
    to a saddle as it goes to a minimizer; this one leaves it, at its own speed along each
    direction. Unless `damping` is given, each step tries seven powers of ten around the d of the
    last one, and takes the one of least f; where f does not fall, the step is taken back and d
    raised.

    Args:
        damping: d, positive, of every step; by default found at each step by seven values of f, at
            first from the largest curvature to 1e-6 of it.
        rank: k, to know H only on the Krylov space of g, H g, ..., H^(k-1) g and the last move of
            y, by k + 1 products; by default H is formed and decomposed.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> saddle = lambda y, _: y[0] ** 2 / 2 - y[1] ** 2 / 2 + y[1] ** 4 / 4
        >>> problem = rp.Minimize(saddle, jnp.array([1.0, 1e-3]))
        >>> rp.solve(problem, rp.smooth.SaddleFreeNewton()).value.round(2).tolist()
        [0.0, 1.0]
    """

    damping: float | None = None
    rank: int | None = None

    question: ClassVar[type[AbstractProblem]] = AbstractObjective

    def __check_init__(self):
        if self.damping is not None:
            in_range(self, "damping", 0)
        if self.rank is not None:
            whole_number(self.rank, "rank", 1)

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> SaddleFreeNewtonState:
        value, gradient = problem.value_and_gradient(y)
        damping = jnp.asarray(1e-3 if self.damping is None else self.damping, value.dtype)
        move = jnp.zeros_like(ravel_pytree(y)[0])
        return SaddleFreeNewtonState(value, gradient, damping, move, jnp.array(False))

    def step(
        self, problem: Any, y: PyTree[Array], state: SaddleFreeNewtonState
    ) -> tuple[PyTree[Array], SaddleFreeNewtonState]:
        flat, unravel = ravel_pytree(y)
        g = ravel_pytree(state.gradient)[0]
        if self.rank is None:
            eigenvalues, basis = spectrum(problem.hessian(y).as_matrix())
        else:
            product = lambda v: ravel_pytree(problem.hvp(y, unravel(v)))[0]
            eigenvalues, basis = krylov_spectrum(product, g, state.move, self.rank)
        sizes, g_there = jnp.abs(eigenvalues), basis.T @ g

        # What is sought is the share d / |H|, which has no units.
        dampings, unit = state.damping[None], jnp.ones_like(state.damping)
        if self.damping is None:
            dampings = state.damping * 10.0 ** jnp.array(POWERS, g.dtype)
            largest = jnp.max(sizes, initial=0)
            unit = jnp.where(largest > 0, largest, 1)

        def trial(damping: Array) -> Array:
            return flat - basis @ (g_there / (sizes + damping * unit))

        values = jax.lax.map(lambda damping: problem.value(unravel(trial(damping))), dampings)
        values = jnp.where(jnp.isnan(values), jnp.inf, values)
        eps = jnp.finfo(g.dtype).eps
        rounding = 10 * eps * jnp.abs(state.value)
        # Near a solution all are equal but for the rounding of f: the least damping is the best.
        best = jnp.argmax(values <= jnp.min(values) + rounding)
        there, value, damping = trial(dampings[best]), values[best], dampings[best]
        gradient = problem.gradient(unravel(there))

        accepted = jnp.array(True)
        if self.damping is None:
            slope, slope_there = jnp.linalg.norm(g), jnp.linalg.norm(ravel_pytree(gradient)[0])
            drowned = jnp.abs(value - state.value) <= rounding
            accepted = jnp.where(drowned, slope_there < slope, value < state.value)
            damping = jnp.where(accepted, jnp.maximum(damping, eps), 1e3 * dampings[-1])

        at_rest = jnp.all(there == flat)
        y, value, gradient, move = jax.tree.map(
            lambda new, old: jnp.where(accepted, new, old),
            (unravel(there), value, gradient, there - flat),
            (y, state.value, state.gradient, state.move),
        )
        return y, SaddleFreeNewtonState(value, gradient, damping, move, at_rest)

    def terminate(self, problem: Any, y: PyTree[Array], state: SaddleFreeNewtonState) -> Any:
        return Status.where(state.at_rest, Status.stalled, Status.running)

    def known(self, problem: Any, y: PyTree[Array], state: SaddleFreeNewtonState) -> Known:
        return Known(state.value, state.gradient)
