"""Polynomial equations that know their coefficients: deflation of singular roots, certified roots.

Leykin, Verschelde, Zhao (2006), Newton's Method with Deflation for Isolated Singularities of
Polynomial Systems; Blum, Cucker, Shub, Smale (1998), Complexity and Real Computation; Hauenstein,
Sottile (2012), Algorithm 921: alphaCertified; Mantzaflaris, Mourrain, Szanto (2020), Punctual
Hilbert Schemes and Certified Approximate Singularities.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from jaxtyping import Array, ArrayLike, Bool, Float

from ..compiled import compiled
from ..problem import Facts, Rescaled
from ..validate import require_number, whole_number
from .problem import RootFind

# The unknowns may double with each.
_MOST_DEFLATIONS = 4


class PolynomialSystem(RootFind):
    """Find y where the polynomials sum_t c_it y_1^e_t1 ... y_n^e_tn are 0.

    Args:
        exponents: e, whole numbers of shape (terms, n); each term once.
        coefficients: c, shape (equations, terms).
        y0: the start, a vector of n.
        facts: what is known of the problem.

    Raises:
        ValueError: if the shapes do not fit, or an exponent is no whole number of at least 0.

    Example:
        >>> import raphson as rp
        >>> problem = rp.roots.PolynomialSystem([[2], [0]], [[1.0, -2.0]], [1.0])
        >>> rp.solve(problem).value.round(3).tolist()
        [1.414]
    """

    def __init__(
        self,
        exponents: ArrayLike,
        coefficients: ArrayLike,
        y0: ArrayLike,
        *,
        facts: Facts | None = None,
    ):
        e, c, y = np.asarray(exponents), jnp.asarray(coefficients), jnp.asarray(y0)
        whole = e.ndim == 2 and np.issubdtype(e.dtype, np.integer) and bool(np.all(e >= 0))
        if not whole or len(np.unique(e, axis=0)) < len(e):
            raise ValueError(
                "`exponents` must be a matrix of whole numbers of at least 0, no row twice."
            )
        if c.shape[1:] != e.shape[:1] or y.shape != e.shape[1:]:
            raise ValueError(
                f"`coefficients` must have a column for each of the {len(e)} rows of `exponents` "
                f"and `y0` an entry for each of its {e.shape[1]} columns, got {c.shape} and "
                f"{y.shape}."
            )
        super()._stated(_polynomials, y, (jnp.asarray(e), c), facts, {})

    def rescaled(self, y_scale: Any, value_scale: ArrayLike) -> Any:
        return RootFind(Rescaled(self.fn, y_scale, value_scale), self.y0, self.args)


class AlphaCertificate(eqx.Module):
    """What Smale's alpha theory says of a point.

    Attributes:
        alpha: beta gamma.
        beta: the length of Newton's step, and what the rounding of F may add to it.
        gamma: a bound on |DF^-1 D^k F / k!|^(1 / (k - 1)) for all k from 2.
    """

    alpha: Float[Array, ""]
    beta: Float[Array, ""]
    gamma: Float[Array, ""]

    @property
    def certified(self) -> Bool[Array, ""]:
        """Whether Newton's method converges quadratically from the point."""
        return self.alpha < (13 - 3 * 17**0.5) / 4

    @property
    def distance(self) -> Float[Array, ""]:
        """How far from the point a root is at most, where it is certified."""
        return 2 * self.beta


def alpha_certificate(problem: PolynomialSystem, y: ArrayLike) -> AlphaCertificate:
    """Smale's alpha test: whether there is a root near y, by figures at y alone.

    With |y|_1 = sqrt(1 + |y|^2), degrees d_i, D their greatest and |F| in Bombieri's norm,
    gamma <= mu D^(3/2) / (2 |y|_1), mu = max(1, |F| |DF^-1 diag(sqrt(d_i) |y|_1^(d_i - 1))|). Only
    for polynomials is there such a bound. It is evaluated in floating point: of the rounding only
    that of F is allowed for.

    Args:
        problem: a polynomial system with as many equations as unknowns.
        y: the point.

    Returns:
        The certificate; safe under `jit` and `vmap`.

    Raises:
        ValueError: if `problem` is not a polynomial system that is square.

    Example:
        >>> import raphson as rp
        >>> problem = rp.roots.PolynomialSystem([[2], [0]], [[1.0, -2.0]], [1.0])
        >>> bool(alpha_certificate(problem, [1.4]).certified)
        True
        >>> bool(alpha_certificate(problem, [0.1]).certified)
        False
    """
    if not isinstance(problem, PolynomialSystem):
        raise ValueError(
            f"`problem` must be a PolynomialSystem, got a {type(problem).__name__}: of other "
            "functions no bound on all derivatives is known, and nothing is certified."
        )
    exponents, coefficients = problem.args
    if len(coefficients) != exponents.shape[1]:
        raise ValueError(
            f"`problem` must have as many equations as unknowns, got {len(coefficients)} for "
            f"{exponents.shape[1]}."
        )
    return compiled(_certified, problem, jnp.asarray(y))


def deflated(
    problem: PolynomialSystem,
    y: ArrayLike,
    *,
    order: int | None = None,
    rtol: float = 0.05,
    seed: int = 0,
) -> PolynomialSystem:
    """A system that is regular where `problem` has a singular root, by Leykin, Verschelde, Zhao.

    Where DF has the rank r at the root, its kernel meets the range of a random n x (r + 1) matrix B
    in one line, so that of the equations

        F(y) = 0,    DF(y) B v = 0,    h'v = 1

    in y and v a root is isolated, and of lower multiplicity; h is the unit vector that DF(y) B
    shrinks most. They are deflated in turn until they are regular, and random combinations of them
    make a square system: there Newton's method, slow and inaccurate at a singular root, is
    quadratic.

    Args:
        problem: the system.
        y: a point near the root, at which the rank is taken.
        order: how often to deflate at most; by default as often as it takes. Fewer times than the
            multiplicity of the root suffice.
        rtol: singular values of DF(y) up to this part of what they were if no terms canceled count
            as 0, in (0, 1). It is to be above the relative error of y.
        seed: of B and the combinations.

    Returns:
        The system in (y, v), started at y and the v that fits best; where DF(y) has full rank,
        that of `problem` in y. A root of it whose residual in `problem` is not 0 comes from the
        combinations.

    Raises:
        ValueError: if an argument is unfit, or without `order` the equations are still singular
            after 4 deflations: then `rtol` is too great for them, or the root is not isolated.

    Example:
        >>> import raphson as rp
        >>> problem = rp.problems.circle_and_hyperbola()
        >>> solution = rp.solve(rp.roots.deflated(problem, [1.02, 0.99]))
        >>> solution.value[:2].round(3).tolist()
        [1.0, 1.0]
    """
    if not isinstance(problem, PolynomialSystem):
        raise ValueError(f"`problem` must be a PolynomialSystem, got a {type(problem).__name__}.")
    times = _MOST_DEFLATIONS if order is None else whole_number(order, "order")
    require_number(rtol, "`rtol`", 0, 1)
    rng = np.random.default_rng(whole_number(seed, "seed"))
    exponents, coefficients = map(np.asarray, problem.args)
    dtype = coefficients.dtype
    point = np.asarray(y, dtype)
    for _ in range(times):
        deflation = _deflation(exponents, coefficients, point, rtol, rng)
        if deflation is None:
            break
        exponents, coefficients, point = deflation
    else:
        if order is None:
            raise ValueError(
                f"`y` must be near an isolated root: after {times} deflations the Jacobian is "
                f"still singular to `rtol` = {rtol:g}."
            )
    if len(point) > problem.y0.size:
        combine = np.linalg.qr(rng.normal(size=(len(coefficients), len(point))))[0]
        coefficients = combine.T @ coefficients
    return PolynomialSystem(exponents, coefficients.astype(dtype), point.astype(dtype))


def _deflation(
    exponents: np.ndarray, coefficients: np.ndarray, y: np.ndarray, rtol: float, rng: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """The system deflated once, and its start; None where there is nothing to deflate."""
    n = len(y)
    # The derivative by y_k: each exponent of y_k falls by 1 and comes down as a factor.
    partial_exponents = [np.maximum(exponents - np.eye(n, dtype=int)[k], 0) for k in range(n)]
    partials = [coefficients * exponents[:, k] for k in range(n)]
    jacobian, size = (
        np.stack([c @ np.prod(x**e, axis=1) for e, c in zip(partial_exponents, terms)], axis=1)
        for x, terms in ((y, partials), (np.abs(y), np.abs(partials)))
    )
    singular = np.linalg.svd(jacobian, compute_uv=False)
    rank = int(np.sum(singular > rtol * np.linalg.norm(size, 2)))
    if rank == n:
        return None
    B = np.linalg.qr(rng.normal(size=(n, rank + 1)))[0]
    v = np.linalg.svd(jacobian @ B)[2][-1]

    # Rows are terms in (y, v), columns equations; like terms are gathered at the end.
    width, count = rank + 1, len(coefficients)
    terms = [np.pad(exponents, ((0, 0), (0, width)))]
    columns = [np.pad(coefficients.T, ((0, 0), (0, count + 1)))]
    for k in range(n):
        for j in range(width):
            times_v = np.tile(np.eye(width, dtype=int)[j], (len(exponents), 1))
            terms.append(np.hstack([partial_exponents[k], times_v]))
            columns.append(np.pad(partials[k].T * B[k, j], ((0, 0), (count, 1))))
    terms.append(np.hstack([np.zeros((width + 1, n), int), np.eye(width + 1, width, dtype=int)]))
    columns.append(np.pad(np.append(v, -1.0)[:, None], ((0, 0), (2 * count, 0))))
    gathered, place = np.unique(np.vstack(terms), axis=0, return_inverse=True)
    system = np.zeros((len(gathered), 2 * count + 1))
    np.add.at(system, place.ravel(), np.vstack(columns))
    used = np.any(system != 0, axis=1)
    return gathered[used], system[used].T, np.append(y, v)


def _certified(problem: PolynomialSystem, y: Float[Array, " n"]) -> AlphaCertificate:
    exponents, coefficients = problem.args
    J = problem.jacobian(y).as_matrix()
    totals = jnp.sum(exponents, axis=1)
    degrees = jnp.max(jnp.where(coefficients != 0, totals[None, :], 0), axis=1)
    size = jnp.sqrt(1 + jnp.sum(y**2))
    # Bombieri's |f|^2 is the sum of c^2 e_1! ... e_n! (d - |e|)! / d!.
    missing = jnp.maximum(degrees[:, None] - totals[None, :], 0)
    log_weight = (
        jnp.sum(gammaln(exponents + 1.0), axis=1)[None, :]
        + gammaln(missing + 1.0)
        - gammaln(degrees + 1.0)[:, None]
    )
    norm = jnp.sqrt(jnp.sum(coefficients**2 * jnp.exp(log_weight)))
    scaled = jnp.linalg.solve(J, jnp.diag(jnp.sqrt(degrees) * size ** (degrees - 1.0)))
    mu = jnp.maximum(1, norm * jnp.linalg.norm(scaled, 2))
    gamma = mu * jnp.max(degrees) ** 1.5 / (2 * size)
    # Next to a singular root F may round to 0, so that what F may be off by counts too.
    off = jnp.abs(coefficients) @ jnp.prod(jnp.abs(y)[None, :] ** exponents, axis=1)
    off = jnp.finfo(y.dtype).eps * (len(exponents) + jnp.max(degrees)) * jnp.linalg.norm(off)
    beta = jnp.linalg.norm(jnp.linalg.solve(J, problem.residual(y)))
    beta = beta + jnp.linalg.norm(jnp.linalg.inv(J), 2) * off
    alpha = jnp.where(jnp.isfinite(beta * gamma), beta * gamma, jnp.inf)
    return AlphaCertificate(alpha, beta, gamma)


def _polynomials(y: Float[Array, " n"], args: tuple[Array, Array]) -> Float[Array, " m"]:
    exponents, coefficients = args
    return coefficients @ jnp.prod(y[None, :] ** exponents, axis=1)
