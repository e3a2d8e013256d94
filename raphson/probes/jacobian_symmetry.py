"""How much of a Jacobian is symmetric: what equilibrium propagation takes for granted.

Laborieux, Zenke (2023), Improving Equilibrium Propagation without Weight Symmetry through Jacobian
Homeostasis.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..compiled import compiled
from ..problem import AbstractEquations


def jacobian_symmetry(problem: AbstractEquations, y: PyTree[Array]) -> Float[Array, ""]:
    """Probe |S| / (|S| + |A|), with the symmetric and antisymmetric parts of the Jacobian at y.

    It is 1 where F is the gradient of a function nearby, and 0 where F turns only. The norms are
    those of Frobenius, and the Jacobian is formed densely.

    Args:
        problem: equations with as many unknowns, such as a RootFind or a FixedPoint.
        y: where, shaped as the problem's start.

    Returns:
        The share, 1 if the Jacobian is 0; safe under `jit` and `vmap`.

    Raises:
        ValueError: if `problem` is made of no equations, or their number is not that of unknowns.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> fn = lambda y, _: jnp.stack([y[0] + y[1], y[1] - y[0]])
        >>> float(rp.probes.jacobian_symmetry(rp.RootFind(fn, jnp.zeros(2)), jnp.zeros(2)))
        0.5
    """
    if not isinstance(problem, AbstractEquations):
        raise ValueError(f"`problem` must be made of equations, got a {type(problem).__name__}.")
    return compiled(_probed, problem, y)


def _probed(problem: AbstractEquations, y: PyTree[Array]) -> Float[Array, ""]:
    operator = problem.jacobian(y)
    if operator.out_size() != operator.in_size():
        raise ValueError(
            "`problem` must have as many equations as unknowns, "
            f"got {operator.out_size()} and {operator.in_size()}."
        )
    J = operator.as_matrix()
    S, A = jnp.linalg.norm(J + J.T), jnp.linalg.norm(J - J.T)
    return jnp.where(S + A > 0, S / jnp.where(S + A > 0, S + A, 1), 1.0)
