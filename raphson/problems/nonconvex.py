"""Generators of smooth functions that are not convex, with a known least value."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..problem import Facts
from ..smooth.problem import Minimize
from ..validate import whole_number


def rosenbrock(n: int = 2) -> Minimize:
    """Rosenbrock's chain, the sum of 100 (y_{i+1} - y_i^2)^2 + (1 - y_i)^2 over i from 1 to n - 1.

    From n = 4 on there is a second local minimizer, near (-1, 1, ..., 1).

    Args:
        n: number of unknowns, at least 2.

    Returns:
        The problem from y = (-1.2, 1, -1.2, 1, ...). Facts: `optimum` = 0 and `minimizer`, ones; it
        is not `convex`.

    Raises:
        ValueError: if `n` is unfit.

    Example:
        >>> problem = rosenbrock()
        >>> float(problem.value(problem.y0))
        24.2
    """
    n = whole_number(n, "n", 2)
    facts = Facts(optimum=0.0, minimizer=jnp.ones(n), convex=False)
    return Minimize(_rosenbrock, rosenbrock_start(n), facts=facts)


def rosenbrock_start(n: int) -> Float[Array, " n"]:
    """Rosenbrock's start, repeated along the chain."""
    return jnp.where(jnp.arange(n) % 2 == 0, -1.2, 1.0)


def polyak_lojasiewicz(n: int = 1) -> Minimize:
    """The sum of y_i^2 + 3 sin(y_i)^2: not convex, yet with only one stationary point.

    Karimi, Nutini, Schmidt (2016), Linear Convergence of Gradient and Proximal-Gradient Methods
    Under the Polyak-Lojasiewicz Condition, where the constant is given as 1/32.

    Args:
        n: number of unknowns.

    Returns:
        The problem from y = 3. Facts: `optimum` = 0 and `minimizer`, zeros; `lipschitz` = 8 and
        `hessian_lipschitz` = 12, both attained; `polyak_lojasiewicz` = 0.1755, the best possible to
        its digits (at |y| = 2.2017); it is not `convex`.

    Raises:
        ValueError: if `n` is unfit.

    Example:
        >>> problem = polyak_lojasiewicz(2)
        >>> problem.gradient(problem.facts.minimizer).tolist()
        [0.0, 0.0]
    """
    n = whole_number(n, "n", 1)
    facts = Facts(
        optimum=0.0,
        minimizer=jnp.zeros(n),
        lipschitz=8.0,
        polyak_lojasiewicz=0.1755,
        hessian_lipschitz=12.0,
        convex=False,
    )
    return Minimize(_polyak_lojasiewicz, jnp.full(n, 3.0), facts=facts)


def _rosenbrock(y: Float[Array, " n"], _: None) -> Float[Array, ""]:
    return jnp.sum(100 * (y[1:] - y[:-1] ** 2) ** 2 + (1 - y[:-1]) ** 2)


def _polyak_lojasiewicz(y: Float[Array, " n"], _: None) -> Float[Array, ""]:
    return jnp.sum(y**2 + 3 * jnp.sin(y) ** 2)
