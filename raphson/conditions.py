"""Optimality conditions F(y, args) = 0, for `raphson.implicit` to differentiate answers by.

Blondel, Berthet, Cuturi, Frostig, Hoyer, Llinares-Lopez, Pedregosa, Vert (2022), Efficient and
Modular Implicit Differentiation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax.tree as otu
from jax.flatten_util import ravel_pytree
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


def block_proximal_gradient(
    objective: Callable[[Any, Any], Any], proxes: Any, step_sizes: Any = 1.0
) -> Condition:
    """Proximal gradient steps of all blocks lead nowhere: a minimum of f plus a term for each.

    Args:
        objective: f(y, args), a scalar, the smooth part.
        proxes: a proximal map for each block of y, as in `proximal_gradient`: a PyTree of functions
            whose structure y has at its top, such as a tuple for a tuple of blocks.
        step_sizes: for each block, likewise, or one for all, positive; the derivatives do not
            depend on them.

    Returns:
        F(y, args), for each block prox(y_i - step_size_i df/dy_i, args, step_size_i) - y_i.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> f = lambda y, a: (y[0] + y[1] - a) ** 2 / 2
        >>> shrunk = lambda y, a, s: y / (1 + s)
        >>> positive = lambda y, a, s: jnp.maximum(y, 0.0)
        >>> F = rp.conditions.block_proximal_gradient(f, (shrunk, positive), (0.5, 0.25))
        >>> [float(part) for part in F((0.0, 3.0), 3.0)]
        [0.0, 0.0]
    """

    def mapping(y: PyTree[Array], args: PyTree) -> PyTree[Array]:
        def step(prox: Any, step_size: Any, y: Any, slope: Any) -> Any:
            return prox(otu.add_scale(y, -step_size, slope), args, step_size)

        each = jax.tree.broadcast(step_sizes, proxes)
        return jax.tree.map(step, proxes, each, y, jax.grad(objective)(y, args))

    return fixed_point(mapping)


def mirror_descent(
    objective: Callable[[Any, Any], Any],
    mirror_map: Callable[[Any], Any],
    projection: Callable[[Any, Any], Any],
    step_size: Any = 1.0,
) -> Condition:
    """A step of mirror descent leads nowhere: a minimum over a convex set, inside of it.

    Mirror descent steps from grad phi(y), for a strictly convex phi that suits the set, such as the
    negative entropy of probabilities. Where y is at a bound at which grad phi is infinite there
    is no derivative.

    Args:
        objective: f(y, args), a scalar.
        mirror_map: grad phi(y), shaped as y.
        projection: `projection(z, args)`, the point x of the set where phi(x) - <z, x> is least.
        step_size: of the gradient step, positive; the derivatives do not depend on it.

    Returns:
        F(y, args) = projection(grad phi(y) - step_size df/dy, args) - y.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> f = lambda y, a: jnp.sum((y - a) ** 2)
        >>> F = rp.conditions.mirror_descent(f, jnp.log, lambda z, _: jax.nn.softmax(z))
        >>> F(jnp.array([0.75, 0.25]), jnp.array([1.0, 0.5])).tolist()
        [0.0, 0.0]
    """

    def mapping(y: PyTree[Array], args: PyTree) -> PyTree[Array]:
        moved = otu.add_scale(mirror_map(y), -step_size, jax.grad(objective)(y, args))
        return projection(moved, args)

    return fixed_point(mapping)


def newton_step(condition: Condition, step_size: Any = 1.0) -> Condition:
    """A step of Newton's method leads nowhere: a root of G where its Jacobian is regular.

    The Jacobian is formed and factorized here. That of F at a root is -step_size times the
    identity, which any linear solver inverts at once.

    Args:
        condition: G(y, args), as many numbers as y has, such as `stationary(objective)`.
        step_size: positive; the derivatives do not depend on it.

    Returns:
        F(y, args) = -step_size (dG/dy)^-1 G(y, args), shaped as y.

    Example:
        >>> import raphson as rp
        >>> F = rp.conditions.newton_step(lambda y, a: y**2 - a)
        >>> float(F(3.0, 3.0))  # from 3 to 2
        -1.0
    """

    def step(y: PyTree[Array], args: PyTree) -> PyTree[Array]:
        flat, unravel = ravel_pytree(y)
        G = lambda flat: ravel_pytree(condition(unravel(flat), args))[0]
        return unravel(-step_size * jnp.linalg.solve(jax.jacfwd(G)(flat), G(flat)))

    return step


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
