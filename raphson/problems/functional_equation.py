"""A functional equation of the paradise fish: on a grid for Picard, in polynomials for a fit.

Caballero, Plociniczak, Sadarangani (2022), Existence and Uniqueness of Solutions in the Lipschitz
Space of a Functional Equation and Its Application to the Behavior of the Paradise Fish.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..problem import Facts
from ..roots.problem import FixedPoint, LeastSquares
from ..validate import require_number, whole_number


def paradise_fish(alpha: float = 0.2, beta: float = 0.5, n: int = 257) -> FixedPoint:
    """The chance that a fish which learns ends on one side, as a fixed point.

    A fish goes to that side with a probability x, which then rises to (1 - alpha) x + alpha, and
    else falls to (1 - beta) x. So the chance that x ends at 1 and not at 0 satisfies

        f(x) = x f((1 - alpha) x + alpha) + (1 - x) f((1 - beta) x),    f(0) = 0,    f(1) = 1.

    The unknowns are the values of f on an even grid, linear in between.

    Args:
        alpha: how much is learned of a reward, in (0, 1).
        beta: how much of a failure, in (0, 1).
        n: number of points of the grid, at least 3.

    Returns:
        The problem from f(x) = x. Fact: the only `minimizer`, of the equations on the grid.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> import raphson as rp
        >>> f = rp.solve(paradise_fish(n=5), rp.roots.KrasnoselskiiMann()).value
        >>> f.round(2).tolist()
        [0.0, 0.04, 0.16, 0.44, 1.0]
    """
    alpha, beta = _learning(alpha, beta)
    x = np.linspace(0, 1, whole_number(n, "n", 3))
    # The operator is linear and interpolation too, so that its columns are images of hat functions.
    images = [
        _operated(x, alpha, beta, lambda at, e=e: np.interp(at, x, e)) for e in np.eye(len(x))
    ]
    system = np.eye(len(x)) - np.stack(images, axis=1)
    inner = slice(1, -1)
    root = x.copy()
    root[inner] = np.linalg.solve(system[inner, inner], -system[inner, -1])
    args = (jnp.asarray(x), jnp.asarray(alpha), jnp.asarray(beta))
    return FixedPoint(_on_grid, jnp.asarray(x), args, facts=Facts(minimizer=jnp.asarray(root)))


def paradise_fish_fit(alpha: float = 0.2, beta: float = 0.5, terms: int = 4) -> LeastSquares:
    """The same equation with f a polynomial, whose squared error over [0, 1] is to be least.

    Args:
        alpha: as in `paradise_fish`.
        beta: as in `paradise_fish`.
        terms: number of unknowns c_j in f(x) = x + x (1 - x) (c_0 + c_1 x + ...), which is 0 and 1
            at the ends whatever they are.

    Returns:
        The problem from zeros, linear in the unknowns, with small residuals: ask for a tolerance
        that is small too. Each is the error at a node of Gauss and Legendre, times the root of its
        weight.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> import raphson as rp
        >>> problem = paradise_fish_fit(terms=1)
        >>> c = rp.solve(problem, rtol=1e-4, atol=0.0).value
        >>> round(float(fish_polynomial(c, 0.5)), 2)
        0.09
    """
    alpha, beta = _learning(alpha, beta)
    terms = whole_number(terms, "terms", 1)
    nodes, weights = np.polynomial.legendre.leggauss(terms + 10)
    args = ((nodes + 1) / 2, np.sqrt(weights / 2), alpha, beta)
    return LeastSquares(_in_polynomials, jnp.zeros(terms), tuple(map(jnp.asarray, args)))


def fish_polynomial(c: Float[Array, " terms"], x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """f(x) = x + x (1 - x) (c_0 + c_1 x + ...)."""
    return x + x * (1 - x) * jnp.polyval(c[::-1], x)


def _operated(x: Any, alpha: Any, beta: Any, f: Callable[[Any], Any]) -> Any:
    """x f((1 - alpha) x + alpha) + (1 - x) f((1 - beta) x)."""
    return x * f((1 - alpha) * x + alpha) + (1 - x) * f((1 - beta) * x)


def _on_grid(y: Float[Array, " n"], args: tuple[Array, ...]) -> Float[Array, " n"]:
    x, alpha, beta = args
    image = _operated(x, alpha, beta, lambda at: jnp.interp(at, x, y))
    # Constants solve the equation too: the ends single out one solution.
    return image.at[0].set(0).at[-1].set(1)


def _in_polynomials(c: Float[Array, " terms"], args: tuple[Array, ...]) -> Float[Array, " m"]:
    nodes, roots, alpha, beta = args
    f = lambda x: fish_polynomial(c, x)
    return roots * (f(nodes) - _operated(nodes, alpha, beta, f))


def _learning(alpha: float, beta: float) -> tuple[float, float]:
    require_number(alpha, "`alpha`", 0, 1)
    require_number(beta, "`beta`", 0, 1)
    return float(alpha), float(beta)
