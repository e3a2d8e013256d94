"""Performance and data profiles: how the cost of many problems is shown as one curve a method.

Dolan, More (2002), Benchmarking optimization software with performance profiles; More, Wild (2009),
Benchmarking derivative-free optimization algorithms.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def best_ratios(costs: Float[np.ndarray, "methods problems"]) -> Float[np.ndarray, "..."]:
    """Each cost over the least on its problem; infinite where a method did not solve it."""
    best = np.min(costs, axis=0, initial=np.inf)
    # Where the start is a solution it costs nothing, and everyone who saw it is as good.
    free = (best == 0) & (costs == 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = np.where(free, 1.0, costs / best)
    return np.where(np.isfinite(costs), ratios, np.inf)


def performance_profile(
    costs: Float[np.ndarray, "methods problems"],
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each method the share of problems that it solved within a factor of the best method.

    Args:
        costs: of solving, infinite where a method failed.

    Returns:
        For each method the factors at which its share rises, ascending, and the shares.

    Example:
        >>> import numpy as np
        >>> [(factors, shares)] = performance_profile(np.array([[3.0, np.inf]]))
        >>> factors.tolist(), shares.tolist()
        ([1.0], [0.5])
    """
    return [_share_within(ratios) for ratios in best_ratios(costs)]


def data_profile(
    costs: Float[np.ndarray, "methods problems"],
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each method the share of problems that it solved within a budget.

    More and Wild count the budget in groups of n + 1 function values; divide each problem's costs
    by that to have it so. The race does not: where derivatives are at hand, the cost of a step does
    not grow with n.

    Args:
        costs: of solving, infinite where a method failed.

    Returns:
        For each method the budgets at which its share rises, ascending, and the shares.

    Example:
        >>> import numpy as np
        >>> [(budgets, shares)] = data_profile(np.array([[30.0, 10.0, np.inf, np.inf]]))
        >>> budgets.tolist(), shares.tolist()
        ([10.0, 30.0], [0.25, 0.5])
    """
    return [_share_within(row) for row in costs]


def _share_within(costs: Float[np.ndarray, " problems"]) -> tuple[np.ndarray, np.ndarray]:
    reached = np.sort(costs[np.isfinite(costs)])
    levels, counts = np.unique(reached, return_counts=True)
    return levels, np.cumsum(counts) / max(len(costs), 1)
