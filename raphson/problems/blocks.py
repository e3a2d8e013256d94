"""Two levels with many blocks below, whose solution is known exactly."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..bilevel.blocks import MultiBlockBilevel
from ..problem import Facts
from ..validate import whole_number
from ._shared import positive


def shared_center(
    blocks: int = 50,
    size: int = 5,
    samples: int = 20,
    *,
    regularization: float = 1.0,
    noise: float = 0.5,
    blocks_per_step: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
) -> MultiBlockBilevel:
    """Linear regressions pulled to a center that they share, which their validation chooses.

    Below, y_i is least for the mean of 1/2 (a'y_i - b)^2 over training samples of task i plus
    regularization/2 |y_i - x|^2; above is the mean of 1/2 (a'y_i - b)^2 over validating ones. The
    weights behind the samples are drawn around a common center, with the variance 1 as all else.

    Args:
        blocks: m, how many tasks.
        size: d, how many weights each.
        samples: how many of each level each has.
        regularization: the pull to x, positive.
        noise: standard deviation of the targets b, positive.
        blocks_per_step: tasks that a stochastic method draws at each step; all by default.
        batch_size: samples of each level that it draws from each of these; all by default.
        seed: of everything.

    Returns:
        The problem from zeros; x has the shape (d,), y (m, d). Facts: `minimizer`; `optimum`, of F
        there.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> problem = shared_center(blocks=10, size=3)
        >>> residual = problem.measures(problem.facts.minimizer)["residual"]
        >>> bool(residual < 1e-5)
        True
    """
    m = whole_number(blocks, "blocks", 1)
    d, n = whole_number(size, "size", 1), whole_number(samples, "samples", 1)
    mu = positive(regularization, "regularization")
    rng = np.random.default_rng(whole_number(seed, "seed"))
    weights = rng.standard_normal(d) + rng.standard_normal((m, d))
    a = rng.standard_normal((2, m, n, d))
    b = np.einsum("lmnd,md->lmn", a, weights)
    b += positive(noise, "noise") * rng.standard_normal(b.shape)
    square, mixed = (np.einsum(f"lmnd,lmn{e}->lmd{e}", a, t) / n for e, t in (("e", a), ("", b)))

    # y_i = P_i x + q_i, by which the upper level is a least-squares problem in x.
    inverse = np.linalg.inv(square[0] + mu * np.eye(d))
    P, q = mu * inverse, np.einsum("mde,me->md", inverse, mixed[0])
    slope = mixed[1] - np.einsum("mde,me->md", square[1], q)
    hessian = np.einsum("mdc,mde,mef->cf", P, square[1], P)
    x = np.linalg.solve(hessian, np.einsum("mdc,md->c", P, slope))
    y = P @ x + q
    facts = Facts(
        minimizer=(jnp.asarray(x), jnp.asarray(y)),
        optimum=float(np.mean((np.einsum("mnd,md->mn", a[1], y) - b[1]) ** 2) / 2),
    )
    return MultiBlockBilevel(
        _square,
        _pulled,
        jnp.zeros(d),
        jnp.zeros((m, d)),
        (a[1], b[1]),
        (a[0], b[0]),
        mu,
        blocks_per_step=blocks_per_step,
        batch_size=batch_size,
        facts=facts,
    )


def _square(x: Any, y: Float[Array, " d"], sample: tuple[Array, Array], _: Any) -> Array:
    a, b = sample
    return (jnp.vdot(a, y) - b) ** 2 / 2


def _pulled(
    x: Float[Array, " d"], y: Float[Array, " d"], sample: tuple[Array, Array], mu: Any
) -> Array:
    return _square(x, y, sample, mu) + mu / 2 * jnp.sum((y - x) ** 2)
