"""What the claims on light curves count: evaluations until a fit is as good as the best."""

from __future__ import annotations

from functools import cache
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from ..engine import solve, trace
from ..problems import eclipsing_binary
from ..roots.problem import LeastSquares
from ..wrappers import Counted

# Of the parameters: inclination, radii, light of the first star.
LOW = np.array([np.deg2rad(80.0), 0.15, 0.1, 0.5])
HIGH = np.array([np.deg2rad(90.0), 0.35, 0.25, 0.9])


@cache
def fitted(noise: float) -> tuple[LeastSquares, float]:
    """The light curve, and the least sum of squares: the best of fits from many starts."""
    problem = eclipsing_binary(noise=noise)
    found = [
        solve(eqx.tree_at(lambda p: p.y0, problem, start), rtol=0.0, atol=1e-5, throw=False)
        for start in (problem.y0, *starts(10, seed=1))
    ]
    return problem, min(2 * float(problem.value(solution.value)) for solution in found)


def starts(count: int, *, seed: int = 0) -> list[Any]:
    """Parameters at random."""
    return [jnp.array(y) for y in np.random.default_rng(seed).uniform(LOW, HIGH, (count, 4))]


def evaluations(noise: float, method: Any, count: int) -> np.ndarray:
    """From each start, evaluations until the sum of squares is within 1 of the least.

    That is the error bar of one parameter. A gradient costs 4 evaluations and a Hessian 10, as they
    do by differences; of a run that does not get there the number is infinite.
    """
    problem, least = fitted(noise)

    def needed(start: Any) -> float:
        counted = eqx.tree_at(lambda p: p.y0, Counted(problem), start)
        run = trace(counted, method, rtol=0.0, atol=1e-3, max_steps=3000)
        met = 2 * run.measures["value"] < least + 1
        counts = run.counts
        spent = counts["value"] + 4 * counts["gradient"] + 10 * counts.get("hessian", 0)
        return float(spent[np.argmax(met)]) if met.any() else np.inf

    return np.array([needed(start) for start in starts(count)])
