"""Monotone operators that are means of affine ones, with constants known exactly."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..problem import Facts
from ..saddle.problem import VariationalSum
from ..validate import whole_number


def cocoercive_sum(
    num_samples: int = 400,
    n: int = 20,
    columns: int = 3,
    *,
    batch_size: int | None = None,
    seed: int = 0,
) -> VariationalSum:
    """The mean of operators A_i z - b_i, with E |A_i z|^2 <= <E A_i z, z>, tight: cocoercive.

    Each A_i = c B_i (I + S - S') B_i' has a skew part, so that F is no gradient. The number c makes
    1 the least constant L of E |A_i z|^2 <= L <E A_i z, z>, on which variance reduction rests. That
    of F alone, |E A_i z|^2 <= l <E A_i z, z>, is far below where the `columns` are few.

    Args:
        num_samples: how many operators; no fewer than make their mean regular, n / `columns`.
        n: number of unknowns.
        columns: of each B_i, n x `columns`; the more they are, the more are the operators alike.
        batch_size: as in `VariationalSum`.
        seed: of B_i and S, of the solution, of what each A_i z - b_i is there, and of the start,
            all normal.

    Returns:
        The problem, in JAX's default precision. Facts: `minimizer`, the solution; `lipschitz` and
        `strong_convexity` of F; `convex`.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> import raphson as rp
        >>> problem = cocoercive_sum(50, 4)
        >>> method = rp.saddle.VarianceReducedHalpern(0.5)
        >>> bool(rp.solve(problem, method).converged)
        True
    """
    n, columns = whole_number(n, "n", 1), whole_number(columns, "columns", 1)
    num_samples = whole_number(num_samples, "num_samples", 1)
    if num_samples * columns < n:
        raise ValueError(
            f"`num_samples` must be at least `n` / `columns` = {n / columns:g}, lest the mean be "
            f"singular, got {num_samples}."
        )
    rng = np.random.default_rng(whole_number(seed, "seed"))
    B = rng.standard_normal((num_samples, n, columns))
    S = rng.standard_normal((columns, columns))
    A = B @ (np.eye(columns) + (S - S.T) / columns) @ B.transpose(0, 2, 1)
    mean, squares = A.mean(axis=0), (A.transpose(0, 2, 1) @ A).mean(axis=0)
    from scipy.linalg import eigh  # 0.1 s that `import raphson` need not take

    return _drawn(A / eigh(squares, (mean + mean.T) / 2)[0][-1], batch_size, rng)


def monotone_sum(
    num_samples: int = 400, n: int = 10, *, batch_size: int | None = None, seed: int = 0
) -> VariationalSum:
    """The mean of skew operators A_i z - b_i: monotone, but nowhere cocoercive.

    They are those of bilinear saddles. They are scaled so that E |A_i z|^2 <= |z|^2, tight.

    Args:
        num_samples: how many operators.
        n: number of unknowns, even: an odd number of them has no single solution.
        batch_size: as in `VariationalSum`.
        seed: as in `cocoercive_sum`.

    Returns:
        The problem, in JAX's default precision. Facts: `minimizer`, the solution; `lipschitz` of F;
        `convex`.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> problem = monotone_sum(50, 4)
        >>> float(problem.facts.lipschitz) < 1
        True
    """
    num_samples, n = whole_number(num_samples, "num_samples", 1), whole_number(n, "n", 2)
    if n % 2:
        raise ValueError(f"`n` must be even, got {n}.")
    rng = np.random.default_rng(whole_number(seed, "seed"))
    A = rng.standard_normal((num_samples, n, n)) + 2 * rng.standard_normal((n, n))
    A = A - A.transpose(0, 2, 1)
    squares = (A.transpose(0, 2, 1) @ A).mean(axis=0)
    return _drawn(A / np.linalg.norm(squares, 2) ** 0.5, batch_size, rng)


def _affine(
    z: Float[Array, " n"], sample: tuple[Float[Array, "n n"], Float[Array, " n"]], args: None
) -> Float[Array, " n"]:
    matrix, vector = sample
    return matrix @ z - vector


def _drawn(
    matrices: np.ndarray, batch_size: int | None, rng: np.random.Generator
) -> VariationalSum:
    """The problem of these matrices, with the solution, what differs there and the start drawn."""
    mean = matrices.mean(axis=0)
    n = len(mean)
    solution, start = rng.standard_normal((2, n))
    apart = rng.standard_normal((len(matrices), n)) * np.linalg.norm(mean, 2)
    data = matrices, matrices @ solution - (apart - apart.mean(axis=0))
    least = np.linalg.eigvalsh((mean + mean.T) / 2)[0]
    facts = Facts(
        minimizer=jnp.asarray(solution),
        lipschitz=float(np.linalg.norm(mean, 2)),
        strong_convexity=float(least) if least > 1e-12 else None,
        convex=True,
    )
    return VariationalSum(_affine, jnp.asarray(start), data, batch_size=batch_size, facts=facts)
