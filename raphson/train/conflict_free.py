"""ConFIG: of several losses' gradients, one direction that is as near to each as to the others.

Liu, Chu, Thuerey (2024), ConFIG: Towards Conflict-free Training of Physics Informed Neural
Networks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.tree as otu
from jaxtyping import Array, Float, Int, PyTree

from ..validate import whole_number
from ._core import like, quotient, require, single


def conflict_free(
    gradients: PyTree[Array], weights: Float[Array, " m"] | None = None
) -> PyTree[Array]:
    """The conflict-free inverse gradient (ConFIG) of m losses.

    With the gradients g_i, U the matrix whose rows are g_i / |g_i|, and the pseudoinverse U^+:

        d = U^+ 1 / |U^+ 1|
        the sum over i of <g_i, d>, times d

    While the gradients are independent, d has the same cosine with each, a positive one: a short
    step along -d lowers all losses. What is longest, or points elsewhere than all others, has no
    more say than the rest.

    Args:
        gradients: a tree like the parameters, its leaves with a leading axis that counts the
            losses, as `jax.jacrev` of a function to a vector of losses gives it. A gradient of 0
            has no say; two that are opposed, to rounding, leave no way, and the result is 0.
        weights: positive numbers that the cosines are proportional to; all equal by default.

    Returns:
        A tree like the parameters, in the place of a gradient.

    Raises:
        ValueError: if the leaves do not count the same number of losses.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> losses = lambda x: jnp.array([50.0 * x[0], x[1] - x[0]])
        >>> gradients = jax.jacrev(losses)(jnp.zeros(2))
        >>> d = rp.train.conflict_free(gradients)
        >>> (gradients @ d > 0).tolist(), (jnp.sum(gradients, axis=0) @ gradients.T > 0).tolist()
        ([True, True], [True, False])
    """
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(gradients)]
    if len({shape[:1] for shape in shapes}) != 1 or shapes[0] == ():
        raise ValueError(
            f"`gradients` must have leaves whose first axis counts the losses, got {shapes}."
        )
    leaves, treedef = jax.tree.flatten(single(gradients))
    rows = [leaf.reshape(shapes[0][0], -1) for leaf in leaves]
    # What is small may be 0 when squared.
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(row), 1, initial=0) for row in rows]), axis=0)
    rows = [row / jnp.where(largest > 0, largest, 1)[:, None] for row in rows]
    lengths = jnp.sqrt(jnp.asarray(sum(jnp.sum(row**2, axis=1) for row in rows)))
    rows = [row / jnp.where(lengths > 0, lengths, 1)[:, None] for row in rows]

    gram = jnp.asarray(sum(row @ row.T for row in rows))
    wanted = jnp.ones_like(lengths) if weights is None else jnp.asarray(weights, lengths.dtype)
    c = jnp.linalg.pinv(gram, hermitian=True) @ jnp.where(lengths > 0, wanted, 0)
    size = jnp.sqrt(jnp.maximum(c @ gram @ c, 0))
    exists = size > 100 * jnp.finfo(size.dtype).eps * jnp.linalg.norm(wanted)
    c = jnp.where(exists, c / jnp.where(exists, size, 1), 0)
    length = jnp.sum(largest * lengths * (gram @ c))
    d = [(length * (c @ row)).reshape(shape[1:]) for row, shape in zip(rows, shapes)]
    return like(treedef.unflatten(d), gradients)


class ConflictFreeMomentumState(NamedTuple):
    """Moving averages, in at least single precision whatever the gradients are in."""

    count: Int[Array, ""]
    m: PyTree[Array]  # of the gradients of each loss, along a leading axis
    joint: PyTree[Array]  # what the average of all would be before its bias is corrected
    v: PyTree[Array]  # of the squares of the gradients that would make that average


def conflict_free_momentum(
    learning_rate: float | optax.Schedule = 1e-3,
    losses: int = 2,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """ConFIG by momenta (M-ConFIG): each step takes the gradient of one loss, of all in turn.

    At the step count c, from 0 on, the gradient g must be that of the loss i = c mod losses. With
    t_i gradients of the loss i so far, and t = 1 once there is one of each:

        m_i = b1 m_i + (1 - b1) g
        G = conflict_free of m_j / (1 - b1^t_j) for all j
        h = ((1 - b1^t) G - b1 M) / (1 - b1),  M = (1 - b1^t) G
        v = b2 v + (1 - b2) h^2
        x = x - learning_rate G / (sqrt(v / (1 - b2^t)) + eps)

    h is the gradient by which Adam's mean would come from M to G. Until each loss has been seen,
    nothing moves. It is an optimizer of its own: Adam after it would average averages.

    Args:
        learning_rate: at least 0, or a schedule of the step count.
        losses: how many there are, at least 1.
        b1: decay rate of the means of gradients, in [0, 1).
        b2: decay rate of the mean of squares, in [0, 1).
        eps: added to the denominator, at least 0.

    Returns:
        An Optax transformation.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import raphson as rp
        >>> losses = lambda x: (50.0 * x[0] ** 2, (x[0] + x[1] - 1.0) ** 2)
        >>> optimizer = rp.train.conflict_free_momentum(0.02, losses=2)
        >>> def step(count, carry):
        ...     x, state = carry
        ...     gradient = jax.grad(lambda x: jnp.stack(losses(x))[count % 2])(x)
        ...     updates, state = optimizer.update(gradient, state, x)
        ...     return optax.apply_updates(x, updates), state
        >>> x = jnp.array([2.0, 2.0])
        >>> x, _ = jax.lax.fori_loop(0, 800, step, (x, optimizer.init(x)))
        >>> bool(jnp.all(jnp.abs(x - jnp.array([0.0, 1.0])) < 0.1))
        True
    """
    whole_number(losses, "losses", 1)
    require("conflict_free_momentum", learning_rate=learning_rate, b1=b1, b2=b2, eps=eps)

    def init(params: PyTree[Array]) -> ConflictFreeMomentumState:
        m = jax.tree.map(lambda p: jnp.zeros((losses, *p.shape), p.dtype), single(params))
        joint, v = (jax.tree.map(lambda p: jnp.zeros(p.shape[1:], p.dtype), m) for _ in range(2))
        return ConflictFreeMomentumState(jnp.zeros((), jnp.int32), m, joint, v)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[PyTree[Array], Any]:
        count = jnp.asarray(optax.safe_increment(state.count))
        mine = state.count % losses
        m = jax.tree.map(
            lambda m, g: m.at[mine].set(b1 * m[mine] + (1 - b1) * g), state.m, single(updates)
        )
        seen = (count + losses - 1 - np.arange(losses)) // losses
        correction = 1 / jnp.where(seen > 0, 1 - b1**seen, 1)
        corrected = jax.tree.map(
            lambda m: m * correction.astype(m.dtype).reshape(-1, *[1] * (m.ndim - 1)), m
        )
        ready = count >= losses
        g = otu.where(ready, conflict_free(corrected), otu.zeros_like(state.joint))
        t = jnp.maximum(count - losses + 1, 1)
        joint = like(otu.scale(1 - b1**t, g), g)
        h = otu.scale(1 / (1 - b1), otu.add_scale(joint, -b1, state.joint))
        v = otu.update_moment(h, state.v, b2, 2)
        direction = quotient(g, otu.bias_correction(v, b2, t), eps)
        direction = otu.where(ready, direction, otu.zeros_like(direction))
        return like(direction, updates), ConflictFreeMomentumState(count, m, joint, v)

    return optax.chain(
        optax.GradientTransformation(init, update), optax.scale_by_learning_rate(learning_rate)
    )
