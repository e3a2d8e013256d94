"""What the methods of two levels share: inner runs, hypergradients, the step of the upper level."""

from __future__ import annotations

from typing import Any

import jax
import lineax as lx
import optax
import optax.tree as otu
from jaxtyping import Array, PyTree

from ..method import AbstractMethod, iterate
from .problem import AbstractBilevel


def lower_solve(
    problem: AbstractBilevel,
    x: PyTree[Array],
    y: PyTree[Array],
    method: AbstractMethod,
    steps: int,
    key: Array | None = None,
) -> PyTree[Array]:
    """So many steps of a method on the lower level from y, fewer where they find its minimum."""
    return iterate(problem.lower(x, y), method, y, key, rtol=0.0, atol=0.0, max_steps=steps).y


def hypergradient(
    problem: AbstractBilevel,
    x: PyTree[Array],
    y: PyTree[Array],
    solver: lx.AbstractLinearSolver,
    batches: tuple[Any, Any] = (None, None),
    v: PyTree[Array] | None = None,
) -> tuple[PyTree[Array], PyTree[Array], PyTree[Array]]:
    """F_x - f_xy v where f_yy v = F_y by a linear solver, from v where it takes a start.

    Where y has a set, v is along it only: `AbstractBilevel.reduced` says how.

    Returns:
        The hypergradient, v, and what the solver left, F_y - f_yy v.
    """
    upper, lower = batches
    F_x, F_y = problem.upper_gradient(x, y, upper)
    f_y = None if problem.sets[1] is None else problem.lower_gradient(x, y, lower)[1]
    tangent = problem.tangent(y, f_y)
    F_y, product = tangent(F_y), problem.reduced(x, y, tangent, lower)
    operator = lx.FunctionLinearOperator(
        product,
        jax.eval_shape(lambda: y),
        # As it is at a minimum: what solvers of Lineax check for is the word alone.
        (lx.symmetric_tag, lx.positive_semidefinite_tag),
        closure_convert=False,
    )
    # Called as a plain function, so that the products inside are counted like any other.
    v, _, _ = solver.compute(solver.init(operator, {}), F_y, {} if v is None else {"y0": v})
    if problem.sets[1] is None:
        f_xv, f_yyv = problem.lower_product(x, y, v, lower)
        return otu.sub(F_x, f_xv), v, otu.sub(F_y, f_yyv)
    f_xv, _ = problem.lower_product(x, y, tangent(v), lower)
    return otu.sub(F_x, f_xv), v, otu.sub(F_y, product(v))


def as_transformation(upper: Any) -> optax.GradientTransformation:
    """The Optax transformation that a learning rate stands for, or the one that is given."""
    return upper if isinstance(upper, optax.GradientTransformation) else optax.sgd(upper)


def descended(
    problem: AbstractBilevel,
    x: PyTree[Array],
    y: PyTree[Array],
    gradient: PyTree[Array],
    upper: Any,
    state: PyTree[Array],
) -> tuple[PyTree[Array], PyTree[Array]]:
    """The upper unknown after a step of the transformation, in its set, and its new state."""
    updates, state = as_transformation(upper).update(gradient, state, x)
    return problem.project((optax.apply_updates(x, updates), y))[0], state
