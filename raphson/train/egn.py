"""Exact Gauss-Newton steps on batches, by a system as small as the batch's outputs.

Korbit, Adeoye, Bemporad, Zanon (2024), Exact Gauss-Newton Optimization for Training Deep Neural
Networks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.tree as otu
from jaxtyping import Array, Float, Int, PyTree

from ..validate import as_function, require_number
from ._core import as_schedule, like, require, require_given, single
from .mfac import combined, gram_matrix, products

_LOSSES: dict[str, Callable[[Any, Any], Array]] = {
    "squared": lambda output, target: jnp.sum((output - target) ** 2) / 2,
    "softmax": optax.losses.softmax_cross_entropy_with_integer_labels,
}


class EGNState(NamedTuple):
    """The last direction, in at least single precision, and the damping of the next."""

    count: Int[Array, ""]
    direction: PyTree[Array]
    damping: Float[Array, ""]


def egn(
    model: Callable[[PyTree[Array], Any], Float[Array, " c"]],
    learning_rate: float | optax.Schedule = 1.0,
    loss: str | Callable[[Float[Array, " c"], Any], Float[Array, ""]] = "squared",
    damping: float = 1.0,
    momentum: float = 0.0,
    adaptive: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Exact Gauss-Newton (EGN): the step that is best for the linearized model, at a damping.

    For a batch of b samples with c outputs each, the Jacobian J of all outputs, and the derivative
    r and the Hessian Q of the sum of their losses by the outputs:

        (Q J J' + b damping I) s = r + momentum Q J d
        d = momentum d - J' s
        x = x + learning_rate d

    d is the least of the quadratic model of the loss with (1 / b) J' Q J for the Hessian and
    damping |d - momentum d_before|^2 / 2 added, where only b c equations are solved, however many
    parameters there are. J is formed: it has b c times as many entries as the parameters. A line
    search may follow, such as `optax.scale_by_backtracking_linesearch`, with `learning_rate` 1.

    Args:
        model: `model(params, input)`, the vector of outputs of one sample.
        learning_rate: at least 0, or a schedule of the step count.
        loss: of the outputs of one sample and its target, convex in the outputs: `"squared"` (half
            of the squared distance), `"softmax"` (cross-entropy of the softmax with an integer),
            or a function of the two.
        damping: at the first step, positive.
        momentum: in [0, 1).
        adaptive: whether damping is doubled after steps that lower the batch's loss by less than a
            quarter of what the quadratic model said, and halved after more than three quarters;
            for large batches, as small ones are each fitted well by steps that fit no others.

    Returns:
        An Optax transformation; its `update` needs the parameters, and `inputs` and `targets`, of
        the batch, stacked along the first axis. The gradients given are not looked at.

    Raises:
        ValueError: if a hyperparameter is outside its range, or `model` or `loss` is unfit.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import raphson as rp
        >>> model = lambda x, input: jnp.tanh(x[0] * input) * x[1:]
        >>> inputs = jnp.linspace(-2, 2, 9)
        >>> targets = 3 * jnp.tanh(0.5 * inputs)[:, None]
        >>> optimizer = rp.train.egn(model, damping=1e-3)
        >>> x = jnp.array([1.0, 1.0])
        >>> state, update = optimizer.init(x), jax.jit(optimizer.update)
        >>> for _ in range(20):
        ...     updates, state = update(x, state, x, inputs=inputs, targets=targets)
        ...     x = optax.apply_updates(x, updates)
        >>> x.round(3).tolist()
        [0.5, 3.0]
    """
    as_function(model, "model")
    require("egn", learning_rate=learning_rate, momentum=momentum)
    require_number(damping, "`damping` of egn", 0)
    loss_of = loss_function(loss, "egn")
    rate = as_schedule(learning_rate)

    def init(params: PyTree[Array]) -> EGNState:
        direction = jax.tree.map(jnp.zeros_like, single(params))
        dtype = jnp.result_type(*jax.tree.leaves(direction))
        return EGNState(jnp.zeros((), jnp.int32), direction, jnp.asarray(damping, dtype))

    def update(
        updates: Any,
        state: Any,
        params: Any = None,
        *,
        inputs: Any = None,
        targets: Any = None,
        **_: Any,
    ) -> tuple[PyTree[Array], EGNState]:
        require_given("egn", params=params, inputs=inputs, targets=targets)
        x = single(params)
        outputs = jax.vmap(lambda input: model(x, input))(inputs)
        b, c = outputs.shape

        def joined(leaf: Float[Array, "b c ..."]) -> Float[Array, "bc ..."]:
            return leaf.reshape(b * c, *leaf.shape[2:])

        jacobian = jax.vmap(jax.jacrev(model), (None, 0))(x, inputs)
        jacobian = jax.tree.map(joined, jacobian)
        r = jax.vmap(jax.grad(loss_of))(outputs, targets).ravel()
        blocks = jax.vmap(jax.hessian(loss_of))(outputs, targets)

        def q(v: Float[Array, "bc *k"]) -> Float[Array, "bc *k"]:
            return jax.vmap(jnp.matmul)(blocks, v.reshape(b, c, *v.shape[1:])).reshape(v.shape)

        gram = gram_matrix(jacobian)
        # Below rounding, damping would not make the matrix regular.
        shift = b * state.damping + 10 * jnp.finfo(gram.dtype).eps * jnp.trace(gram)
        kept = otu.scale(momentum, state.direction)
        right = r + q(products(jacobian, kept))
        s = jnp.linalg.solve(q(gram) + shift * jnp.eye(b * c, dtype=gram.dtype), right)
        d = otu.sub(kept, combined(jacobian, s))
        step = jax.tree.map(lambda d: jnp.asarray(rate(state.count), d.dtype) * d, d)

        def adapted() -> Float[Array, ""]:
            along = products(jacobian, step)
            promised = -(along @ r + along @ q(along) / 2) / b

            def fallen(input: Any, before: Array, target: Any) -> Array:
                after = model(otu.add(x, step), input)
                return loss_of(before, target) - loss_of(after, target)

            ratio = jnp.mean(jax.vmap(fallen)(inputs, outputs, targets)) / promised
            factor = jnp.where(ratio > 3 / 4, 0.5, jnp.where(ratio < 1 / 4, 2.0, 1.0))
            return state.damping * factor

        next_damping = adapted() if adaptive else state.damping
        count = jnp.asarray(optax.safe_increment(state.count))
        return like(step, params), EGNState(count, d, next_damping)

    return optax.GradientTransformationExtraArgs(init, update)


def loss_function(
    loss: str | Callable[[Any, Any], Array], owner: str
) -> Callable[[Any, Any], Array]:
    """The loss of that name, or itself."""
    if not callable(loss) and loss not in _LOSSES:
        listed = "'squared', 'softmax' or a function"
        raise ValueError(f"`loss` of {owner} must be {listed}, got {loss!r}.")
    return loss if callable(loss) else _LOSSES[loss]
