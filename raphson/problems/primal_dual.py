"""Saddles with their parts apart, whose solutions and constants are known exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..composite import SquaredNorm
from ..problem import Facts
from ..saddle.composite import CompositeSaddle
from ..validate import whole_number
from ._shared import positive


def least_squares_saddle(
    spectrum: Sequence[float] | np.ndarray | None = None,
    rows: int = 40,
    *,
    coupling: float = 1.0,
    strong_concavity: float = 1.0,
    seed: int = 0,
) -> CompositeSaddle:
    """The saddle of f(x) + y'(A x - b) - mu/2 |y|^2 with a quadratic f(x) = x'Q x / 2 - c'x.

    Its primal problem is to minimize P(x) = f(x) + |A x - b|^2 / (2 mu).

    Args:
        spectrum: eigenvalues of Q, shape (n,), positive; by default 60 from 1e-6 to 100, evenly
            spread on a logarithmic scale.
        rows: m, how many rows A has.
        coupling: the norm of A, positive.
        strong_concavity: mu, positive.
        seed: of Q's eigenvectors, of A, of the solution x, of length 10, and of the start, from
            which the solution's x is as far away.

    Returns:
        A `CompositeSaddle` in x of shape (n,) and y of shape (m,), in JAX's default precision,
        with `metrics` {"suboptimality": P(x) - P*}. The gradient of f is max(spectrum)-Lipschitz.
        Facts: `minimizer`; `lipschitz` of the whole operator; `convex`.

    Raises:
        ValueError: if an argument is not positive or `spectrum` no vector.

    Example:
        >>> problem = least_squares_saddle([1.0, 10.0], rows=3)
        >>> x, y = problem.facts.minimizer
        >>> x.shape, y.shape
        ((2,), (3,))
    """
    values = np.geomspace(1e-6, 100, 60) if spectrum is None else np.asarray(spectrum, float)
    if values.ndim != 1 or values.size == 0 or not np.all(values > 0):
        raise ValueError(f"`spectrum` must be a vector of positive numbers, got {spectrum!r}.")
    n, m = values.size, whole_number(rows, "rows", 1)
    mu = positive(strong_concavity, "strong_concavity")
    rng = np.random.default_rng(whole_number(seed, "seed"))
    basis = np.linalg.qr(rng.standard_normal((n, n)))[0]
    Q = (basis * values) @ basis.T
    A = rng.standard_normal((m, n))
    A *= positive(coupling, "coupling") / np.linalg.norm(A, 2)
    x, start = (10 * v / np.linalg.norm(v) for v in rng.standard_normal((2, n)))
    # Any y is that of a solution, for a fitting c: b and c follow from x and y.
    y = rng.standard_normal(m)
    b, c = A @ x - mu * y, Q @ x + A.T @ y
    operator = np.block([[Q, A.T], [-A, np.zeros((m, m))]])
    facts = Facts(
        minimizer=(jnp.asarray(x), jnp.asarray(y)),
        lipschitz=float(np.linalg.norm(operator, 2)),
        convex=True,
    )
    args = tuple(map(jnp.asarray, (Q, c, A, b, x, mu)))
    return CompositeSaddle(
        _quadratic,
        _bilinear,
        jnp.asarray(x + start),
        jnp.zeros(m),
        args,
        nonsmooth=(None, SquaredNorm(mu)),
        metrics={"suboptimality": _suboptimality},
        facts=facts,
    )


def _quadratic(x: Float[Array, " n"], args: tuple[Any, ...]) -> Float[Array, ""]:
    Q, c, *_ = args
    return x @ (Q @ x) / 2 - c @ x


def _bilinear(
    x: Float[Array, " n"], y: Float[Array, " m"], args: tuple[Any, ...]
) -> Float[Array, ""]:
    _, _, A, b, *_ = args
    return y @ (A @ x - b)


def _suboptimality(z: tuple[Array, Array], args: tuple[Any, ...]) -> Float[Array, ""]:
    # The quadratic P about its minimizer, which loses nothing to cancellation.
    Q, _, A, _, least, mu = args
    away = z[0] - least
    return away @ (Q @ away) / 2 + jnp.sum((A @ away) ** 2) / (2 * mu)
