"""What several problem sets share: logistic regression, least values, layers of networks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..problem import Facts
from ..smooth.problem import FiniteSum

# The greatest slope of s(1 - s) for s the logistic function.
LOGISTIC_THIRD_DERIVATIVE = 1 / (6 * math.sqrt(3))


def positive(value: Any, name: str) -> float:
    """`value` as a float, refused unless positive and finite."""
    ok = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not (ok and math.isfinite(value) and value > 0):
        raise ValueError(f"`{name}` must be a positive number, got {value!r}.")
    return float(value)


def spectral_bounds(features: np.ndarray) -> tuple[float, float]:
    """The least and the greatest eigenvalue of A'A / n, for features A of n rows."""
    eigenvalues = np.linalg.eigvalsh(features.T @ features / len(features))
    return max(0.0, float(eigenvalues[0])), float(eigenvalues[-1])


def longest_row(features: np.ndarray) -> float:
    """The greatest norm of a sample."""
    return float(np.linalg.norm(features, axis=1).max())


def dense(sizes: Sequence[int], rng: np.random.Generator) -> tuple[tuple[Array, Array], ...]:
    """Layers (weight, bias) between so many units: normal of variance 1 / (inputs), and 0."""
    return tuple(
        (jnp.asarray(rng.standard_normal((into, out)) / into**0.5), jnp.zeros(out))
        for into, out in itertools.pairwise(sizes)
    )


def fed_forward(
    layers: Sequence[tuple[Array, Array]], x: Float[Array, " inputs"]
) -> Float[Array, " outputs"]:
    """What the layers make of x, with tanh between them."""
    *inner, (out_weight, out_bias) = layers
    for weight, bias in inner:
        x = jnp.tanh(x @ weight + bias)
    return x @ out_weight + out_bias


def logistic_loss(
    y: Float[Array, " d"], sample: tuple[Float[Array, " d"], Float[Array, ""]], regularization: Any
) -> Float[Array, ""]:
    """log(1 + exp(-b a'y)) + mu/2 |y|^2 for a sample (a, b)."""
    a, b = sample
    return jnp.logaddexp(0.0, -b * jnp.vdot(a, y)) + regularization / 2 * jnp.vdot(y, y)


def logistic_sum(
    training: tuple[np.ndarray, np.ndarray],
    regularization: float,
    batch_size: int | None,
    held_out: tuple[np.ndarray, np.ndarray] | None = None,
) -> FiniteSum:
    """Logistic regression of labels -1 and 1, with its facts."""
    a, b = training
    minimizer, optimum = least(
        a,
        regularization,
        lambda z: np.logaddexp(0, -b * z),
        lambda z: -b / (1 + np.exp(b * z)),
        lambda z: 0.25 / np.cosh(z / 2) ** 2,
    )
    # At y = 0 every sample has curvature 1/4, far away none has any: both constants are attained.
    greatest = spectral_bounds(a)[1]
    facts = Facts(
        optimum=optimum,
        minimizer=jnp.asarray(minimizer),
        lipschitz=greatest / 4 + regularization,
        strong_convexity=regularization,
        polyak_lojasiewicz=regularization,
        hessian_lipschitz=LOGISTIC_THIRD_DERIVATIVE * longest_row(a) * greatest,
        convex=True,
    )
    return FiniteSum(
        logistic_loss,
        jnp.zeros(a.shape[1]),
        training,
        regularization,
        batch_size=batch_size,
        held_out=held_out,
        facts=facts,
    )


def least(
    features: np.ndarray,
    regularization: float,
    loss: Callable[[np.ndarray], np.ndarray],
    slope: Callable[[np.ndarray], np.ndarray],
    curvature: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, float]:
    """The minimizer of mean(loss(A y)) + regularization/2 |y|^2, and the value there.

    Newton's method in NumPy, so that facts are in double precision whatever JAX is set to.

    Args:
        features: A, of shape (n, d) and full column rank unless `regularization` is positive.
        regularization: at least 0.
        loss: convex loss of each of the n predictions.
        slope: its derivative.
        curvature: its second derivative, positive.
    """
    n, d = features.shape

    def objective(y: np.ndarray) -> float:
        return float(np.mean(loss(features @ y)) + regularization / 2 * y @ y)

    y = np.zeros(d)
    for _ in range(100):
        z = features @ y
        gradient = features.T @ slope(z) / n + regularization * y
        hessian = (features.T * curvature(z)) @ features / n + regularization * np.eye(d)
        step = np.linalg.solve(hessian, gradient)
        highest = objective(y) * (1 + 1e-14)
        while objective(y - step) > highest:
            step /= 2
        y -= step
        if np.linalg.norm(step) <= 1e-12 * np.linalg.norm(y):
            break
    return y, objective(y)
