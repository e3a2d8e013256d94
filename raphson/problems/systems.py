"""Systems of nonlinear equations with known roots: regular, singular, and not isolated."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..problem import Facts
from ..roots.problem import RootFind
from ..validate import whole_number
from .nonconvex import rosenbrock_start


def rosenbrock_system(n: int = 2) -> RootFind:
    """Rosenbrock's chain as 2(n - 1) equations 10 (y_{i+1} - y_i^2) = 0 and 1 - y_i = 0.

    Args:
        n: number of unknowns, at least 2.

    Returns:
        The problem from y = (-1.2, 1, -1.2, 1, ...). Fact: the only root `minimizer`, ones, where
        the Jacobian has full rank.

    Raises:
        ValueError: if `n` is unfit.

    Example:
        >>> problem = rosenbrock_system()
        >>> problem.residual(problem.facts.minimizer).tolist()
        [0.0, 0.0]
    """
    n = whole_number(n, "n", 2)
    return RootFind(_rosenbrock, rosenbrock_start(n), facts=Facts(minimizer=jnp.ones(n)))


def cubic_root(n: int = 1) -> RootFind:
    """The equations y_i^3 = 0, whose root is singular: |F(y)|^(1/3) measures the distance.

    Newton's method only takes each unknown to 2/3 of itself.

    Args:
        n: number of unknowns.

    Returns:
        The problem from y = 1. Fact: the root `minimizer`, zeros.

    Raises:
        ValueError: if `n` is unfit.

    Example:
        >>> cubic_root().residual(jnp.array([0.5])).tolist()
        [0.125]
    """
    n = whole_number(n, "n", 1)
    return RootFind(_cubic_root, jnp.ones(n), facts=Facts(minimizer=jnp.zeros(n)))


def powell_singular() -> RootFind:
    """Powell's four equations, whose Jacobian at the only root has rank 2.

    y_1 + 10 y_2 = 0, sqrt(5) (y_3 - y_4) = 0, (y_2 - 2 y_3)^2 = 0, sqrt(10) (y_1 - y_4)^2 = 0.
    Powell (1962), An Iterative Method for Finding Stationary Values of a Function of Several
    Variables.

    Returns:
        The problem from y = (3, -1, 0, 1). Fact: the root `minimizer`, zeros.

    Example:
        >>> problem = powell_singular()
        >>> problem.residual(problem.y0).round(2).tolist()
        [-7.0, -2.24, 1.0, 12.65]
    """
    y0 = jnp.array([3.0, -1.0, 0.0, 1.0])
    return RootFind(_powell_singular, y0, facts=Facts(minimizer=jnp.zeros(4)))


def circle_of_roots() -> RootFind:
    """The equations (y_1^2 + y_2^2 - 1) (1, y_1) = 0, whose roots are the unit circle.

    |F(y)| bounds the distance to the circle, though the Jacobian has rank 1 on it.

    Returns:
        The problem from y = (1.5, 1).

    Example:
        >>> problem = circle_of_roots()
        >>> problem.residual(jnp.array([0.6, 0.8])).round(6).tolist()
        [0.0, 0.0]
    """
    return RootFind(_circle_of_roots, jnp.array([1.5, 1.0]))


def moiety_network(species: int = 12, reactions: int = 8, *, seed: int = 0) -> RootFind:
    """The steady state of a network of reversible reactions that conserves moieties.

    Each reaction turns two random molecules into two others by mass action. Of the logarithms y of
    the concentrations, h(y) = ([F, R] - [R, F]) exp(w + [F, R]' y) is the net consumption of the
    species, where the matrices F and R count what reacts and what results. It leaves undetermined
    the moieties, the left null space of R - F, which is spanned by the rows of L: the equations
    L exp(y) = l0 fix their amounts.

    After Ahookhosh, Aragon Artacho, Fleming, Vuong (2019), Local Convergence of the
    Levenberg-Marquardt Method under Hoelder Metric Subregularity, with random networks.

    Args:
        species: number of unknowns, at least 4.
        reactions: number of reversible reactions.
        seed: of the network, its rates, its steady state and the start.

    Returns:
        The problem, with more equations than unknowns. Fact: the only root `minimizer`, normal
        numbers, where each reaction is in balance with its reverse and the Jacobian has full rank;
        the start is off by normal numbers of standard deviation 1/2. Farther out methods may end
        where the residual is least but not 0, with species nearly extinct.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> problem = moiety_network(6, 3)
        >>> bool(jnp.max(jnp.abs(problem.residual(problem.facts.minimizer))) < 1e-4)
        True
    """
    species = whole_number(species, "species", 4)
    reactions = whole_number(reactions, "reactions", 1)
    rng = np.random.default_rng(whole_number(seed, "seed"))
    consumed, produced = np.zeros((2, species, reactions))
    for reaction in range(reactions):
        chosen = rng.permutation(species)
        consumed[chosen[:2], reaction] = 1
        produced[chosen[2:4], reaction] = 1
    from scipy.linalg import null_space  # 0.1 s that `import raphson` need not take

    moieties = null_space((produced - consumed).T).T
    root = rng.standard_normal(species)
    rates = rng.standard_normal(reactions)
    sides = np.concatenate([consumed, produced], axis=1)
    args = (
        np.concatenate([consumed - produced, produced - consumed], axis=1),
        sides,
        np.concatenate([rates, rates]) - sides.T @ root,
        moieties,
        moieties @ np.exp(root),
    )
    return RootFind(
        _moiety_network,
        jnp.asarray(root + rng.standard_normal(species) / 2),
        tuple(map(jnp.asarray, args)),
        facts=Facts(minimizer=jnp.asarray(root)),
    )


def _rosenbrock(y: Float[Array, " n"], _: None) -> Float[Array, " 2n-2"]:
    return jnp.concatenate([10 * (y[1:] - y[:-1] ** 2), 1 - y[:-1]])


def _cubic_root(y: Float[Array, " n"], _: None) -> Float[Array, " n"]:
    return y**3


def _powell_singular(y: Float[Array, " 4"], _: None) -> Float[Array, " 4"]:
    a, b, c, d = y
    return jnp.stack([a + 10 * b, 5**0.5 * (c - d), (b - 2 * c) ** 2, 10**0.5 * (a - d) ** 2])


def _circle_of_roots(y: Float[Array, " 2"], _: None) -> Float[Array, " 2"]:
    return (jnp.vdot(y, y) - 1) * jnp.stack([jnp.ones_like(y[0]), y[0]])


def _moiety_network(y: Float[Array, " m"], args: tuple[Array, ...]) -> Float[Array, " p"]:
    stoichiometry, sides, log_rates, moieties, amounts = args
    consumption = stoichiometry @ jnp.exp(log_rates + sides.T @ y)
    return jnp.concatenate([consumption, moieties @ jnp.exp(y) - amounts])
