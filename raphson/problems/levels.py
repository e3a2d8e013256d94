"""Bilevel problems whose solutions are known exactly."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..bilevel.problem import Bilevel
from ..problem import Facts
from ..validate import whole_number
from ._shared import positive

# The logarithms of a penalty among which the best one is sought.
_PENALTIES = np.linspace(-8, 4, 49)


def ridge_penalty(
    n: int = 60, d: int = 10, noise: float = 1.0, *, held_out: int = 60, seed: int = 0
) -> Bilevel:
    """The penalty of ridge regression that is best on held-out data.

    f(x, y) = |A y - b|^2 / (2n) + e^x / 2 |y|^2 and F(y) = |A' y - b'|^2 / (2m), so that y moves
    with x by dy/dx = -e^x (A^T A / n + e^x)^-1 y.

    Args:
        n: samples to fit, at least 1; A is normal, of shape (n, d), and b = A w + noise with a
            normal w.
        d: features, at least 1.
        noise: standard deviation of the noise, positive.
        held_out: m, samples that the penalty is judged on, drawn likewise.
        seed: of the data, drawn anew until the best penalty is neither 0 nor infinite.

    Returns:
        The problem in x, a scalar, from x = -1 and y = 0, in JAX's default precision; its data
        (A, b, A', b') are `args`. Facts: `minimizer`, to rounding, and `optimum`, F there.

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        >>> import raphson as rp
        >>> problem = ridge_penalty()
        >>> x, y = rp.solve(problem, rp.bilevel.ImplicitGradient(5.0), atol=1e-4).value
        >>> round(float(x), 1), round(float(problem.facts.minimizer[0]), 1)
        (-2.3, -2.3)
    """
    n, d = whole_number(n, "n", 1), whole_number(d, "d", 1)
    held_out, noise = whole_number(held_out, "held_out", 1), positive(noise, "noise")
    rng = np.random.default_rng(whole_number(seed, "seed"))

    def fitted(x: float) -> np.ndarray:
        return np.linalg.solve(A.T @ A / n + np.exp(x) * np.eye(d), A.T @ b / n)

    def value(x: float) -> float:
        left = A_out @ fitted(x) - b_out
        return float(left @ left / (2 * held_out))

    def slope(x: float) -> float:
        y = fitted(x)
        moved = -np.exp(x) * np.linalg.solve(A.T @ A / n + np.exp(x) * np.eye(d), y)
        return (A_out @ y - b_out) @ (A_out @ moved) / held_out

    best = 0
    while best in (0, len(_PENALTIES) - 1):
        w = rng.standard_normal(d)
        A, A_out = rng.standard_normal((n, d)), rng.standard_normal((held_out, d))
        b, b_out = (a @ w + noise * rng.standard_normal(len(a)) for a in (A, A_out))
        best = int(np.argmin([value(x) for x in _PENALTIES]))
    bracket = _PENALTIES[best - 1], _PENALTIES[best + 1]
    from scipy.optimize import brentq  # 0.4 s that `import raphson` need not take

    x = float(brentq(slope, *bracket, xtol=1e-14))  # pyright: ignore[reportArgumentType]
    facts = Facts(minimizer=(jnp.asarray(x), jnp.asarray(fitted(x))), optimum=value(x))
    data = tuple(map(jnp.asarray, (A, b, A_out, b_out)))
    return Bilevel(_held_out_loss, _ridge, jnp.array(-1.0), jnp.zeros(d), data, facts=facts)


def non_singleton() -> Bilevel:
    """A lower level with many minima: F = ((x - y_2)^2 + (y_1 - 1)^2) / 2, f = y_1^2 / 2 - x y_1.

    What only descends f leaves y_2 where it starts, at 0, and ends at x = 1/2 instead of 1.

    Returns:
        The problem from x = 0, a scalar, and y = (0, 0). Facts: `minimizer`, x = 1 and y = (1, 1);
        `optimum` = 0.

    Example:
        >>> problem = non_singleton()
        >>> x, y = problem.facts.minimizer
        >>> float(x), y.tolist()
        (1.0, [1.0, 1.0])
    """
    facts = Facts(minimizer=(jnp.array(1.0), jnp.ones(2)), optimum=0.0)
    return Bilevel(_matched, _flat, jnp.array(0.0), jnp.zeros(2), facts=facts)


def darts_scalar() -> Bilevel:
    """A model of architecture search: F = x y - 2 x + 1 and f = (y - x)^2.

    F(x, x) is (x - 1)^2. Without the second derivatives of f the step is F_x = y - 2, which
    vanishes at x = 2.

    Returns:
        The problem in two scalars from x = 2, y = -2. Facts: `minimizer`, x = y = 1; `optimum` = 0.

    Example:
        >>> import raphson as rp
        >>> x, y = rp.solve(darts_scalar()).value
        >>> round(float(x), 3), round(float(y), 3)
        (1.0, 1.0)
    """
    facts = Facts(minimizer=(jnp.array(1.0), jnp.array(1.0)), optimum=0.0)
    return Bilevel(_architecture, _weight, jnp.array(2.0), jnp.array(-2.0), facts=facts)


def _ridge(x: Float[Array, ""], y: Float[Array, " d"], data: tuple[Any, ...]) -> Float[Array, ""]:
    A, b, *_ = data
    left = A @ y - b
    return left @ left / (2 * len(b)) + jnp.exp(x) / 2 * (y @ y)


def _held_out_loss(
    x: Float[Array, ""], y: Float[Array, " d"], data: tuple[Any, ...]
) -> Float[Array, ""]:
    *_, A, b = data
    left = A @ y - b
    return left @ left / (2 * len(b))


def _matched(x: Float[Array, ""], y: Float[Array, "2"], args: None) -> Float[Array, ""]:
    return ((x - y[1]) ** 2 + (y[0] - 1) ** 2) / 2


def _flat(x: Float[Array, ""], y: Float[Array, "2"], args: None) -> Float[Array, ""]:
    return y[0] ** 2 / 2 - x * y[0]


def _architecture(x: Float[Array, ""], y: Float[Array, ""], args: None) -> Float[Array, ""]:
    return x * y - 2 * x + 1


def _weight(x: Float[Array, ""], y: Float[Array, ""], args: None) -> Float[Array, ""]:
    return (y - x) ** 2
