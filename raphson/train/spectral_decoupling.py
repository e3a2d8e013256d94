"""Spectral decoupling: a penalty on outputs, so that a strong feature does not starve the others.

Pezeshki, Kaba, Bengio, Courville, Precup, Lajoie (2020), Gradient Starvation: A Learning Proclivity
in Neural Networks.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..validate import require_number


def spectral_decoupling(
    logits: Float[Array, "n *k"], strength: float, size: float | Float[Array, " *k"] = 0.0
) -> Float[Array, ""]:
    """The mean over n samples of strength (|logits| - size)^2 / 2, summed over the classes.

    It is to be added to a cross-entropy, in place of a decay of weights. Once a strong feature
    tells most samples apart their cross-entropy has hardly a gradient left, and features that are
    weaker are not learned. Held at a finite size, no sample's output is ever settled by one feature
    alone: where features are linear and independent, how far each is learned does not depend on how
    strong the others are.

    Args:
        logits: outputs, along the first axis for n samples; one for each, or one for each class.
        strength: of the penalty, at least 0; too much of it keeps all outputs near `size`.
        size: absolute value that is not penalized, at least 0; one, or one for each class.

    Returns:
        The penalty, in at least single precision.

    Raises:
        ValueError: if `strength` is below 0.

    Example:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import raphson as rp
        >>> logits, labels = jnp.array([3.0, -1.0]), jnp.array([1, 0])
        >>> loss = jnp.mean(optax.losses.sigmoid_binary_cross_entropy(logits, labels))
        >>> loss = loss + rp.train.spectral_decoupling(logits, strength=0.1)
        >>> round(float(loss), 3)
        0.431
    """
    require_number(strength, "`strength` of spectral_decoupling", 0, closed="left")
    logits = jnp.asarray(logits, jnp.promote_types(jnp.result_type(logits), jnp.float32))
    excess = jnp.abs(logits) - jnp.broadcast_to(jnp.asarray(size, logits.dtype), logits.shape)
    return strength * jnp.sum(excess**2) / (2 * logits.shape[0])
