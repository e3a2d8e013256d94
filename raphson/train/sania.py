"""SANIA: Polyak's step size within a metric, so that neither rate nor units need to be tuned.

Abdukhakimov, Xiang, Kamzolov, Gower, Takáč (2023), SANIA: Polyak-type Optimization Framework Leads
to Scale Invariant Stochastic Algorithms.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax
import optax.tree as otu
from jaxtyping import Array, Int, PyTree

from ..validate import require_number
from ._core import as_key, like, require, require_given, single
from ._hutchinson import drawn_diagonal

Metric = Literal["adagrad_sqr", "adam_sqr", "adagrad", "adam", "hutchinson", "newton"]


class SaniaState(NamedTuple):
    """What the metric is made of, in at least single precision whatever the gradients are in."""

    count: Int[Array, ""]
    b: PyTree[Array]


def sania(
    learning_rate: float | optax.Schedule = 1.0,
    preconditioner: Metric = "adam_sqr",
    f_star: float = 0.0,
    b2: float = 0.999,
    eps: float = 1e-8,
    key: Array | None = None,
) -> optax.GradientTransformationExtraArgs:
    """SANIA, the shortest step in a metric B to where a model of the loss is at its least value.

    With the loss f of the batch, its gradient g and a positive matrix B:

        s = B^-1 g
        q = <g, s>
        a = 1 - sqrt(1 - 2 (f - f_star) / q) if 2 (f - f_star) <= q, else 1
        x = x - learning_rate a s

    which minimizes <d, B d> over the steps d with f + <g, d> + <d, B d> / 2 <= f_star, or takes B's
    Newton step where there are none. By `preconditioner`, B is the diagonal matrix of

    - `"adagrad_sqr"`: the sum of all g^2;
    - `"adam_sqr"`: their exponential mean, b2 B + (1 - b2) g^2, over 1 - b2^t;
    - `"adagrad"` and `"adam"`: the roots of these;
    - `"hutchinson"`: the exponential mean, over 1 - b2^t, of z * (H z) with the Hessian H and
      random signs z, in absolute value;

    each plus eps, or with `"newton"` the Hessian itself, for convex losses, by conjugate gradients.
    With the first two and the last, other units of the parameters change nothing but for eps, and
    rounding. Other units of the loss do with the first two: while f - f_star is far above half the
    number of parameters, steps are short.

    Args:
        learning_rate: at least 0, or a schedule of the step count; the theory takes 1.
        preconditioner: what B is.
        f_star: the least value of the loss of a batch, 0 where a model can fit all of them.
        b2: decay rate of the means, in [0, 1).
        eps: added to B, at least 0; the authors take 1e-8 for linear models and 0.1 for networks.
        key: random key of the signs; by default that of seed 0.

    Returns:
        An Optax transformation; its `update` needs `value`, the loss; with `"hutchinson"` and
        `"newton"` the parameters, and `value_fn`, the loss of the same batch as a function of them.

    Raises:
        ValueError: if a hyperparameter is outside its range, or there is no such preconditioner.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> a = jnp.array([[1000.0, 1.0], [-500.0, 2.0]])
        >>> loss = lambda x: jnp.mean(jnp.logaddexp(0, -a @ x))
        >>> optimizer = rp.train.sania()
        >>> x = jnp.zeros(2)
        >>> state = optimizer.init(x)
        >>> for _ in range(30):
        ...     value, g = jax.value_and_grad(loss)(x)
        ...     updates, state = optimizer.update(g, state, x, value=value)
        ...     x = x + updates
        >>> bool(loss(x) < 0.01)
        True
    """
    require("sania", learning_rate=learning_rate, eps=eps)
    require_number(b2, "`b2` of sania", 0, 1, closed="left")
    require_number(f_star, "`f_star` of sania")
    if preconditioner not in get_args(Metric):
        listed = ", ".join(map(repr, get_args(Metric)))
        raise ValueError(
            f"`preconditioner` of sania must be one of {listed}, got {preconditioner!r}."
        )
    signs, curved = as_key(key), preconditioner in ("hutchinson", "newton")

    def quotient(g: Array, b: Array) -> Array:
        b = jnp.sqrt(b) if preconditioner in ("adagrad", "adam") else jnp.abs(b)
        b = b + eps
        return jnp.where(b > 0, g / jnp.where(b > 0, b, 1), 0)

    def init(params: PyTree[Array]) -> SaniaState:
        held = None if preconditioner == "newton" else jax.tree.map(jnp.zeros_like, single(params))
        return SaniaState(jnp.zeros((), jnp.int32), held)

    def update(
        updates: Any,
        state: Any,
        params: Any = None,
        *,
        value: Any = None,
        value_fn: Any = None,
        **_: Any,
    ) -> tuple[PyTree[Array], SaniaState]:
        require_given("sania", value=value)
        if curved:
            require_given("sania", params=params, value_fn=value_fn)
        g, t = single(updates), jnp.asarray(optax.safe_increment(state.count))
        b = state.b
        if preconditioner == "newton":
            s = _newton_step(value_fn, params, g)
        else:
            if preconditioner == "hutchinson":
                drawn = drawn_diagonal(jax.random.fold_in(signs, state.count), value_fn, params)
                b = otu.update_moment(drawn, b, b2, 1)
            elif preconditioner in ("adam_sqr", "adam"):
                b = otu.update_moment(g, b, b2, 2)
            else:
                b = jax.tree.map(lambda b, g: b + g**2, b, g)
            summed = preconditioner in ("adagrad_sqr", "adagrad")
            metric = b if summed else otu.bias_correction(b, b2, t)
            s = jax.tree.map(quotient, g, metric)
        q = jnp.asarray(otu.vdot(g, s))
        gap = 2 * jnp.maximum(jnp.asarray(value, q.dtype) - f_star, 0)
        share = jnp.where(gap < q, gap / jnp.where(q > 0, q, 1), 1)
        a = share / (1 + jnp.sqrt(1 - share))  # 1 - sqrt(1 - share), without cancellation
        # Where there is no slope, or what conjugate gradients find no number, there is no step.
        u = jax.tree.map(lambda s: jnp.where(q > 0, a * s, 0), s)
        return like(u, updates), SaniaState(t, b)

    return optax.chain(
        optax.GradientTransformationExtraArgs(init, update),
        optax.scale_by_learning_rate(learning_rate),
    )


def _newton_step(value_fn: Any, params: PyTree[Array], g: PyTree[Array]) -> PyTree[Array]:
    def product(v: PyTree[Array]) -> PyTree[Array]:
        return single(jax.jvp(jax.grad(value_fn), (params,), (like(v, params),))[1])

    return jax.scipy.sparse.linalg.cg(product, g)[0]
