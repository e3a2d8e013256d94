"""Certified global minimization: boxes are halved until none can hold a value that is lower by eps.

Ghica, Ambridge (2020), A Constructive, Type-Theoretic Approach to Regression via Global
Optimisation, for the search of compact sets by a modulus of continuity; the order, best first, is
that of branch and bound.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..compiled import compiled
from ..problem import AbstractObjective
from ..validate import as_bounds, require_number, whole_number

# Beyond, a modulus of continuity tells too little: the boxes are exponential in the unknowns.
MOST_UNKNOWNS = 4
BATCH = 1024


class CertifiedMinimum(NamedTuple):
    """A point, and what the modulus of continuity proves of it.

    Attributes:
        minimizer: the best point that was seen, shaped as the start.
        value: f there.
        lower_bound: f is nowhere in the box below it.
        evaluations: how many values of f were asked for.
    """

    minimizer: PyTree[Array]
    value: float
    lower_bound: float
    evaluations: int


def certified_minimum(
    problem: AbstractObjective,
    lower: PyTree[ArrayLike],
    upper: PyTree[ArrayLike],
    modulus: float | Callable[[float], float],
    eps: float,
    *,
    max_evaluations: int = 1_000_000,
) -> CertifiedMinimum:
    """The least value of f in a box to eps, with a proof that needs no convexity.

    f(c) - w(r) bounds f from below in a box of center c and longest half side r. The boxes of the
    least bounds are halved in every coordinate; those whose bound is at most eps below the best
    value seen are done with. The proof is as good as w: with one too small it is false, and nothing
    tells. Neither does it cover the rounding of f.

    Args:
        problem: the objective, of at most 4 unknowns.
        lower: the lower bounds, finite, shaped as the start or one number.
        upper: the upper bounds, likewise.
        modulus: w, such that |f(y) - f(z)| <= w(r) wherever no entry of y - z is beyond r; a
            number stands for a Lipschitz constant in the greatest entry.
        eps: positive.
        max_evaluations: where to give up. The bound is valid also then, but not within eps.

    Raises:
        ValueError: if an argument is unfit, or f is not finite somewhere in the box.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.Minimize(lambda y, _: jnp.sum(jnp.abs(y - 0.3)), jnp.zeros(2))
        >>> found = rp.smooth.certified_minimum(problem, -1.0, 1.0, modulus=2.0, eps=0.1)
        >>> found.value < 0.1, found.lower_bound <= 0
        (True, True)
    """
    flat, unravel = ravel_pytree(problem.y0)
    if not 1 <= flat.size <= MOST_UNKNOWNS:
        raise ValueError(f"`problem` must have 1 to {MOST_UNKNOWNS} unknowns, got {flat.size}.")
    low, high = (
        np.asarray(ravel_pytree(bound)[0], float) for bound in as_bounds(lower, upper, problem.y0)
    )
    if not np.all(np.isfinite(low) & np.isfinite(high)):
        raise ValueError("`lower` and `upper` must be finite.")
    require_number(eps, "`eps`", 0)
    whole_number(max_evaluations, "max_evaluations", 1)
    if not callable(modulus):
        require_number(modulus, "`modulus`", 0, closed="left")

    slack = modulus if callable(modulus) else lambda r: modulus * r
    half = (high - low) / 2
    corners = np.array(list(itertools.product((-1.0, 1.0), repeat=flat.size)))

    def values(centers: np.ndarray) -> np.ndarray:
        # One size compiles once; what fills it up is not counted.
        padded = np.resize(centers, (BATCH * len(corners), flat.size)).astype(flat.dtype)
        f = np.asarray(compiled(_values, problem, padded), float)[: len(centers)]
        if not np.all(np.isfinite(f)):
            at = centers[np.argmin(np.isfinite(f))].tolist()
            raise ValueError(f"`problem` must have finite values in the box, got none at {at}.")
        return f

    centers = (low + high)[None] / 2
    f, levels, evaluations = values(centers), np.zeros(1, int), 1
    best, minimizer, floor = float("inf"), centers[0], float("inf")
    boxes: list[tuple[float, int, tuple[float, ...]]] = []
    while True:
        if f.min() < best:
            best, minimizer = float(f.min()), centers[np.argmin(f)]
        for value, level, center in zip(f.tolist(), levels.tolist(), centers.tolist()):
            bound = value - float(slack(float(half.max()) / 2**level))
            if bound < best - eps:
                heapq.heappush(boxes, (bound, level, tuple(center)))
            else:
                floor = min(floor, bound)
        taken = []
        while boxes and boxes[0][0] < best - eps and len(taken) < BATCH:
            taken.append(heapq.heappop(boxes))
        if not taken or evaluations >= max_evaluations:
            lower_bound = min([floor, *(box[0] for box in [*taken[:1], *boxes[:1]])])
            point = unravel(jnp.asarray(minimizer, flat.dtype))
            return CertifiedMinimum(point, best, lower_bound, evaluations)
        levels = np.repeat([level + 1 for _, level, _ in taken], len(corners))
        parents = np.repeat([center for _, _, center in taken], len(corners), axis=0)
        centers = parents + np.tile(corners, (len(taken), 1)) * half / 2.0 ** levels[:, None]
        f, evaluations = values(centers), evaluations + len(centers)


def _values(problem: AbstractObjective, ys: Float[Array, "k n"]) -> Float[Array, " k"]:
    unravel = ravel_pytree(problem.y0)[1]
    return jax.vmap(lambda y: problem.value(unravel(y)))(ys)
