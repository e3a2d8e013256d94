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
from jaxtyping import Array, Bool, Float, PyTree

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
        linear_solver: a Lineax solver for dF/dy, believed where it reports success; its absolute
            tolerance is relative to the largest entry of the right-hand side. By default dF/dy is
            factorized up to 1000 unknowns, and beyond CG is asked where `tags` say that it is
            definite, else GMRES. Where they leave more than a square root of the machine epsilon
            of the right-hand side the derivative is NaN: another solver, such as `lineax.LSMR`,
            may do.
        tags: Lineax tags of dF/dy, such as `lineax.symmetric_tag`, which some solvers require;
            where dF/dy is found not to be symmetric after all the derivative is NaN.

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

        A solver that returns its start gives those of an answer that is at hand:

        >>> at_hand = rp.implicit(lambda y, a: y**2 - a)(lambda y, a: y)
        >>> float(jax.grad(at_hand, argnums=1)(2.0, 4.0))
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
    vector = -ravel_pytree(shift)[0]
    # The condition need not be shaped as y.
    flat, unravel = ravel_pytree(y)
    equations = lambda flat, _: ravel_pytree(condition(unravel(flat), data))[0]
    operator = lx.JacobianLinearOperator(equations, flat, tags=tags)
    if operator.out_size() != operator.in_size():
        # A consistent system with more equations than unknowns, by its normal equations.
        vector = operator.T.mv(vector)
        operator = lx.TaggedLinearOperator(operator.T @ operator, lx.positive_semidefinite_tag)
    return unravel(_solve(operator, vector, linear_solver, mark))


def _solve(
    operator: lx.AbstractLinearOperator, vector: Array, given: Any, mark: Any
) -> Float[Array, " n"]:
    """`mark * operator^-1 vector`, forward and reverse; the mark is 1 or NaN.

    Lineax raises inside the derivatives of a `linear_solve` whatever it is told, so its solvers are
    called here as plain functions. An answer that does not hold becomes NaN after them, as does
    that of an unsolved problem.
    """
    mark, eps = jnp.asarray(mark, vector.dtype), float(jnp.finfo(vector.dtype).eps)
    if given is None and operator.in_size() <= DENSE_LIMIT:
        return mark * jnp.linalg.solve(operator.as_matrix(), vector)
    solver = _by_products(operator, eps**0.75) if given is None else given
    state = solver.init(operator, {})
    transposed, options = solver.transpose(state, {})

    def solve_by(state: Any, options: dict[str, Any]) -> Callable[[Any, Array], Array]:
        def solve(product: Callable[[Array], Array], vector: Array) -> Array:
            # The absolute tolerances of solvers are for vectors of about this size; without one
            # they divide by the entries of the vector, which may be 0.
            size = jnp.max(jnp.abs(vector))
            size = jnp.where(size > 0, size, 1)
            vector = vector / size
            value, result, _ = solver.compute(state, vector, options)
            if given is None:
                # Whatever the tags have promised: `product` does not know of them.
                left = jnp.linalg.norm(vector - product(value))
                holds = left <= eps**0.5 * jnp.linalg.norm(vector)
            else:
                # How accurate its answers are is the user's choice, not so what they solve.
                holds = result == lx.RESULTS.successful
                if lx.is_symmetric(operator):
                    holds &= _symmetric(product, vector, eps**0.5)
            return jnp.where(holds, mark * size * value, jnp.nan)

        return solve

    return jax.lax.custom_linear_solve(
        operator.mv, vector, solve_by(state, {}), solve_by(transposed, options)
    )


def _by_products(operator: lx.AbstractLinearOperator, rtol: float) -> lx.AbstractLinearSolver:
    definite = lx.is_positive_semidefinite(operator) or lx.is_negative_semidefinite(operator)
    return (lx.CG if definite else lx.GMRES)(rtol, rtol, norm=otu.norm)


def _symmetric(product: Callable[[Array], Array], like: Array, rtol: float) -> Bool[Array, ""]:
    """Whether <u, A v> = <A u, v> for a random pair."""
    u, v = jax.random.normal(jax.random.key(0), (2, like.size), like.dtype)
    Au, Av = product(u), product(v)
    size = jnp.linalg.norm(u) * jnp.linalg.norm(Av) + jnp.linalg.norm(Au) * jnp.linalg.norm(v)
    return jnp.abs(u @ Av - Au @ v) <= rtol * size
