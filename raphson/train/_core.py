"""What the transformations share: checks, precision, a frame for moments, the decay of weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, TypeVar, get_args

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from ..validate import random_key, require_number

State = TypeVar("State", bound=Any)
Mask = PyTree[bool] | Callable[[PyTree], PyTree[bool]] | None
Decay = Literal["decoupled", "proximal", "cautious"]

_DECAY_RATES = ("b1", "b2", "b3", "momentum")


def require(owner: str, **hyperparameters: Any) -> None:
    """Refuse hyperparameters of `owner` below 0, and decay rates of 1 or more.

    What is not known yet (under `jit`) and learning rates that are schedules are let through.
    """
    for name, value in hyperparameters.items():
        if not (name == "learning_rate" and callable(value)):
            high = 1 if name in _DECAY_RATES else math.inf
            require_number(value, f"`{name}` of {owner}", 0, high, closed="left")


def require_given(owner: str, **arguments: Any) -> None:
    """Refuse an update of `owner` without one of these."""
    for name, value in arguments.items():
        if value is None:
            raise ValueError(f"`{name}` must be given to the update of {owner}, got None.")


def as_key(key: Array | None) -> Array:
    """`key`, if it is a random key, and the one of seed 0 if there is none."""
    if key is None:
        return jax.random.key(0)
    random_key(key)
    return key


def single(tree: PyTree[Array]) -> PyTree[Array]:
    """The leaves in at least single precision."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, _at_least_single(leaf)), tree)


def like(tree: PyTree[Array], other: PyTree[Array]) -> PyTree[Array]:
    """The leaves in the dtypes of those of another tree."""
    return jax.tree.map(lambda a, b: a.astype(jnp.result_type(b)), tree, other)


def scale_by(
    make_state: Callable[..., State],
    rule: Callable[[PyTree[Array], State, Int[Array, ""]], tuple[PyTree[Array], State]],
) -> optax.GradientTransformation:
    """The transformation of gradients to directions by a rule on moments.

    Args:
        make_state: a NamedTuple; its first field counts the updates, the others are shaped as the
            parameters, in at least single precision, and begin at 0.
        rule: takes the gradient in at least single precision, the state, and t, which is 1 at the
            first update and the count to return; gives the direction and the state after.
    """

    def zeros(params: PyTree[Array]) -> PyTree[Array]:
        # New ones for every field: buffers that are shared cannot be donated.
        return jax.tree.map(lambda p: jnp.zeros_like(p, _at_least_single(p)), params)

    def init(params: PyTree[Array]) -> Any:
        moments = make_state._fields[1:]  # pyright: ignore
        return make_state(jnp.zeros((), jnp.int32), *(zeros(params) for _ in moments))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[PyTree[Array], Any]:
        t = jnp.asarray(optax.safe_increment(state.count))
        direction, state = rule(single(updates), state, t)
        return like(direction, updates), state

    return optax.GradientTransformation(init, update)


def spread(mask: Mask, params: PyTree[Array]) -> PyTree[bool]:
    """The mask shaped as the parameters, True everywhere if there is none."""
    mask = mask(params) if callable(mask) else True if mask is None else mask
    return jax.tree.map(lambda kept, part: jax.tree.map(lambda _: kept, part), mask, params)


def as_schedule(rate: float | optax.Schedule) -> optax.Schedule:
    """The rate by the count of steps, also where it is one number."""
    return rate if callable(rate) else optax.constant_schedule(rate)


def quotient(a: PyTree[Array], n: PyTree[Array], eps: Any) -> PyTree[Array]:
    """a / (sqrt(n) + eps)."""
    return jax.tree.map(lambda a, n: a / (jnp.sqrt(n) + eps), a, n)


def descend(
    learning_rate: float | optax.Schedule,
    weight_decay: Any = 0.0,
    mask: Mask = None,
    decay: Decay = "decoupled",
) -> optax.GradientTransformationExtraArgs:
    """From directions u to updates of x, with the decay of weights; r is the learning rate.

    decoupled: x - r (u + weight_decay x), as AdamW does.
    proximal: (x - r u) / (1 + r weight_decay).
    cautious: as decoupled, but only in the entries where u x >= 0.
    """
    if decay not in get_args(Decay):
        listed = ", ".join(map(repr, get_args(Decay)))
        raise ValueError(f"`decay` must be one of {listed}, got {decay!r}.")
    add = cautious if decay == "cautious" else optax.add_decayed_weights
    decayed = optax.chain(add(weight_decay, mask), optax.scale_by_learning_rate(learning_rate))
    if decay != "proximal":
        return decayed
    rate = as_schedule(learning_rate)
    # The proximal step is the decoupled one over 1 + learning_rate weight_decay.
    shrink = optax.scale_by_schedule(lambda count: 1 / (1 + rate(count) * weight_decay))
    return optax.chain(decayed, shrink if mask is None else optax.masked(shrink, mask))


def cautious(weight_decay: Any, mask: Mask = None) -> optax.GradientTransformation:
    """From directions u to u + weight_decay x in the entries where u x >= 0."""

    def decayed(u: Array, x: Array) -> Array:
        return u + jnp.asarray(weight_decay * jnp.where(u * x >= 0, x, 0), u.dtype)

    def update(updates: Any, params: Any) -> Any:
        require_given("cautious_decay", params=params)
        return jax.tree.map(decayed, updates, params)

    decay = optax.stateless(update)
    return decay if mask is None else optax.masked(decay, mask)


def _at_least_single(leaf: Array) -> jnp.dtype:
    return jnp.promote_types(jnp.result_type(leaf), jnp.float32)
