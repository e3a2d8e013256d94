"""Risk parity portfolios: the paper's five assets, and random correlations."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float

from ..problem import Facts
from ..roots.problem import RootFind
from ..smooth.risk_parity import RiskParity
from ..validate import whole_number

# Choi, Chen (2022), Improved Iterative Methods for Solving Risk Parity Portfolio.
_FIVE_ASSETS = (
    (94.868, 33.750, 12.325, -1.178, 8.778),
    (33.750, 445.642, 98.955, -7.901, 84.954),
    (12.325, 98.955, 117.265, 0.503, 45.184),
    (-1.178, -7.901, 0.503, 5.460, 1.057),
    (8.778, 84.954, 45.184, 1.057, 34.126),
)


def risk_parity(covariance: ArrayLike | None = None, budget: ArrayLike | None = None) -> RiskParity:
    """The portfolio of which every asset bears its share of the risk.

    The unknown y solves y_i (C y)_i = b_i, where C is the correlation of the assets; the shares of
    the money are `problem.weights(y)`.

    Args:
        covariance: of the returns, shape (n, n); by default of the paper's five assets.
        budget: the shares of the risk, n positive numbers; by default 1 / n each.

    Returns:
        The problem, a `raphson.smooth.RiskParity`: `solve` takes `RiskParityCCD`, and every method
        of minimization answers it too. It is `convex`; of the five assets the `minimizer` and the
        `optimum` are known.

    Raises:
        ValueError: if the covariance is not positive semidefinite, or the budget not positive.

    Example:
        >>> import raphson as rp
        >>> problem = risk_parity(budget=[0.1, 0.1, 0.2, 0.3, 0.3])
        >>> problem.weights(rp.solve(problem).value).round(3).tolist()
        [0.077, 0.025, 0.074, 0.648, 0.176]
    """
    if covariance is None:
        return _with_minimizer(RiskParity(jnp.array(_FIVE_ASSETS) / 1e4, budget))
    return RiskParity(covariance, budget)


def random_correlation(n: int = 100, *, seed: int = 0) -> RiskParity:
    """Risk parity for a random correlation matrix with eigenvalues of all sizes.

    A covariance with uniform eigenvalues and uniformly random eigenvectors; its correlation is what
    counts.

    Args:
        n: number of assets.
        seed: of the matrix.

    Returns:
        The problem, with equal budgets. Facts: the `minimizer`, the `optimum`; it is `convex`.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> problem = random_correlation(4)
        >>> jnp.diag(problem.matrix()).round(6).tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    rng = np.random.default_rng(whole_number(seed, "seed"))
    spectrum = rng.uniform(size=whole_number(n, "n", 1))
    basis = np.linalg.qr(rng.standard_normal((n, n)))[0]
    return _with_minimizer(RiskParity(jnp.asarray((basis * spectrum) @ basis.T)))


def factor_correlation(n: int = 100, *, seed: int = 0) -> RiskParity:
    """Risk parity for assets that all move with one factor, and in the same direction.

    The correlation of i and j is l_i l_j, with loadings l that are uniform in [0.5, 0.95].

    Args:
        n: number of assets.
        seed: of the loadings.

    Returns:
        The problem, with equal budgets. Facts: the `minimizer`, the `optimum`; it is `convex`.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> bool(factor_correlation(4).matrix().min() >= 0.25)
        True
    """
    rng = np.random.default_rng(whole_number(seed, "seed"))
    loadings = rng.uniform(0.5, 0.95, whole_number(n, "n", 1))
    correlation = np.outer(loadings, loadings)
    np.fill_diagonal(correlation, 1)
    return _with_minimizer(RiskParity(jnp.asarray(correlation)))


def risk_parity_equations(
    covariance: ArrayLike | None = None, budget: ArrayLike | None = None
) -> RootFind:
    """Risk parity as the equations C y - b / y = 0, for Newton's method.

    Args:
        covariance: as in `risk_parity`.
        budget: as in `risk_parity`.

    Returns:
        The problem from the start that the paper gives to Newton's method: what a step of
        coordinate descent, of all coordinates at once, makes of the even start. Fact: of the five
        assets the root `minimizer`. There are as many other roots as choices of signs.

    Raises:
        ValueError: as `risk_parity` does.

    Example:
        >>> import raphson as rp
        >>> solution = rp.solve(risk_parity_equations())
        >>> risk_parity().weights(solution.value).round(3).tolist()
        [0.125, 0.047, 0.083, 0.613, 0.132]
    """
    stated = risk_parity(covariance, budget)
    b = ravel_pytree(stated.budget)[0]
    a = (stated.mv(stated.y0) - stated.y0) / 2
    y0 = jnp.sqrt(a * a + b) - a
    return RootFind(_equations, y0, (stated.C, b), facts=Facts(minimizer=stated.facts.minimizer))


def _equations(y: Float[Array, " n"], args: tuple[Array, Array]) -> Float[Array, " n"]:
    C, b = args
    return C @ y - b / y


def _with_minimizer(problem: RiskParity) -> RiskParity:
    """The problem with its facts, by Newton's method in NumPy."""
    C, b, y = (np.asarray(x, float) for x in (problem.C, problem.budget, problem.y0))
    for _ in range(100):
        gradient = C @ y - b / y
        step = np.linalg.solve(C + np.diag(b / y**2), gradient)
        # f / min b is self-concordant: a step of this length stays inside, and converges.
        decrement = np.sqrt(gradient @ step / b.min())
        y = y - step / (1 + decrement if decrement > 0.25 else 1)
        if np.abs(step / y).max() <= 1e-15:
            break
    facts = Facts(
        optimum=float(y @ C @ y / 2 - b @ np.log(y)), minimizer=jnp.asarray(y), convex=True
    )
    return problem._with(facts=facts)
