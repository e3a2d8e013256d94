"""The roots of a family of equations, each found from those before it.

Keller (1977), Numerical Solution of Bifurcation and Nonlinear Eigenvalue Problems; Allgower, Georg
(1990), Numerical Continuation Methods.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax.tree as otu
from jaxtyping import Array, ArrayLike, Bool, Float, PyTree

from ..compiled import compiled
from ..method import AbstractMethod, iterate
from ..problem import AbstractResidual
from ..solution import Status
from ..validate import as_function, as_start, tolerance, whole_number
from .levenberg_marquardt import LevenbergMarquardt


def continuation(
    problem_at: Callable[[Array], AbstractResidual],
    parameters: ArrayLike,
    *,
    method: AbstractMethod | None = None,
    atol: float = 1e-8,
    max_steps: int = 100,
) -> tuple[PyTree[Array], Bool[Array, " k"]]:
    """The roots y(p) of a family of equations for given values of its parameter p, in their order.

    A root is sought from the straight line through the last two, y + (p+ - p) (y - y-) / (p - p-);
    the first from the start of its problem, and the second from the first. Where the branch of
    roots folds back in p it is lost.

    Args:
        problem_at: `problem_at(p)`, the equations, with starts of one shape; such as
            `raphson.problems.shear_flow9`.
        parameters: the values of p, shape (k,), no two in a row the same.
        method: finds each root; by default `LevenbergMarquardt()`.
        atol: the greatest norm of a residual at a root.
        max_steps: how many steps for a root at most.

    Returns:
        The roots, stacked along a first axis of length k, and whether each residual met `atol`.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> root_of = lambda p: rp.RootFind(lambda y, p: y**2 - p, jnp.array(1.0), p)
        >>> roots, found = continuation(root_of, jnp.array([1.0, 4.0, 9.0]), atol=1e-4)
        >>> roots.round(2).tolist(), bool(found.all())
        ([1.0, 2.0, 3.0], True)
    """
    as_function(problem_at, "problem_at")
    p = as_start(parameters, "parameters")
    if getattr(p, "ndim", None) != 1 or len(p) == 0:
        raise ValueError("`parameters` must be a vector of at least one number.")
    atol, max_steps = tolerance(atol, "atol"), whole_number(max_steps, "max_steps", 1)
    method = LevenbergMarquardt() if method is None else method

    return compiled(_branch, problem_at, p, method, atol, np.int32(max_steps))


def _branch(
    problem_at: Callable[[Array], AbstractResidual],
    p: Float[Array, " k"],
    method: AbstractMethod,
    atol: Any,
    max_steps: Any,
) -> tuple[PyTree[Array], Bool[Array, " k"]]:
    def follow(carry: Any, ahead: tuple[Array, Array]) -> Any:
        (y, slope, p), (p_next, is_first) = carry, ahead
        start = otu.add_scale(y, p_next - p, slope)
        run = iterate(problem_at(p_next), method, start, rtol=0.0, atol=atol, max_steps=max_steps)
        # Both arms of `where` are evaluated, hence a divisor that is never 0.
        secant = otu.scale(1 / jnp.where(is_first, 1, p_next - p), otu.sub(run.y, y))
        slope = otu.where(is_first, slope, secant)
        return (run.y, slope, p_next), (run.y, run.status == Status.converged)

    y0 = problem_at(p[0]).y0
    is_first = jnp.arange(len(p)) == 0
    return jax.lax.scan(follow, (y0, otu.zeros_like(y0), p[0]), (p, is_first))[1]
