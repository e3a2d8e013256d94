"""Derivatives of an answer from the optimality condition that it satisfies.

Where F(y, p) = 0 defines y by p, the implicit function theorem gives dy = -(dF/dy)^-1 dF/dp dp:
one linear solve, whatever found y. Blondel, Berthet, Cuturi, Frostig, Hoyer, Llinares-Lopez,
Pedregosa, Vert (2022), Efficient and Modular Implicit Differentiation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optax.tree as otu
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, PyTree

from .problem import AbstractProblem

# Up to this many unknowns the derivative of the condition is factorized; beyond, only products
# with it are used.
DENSE_LIMIT = 1000


@eqx.filter_custom_jvp
def implicit(y: PyTree[Array], problem: AbstractProblem, solved: Bool[Array, ""]) -> PyTree[Array]:
    """`y` with the derivatives of the answer of `problem` by whatever the problem holds.

    Args:
        y: an answer, at which `problem.optimality` vanishes.
        problem: the problem, with respect to whose arrays the answer is differentiated.
        solved: whether y is an answer at all; if not, its derivatives are NaN, never wrong.

    Returns:
        `y`.
    """
    return y


@implicit.def_jvp
def _implicit_jvp(primals: Any, tangents: Any) -> tuple[PyTree[Array], PyTree[Array]]:
    y, problem, solved = primals
    _, problem_tangent, _ = tangents
    # What this rule answers is differentiated in its turn, where y is no constant either.
    y = implicit(y, problem, solved)
    residual, shift = eqx.filter_jvp(lambda p: p.optimality(y), (problem,), (problem_tangent,))
    # A part of the condition that does not depend on what is perturbed has no tangent.
    shift = jax.tree.map(
        lambda t, r: jnp.zeros_like(r) if t is None else t,
        shift,
        residual,
        is_leaf=lambda t: t is None,
    )
    operator = lx.JacobianLinearOperator(
        lambda y, _: problem.optimality(y), y, tags=problem.optimality_tags
    )
    if operator.out_size() != operator.in_size():
        # A consistent system with more equations than unknowns, by its normal equations.
        shift, operator = operator.T.mv(shift), operator.T @ operator
    mark = jnp.where(solved, 1.0, jnp.nan)
    return y, _solve(operator, otu.scale(-1, shift), mark)


def _solve(operator: lx.AbstractLinearOperator, vector: PyTree, mark: Array) -> PyTree:
    """`mark * operator^-1 vector`, forwards and backwards; the mark is 1 or NaN.

    Lineax raises inside the derivatives of a `linear_solve` whatever it is told, so its GMRES is
    called here as a plain function, and the NaN of an unsolved problem goes in after it.
    """
    flat, _ = ravel_pytree(vector)
    unravel = ravel_pytree(otu.zeros_like(operator.in_structure()))[1]
    if operator.in_size() <= DENSE_LIMIT:
        return unravel(mark.astype(flat.dtype) * jnp.linalg.solve(operator.as_matrix(), flat))
    solver = lx.GMRES(rtol=float(jnp.finfo(flat.dtype).eps) ** 0.75, atol=0.0)
    state = solver.init(operator, {})
    transposed, options = solver.transpose(state, {})

    def solve_by(state: Any, options: dict[str, Any]) -> Callable[[Any, PyTree], PyTree]:
        def solve(_: Any, vector: PyTree) -> PyTree:
            value, _, _ = solver.compute(state, vector, options)
            return jax.tree.map(lambda leaf: leaf * mark.astype(leaf.dtype), value)

        return solve

    return jax.lax.custom_linear_solve(
        operator.mv, vector, solve_by(state, {}), solve_by(transposed, options)
    )
