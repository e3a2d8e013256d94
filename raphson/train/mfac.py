"""M-FAC: natural gradients by the inverse of the empirical Fisher matrix of the last gradients.

Frantar, Kurtic, Alistarh (2021), M-FAC: Efficient Matrix-Free Approximations of Second-Order
Information.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.tree as otu
from jaxtyping import Array, Float, Int, PyTree

from ..validate import require_number, whole_number
from ._core import Mask, descend, like, require, single


class MFACState(NamedTuple):
    """The last gradients and their products, in at least single precision."""

    count: Int[Array, ""]
    m: PyTree[Array]  # moving average of directions
    history: PyTree[Array]  # gradients stacked, each where the oldest was
    gram: Float[Array, "m m"]  # their inner products


def mfac(
    learning_rate: float | optax.Schedule = 1e-3,
    history: int = 32,
    damping: float = 1e-5,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    mask: Mask = None,
) -> optax.GradientTransformationExtraArgs:
    """Descent along the inverse empirical Fisher matrix of the last gradients (M-FAC).

    With the gradient g, and F of the last m gradients with it, 0 as long as there are fewer:

        F = damping I + (1 / m) sum of g_i g_i'
        u = momentum u + (1 - momentum) F^-1 g
        x = x - learning_rate (u + weight_decay x)

    F^-1 g is G' c of the rows G of gradients, where (damping I + G G' / m) c has the entry 1 for g,
    and 0 else: a step costs 2 m n operations for n parameters and one solve in m unknowns, as one
    row of G G' is new. The algorithm's memory is that of m gradients. As F^-1 g grows where g
    falls, learning rates have to be lowered near a minimizer.

    Args:
        learning_rate: at least 0, or a schedule of the step count.
        history: how many gradients are kept, m, at least 1; the authors take up to 1024. A static
            argument of `optax.inject_hyperparams`.
        damping: positive.
        momentum: in [0, 1).
        weight_decay: strength of the decay of weights, at least 0; the authors' code adds it to
            the gradient instead, as `optax.add_decayed_weights` before this does.
        mask: which parameters decay: a prefix of their tree with True for those that do, or a
            function of the parameters that gives one; all by default.

    Returns:
        An Optax transformation; its `update` needs the parameters.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import raphson as rp
        >>> optimizer = rp.train.mfac(0.3, history=4, damping=1.0)
        >>> x = jnp.array([3.0, -2.0])
        >>> state = optimizer.init(x)
        >>> for _ in range(100):
        ...     updates, state = optimizer.update(jnp.array([3.0, 1.0]) * x, state, x)
        ...     x = optax.apply_updates(x, updates)
        >>> bool(jnp.all(jnp.abs(x) < 0.1))
        True
    """
    require("mfac", learning_rate=learning_rate, momentum=momentum, weight_decay=weight_decay)
    whole_number(history, "history", 1)
    require_number(damping, "`damping` of mfac", 0)

    def init(params: PyTree[Array]) -> MFACState:
        m = jax.tree.map(jnp.zeros_like, single(params))
        past = jax.tree.map(lambda p: jnp.zeros((history, *p.shape), p.dtype), m)
        gram = jnp.zeros((history, history), jnp.result_type(*jax.tree.leaves(m)))
        return MFACState(jnp.zeros((), jnp.int32), m, past, gram)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[PyTree[Array], MFACState]:
        g, oldest = single(updates), state.count % history
        past = jax.tree.map(lambda past, g: past.at[oldest].set(g), state.history, g)
        row = products(past, g)
        gram = state.gram.at[oldest].set(row).at[:, oldest].set(row)
        weights = history * solved(gram, damping, jax.nn.one_hot(oldest, history, dtype=row.dtype))
        m = otu.update_moment(combined(past, weights), state.m, momentum, 1)
        count = jnp.asarray(optax.safe_increment(state.count))
        return like(m, updates), MFACState(count, m, past, gram)

    return optax.chain(
        optax.GradientTransformation(init, update), descend(learning_rate, weight_decay, mask)
    )


def inverse_fisher(
    gradients: PyTree[Float[Array, "m ..."]], x: PyTree[Array], damping: float = 1e-5
) -> PyTree[Array]:
    """(damping I + (1 / m) sum of g_i g_i')^-1 x, where no matrix is larger than m by m.

    Args:
        gradients: m gradients, of samples or batches, stacked along the first axis of each leaf.
        x: shaped as one of them.
        damping: positive.

    Returns:
        A tree like `x`.

    Raises:
        ValueError: if `damping` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> gradients = jnp.array([[2.0, 0.0]])
        >>> rp.train.inverse_fisher(gradients, jnp.array([5.0, 1.0]), damping=1.0).round(3).tolist()
        [1.0, 1.0]
    """
    require_number(damping, "`damping` of inverse_fisher", 0)
    gradients, shape = single(gradients), single(x)
    weights = solved(gram_matrix(gradients), damping, products(gradients, shape))
    return like(otu.scale(1 / damping, otu.sub(shape, combined(gradients, weights))), x)


def products(past: PyTree[Array], g: PyTree[Array]) -> Float[Array, " m"]:
    """G g, with the gradients in the rows of G."""
    parts = jax.tree.map(lambda p, g: jnp.tensordot(p, g, g.ndim), past, g)
    return jnp.sum(jnp.stack(jax.tree.leaves(parts)), axis=0)


def gram_matrix(past: PyTree[Array]) -> Float[Array, "m m"]:
    """G G'."""
    return jax.vmap(lambda g: products(past, g))(past)


def combined(past: PyTree[Array], weights: Float[Array, " m"]) -> PyTree[Array]:
    """G' weights."""
    return jax.tree.map(lambda p: jnp.tensordot(weights.astype(p.dtype), p, 1), past)


def solved(
    gram: Float[Array, "m m"], damping: Any, right: Float[Array, "m *k"]
) -> Float[Array, "m *k"]:
    """(m damping I + G G')^-1 right."""
    # Below rounding, damping would not keep the matrix positive.
    rounding = 10 * jnp.finfo(gram.dtype).eps * jnp.trace(gram)
    shift = (len(gram) * damping + rounding) * jnp.eye(len(gram), dtype=gram.dtype)
    return jax.scipy.linalg.solve(gram + shift, right, assume_a="pos")
