"""Model building: a second gradient bends and shortens the steps that do not lower the loss.

Birbil, Martin, Onay, Oztoprak (2021), Bolstering Stochastic Gradient Descent with Model Building.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.tree as otu
from jaxtyping import Array, Float, Int, PyTree

from ..validate import require_number, whole_number
from ._core import as_schedule, like, require, require_given, single


class ModelBuildingState(NamedTuple):
    """How many updates there were, and what the epochs made of the learning rate."""

    count: Int[Array, ""]
    mended: Int[Array, ""]  # steps of this epoch
    scale: Float[Array, ""]  # of the learning rate


def model_building(
    learning_rate: float | optax.Schedule = 1.0,
    c: float = 0.1,
    eta: float = 0.99,
    epoch: int | None = None,
    gamma: float = 0.05,
    beta: float = 0.9,
    most: float = 20.0,
) -> optax.GradientTransformationExtraArgs:
    """Gradient descent whose steps are mended by a model where they fail (SMB).

    With the loss f of a batch, its gradient g at x, and r the learning rate, the trial -r g is the
    update if

        f(x - r g) <= f(x) - c r |g|^2

    with the norm over all leaves. Else, with the gradient h of the same batch at x - r g, leaf by
    leaf and with q = |h - g| / |g|:

        x = x - r eta ((1 + eta q) g + eta (h - g)) / (1 + 2 eta q)

    This is the paper's step in closed form: the minimizer of a quadratic model of the loss between
    x and the trial, regularized so that the step is at most eta times as long as the trial. Where
    the gradient is the same at both ends it is just that. It is not tried out: at learning rates
    far above those of gradient descent, the loss can grow. With `epoch`, after every so many steps

        r = beta r  where more than gamma of them were mended, else  min(r / beta, most)

    Args:
        learning_rate: at least 0, or a schedule of the step count.
        c: which share of the fall that the gradient promises is enough, in [0, 1).
        eta: the length of the longest mended steps over that of the trial, in (0, 1).
        epoch: how many steps the learning rate is kept for, at least 1; for good by default. A
            static argument of `optax.inject_hyperparams`.
        gamma: the share of mended steps that an epoch may have, in [0, 1).
        beta: what the learning rate is then multiplied by, in (0, 1).
        most: the greatest learning rate that epochs lead to, positive.

    Returns:
        An Optax transformation; its `update` needs the parameters, `value`, the loss there, and
        `value_fn`, the loss of the same batch as a function of the parameters.

    Raises:
        ValueError: if a hyperparameter is outside its range, or an argument of the update missing.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import raphson as rp
        >>> loss = lambda x: x[0] ** 2 + 5 * x[1] ** 2
        >>> optimizer = rp.train.model_building(learning_rate=0.3)
        >>> @jax.jit
        ... def step(x, state):
        ...     value, grad = jax.value_and_grad(loss)(x)
        ...     updates, state = optimizer.update(grad, state, x, value=value, value_fn=loss)
        ...     return optax.apply_updates(x, updates), state
        >>> x = jnp.array([3.0, -2.0])
        >>> state = optimizer.init(x)
        >>> for _ in range(50):
        ...     x, state = step(x, state)
        >>> bool(jnp.all(jnp.abs(x) < 1e-3))
        True
    """
    require("model_building", learning_rate=learning_rate)
    require_number(c, "`c` of model_building", 0, 1, closed="left")
    require_number(eta, "`eta` of model_building", 0, 1)
    if epoch is not None:
        whole_number(epoch, "epoch", 1)
    require_number(gamma, "`gamma` of model_building", 0, 1, closed="left")
    require_number(beta, "`beta` of model_building", 0, 1)
    require_number(most, "`most` of model_building", 0)

    def init(params: PyTree[Array]) -> ModelBuildingState:
        dtype = jnp.result_type(*jax.tree.leaves(single(params)))
        count, mended = (jnp.zeros((), jnp.int32) for _ in range(2))
        return ModelBuildingState(count, mended, jnp.ones((), dtype))

    def update(
        updates: Any,
        state: Any,
        params: Any = None,
        *,
        value: Any = None,
        value_fn: Any = None,
        **_: Any,
    ) -> tuple[PyTree[Array], ModelBuildingState]:
        require_given("model_building", params=params, value=value, value_fn=value_fn)
        g = single(updates)
        planned: Any = as_schedule(learning_rate)(state.count)
        rate = state.scale * planned
        trial = like(otu.scale(-rate, g), updates)
        ahead = optax.apply_updates(params, trial)
        falls = value_fn(ahead) <= value - c * rate * otu.norm(g, squared=True)

        def mended(g: Array, h: Array) -> Array:
            # Where g is 0 the trial was, and h = g.
            length = jnp.linalg.norm(g)
            q = jnp.linalg.norm(h - g) / jnp.where(length > 0, length, 1)
            return -rate * eta * ((1 + eta * q) * g + eta * (h - g)) / (1 + 2 * eta * q)

        step = jax.lax.cond(
            falls,
            lambda: trial,
            lambda: like(jax.tree.map(mended, g, single(jax.grad(value_fn)(ahead))), updates),
        )
        t = jnp.asarray(optax.safe_increment(state.count))
        failed, scale = state.mended + ~falls, state.scale
        if epoch is not None:
            grown = jnp.minimum(scale / beta, jnp.divide(most, planned))
            changed = jnp.where(failed > gamma * epoch, beta * scale, grown)
            ends = t % epoch == 0
            failed, scale = jnp.where(ends, 0, failed), jnp.where(ends, changed, scale)
        return step, ModelBuildingState(t, failed, scale.astype(state.scale.dtype))

    return optax.GradientTransformationExtraArgs(init, update)
