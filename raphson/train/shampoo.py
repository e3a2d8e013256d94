"""Shampoo: a preconditioner on each side of a matrix, whose product stands for Adagrad's.

Gupta, Koren, Singer (2018), Shampoo: Preconditioned Stochastic Tensor Optimization; with the square
of Morwani, Shapira, Vyas, Malach, Kakade, Janson (2024), A New Perspective on Shampoo's
Preconditioner.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.tree as otu
from jaxtyping import Array, Int, PyTree

from ..validate import require_number, whole_number
from ._core import Mask, descend, like, quotient, require, single
from ._polar import from_matrix_view, matrix_view, unit

Sides = tuple[Array | None, Array | None]


class ShampooState(NamedTuple):
    """Moving averages, in at least single precision whatever the gradients are in."""

    count: Int[Array, ""]
    m: PyTree[Array]  # of gradients
    v: PyTree[Array]  # of their squares
    factors: PyTree[Array]  # L and R of each leaf that has them
    powers: PyTree[Array]  # of L and R, as of the last decomposition


def shampoo(
    learning_rate: float | optax.Schedule = 1e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    exponent: float = 0.5,
    eps: float = 1e-8,
    damping: float = 1e-6,
    grafting: bool = True,
    every: int = 1,
    max_size: int = 4096,
    output_first: bool = True,
    weight_decay: float = 0.0,
    mask: Mask = None,
) -> optax.GradientTransformationExtraArgs:
    """Shampoo, momentum between inverse powers of the gradients' covariances by row and column.

    With the gradient G of a leaf that is a matrix, M and V the averages of Adam:

        L = b2 L + (1 - b2) G G'
        R = b2 R + (1 - b2) G' G
        U = (L / tr L)^-exponent M / sqrt(tr L) (R / tr R)^-exponent
        U = U |M / (sqrt(V) + eps)| / |U|, with `grafting`
        x = x - learning_rate (U + weight_decay x)

    where 1 - b1^t and 1 - b2^t correct all averages. The Kronecker product of L and R over tr L is
    what one step of the power method from the identity finds of the one nearest to the mean of
    vec(G) vec(G)', whose inverse root is Adagrad's: that is the exponent 1/2. Shampoo's own is 1/4,
    which takes the root of that product. Leaves with fewer than two axes take Adam's direction.

    Args:
        learning_rate: at least 0, or a schedule of the step count; with `grafting`, as for Adam.
        b1: decay rate of the mean of gradients, in [0, 1).
        b2: decay rate of the means of products and squares, in [0, 1).
        exponent: of the inverse power of either side, at least 0.
        eps: added to the denominator of Adam's direction, at least 0.
        damping: added to the eigenvalues of L and R, as a share of the greatest; at least 0, and in
            single precision at least the default.
        grafting: whether each leaf moves as far as Adam would move it.
        every: the powers are computed anew at the first step and then every so many. A static
            argument of `optax.inject_hyperparams`.
        max_size: sides longer than this have no preconditioner. A static argument of
            `optax.inject_hyperparams`.
        output_first: whether leaves are stored as (outputs, inputs, ...), as by Equinox, or as
            (..., inputs, outputs), as by Flax. Leaves with more than two axes count as matrices
            of the outputs by all else.
        weight_decay: strength of the decay of weights, at least 0.
        mask: which parameters decay: a prefix of their tree with True for those that do, or a
            function of the parameters that gives one; all by default.

    Returns:
        An Optax transformation.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> optimizer = rp.train.shampoo(1.0, b1=0.0, exponent=0.25, grafting=False)
        >>> g = jnp.diag(jnp.array([3.0, -1.0]))
        >>> updates, _ = optimizer.update(g, optimizer.init(g), g)
        >>> updates.round(3).tolist()
        [[-1.0, 0.0], [0.0, 1.0]]
    """
    require("shampoo", learning_rate=learning_rate, b1=b1, b2=b2, eps=eps, damping=damping)
    require("shampoo", weight_decay=weight_decay)
    require_number(exponent, "`exponent` of shampoo", 0, closed="left")
    whole_number(every, "every", 1)
    whole_number(max_size, "max_size", 1)

    def sides(g: Array) -> tuple[bool, bool]:
        if g.ndim < 2:
            return False, False
        outputs, inputs = matrix_view(g, output_first).shape
        return outputs <= max_size, inputs <= max_size

    def products(g: Array) -> Sides:
        left, right = sides(g)
        matrix = matrix_view(g, output_first) if left or right else g
        return matrix @ matrix.T if left else None, matrix.T @ matrix if right else None

    # One matrix at a time under `vmap`, too: threads that decompose batches wait for each other.
    @jax.custom_batching.sequential_vmap
    def power(factor: Array) -> Array:
        trace = jnp.trace(factor)
        eigenvalues, vectors = jnp.linalg.eigh(factor / jnp.where(trace > 0, trace, 1))
        # What is below rounding would damp nothing.
        share = jnp.maximum(damping, len(factor) * jnp.finfo(factor.dtype).eps)
        eigenvalues = jnp.maximum(eigenvalues, 0) + share * eigenvalues[-1]
        powers = jnp.where(trace > 0, eigenvalues, 1) ** -exponent
        return vectors @ (powers[:, None] * vectors.T)

    def direction(m: Array, adam: Array, factors: Sides, powers: Sides) -> Array:
        known = [factor for factor in factors if factor is not None]
        if not known:
            return adam
        trace = jnp.trace(known[0])
        u = matrix_view(m, output_first) / jnp.sqrt(jnp.where(trace > 0, trace, 1))
        left, right = powers
        u = u if left is None else left @ u
        u = from_matrix_view(u if right is None else u @ right, m, output_first)
        return jnp.linalg.norm(adam) * unit(u) if grafting else u

    def init(params: PyTree[Array]) -> ShampooState:
        m, v = (jax.tree.map(jnp.zeros_like, single(params)) for _ in range(2))
        factors, powers = (jax.tree.map(products, m) for _ in range(2))
        return ShampooState(jnp.zeros((), jnp.int32), m, v, factors, powers)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[PyTree[Array], ShampooState]:
        g, t = single(updates), jnp.asarray(optax.safe_increment(state.count))
        m = otu.update_moment(g, state.m, b1, 1)
        v = otu.update_moment(g, state.v, b2, 2)
        factors = otu.update_moment(jax.tree.map(products, g), state.factors, b2, 1)
        powers = jax.lax.cond(
            state.count % every == 0,
            lambda: jax.tree.map(power, factors),
            lambda: state.powers,
        )
        mean = otu.bias_correction(m, b1, t)
        adam = quotient(mean, otu.bias_correction(v, b2, t), eps)
        u = jax.tree.map(direction, mean, adam, otu.bias_correction(factors, b2, t), powers)
        return like(u, updates), ShampooState(t, m, v, factors, powers)

    return optax.chain(
        optax.GradientTransformation(init, update), descend(learning_rate, weight_decay, mask)
    )
