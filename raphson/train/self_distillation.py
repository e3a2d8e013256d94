"""Self-distillation: what a model becomes that is taught its own predictions, again and again.

Borup, Andersen (2021), Even your Teacher Needs Guidance: Ground-Truth Targets Dampen Regularization
Imposed by Self-Distillation.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..validate import require_number, whole_number


def self_distilled(
    kernel: Float[Array, "n n"],
    target: Float[Array, "n *k"],
    ridge: float,
    weight: float,
    steps: int,
) -> Float[Array, "n *k"]:
    """The fit of kernel ridge regression after steps of self-distillation.

    With the kernel matrix K and the smoother S = K (K + ridge I)^-1, each step fits a mixture of
    the targets and the fit before:

        y_t = S (weight y + (1 - weight) y_{t-1}),  y_0 = y

    In the basis of K's eigenvectors each component is a geometric sum, so that all steps cost as
    one. The limit is the fit to y with the ridge ridge / weight; with a weight of 0 it is 0, and
    the components of small eigenvalues go first.

    Args:
        kernel: matrix, symmetric and positive semidefinite.
        target: of n samples.
        ridge: positive.
        weight: of the true targets, in [0, 1].
        steps: how many fits, at least 1; one is plain regression.

    Returns:
        The fit at the samples.

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> fit = lambda t: rp.train.self_distilled(jnp.eye(2), jnp.array([2.0, 4.0]), 1.0, 0.5, t)
        >>> fit(1).tolist(), fit(2).tolist(), fit(50).round(4).tolist()
        ([1.0, 2.0], [0.75, 1.5], [0.6667, 1.3333])
    """
    require_number(ridge, "`ridge` of self_distilled", 0)
    require_number(weight, "`weight` of self_distilled", 0, 1, closed="both")
    whole_number(steps, "steps", 1)
    eigenvalues, vectors = jnp.linalg.eigh(kernel)
    eigenvalues = jnp.maximum(eigenvalues, 0)  # but for rounding they are
    ratio = (1 - weight) * eigenvalues / (eigenvalues + ridge)
    limit = weight * eigenvalues / (weight * eigenvalues + ridge)
    kept = limit + (1 - limit) * ratio**steps
    return (vectors * kept[None]) @ (vectors.T @ target)


def distillation_weight(
    first: Float[Array, "*n"], second: Float[Array, "*n"], target: Float[Array, "*n"]
) -> Float[Array, ""]:
    """The best weight of the true targets in a step of self-distillation, without a search.

    A fit that is linear in its targets, given weight y + (1 - weight) y_{t-1}, is that mixture of
    the fits to each. With f the predictions of that to the true targets y, g those of that to the
    teacher's, and v the true values, on samples kept for validation, the squared error is least at

        weight = <v - g, f - g> / |f - g|^2

    It may lie outside of [0, 1]. For a network, which is linear only about, train one student on
    each kind of target.

    Args:
        first: predictions f of the model fitted to the true targets.
        second: predictions g of the model fitted to those of the teacher.
        target: the true values v.

    Returns:
        The weight; 1 where f and g are the same.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> first, second = jnp.array([1.0, 2.0]), jnp.array([0.0, 0.0])
        >>> float(rp.train.distillation_weight(first, second, jnp.array([0.5, 1.0])))
        0.5
    """
    apart = first - second
    square = jnp.sum(apart**2)
    weight = jnp.sum((target - second) * apart) / jnp.where(square > 0, square, 1)
    return jnp.where(square > 0, weight, 1)
