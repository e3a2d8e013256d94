"""Quadratics with a part that is not smooth, whose minimizers are known exactly."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from ..composite.nonsmooth import L1, AbstractNonsmooth, Ball
from ..composite.problem import Composite
from ..problem import Facts
from ..smooth.problem import Minimize
from ._shared import positive
from .convex import quadratic


def lasso(spectrum: ArrayLike | None = None, *, weight: float = 0.1, seed: int = 0) -> Composite:
    """The lasso, 1/2 (y - c)' H (y - c) + weight |y|_1, with a minimizer of our choice.

    In every third entry the minimizer is 0, and normal in the others. The minimizer z says where c
    is: H (c - z) must be a subgradient of the second part at z.

    Args:
        spectrum: the eigenvalues of H, positive, shape (n,); by default those of `quadratic`.
        weight: positive.
        seed: of the eigenvectors, the minimizer and the subgradient.

    Returns:
        The problem from y = 0. Facts: `optimum` and `minimizer`; `lipschitz` and
        `strong_convexity`, the extreme eigenvalues of H; `convex`.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> problem = lasso([1.0, 2.0, 4.0])
        >>> problem.facts.lipschitz, float(problem.facts.minimizer[0])
        (4.0, 0.0)
    """
    smooth, weight = quadratic(spectrum, seed=seed), positive(weight, "weight")
    n, rng = smooth.y0.size, np.random.default_rng(seed)
    minimizer = np.where(np.arange(n) % 3 == 0, 0.0, rng.standard_normal(n))
    slope = weight * np.where(minimizer == 0, rng.uniform(-1, 1, n), np.sign(minimizer))
    return _known(smooth, L1(weight), minimizer, slope, weight * np.abs(minimizer).sum())


def ball_quadratic(
    spectrum: ArrayLike | None = None, *, pressure: float = 0.1, seed: int = 0
) -> Composite:
    """A quadratic 1/2 (y - c)' H (y - c) in the unit ball, with a minimizer of our choice on it.

    Args:
        spectrum: the eigenvalues of H, positive, shape (n,); by default those of `quadratic`.
        pressure: the norm of the gradient at the minimizer, positive.
        seed: of the eigenvectors and the minimizer.

    Returns:
        The problem from y = 0, with the facts of `lasso`.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> problem = ball_quadratic([1.0, 2.0])
        >>> round(float(jnp.linalg.norm(problem.facts.minimizer)), 6)
        1.0
    """
    smooth, pressure = quadratic(spectrum, seed=seed), positive(pressure, "pressure")
    drawn = np.random.default_rng(seed).standard_normal(smooth.y0.size)
    minimizer = drawn / np.linalg.norm(drawn)
    return _known(smooth, Ball(1.0), minimizer, pressure * minimizer, 0.0)


def _known(
    smooth: Minimize,
    nonsmooth: AbstractNonsmooth,
    minimizer: np.ndarray,
    slope: np.ndarray,
    least: float,
) -> Composite:
    """The problem that has this minimizer, where h has this subgradient and this value."""
    if smooth.facts.strong_convexity == 0:
        raise ValueError("`spectrum` must be positive: the minimizer is to be the only one.")
    shift = np.linalg.solve(np.asarray(smooth.args[0], float), slope)
    facts = Facts(
        optimum=float(slope @ shift / 2 + least),
        minimizer=jnp.asarray(minimizer),
        lipschitz=smooth.facts.lipschitz,
        strong_convexity=smooth.facts.strong_convexity,
        convex=True,
    )
    smooth = eqx.tree_at(lambda p: p.args[1], smooth, jnp.asarray(minimizer + shift))
    return Composite(smooth, nonsmooth, facts=facts)
