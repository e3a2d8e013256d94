"""Guesses of extremal periodic orbits: states of little slack in a bound on time averages.

Lakshmi, Fantuzzi, Fernandez-Caballero, Hwang, Chernyshenko (2020), Finding Extremal Periodic Orbits
with Polynomial Optimization, with Application to a Nine-Mode Model of Shear Flow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..smooth.problem import Minimize
from ..validate import as_function


def bound_slack(
    field: Callable[[Array, Any], Array],
    observable: Callable[[Array, Any], Array],
    auxiliary: Callable[[Array, Any], Array],
    bound: ArrayLike,
    u0: ArrayLike,
    args: PyTree = None,
) -> Minimize:
    """The slack U - P(u) - f(u)' grad V(u) of a bound U on time averages of P along du/dt = f(u).

    Where it is nowhere negative, no bounded orbit has a mean of P above U, whatever V is, as the
    mean of f' grad V = dV/dt vanishes. An orbit whose mean is almost U stays where the slack is
    small: minimizers from many starts are guesses of its points. U and V come from elsewhere, such
    as a program over sums of squares; `periodic_orbit` finds the orbit from a guess.

    Args:
        field: `field(u, args)`, f.
        observable: `observable(u, args)`, P, a scalar.
        auxiliary: `auxiliary(u, args)`, V, a scalar.
        bound: U.
        u0: the start, a vector.
        args: any data for the three functions.

    Returns:
        The problem.

    Raises:
        ValueError: if one of the functions is none, or the start is not made of real floating-point
            arrays.

    Example:
        >>> import jax
        >>> import raphson as rp
        >>> field = lambda u, _: jnp.stack([-u[1], u[0]]) + (1 - u @ u) * u
        >>> square = lambda u, _: u @ u  # its mean is 1 on the limit cycle, the circle of radius 1
        >>> guess = lambda u: rp.solve(
        ...     bound_slack(field, square, lambda u, _: u @ u / 2, 1.0, u), throw=False
        ... ).value
        >>> guesses = jax.vmap(guess)(jnp.array([[2.0, 0.0], [0.5, -0.5]]))
        >>> jnp.linalg.norm(guesses, axis=1).round(2).tolist()
        [1.0, 1.0]
    """
    for fn, name in ((field, "field"), (observable, "observable"), (auxiliary, "auxiliary")):
        as_function(fn, name)
    u = jnp.asarray(u0)
    return Minimize(_Slack(field, observable, auxiliary), u, (args, jnp.asarray(bound, u.dtype)))


class _Slack(eqx.Module):
    """U - P - f' grad V."""

    field: Callable[[Array, Any], Array] = eqx.field(static=True)
    observable: Callable[[Array, Any], Array] = eqx.field(static=True)
    auxiliary: Callable[[Array, Any], Array] = eqx.field(static=True)

    def __call__(self, u: Array, args: tuple[Any, Array]) -> Float[Array, ""]:
        data, bound = args
        along = self.field(u, data)
        rate = jax.jvp(lambda u: self.auxiliary(u, data), (u,), (along,))[1]
        return bound - self.observable(u, data) - rate
