"""How much of a Hessian curves downwards: what tells a saddle from a minimizer.

Pascanu, Dauphin, Ganguli, Bengio (2014), On the Saddle Point Problem for Non-Convex Optimization.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..compiled import compiled
from ..problem import AbstractObjective
from ..validate import require_number


def hessian_index(
    problem: AbstractObjective, y: PyTree[Array], *, rtol: float | None = None
) -> Float[Array, ""]:
    """Probe the index of the Hessian, the fraction of its eigenvalues that are negative.

    It is 0 at a minimizer, 1 at a maximizer, and in between at a saddle. The Hessian is formed and
    decomposed.

    Args:
        problem: an objective.
        y: where, shaped as the problem's start.
        rtol: eigenvalues count as 0 up to this fraction of the largest in absolute value, at least
            0; by default what rounding may do to them, the number of unknowns times the machine
            epsilon.

    Returns:
        The index, NaN if the Hessian is not finite; safe under `jit` and `vmap`.

    Raises:
        ValueError: if `problem` is no objective, or `rtol` is below 0.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.Minimize(lambda y, _: y[0] ** 2 - y[1] ** 2, jnp.zeros(2))
        >>> float(rp.probes.hessian_index(problem, problem.y0))
        0.5
    """
    if not isinstance(problem, AbstractObjective):
        raise ValueError(f"`problem` must be an objective, got a {type(problem).__name__}.")
    if rtol is not None:
        require_number(rtol, "`rtol`", 0, closed="left")
    return compiled(_probed, problem, y, rtol)


def _probed(problem: AbstractObjective, y: PyTree[Array], rtol: Any) -> Float[Array, ""]:
    H = problem.hessian(y).as_matrix()
    eigenvalues = jnp.linalg.eigvalsh((H + H.T) / 2)
    share = len(H) * jnp.finfo(H.dtype).eps if rtol is None else rtol
    negative = eigenvalues < -share * jnp.max(jnp.abs(eigenvalues))
    return jnp.where(jnp.all(jnp.isfinite(eigenvalues)), jnp.mean(negative, dtype=H.dtype), jnp.nan)
