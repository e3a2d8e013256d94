"""A singular root as a regular one: the root and the ideal around it as unknowns.

Mantzaflaris, Mourrain, Szanto (2020), Punctual Hilbert Schemes and Certified Approximate
Singularities; Hauenstein, Mourrain, Szanto (2017), On Deflation and Multiplicity Structure; Dayton,
Zeng (2005), Computing the Multiplicity Structure in Solving Polynomial Systems.
"""

from __future__ import annotations

import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from ..validate import require_number, whole_number
from .polynomial import PolynomialSystem
from .problem import RootFind


class MultiplicityStructure(eqx.Module):
    """The dual space of a root: the functionals that vanish on all that the equations generate.

    With d^g p = D^g p(y) / g! at the root y, they are spanned by

        L_i = d^b_i + sum_g c_ig d^g,    g outside of b_1, ..., b_m,

    and the monomials of exponents b_i are a basis of the polynomials modulo the equations near y.

    Attributes:
        basis: b, whole numbers of shape (m, n), by rising degree.
        exponents: g, all of shape (terms, n) up to the degree that the root needs.
        functionals: c, with 1 at b_i and 0 at the other b, shape (m, terms).
    """

    basis: Int[np.ndarray, "m n"]
    exponents: Int[np.ndarray, "terms n"]
    functionals: Float[np.ndarray, "m terms"]

    @property
    def multiplicity(self) -> int:
        """m, how many roots come together in this one."""
        return len(self.basis)


def multiplicity_structure(
    problem: PolynomialSystem, y: ArrayLike, *, rtol: float = 0.02, max_order: int = 10
) -> MultiplicityStructure:
    """The multiplicity of a root and its dual space, by Dayton and Zeng.

    The functionals of order k are the null space of Macaulay's matrix, whose rows are (x - y)^a F_i
    for |a| < k. It is taken for rising k until it grows no more. The values F(y), which are 0 at
    the root, are left out.

    Args:
        problem: a polynomial system.
        y: a point near an isolated root.
        rtol: singular values up to this count as 0, in (0, 1), where each F_i is scaled so that its
            coefficients around y have norm 1; it is to be above the error of y in these units.
        max_order: the greatest k.

    Returns:
        The multiplicity structure, in NumPy.

    Raises:
        ValueError: if an argument is unfit, or the null space still grows at `max_order`: then the
            root is not isolated.

    Example:
        >>> import raphson as rp
        >>> found = multiplicity_structure(rp.problems.circle_and_hyperbola(), [1.001, 0.999])
        >>> found.multiplicity, found.basis.tolist()
        (2, [[0, 0], [0, 1]])
    """
    if not isinstance(problem, PolynomialSystem):
        raise ValueError(f"`problem` must be a PolynomialSystem, got a {type(problem).__name__}.")
    require_number(rtol, "`rtol`", 0, 1)
    n = problem.y0.size
    expansion = _taylor(problem, np.asarray(y, float))
    basis, exponents, dual = np.zeros((1, n), int), np.zeros((1, n), int), np.ones((1, 1))
    for order in range(1, whole_number(max_order, "max_order", 1) + 1):
        columns = _monomials(n, order)
        _, singular, right = np.linalg.svd(_macaulay(*expansion, columns, order))
        grown = right[int(np.sum(singular > rtol)) :]
        if len(grown) <= len(basis):
            at_basis = dual[:, _places(basis, exponents)]
            return MultiplicityStructure(basis, exponents, np.linalg.solve(at_basis, dual))
        # What the new functionals say of the highest degree, they say of products of the basis.
        highest = basis[basis.sum(1) == order - 1]
        products = np.unique(np.concatenate([highest + e for e in np.eye(n, dtype=int)]), axis=0)
        from scipy.linalg import qr  # 0.1 s that `import raphson` need not take

        *_, pivots = qr(grown[:, _places(products, columns)], mode="r", pivoting=True)
        basis = np.concatenate([basis, products[np.sort(pivots[: len(grown) - len(basis)])]])
        exponents, dual = columns, grown
    raise ValueError(
        f"`y` must be near an isolated root: its multiplicity is above {len(basis)}, and there are "
        f"still functionals of order {max_order}, to `rtol` = {rtol:g}."
    )


def singular_root(
    problem: PolynomialSystem, y: ArrayLike, *, rtol: float = 0.02, max_order: int = 10
) -> RootFind:
    """Equations in a root and its dual space that are regular where the root itself is singular.

    Modulo the equations near the root, multiplication by x_j is a triangular matrix X_j in the
    basis of `multiplicity_structure`, with y_j on its diagonal. Its other unknown entries c are the
    coefficients of products of x_j and the basis. Such matrices are those of a root if

        F(X_1, ..., X_n) e_1 = 0    and    X_j X_k = X_k X_j.

    There are more equations than unknowns, and their root (y, c) is simple: the methods of Gauss
    and Newton and of Levenberg and Marquardt converge to it quadratically. For small systems.

    Args:
        problem: a polynomial system.
        y: a point near an isolated root.
        rtol: as in `multiplicity_structure`.
        max_order: as in `multiplicity_structure`.

    Returns:
        The problem in (y, c), from the y given and its multiplicity structure.

    Raises:
        ValueError: as `multiplicity_structure`.

    Example:
        >>> import raphson as rp
        >>> problem = singular_root(rp.problems.circle_and_hyperbola(), [1.02, 0.99])
        >>> root, _ = rp.solve(problem, rp.roots.LevenbergMarquardt()).value
        >>> root.round(3).tolist()
        [1.0, 1.0]
    """
    found = multiplicity_structure(problem, y, rtol=rtol, max_order=max_order)
    dtype, n = problem.args[1].dtype, problem.y0.size
    basis, degrees = found.basis, found.basis.sum(1)
    # Entries of the matrices: 0 and 1 are these numbers, all others unknowns.
    entries = np.zeros((n, len(basis), len(basis)), int)
    borders, start = [], []
    for j, k in itertools.product(range(n), range(len(basis))):
        product = basis[k] + np.eye(n, dtype=int)[j]
        within = _places(product[None], basis)
        if len(within):
            entries[j, within[0], k] = 1
            continue
        for i in np.flatnonzero(degrees >= product.sum()):
            unknown = (*product, i)
            if unknown not in borders:
                borders.append(unknown)
                start.append(found.functionals[i, _places(product[None], found.exponents)[0]])
            entries[j, i, k] = 2 + borders.index(unknown)
    highest = int(np.max(np.asarray(problem.args[0])))
    point = jnp.asarray(y, dtype), jnp.asarray(start, dtype)
    return RootFind(_Extended(highest), point, (*problem.args, jnp.asarray(entries)))


class _Extended(eqx.Module):
    """What the matrices of multiplication miss by."""

    highest: int = eqx.field(static=True)

    def __call__(
        self, unknowns: tuple[Array, Array], args: tuple[Array, Array, Array]
    ) -> tuple[Float[Array, "m equations"], Float[Array, "n n m m"]]:
        (y, c), (exponents, coefficients, entries) = unknowns, args
        identity = jnp.eye(entries.shape[1], dtype=y.dtype)
        X = jnp.concatenate([jnp.array([0, 1], y.dtype), c])[entries]
        X = X + y[:, None, None] * identity[None]

        def power(raised: Array, _: None) -> tuple[Array, Array]:
            return raised @ X, raised

        ones = jnp.broadcast_to(identity, X.shape)
        powers = jax.lax.scan(power, ones, length=self.highest + 1)[1]
        terms = jnp.broadcast_to(identity[0], (len(exponents), len(identity)))
        for j in range(len(y)):
            terms = jnp.einsum("tab,tb->ta", powers[exponents[:, j], j], terms)
        products = jnp.einsum("jab,kbc->jkac", X, X)
        return coefficients @ terms, products - products.swapaxes(0, 1)


def _monomials(n: int, degree: int) -> np.ndarray:
    """All exponents up to a degree, by rising degree."""
    grid = np.indices((degree + 1,) * n).reshape(n, -1).T
    grid = grid[grid.sum(1) <= degree]
    return grid[np.argsort(grid.sum(1), kind="stable")]


def _places(rows: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Where rows are among others, those that are there."""
    return np.nonzero(np.all(rows[:, None] == among[None], axis=2))[1]


def _taylor(problem: PolynomialSystem, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exponents g and what stands before (x - y)^g in F, each equation scaled to norm 1."""
    powers, coefficients = np.asarray(problem.args[0]), np.asarray(problem.args[1], float)
    exponents = _monomials(len(y), int(powers.sum(1).max()))
    # That of x^e holds (x - y)^g as often as a product of binomials times y^(e - g).
    binomials = np.vectorize(math.comb)(powers[None], exponents[:, None])
    rest = y ** np.maximum(powers[None] - exponents[:, None], 0)
    taylor = coefficients @ np.prod(binomials * rest, axis=2).T
    taylor[:, 0] = 0
    size = np.linalg.norm(taylor, axis=1, keepdims=True)
    return exponents, taylor / np.where(size > 0, size, 1)


def _macaulay(
    exponents: np.ndarray, taylor: np.ndarray, columns: np.ndarray, order: int
) -> np.ndarray:
    """The rows (x - y)^a F_i, |a| < order, by their coefficients at the columns."""
    place = {tuple(g): i for i, g in enumerate(columns)}
    shifts = columns[columns.sum(1) < order]
    matrix = np.zeros((len(shifts), len(taylor), len(columns)))
    for (a, shift), (i, g) in itertools.product(enumerate(shifts), enumerate(exponents)):
        if tuple(shift + g) in place:
            matrix[a, :, place[tuple(shift + g)]] = taylor[:, i]
    return matrix.reshape(-1, len(columns))
