"""What the methods of two levels share: inner runs, hypergradients, the step of the upper level."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optax
import optax.tree as otu
from jax.extend.core import Literal
from jaxtyping import Array, Bool, Float, PyTree

from ..method import AbstractMethod, finite, iterate
from ..validate import Refusal, in_range
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


class Hypergradient(eqx.Module):
    """A hypergradient and the linear system behind it."""

    value: PyTree[Array]  # F_x - f_xy v
    v: PyTree[Array]
    left: PyTree[Array]  # F_y - f_yy v
    given: Float[Array, ""]  # |F_y|
    failed: Bool[Array, ""]  # whether the solver says so or answers with NaN; v is then 0


def hypergradient(
    problem: AbstractBilevel,
    x: PyTree[Array],
    y: PyTree[Array],
    solver: lx.AbstractLinearSolver,
    batches: tuple[Any, Any] = (None, None),
    v: PyTree[Array] | None = None,
    damping: Any = 0.0,
) -> Hypergradient:
    """F_x - f_xy v where (f_yy + damping) v = F_y by a solver, from v if there is one to start at.

    Where y has a set, v is along it only: `AbstractBilevel.reduced` says how.
    """
    upper, lower = batches
    F_x, F_y = problem.upper_gradient(x, y, upper)
    f_y = None if problem.sets[1] is None else problem.lower_gradient(x, y, lower)[1]
    tangent = problem.tangent(y, f_y)
    F_y, product = tangent(F_y), problem.reduced(x, y, tangent, lower)
    operator = lx.FunctionLinearOperator(
        lambda v: otu.add_scale(product(v), damping, v),
        jax.eval_shape(lambda: y),
        # As it is at a minimum: what solvers of Lineax check for is the word alone.
        (lx.symmetric_tag, lx.positive_semidefinite_tag),
        closure_convert=False,
    )
    # Called as a plain function, so that the products inside are counted like any other.
    options = {} if v is None else {"y0": v}
    v, result, _ = solver.compute(solver.init(operator, options), F_y, options)
    defined = finite(v)
    v = jax.tree.map(lambda leaf: jnp.where(defined, leaf, 0), v)
    failed = ~defined | (result == lx.RESULTS.breakdown)
    if problem.sets[1] is None:
        f_xv, f_yyv = problem.lower_product(x, y, v, lower)
    else:
        f_xv, f_yyv = problem.lower_product(x, y, tangent(v), lower)[0], product(v)
    return Hypergradient(otu.sub(F_x, f_xv), v, otu.sub(F_y, f_yyv), otu.norm(F_y), failed)


def require_influence(problem: AbstractBilevel, x: PyTree[Array], y: PyTree[Array]) -> None:
    """Refuse an x that moves neither F nor the lower answer, as far as autodiff can tell."""
    problem = problem.bare
    traced = jax.make_jaxpr(
        lambda x, y: (
            problem.upper_gradient(x, y, None)[0],
            problem.lower_product(x, y, y, None)[0],
        )
    )(x, y)
    # A derivative that is 0 whatever the point is made of a literal 0, by itself or spread out.
    zero = lambda var: isinstance(var, Literal) and not np.any(var.val)
    spread = {
        equation.outvars[0]
        for equation in traced.eqns
        if equation.primitive.name == "broadcast_in_dim" and zero(equation.invars[0])
    }
    if all(zero(var) or var in spread for var in traced.jaxpr.outvars):
        raise Refusal(
            "`x` must enter `upper`, or `lower` together with y: F_x and f_yx are 0 everywhere, "
            "and the hypergradient with them (that of a step size or of another hyperparameter of "
            "the lower level's method, for one)."
        )


def scan_keys(key: Array | None, steps: int) -> tuple[Array | None, Array | None, Array | None]:
    """Keys for later, for what follows a scan and for each of its steps; None if none is drawn."""
    if key is None:
        return None, None, None
    keys = jax.random.split(key, steps + 2)
    return keys[0], keys[1], keys[2:]


def estimated(
    problem: AbstractBilevel,
    level: int,
    now: tuple[PyTree[Array], PyTree[Array], PyTree[Array]],
    batches: tuple[Any, Any, Any],
    before: Any = None,
    estimate: Any = None,
    m: Any = 1.0,
) -> tuple[PyTree[Array], PyTree[Array], PyTree[Array]]:
    """The gradients of F and f at (x, y) and of f at (x, z), by x at `level` 0 and by y at 1.

    Where there is an estimate, its error is carried on from before: g + (1 - m) (estimate - g-).
    """
    upper, lower, apart = batches

    def gradients(x: PyTree[Array], y: PyTree[Array], z: PyTree[Array]) -> Any:
        F = problem.upper_gradient(x, y, upper)[level]
        f = problem.lower_gradient(x, y, lower)[level]
        return F, f, problem.lower_gradient(x, z, apart)[level]

    new = gradients(*now)
    if estimate is None:
        return new
    return otu.add_scale(new, 1 - m, otu.sub(estimate, gradients(*before)))


def as_transformation(upper: Any) -> optax.GradientTransformation:
    """The Optax transformation that a learning rate stands for, or the one that is given."""
    return upper if isinstance(upper, optax.GradientTransformation) else optax.sgd(upper)


def require_steps(method: Any, *names: str) -> None:
    """Refuse what is neither a positive step size nor an Optax transformation."""
    for name in names:
        if not isinstance(getattr(method, name), optax.GradientTransformation):
            in_range(method, name, 0)


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


def at_rest(upper: Any, before: PyTree[Array], after: PyTree[Array]) -> Bool[Array, ""]:
    """Whether a step moved nothing; one of an Optax transformation may still move on."""
    if isinstance(upper, optax.GradientTransformation):
        return jnp.array(False)
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    return jnp.all(jnp.array([jnp.array_equal(a, b) for a, b in pairs]))
