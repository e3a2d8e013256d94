"""Derivatives of an answer from the optimality condition that it satisfies.

Where F(y, p) = 0 defines y by p, the implicit function theorem gives dy = -(dF/dy)^-1 dF/dp dp:
one linear solve, whatever found y. Blondel, Berthet, Cuturi, Frostig, Hoyer, Llinares-Lopez,
Pedregosa, Vert (2022), Efficient and Modular Implicit Differentiation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optax.tree as otu
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, PyTree

from .problem import AbstractProblem
from .validate import as_function

# Up to this many unknowns the derivative of the condition is factorized; beyond, only products
# with it are used.
DENSE_LIMIT = 1000

Condition = Callable[[PyTree[Array], PyTree], PyTree[Array]]


def implicit(
    optimality: Condition,
    *,
    linear_solver: lx.AbstractLinearSolver | None = None,
    tags: object | frozenset[object] = (),
) -> Callable[[Callable[..., PyTree[Array]]], Callable[..., PyTree[Array]]]:
    """Give any solver the derivatives of its answer, forward and reverse, to any order.

    The solver may be anything that finds y with F(y, args) = 0: iterations in JAX, which are not
    differentiated themselves, or outside of `jit` a routine of another library.

    Args:
        optimality: F(y, args), shaped as y, zero at the answers; `raphson.conditions` has the usual
            ones. Derivatives are taken by `args` alone.
        linear_solver: a Lineax solver for dF/dy; by default it is factorized up to 1000 unknowns,
            and GMRES is asked beyond.
        tags: Lineax tags of dF/dy, such as `lineax.symmetric_tag`, which some solvers require.

    Returns:
        A decorator of `solver(y0, args)`, an answer from the start y0.

    Raises:
        ValueError: if `optimality` is no function.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> @rp.implicit(lambda y, a: y**2 - a)
        ... def root(y0, a):
        ...     return jax.lax.fori_loop(0, 20, lambda _, y: (y + a / y) / 2, y0)
        >>> round(float(jax.grad(root, argnums=1)(1.0, 4.0)), 3)
        0.25
    """
    condition = as_function(optimality, "optimality")

    def decorate(solver: Callable[..., PyTree[Array]]) -> Callable[..., PyTree[Array]]:
        @eqx.filter_custom_jvp
        def found(y0: PyTree[Array], args: PyTree) -> PyTree[Array]:
            return solver(y0, args)

        @found.def_jvp
        def _(primals: Any, tangents: Any) -> Any:
            y0, args = jax.tree.map(_as_array, primals)
            y = found(y0, args)
            return y, _tangent(condition, y, args, tangents[1], tags, linear_solver)

        @functools.wraps(solver)
        def solve(y0: PyTree[Array], args: PyTree) -> PyTree[Array]:
            return found(jax.lax.stop_gradient(jax.tree.map(_as_array, y0)), args)

        return solve

    return decorate


def _as_array(leaf: Any) -> Any:
    """Numbers as arrays: JAX hands its rules Python's floats where it was given them."""
    return jnp.asarray(leaf) if isinstance(leaf, float | np.ndarray) else leaf


@eqx.filter_custom_jvp
def answer_of(problem: AbstractProblem, y: PyTree[Array], solved: Bool[Array, ""]) -> PyTree[Array]:
    """`y` with the derivatives of the answer of `problem` by whatever the problem holds.

    Args:
        problem: the problem, with respect to whose arrays the answer is differentiated.
        y: an answer, at which `problem.optimality` vanishes.
        solved: whether y is an answer at all; if not, its derivatives are NaN, never wrong.

    Returns:
        `y`.
    """
    return y


@answer_of.def_jvp
def _answer_of_jvp(primals: Any, tangents: Any) -> tuple[PyTree[Array], PyTree[Array]]:
    problem, _, solved = primals
    y = answer_of(*primals)
    mark = jnp.where(solved, 1.0, jnp.nan)
    tangent = _tangent(
        lambda y, p: p.optimality(y), y, problem, tangents[0], problem.optimality_tags, None, mark
    )
    return y, tangent


def _tangent(
    condition: Condition,
    y: PyTree[Array],
    data: Any,
    data_tangent: Any,
    tags: Any,
    linear_solver: lx.AbstractLinearSolver | None,
    mark: Any = 1.0,
) -> PyTree[Array]:
    """How y moves with the data; y must not be a constant, for this is differentiated in turn."""
    residual, shift = eqx.filter_jvp(lambda data: condition(y, data), (data,), (data_tangent,))
    # A part of the condition that does not depend on what is perturbed has no tangent.
    shift = jax.tree.map(
        lambda t, r: jnp.zeros_like(r) if t is None else t,
        shift,
        residual,
        is_leaf=lambda t: t is None,
    )
    operator = lx.JacobianLinearOperator(lambda y, _: condition(y, data), y, tags=tags)
    if operator.out_size() != operator.in_size():
        # A consistent system with more equations than unknowns, by its normal equations.
        shift, operator = operator.T.mv(shift), operator.T @ operator
    return _solve(operator, otu.scale(-1, shift), linear_solver, mark)


def _solve(
    operator: lx.AbstractLinearOperator,
    vector: PyTree[Array],
    solver: Any,
    mark: Any,
) -> PyTree[Array]:
    """`mark * operator^-1 vector`, forwards and backwards; the mark is 1 or NaN.

    Lineax raises inside the derivatives of a `linear_solve` whatever it is told, so its solvers are
    called here as plain functions, and the NaN of an unsolved problem goes in after them.
    """
    flat, _ = ravel_pytree(vector)
    mark = jnp.asarray(mark, flat.dtype)
    if solver is None and operator.in_size() <= DENSE_LIMIT:
        unravel = ravel_pytree(otu.zeros_like(operator.in_structure()))[1]
        return unravel(mark * jnp.linalg.solve(operator.as_matrix(), flat))
    if solver is None:
        solver = lx.GMRES(rtol=float(jnp.finfo(flat.dtype).eps) ** 0.75, atol=0.0)
    state = solver.init(operator, {})
    transposed, options = solver.transpose(state, {})

    def solve_by(state: Any, options: dict[str, Any]) -> Callable[[Any, PyTree], PyTree]:
        def solve(_: Any, vector: PyTree) -> PyTree:
            value, _, _ = solver.compute(state, vector, options)
            return otu.scale(mark, value)

        return solve

    return jax.lax.custom_linear_solve(
        operator.mv, vector, solve_by(state, {}), solve_by(transposed, options)
    )
