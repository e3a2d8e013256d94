"""ReSTE: signs whose gradient is that of a power between the identity and the sign.

Wu, Zheng, Liu, Zheng (2023), Estimator Meets Equilibrium Perspective: A Rectified Straight Through
Estimator for Binary Neural Networks Training.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..validate import require_number, whole_number


def reste_sign(
    x: Float[Array, "*shape"], power: float = 1.0, cut: float = 1.5, core: float = 0.1
) -> Float[Array, "*shape"]:
    """The sign of x (1 at 0), whose gradient is that of sign(x) |x|^(1 / power).

    A gradient is multiplied by

        |x|^(1 / power - 1) / power  where core < |x| <= cut,
        core^(1 / power - 1)         where |x| <= core,
        0                            elsewhere.

    With `power` 1 this is the straight-through estimator within the cut; as it grows, what the
    slopes belong to comes nearer to the sign, and they differ more. `reste_power` schedules it.

    Args:
        x: weights or activations to make 1 or -1.
        power: o of the paper, at least 1.
        cut: where the gradient ends, positive; entries beyond it are not trained, so that weights
            should be kept within.
        core: up to where the slope is the mean slope from 0, positive, for that of the power has no
            bound.

    Returns:
        1 or -1 for each entry.

    Raises:
        ValueError: if a number is outside its range.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> x = jnp.array([-2.0, 0.04, 0.25])
        >>> rp.train.reste_sign(x, 2.0).tolist()
        [-1.0, 1.0, 1.0]
        >>> jax.grad(lambda x: rp.train.reste_sign(x, 2.0, core=0.01).sum())(x).round(3).tolist()
        [-0.0, 2.5, 1.0]
    """
    require_number(power, "`power` of reste_sign", 1, closed="left")
    require_number(cut, "`cut` of reste_sign", 0)
    require_number(core, "`core` of reste_sign", 0)
    return _sign(x, *(jnp.asarray(number, jnp.result_type(x)) for number in (power, cut, core)))


def reste_power(steps: int, final: float = 3.0) -> optax.Schedule:
    """The schedule of ReSTE's power: 1 + (final - 1) (1 - cos(pi / 2 count / steps)).

    Args:
        steps: after how many the power is `final` and remains it, at least 1.
        final: the last power, at least 1.

    Returns:
        A function of the step count.

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        >>> import raphson as rp
        >>> power = rp.train.reste_power(100)
        >>> [round(float(power(count)), 2) for count in (0, 50, 100, 200)]
        [1.0, 1.59, 3.0, 3.0]
    """
    whole_number(steps, "steps", 1)
    require_number(final, "`final` of reste_power", 1, closed="left")
    return lambda count: 1 + (final - 1) * (1 - jnp.cos(jnp.pi / 2 * jnp.minimum(count / steps, 1)))


@jax.custom_vjp
def _sign(x: Array, power: Array, cut: Array, core: Array) -> Array:
    return jnp.where(x >= 0, 1, -1).astype(x.dtype)


def _forward(x: Array, power: Array, cut: Array, core: Array) -> tuple[Array, tuple[Array, ...]]:
    return _sign(x, power, cut, core), (x, power, cut, core)


def _backward(saved: tuple[Array, ...], gradient: Array) -> tuple[Array, None, None, None]:
    x, power, cut, core = saved
    size = jnp.abs(x)
    # Where a branch is not taken its power still is, and must be of no 0.
    slope = jnp.maximum(size, core) ** (1 / power - 1) * jnp.where(size > core, 1 / power, 1)
    return gradient * jnp.where(size <= cut, slope, 0), None, None, None


_sign.defvjp(_forward, _backward)
