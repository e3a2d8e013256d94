"""PSGD: preconditioners in a Lie group, fitted to gradients or to products with the Hessian.

Pooladzandi, Li (2024), Curvature-Informed SGD via General Purpose Lie-Group Preconditioners, and
Li (2024), Stochastic Hessian Fitting on Lie Group.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.tree as otu
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Int, PyTree

from ..validate import require_number, whole_number
from ._core import Mask, as_key, descend, like, require, require_given, single
from ._lie_groups import Kron, LowRankGroup, TriangularGroup, XMatGroup, first_scale

_FORMS = ("kron", "dense", "triangular", "xmat", "low_rank")
_COORDINATES = ("Q0.5EQ1.5", "QEQ")


class PSGDState(NamedTuple):
    """Momentum and the preconditioner, in at least single precision whatever the gradients are."""

    count: Int[Array, ""]
    m: PyTree[Array]  # of gradients
    q: PyTree[Array]  # for each leaf, or for all together


def psgd(
    learning_rate: float | optax.Schedule = 1e-3,
    form: str = "kron",
    whiten: bool = True,
    momentum: float = 0.0,
    preconditioner_rate: float = 0.1,
    every: int = 1,
    rank: int = 10,
    coordinates: str = "Q0.5EQ1.5",
    damping: float = 1e-9,
    weight_decay: float = 0.0,
    mask: Mask = None,
    key: Array | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Preconditioned SGD (PSGD), whose preconditioner P = Q'Q is fitted by descent of its own.

    With pairs (v, h) of a random v and of h = g, the gradient, or h = H v, with the Hessian H of
    the batch's loss, Q descends on h'P h + v'P^-1 v within a group of matrices, where it stays
    regular; then

        m = b m + (1 - b) g, with b = min(momentum, 1 - 1 / t)
        x = x - learning_rate (P m + weight_decay x)

    P tends to |H|^-1, or, whitening, to E[g g']^-1/2: learning rates are as Newton's in the one
    case (near 1, less with noise), as Adam's in the other. By its form, Q is for n parameters

    - `"kron"`: for each leaf a Kronecker product over its axes, of a matrix for each whose length
      squared is at most the number of entries, and of a diagonal for each that is longer;
    - `"dense"`: any matrix, of n^2 entries;
    - `"triangular"`: upper triangular;
    - `"xmat"`: a diagonal, and the antidiagonal across it;
    - `"low_rank"`: (I + U V') diag(d), with U and V of `rank` columns.

    All but `"kron"` see the parameters as one vector.

    Args:
        learning_rate: at least 0, or a schedule of the step count.
        form: one of those above.
        whiten: whether P whitens gradients, or inverts the Hessian, by a product with it each
            time; for the latter `update` needs `value_fn`.
        momentum: in [0, 1).
        preconditioner_rate: of the descent of Q, relative to a bound of what is stable, in (0, 1].
        every: P is fitted at the first step and then after every so many.
        rank: of `"low_rank"`, at least 1.
        coordinates: of the steps of `"kron"` and `"dense"`, after the paper's formulas:
            `"Q0.5EQ1.5"`, or `"QEQ"`.
        damping: size of the noise that keeps P finite where h is 0, at least 0.
        weight_decay: strength of the decay of weights, at least 0.
        mask: which parameters decay: a prefix of their tree with True for those that do, or a
            function of the parameters that gives one; all by default.
        key: random key of the pairs; by default that of seed 0.

    Returns:
        An Optax transformation; its `update` needs the parameters, and unless it whitens
        `value_fn`, the loss of the same batch as a function of the parameters.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import raphson as rp
        >>> loss = lambda x: 500 * (x[0] - x[1]) ** 2 + (x[1] - 1) ** 2
        >>> optimizer = rp.train.psgd(0.5, "dense", whiten=False)
        >>> x = jnp.array([3.0, -2.0])
        >>> state = optimizer.init(x)
        >>> @jax.jit
        ... def step(x, state):
        ...     updates, state = optimizer.update(jax.grad(loss)(x), state, x, value_fn=loss)
        ...     return optax.apply_updates(x, updates), state
        >>> for _ in range(300):
        ...     x, state = step(x, state)
        >>> x.round(2).tolist()
        [1.0, 1.0]
    """
    require("psgd", learning_rate=learning_rate, momentum=momentum, weight_decay=weight_decay)
    require("psgd", damping=damping)
    require_number(preconditioner_rate, "`preconditioner_rate` of psgd", 0, 1, closed="right")
    whole_number(every, "every", 1)
    whole_number(rank, "rank", 1)
    for name, value, allowed in (
        ("form", form, _FORMS),
        ("coordinates", coordinates, _COORDINATES),
    ):
        if value not in allowed:
            listed = ", ".join(map(repr, allowed))
            raise ValueError(f"`{name}` of psgd must be one of {listed}, got {value!r}.")
    group = {
        "kron": Kron(coordinates),
        "dense": Kron(coordinates, full=True),
        "triangular": TriangularGroup(),
        "xmat": XMatGroup(),
        "low_rank": LowRankGroup(rank),
    }[form]
    random = as_key(key)

    def parts(tree: PyTree[Array]) -> list[Array]:
        """What has a preconditioner of its own: each leaf, or all raveled together."""
        tree = single(tree)
        if form == "kron":
            return [jnp.atleast_1d(leaf) for leaf in jax.tree.leaves(tree)]
        return [ravel_pytree(tree)[0]]

    def init(params: PyTree[Array]) -> PSGDState:
        m = jax.tree.map(jnp.zeros_like, single(params))
        q = [
            group.start(part.shape, part.dtype, jax.random.fold_in(random, i))
            for i, part in enumerate(parts(params))
        ]
        return PSGDState(jnp.zeros((), jnp.int32), m, q)

    def update(
        updates: Any, state: Any, params: Any = None, *, value_fn: Any = None, **_: Any
    ) -> tuple[PyTree[Array], PSGDState]:
        if not whiten:
            require_given("psgd", params=params, value_fn=value_fn)
        g, t = single(updates), jnp.asarray(optax.safe_increment(state.count))

        def fitted() -> list[Any]:
            now, noise = jax.random.split(jax.random.fold_in(random, state.count))
            if whiten:
                hs = parts(g)
                vs: list[Any] = [None] * len(hs)
            else:
                v = otu.random_like(now, params, jax.random.normal)
                hs, vs = parts(jax.jvp(jax.grad(value_fn), (params,), (v,))[1]), parts(v)
            keys = [jax.random.split(key) for key in jax.random.split(noise, len(hs))]
            return [fit(*each, t == 1) for each in zip(state.q, hs, vs, keys, strict=True)]

        q = (
            fitted()
            if every == 1
            else jax.lax.cond(state.count % every == 0, fitted, lambda: state.q)
        )

        def averaged(m: Array, g: Array) -> Array:
            b = jnp.minimum(momentum, 1 - 1 / t.astype(g.dtype))
            return b * m + (1 - b) * g

        m = jax.tree.map(averaged, state.m, g)
        u = [group.apply(*each) for each in zip(q, parts(m), strict=True)]
        u = ravel_pytree(m)[1](jnp.concatenate([part.ravel() for part in u]))
        return like(u, updates), PSGDState(t, m, q)

    def fit(q: Any, h: Array, v: Array | None, keys: Array, first: Array) -> Any:
        q = group.scaled(q, jnp.where(first, first_scale(h, v), 1))
        size = damping + jnp.finfo(h.dtype).eps * jnp.abs(h)
        h = h + size * jax.random.normal(keys[0], h.shape, h.dtype)
        return group.fit(q, h, v, preconditioner_rate, keys[1])

    return optax.chain(
        optax.GradientTransformationExtraArgs(init, update),
        descend(learning_rate, weight_decay, mask),
    )
