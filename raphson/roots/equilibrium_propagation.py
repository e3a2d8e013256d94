"""Gradients of an equilibrium from how it answers to nudges, and what makes its Jacobian symmetric.

Laborieux, Zenke (2022), Holomorphic Equilibrium Propagation Computes Exact Gradients Through Finite
Size Oscillations; Laborieux, Zenke (2023), Improving Equilibrium Propagation without Weight
Symmetry through Jacobian Homeostasis.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..validate import as_function, as_start, require_number, whole_number

Field = Callable[[Any, Any], Any]


def holomorphic_gradient(
    field: Field,
    loss: Callable[[Any, Any], Any],
    u: PyTree[ArrayLike],
    args: PyTree[Array],
    *,
    points: int = 2,
    radius: float = 0.5,
    steps: int = 50,
) -> PyTree[Array]:
    """The gradient of L at the equilibrium F(u, args) = 0 by `args`, without transposing dF/du.

    With u_b the equilibrium of F - b dL/du, and b = r e^(2 pi i k / N) for k = 0, ..., N - 1,
    Cauchy's formula gives du/db = sum_k (u_b - u) / b / N up to O(r^N); with N = 1 it is a forward
    difference. The gradient is dL/dargs - (dF/dargs)' du/db. It is exact in that limit if dF/du is
    symmetric, as where F is the gradient of an energy; if not, it has (dF/du)^-1 in place of the
    transpose, and `jacobian_homeostasis` is to be kept small.

    Args:
        field: F, `field(u, args)`, shaped as u, such that u + F(u, args) contracts.
        loss: L, `loss(u, args)`, a scalar. Both must be holomorphic in u: made without `abs`,
            `maximum` or complex conjugates, and without poles for the nudges b.
        u: the equilibrium, by whatever found it.
        args: floating-point arrays, by which L is differentiated.
        points: N.
        radius: r, positive.
        steps: how many steps u + F - b dL/du each nudged equilibrium takes from u.

    Returns:
        The gradient, shaped as `args`.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> field, loss = lambda u, a: (a - u) / 2, lambda u, a: (u - 1) ** 2 / 2
        >>> a, options = jnp.array(3.0), {"points": 4, "radius": 0.1}
        >>> round(float(rp.roots.holomorphic_gradient(field, loss, a, a, **options)), 1)
        2.0
    """
    field, loss = as_function(field, "field"), as_function(loss, "loss")
    N, steps = whole_number(points, "points", 1), whole_number(steps, "steps", 1)
    require_number(radius, "`radius`", 0)
    u = as_start(u, "u")
    nudge = jax.grad(loss, holomorphic=True)

    # What is real for real b takes conjugate values at conjugate b: half of the circle suffices.
    k = jnp.arange(N // 2 + 1)
    dtype = jnp.result_type(*jax.tree.leaves(u), jnp.complex64)
    b = radius * jnp.exp(2j * jnp.pi * k / N).astype(dtype)
    weight = jnp.where((k == 0) | (2 * k == N), 1, 2)

    def answer(b: Array) -> PyTree[Array]:
        # A plain loop: problems, and with them methods, know real iterates only.
        step = lambda _, u: jax.tree.map(lambda u, F, g: u + F - b * g, u, *forces(u))
        forces = lambda u: (field(u, args), nudge(u, args))
        end = jax.lax.fori_loop(0, steps, step, jax.tree.map(lambda leaf: leaf.astype(dtype), u))
        return jax.tree.map(lambda end, u: ((end - u) / b).real, end, u)

    answers = jax.vmap(answer)(b)
    du = jax.tree.map(lambda rows: jnp.tensordot(weight.astype(rows.dtype), rows, 1) / N, answers)
    (error,) = jax.vjp(lambda args: field(u, args), args)[1](du)
    return otu.sub(jax.grad(loss, argnums=1)(u, args), error)


def jacobian_homeostasis(
    field: Field, u: PyTree[ArrayLike], args: PyTree, key: Array, *, samples: int = 1
) -> Float[Array, ""]:
    """How far J = dF/du is from symmetric, |J - J'|^2 / 2n in the Frobenius norm, estimated.

    It is the mean of (|J e|^2 - e' J J e) / n over Gaussian e: two products with J for each. Added
    to a loss, where it is differentiated by `args`, it makes `holomorphic_gradient` exact.

    Args:
        field: F, `field(u, args)`, shaped as u.
        u: where, usually an equilibrium.
        args: data for `field`.
        key: a random key.
        samples: how many e; the estimate is not biased.

    Returns:
        The estimate.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> turn = lambda u, a: jnp.stack([u[1], a * u[0]])
        >>> key = jax.random.key(0)
        >>> symmetric = rp.roots.jacobian_homeostasis(turn, jnp.zeros(2), 1.0, key)
        >>> turned = rp.roots.jacobian_homeostasis(turn, jnp.zeros(2), -1.0, key, samples=1000)
        >>> round(float(symmetric), 1), round(float(turned))
        (0.0, 2)
    """
    as_function(field, "field")
    u = as_start(u, "u")

    def estimate(key: Array) -> Array:
        e = otu.random_like(key, u)
        product = lambda v: jax.jvp(lambda u: field(u, args), (u,), (v,))[1]
        once = product(e)
        return jnp.asarray(otu.vdot(once, once)) - jnp.asarray(otu.vdot(e, product(once)))

    keys = jax.random.split(key, whole_number(samples, "samples", 1))
    return jnp.mean(jax.vmap(estimate)(keys)) / sum(leaf.size for leaf in jax.tree.leaves(u))
