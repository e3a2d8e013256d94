"""Systems of nonlinear equations with known roots: regular, singular, not isolated, in bounds."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..problem import Facts
from ..roots.polynomial import PolynomialSystem
from ..roots.problem import BoundedLeastSquares, BoundedRootFind, RootFind
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


def circle_and_hyperbola() -> PolynomialSystem:
    """The equations y_1^2 + y_2^2 = 2 and y_1 y_2 = 1 of curves that touch at (1, 1) and (-1, -1).

    Both roots are double: Newton's method halves the error a step.

    Returns:
        The problem from y = (1.05, 0.98). Fact: the root `minimizer`, ones.

    Example:
        >>> problem = circle_and_hyperbola()
        >>> problem.residual(problem.facts.minimizer).tolist()
        [0.0, 0.0]
    """
    exponents = np.array([[2, 0], [0, 2], [1, 1], [0, 0]])
    coefficients = jnp.array([[1.0, 1.0, 0.0, -2.0], [0.0, 0.0, 1.0, -1.0]])
    facts = Facts(minimizer=jnp.ones(2))
    return PolynomialSystem(exponents, coefficients, jnp.array([1.05, 0.98]), facts=facts)


def griewank_osborne() -> PolynomialSystem:
    """The equations 29/16 y_1^3 - 2 y_1 y_2 = 0 and y_2 - y_1^2 = 0, whose root 0 is triple.

    Newton's method is repelled by it from nearly everywhere. Griewank, Osborne (1983), Analysis of
    Newton's Method at Irregular Singularities.

    Returns:
        The problem from y = (0.02, 0.01). Fact: the only root `minimizer`, zeros.

    Example:
        >>> griewank_osborne().residual(jnp.array([2.0, 3.0])).tolist()
        [2.5, -1.0]
    """
    exponents = np.array([[3, 0], [1, 1], [0, 1], [2, 0]])
    coefficients = jnp.array([[29 / 16, -2.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]])
    facts = Facts(minimizer=jnp.zeros(2))
    return PolynomialSystem(exponents, coefficients, jnp.array([0.02, 0.01]), facts=facts)


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


def propane_combustion() -> BoundedRootFind:
    """The chemical equilibrium of propane burnt in air, five equations for positive amounts.

    The amounts differ by four orders of magnitude; the equations have three more real roots, each
    with a negative amount. Meintjes, Morgan (1990), Chemical Equilibrium Systems as Numerical Test
    Problems.

    Returns:
        The problem from y = 1 within [0, 100]. Fact: the only root `minimizer` there.

    Example:
        >>> problem = propane_combustion()
        >>> bool(jnp.max(jnp.abs(problem.residual(problem.facts.minimizer))) < 1e-4)
        True
    """
    root = [
        3.1141022659849516e-03,
        3.4597924530290214e01,
        6.5041778697437880e-02,
        8.5937805057794059e-01,
        3.6951859148046023e-02,
    ]
    facts = Facts(minimizer=jnp.array(root))
    return BoundedRootFind(_propane_combustion, jnp.ones(5), 0.0, 100.0, facts=facts)


def himmelblau_box() -> BoundedRootFind:
    """The gradient of Himmelblau's function, of whose nine roots the box [1, 5]^2 holds one.

    4 y_1^3 + 4 y_1 y_2 + 2 y_2^2 - 42 y_1 - 14 = 0, and
    2 y_1^2 + 4 y_2^3 + 4 y_1 y_2 - 26 y_2 - 22 = 0.
    Himmelblau (1972), Applied Nonlinear Programming.

    Returns:
        The problem from y = (1.5, 4.5). Fact: the root `minimizer`, (3, 2).

    Example:
        >>> problem = himmelblau_box()
        >>> problem.residual(problem.facts.minimizer).tolist()
        [0.0, 0.0]
    """
    facts = Facts(minimizer=jnp.array([3.0, 2.0]))
    return BoundedRootFind(_himmelblau, jnp.array([1.5, 4.5]), 1.0, 5.0, facts=facts)


def brown_almost_linear(n: int = 5) -> BoundedRootFind:
    """Brown's n - 1 linear equations and a product, whose root is in a corner of the box [0, 1]^n.

    y_i + sum y = n + 1 for i < n, and prod y = 1. A second root has y_n > 1. More, Garbow,
    Hillstrom (1981), Testing Unconstrained Optimization Software.

    Args:
        n: number of unknowns, at least 2.

    Returns:
        The problem from y = 1/2. Fact: the only root `minimizer` within the bounds, ones, where
        the Jacobian has full rank.

    Raises:
        ValueError: if `n` is unfit.

    Example:
        >>> problem = brown_almost_linear()
        >>> problem.residual(problem.facts.minimizer).tolist()
        [0.0, 0.0, 0.0, 0.0, 0.0]
    """
    n = whole_number(n, "n", 2)
    facts = Facts(minimizer=jnp.ones(n))
    return BoundedRootFind(_brown_almost_linear, jnp.full(n, 0.5), 0.0, 1.0, facts=facts)


def rosenbrock_wall() -> BoundedRootFind:
    """Rosenbrock's two equations with y_1 <= 1, so that the root lies on a wall.

    Returns:
        The problem from y = (-1.2, 1). Fact: the only root `minimizer`, ones.

    Example:
        >>> problem = rosenbrock_wall()
        >>> problem.residual(problem.facts.minimizer).tolist()
        [0.0, 0.0]
    """
    upper = jnp.array([1.0, jnp.inf])
    facts = Facts(minimizer=jnp.ones(2))
    return BoundedRootFind(_rosenbrock, rosenbrock_start(2), -jnp.inf, upper, facts=facts)


def nonnegative_fit(m: int = 20, n: int = 8, *, seed: int = 0) -> BoundedLeastSquares:
    """A random linear fit A y = b where y >= 0, half of it at the bound with positive multipliers.

    Args:
        m: number of data, at least n.
        n: number of unknowns.
        seed: of the matrix, the answer and the multipliers.

    Returns:
        The problem from y = 1. Facts: the only answer `minimizer` and the least value `optimum`.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> problem = nonnegative_fit()
        >>> (problem.facts.minimizer == 0).tolist()
        [True, False, True, False, True, False, True, False]
    """
    n = whole_number(n, "n", 1)
    m = whole_number(m, "m", n)
    rng = np.random.default_rng(whole_number(seed, "seed"))
    matrix = rng.standard_normal((m, n))
    held = np.arange(n) % 2 == 0
    answer = np.where(held, 0, 1 + rng.random(n))
    # The gradient A^T (A y - b) is that of the multipliers, whatever the rest of the misfit.
    misfit = np.linalg.pinv(matrix).T @ np.where(held, 1 + rng.random(n), 0)
    rest = rng.standard_normal(m)
    misfit += rest - matrix @ np.linalg.lstsq(matrix, rest)[0]
    facts = Facts(minimizer=jnp.asarray(answer), optimum=jnp.asarray(misfit @ misfit / 2))
    data = (jnp.asarray(matrix), jnp.asarray(matrix @ answer - misfit))
    return BoundedLeastSquares(_linear_fit, jnp.ones(n), 0.0, jnp.inf, data, facts=facts)


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


def _propane_combustion(y: Float[Array, " 5"], _: None) -> Float[Array, " 5"]:
    a, b, c, d, e = y
    r, r5, r8, r10 = 10.0, 0.193, 1.799e-5 / 40, 3.846e-5 / 40
    r6, r7, r9 = (rate / 40**0.5 for rate in (2.597e-3, 3.448e-3, 2.155e-4))
    return jnp.stack(
        [
            a * b + a - 3 * e,
            2 * a * b + a + b * c**2 + r8 * b - r * e + 2 * r10 * b**2 + r7 * b * c + r9 * b * d,
            2 * b * c**2 + 2 * r5 * c**2 - 8 * e + r6 * c + r7 * b * c,
            r9 * b * d + 2 * d**2 - 4 * r * e,
            a * (b + 1)
            + r10 * b**2
            + b * c**2
            + r8 * b
            + r5 * c**2
            + d**2
            - 1
            + r6 * c
            + r7 * b * c
            + r9 * b * d,
        ]
    )


def _himmelblau(y: Float[Array, " 2"], _: None) -> Float[Array, " 2"]:
    a, b = y
    return jnp.stack(
        [
            4 * a**3 + 4 * a * b + 2 * b**2 - 42 * a - 14,
            2 * a**2 + 4 * b**3 + 4 * a * b - 26 * b - 22,
        ]
    )


def _brown_almost_linear(y: Float[Array, " n"], _: None) -> Float[Array, " n"]:
    linear = y[:-1] + jnp.sum(y) - (y.size + 1)
    return jnp.append(linear, jnp.prod(y) - 1)


def _linear_fit(y: Float[Array, " n"], args: tuple[Array, Array]) -> Float[Array, " m"]:
    matrix, data = args
    return matrix @ y - data
