"""Optimality conditions F(y, args) = 0, for `raphson.implicit` to differentiate answers by.

Blondel, Berthet, Cuturi, Frostig, Hoyer, Llinares-Lopez, Pedregosa, Vert (2022), Efficient and
Modular Implicit Differentiation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax.tree as otu
from jaxtyping import Array, PyTree

from .derivatives import Condition


def stationary(objective: Callable[[Any, Any], Any]) -> Condition:
    """The gradient vanishes: an unconstrained minimum.

    Args:
        objective: f(y, args), a scalar.

    Returns:
        F(y, args) = df/dy.

    Example:
        >>> import raphson as rp
        >>> F = rp.conditions.stationary(lambda y, a: (y - a) ** 2)
        >>> float(F(3.0, 1.0))
        4.0
    """
    return jax.grad(objective)


def fixed_point(mapping: Callable[[Any, Any], Any]) -> Condition:
    """T returns what it is given.

    Args:
        mapping: T(y, args), shaped as y.

    Returns:
        F(y, args) = T(y, args) - y.

    Example:
        >>> import raphson as rp
        >>> F = rp.conditions.fixed_point(lambda y, a: a * y + 1.0)
        >>> float(F(2.0, 0.5))
        0.0
    """
    return lambda y, args: otu.sub(mapping(y, args), y)


def projected_gradient(
    objective: Callable[[Any, Any], Any],
    projection: Callable[[Any, Any], Any],
    step_size: Any = 1.0,
) -> Condition:
    """A gradient step that is projected back leads nowhere: a minimum over a convex set.

    Args:
        objective: f(y, args), a scalar.
        projection: `projection(y, args)`, the nearest point of the set.
        step_size: of the gradient step, positive; the derivatives do not depend on it.

    Returns:
        F(y, args) = projection(y - step_size df/dy, args) - y.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> f = lambda y, a: (y - a) ** 2
        >>> F = rp.conditions.projected_gradient(f, lambda y, _: jnp.maximum(y, 0.0))
        >>> float(F(0.0, -1.0))
        0.0
    """
    return proximal_gradient(objective, lambda y, args, _: projection(y, args), step_size)


def proximal_gradient(
    objective: Callable[[Any, Any], Any],
    prox: Callable[[Any, Any, Any], Any],
    step_size: Any = 1.0,
) -> Condition:
    """A proximal gradient step leads nowhere: a minimum of f + g where g has a proximal map.

    Args:
        objective: f(y, args), a scalar, the smooth part.
        prox: `prox(y, args, step_size)`, the least point x of g(x) + |x - y|^2 / (2 step_size).
        step_size: of the step, positive; the derivatives do not depend on it.

    Returns:
        F(y, args) = prox(y - step_size df/dy, args, step_size) - y.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> soft = lambda y, a, s: jnp.sign(y) * jnp.maximum(jnp.abs(y) - s * a, 0.0)
        >>> F = rp.conditions.proximal_gradient(lambda y, a: (y - 2.0) ** 2 / 2, soft, 0.5)
        >>> float(F(1.0, 1.0))
        0.0
    """

    def mapping(y: PyTree[Array], args: PyTree) -> PyTree[Array]:
        moved = otu.add_scale(y, -step_size, jax.grad(objective)(y, args))
        return prox(moved, args, step_size)

    return fixed_point(mapping)


def kkt(
    objective: Callable[[Any, Any], Any],
    equality: Callable[[Any, Any], Any] | None = None,
    inequality: Callable[[Any, Any], Any] | None = None,
) -> Condition:
    """Karush, Kuhn and Tucker: a minimum of f where h = 0 and g <= 0.

    The answer is (y, nu, lam), with the multipliers of h and of g; what is not constrained has the
    multiplier None. Where a constraint holds with equality but has the multiplier 0 there is no
    derivative.

    Args:
        objective: f(y, args), a scalar.
        equality: h(y, args), arrays.
        inequality: g(y, args), arrays.

    Returns:
        F((y, nu, lam), args) = (df/dy + nu dh/dy + lam dg/dy, h, lam g).

    Example:
        >>> import raphson as rp
        >>> F = rp.conditions.kkt(lambda y, a: y**2, inequality=lambda y, a: a - y)
        >>> [float(part) for part in F((1.0, None, 2.0), 1.0) if part is not None]
        [0.0, 0.0]
    """

    def condition(answer: Any, args: PyTree) -> Any:
        y, nu, lam = answer

        def lagrangian(y: PyTree[Array]) -> Any:
            total = objective(y, args)
            for constraint, multiplier in ((equality, nu), (inequality, lam)):
                if constraint is not None:
                    total = total + otu.vdot(multiplier, constraint(y, args))
            return total

        h = None if equality is None else equality(y, args)
        slack = None if inequality is None else otu.mul(lam, inequality(y, args))
        return jax.grad(lagrangian)(y), h, slack

    return condition
