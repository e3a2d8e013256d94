"""The customs office: to and from Optimistix, Optax, Lineax and SciPy.

Inbound, a solver of another library becomes a `Method` that calls the function through the
problem's oracles; whether it has converged remains the problem's to say. Outbound, a Raphson method
becomes an Optimistix or Lineax solver.
"""

from __future__ import annotations

from typing import Any

import lineax as lx
import optax
import optimistix as optx

from ..method import AbstractMethod
from ._lineax import LineaxMethod as LineaxMethod, as_lineax as as_lineax
from ._optax import OptaxMethod as OptaxMethod
from ._optimistix import (
    OptimistixFixedPoint as OptimistixFixedPoint,
    OptimistixLeastSquares as OptimistixLeastSquares,
    OptimistixMinimizer as OptimistixMinimizer,
    OptimistixRootFinder as OptimistixRootFinder,
    as_optimistix as as_optimistix,
)
from ._scipy import (
    HostMethod as HostMethod,
    SciPyLeastSquares as SciPyLeastSquares,
    SciPyMinimize as SciPyMinimize,
    SciPyRoot as SciPyRoot,
)

_INBOUND = {
    optax.GradientTransformation: OptaxMethod,
    optx.AbstractMinimiser: OptimistixMinimizer,
    optx.AbstractLeastSquaresSolver: OptimistixLeastSquares,
    optx.AbstractRootFinder: OptimistixRootFinder,
    optx.AbstractFixedPointSolver: OptimistixFixedPoint,
    lx.AbstractLinearSolver: LineaxMethod,
}


def as_method(solver: Any) -> AbstractMethod:
    """A `Method` from a Raphson method or a solver of a library that Raphson knows.

    Args:
        solver: a Raphson method; an Optimistix minimizer, least-squares solver, root finder or
            fixed-point solver; an Optax transformation; or a Lineax solver.

    Returns:
        The method, usable wherever a Raphson method is.

    Raises:
        TypeError: if `solver` is none of these.

    Example:
        >>> import jax.numpy as jnp
        >>> import optimistix as optx
        >>> import raphson as rp
        >>> problem = rp.Minimize(lambda y, _: jnp.sum((y - 1) ** 2), jnp.zeros(2))
        >>> bool(rp.solve(problem, optx.BFGS(rtol=1e-8, atol=1e-8)).converged)
        True
    """
    if isinstance(solver, AbstractMethod):
        return solver
    for theirs, ours in _INBOUND.items():
        if isinstance(solver, theirs):
            return ours(solver)
    raise TypeError(
        "`method` must be a Raphson method or a solver of Optimistix, Optax or Lineax, "
        f"got {solver!r}."
    )
