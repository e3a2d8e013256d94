"""Two levels whose lower one has constraints that couple it to the upper unknown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as otu
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..composite import AbstractConvexSet
from ..problem import Facts, oracle, trace_function
from ..solution import Status
from ..validate import as_function, as_metrics, as_start, require_scalar, require_vector
from .problem import AbstractLevels, Pair, as_sets, symmetric_least_squares

Vectors = tuple[Float[Array, " p"], Float[Array, " q"]]


class ConstrainedBilevel(AbstractLevels):
    """Minimize F(x, y) over x, where y minimizes f(x, y) subject to g(x, y) <= 0 and h(x, y) = 0.

    An answer is judged by the conditions of Karush, Kuhn and Tucker of the lower level, with
    multipliers found by least squares, and by how its solution moves with x while the same
    constraints stay active.

    Args:
        upper: F as `upper(x, y, args)`, returning a real scalar.
        lower: f as `lower(x, y, args)`, likewise.
        x: where the upper unknown starts, a PyTree of floating-point arrays.
        y: where the lower unknown starts, likewise.
        args: any data for all functions; the answer can be differentiated by it.
        inequality: g as `inequality(x, y, args)`, returning arrays; none by default.
        equality: h likewise; bounds on y are constraints too. One of the two must be given.
        feasible: the pairs (x, y) that satisfy the constraints, jointly: a convex set of
            `raphson.composite` that takes the pair, or a function `feasible((x, y), args)` that
            returns the nearest of them. Methods that need it refuse a problem without.
        sets: a convex set of `raphson.composite` for x alone, and None.
        metrics: as in `Bilevel`.
        facts: what is known of the problem.
        **oracles: as in `Bilevel`.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> upper = lambda x, y, _: (x - 3.0) ** 2 + (y - 1.0) ** 2
        >>> lower = lambda x, y, _: (y - 4.0) ** 2
        >>> below = lambda x, y, _: y - x
        >>> problem = rp.bilevel.ConstrainedBilevel(upper, lower, 0.0, 0.0, inequality=below)
        >>> hypergradient, *_ = problem.optimality((jnp.array(3.0), jnp.array(3.0)))
        >>> round(float(hypergradient), 3)  # y follows x, and F along with it
        4.0
    """

    upper: Callable[..., Any]
    lower_fn: Callable[..., Any]
    inequality: Callable[..., Any] | None
    equality: Callable[..., Any] | None
    feasible: AbstractConvexSet | Callable[..., Any] | None
    y0: Pair
    args: PyTree
    sets: tuple[AbstractConvexSet | None, AbstractConvexSet | None]
    metrics: dict[str, Callable[..., Any]]
    oracles: dict[str, Callable[..., Any]]
    facts: Facts
    wrappers: tuple[Any, ...]

    def __init__(
        self,
        upper: Callable[[Any, Any, Any], Any],
        lower: Callable[[Any, Any, Any], Any],
        x: PyTree[ArrayLike],
        y: PyTree[ArrayLike],
        args: PyTree = None,
        *,
        inequality: Callable[[Any, Any, Any], Any] | None = None,
        equality: Callable[[Any, Any, Any], Any] | None = None,
        feasible: AbstractConvexSet | Callable[[Any, Any], Any] | None = None,
        sets: tuple[AbstractConvexSet | None, None] = (None, None),
        metrics: dict[str, Callable[[Any, Any], Any]] | None = None,
        facts: Facts | None = None,
        **oracles: Callable[..., Any],
    ):
        if inequality is None and equality is None:
            raise ValueError(
                "`inequality` or `equality` must be given: without constraints a `Bilevel` asks."
            )
        self.upper, self.lower_fn = as_function(upper, "upper"), as_function(lower, "lower")
        self.inequality = None if inequality is None else as_function(inequality, "inequality")
        self.equality = None if equality is None else as_function(equality, "equality")
        fits = feasible is None or isinstance(feasible, AbstractConvexSet) or callable(feasible)
        if not fits:
            raise ValueError(
                "`feasible` must be a convex set of `raphson.composite` for the pair (x, y), or a "
                f"function of the pair and `args`, got {feasible!r}."
            )
        self.feasible = feasible
        self.y0, self.args = (as_start(x, "x"), as_start(y, "y")), args
        self.sets, self.metrics = as_sets(sets), as_metrics(metrics)
        if self.sets[1] is not None:
            raise ValueError(
                "`sets` of a ConstrainedBilevel must have None for y: what bounds y is an "
                f"`inequality`, got {self.sets[1]!r}."
            )
        self.oracles, self.facts, self.wrappers = oracles, facts or Facts(), ()

    def upper_objective(self, x: Any, y: Any, batch: Any) -> Float[Array, ""]:
        return self.upper(x, y, self.args)

    def lower_objective(self, x: Any, y: Any, batch: Any) -> Float[Array, ""]:
        return self.lower_fn(x, y, self.args)

    @oracle
    def constraints(self, x: Any, y: Any) -> Vectors:
        """g(x, y) and h(x, y), each as one vector, empty where there is none."""
        dtype = jnp.result_type(*jax.tree.leaves(y))

        def vector(fn: Callable[..., Any] | None) -> Array:
            return jnp.zeros(0, dtype) if fn is None else ravel_pytree(fn(x, y, self.args))[0]

        return vector(self.inequality), vector(self.equality)

    @oracle
    def constraint_product(self, x: Any, y: Any, multipliers: Vectors) -> Pair:
        """The gradients by x and by y of the constraints, each times its multiplier, added up."""
        return jax.vjp(self.constraints, x, y)[1](multipliers)

    @oracle
    def nearest_feasible(self, z: Pair) -> Pair:
        """The nearest pair that satisfies the constraints."""
        if isinstance(self.feasible, AbstractConvexSet):
            nearest = self.feasible.project(z)
        else:
            nearest = self.feasible(z, self.args)  # pyright: ignore[reportOptionalCall]
        return jax.tree.map(lambda a, b: jnp.asarray(a, b.dtype), tuple(nearest), z)

    def optimality(self, y: Pair) -> PyTree[Array]:
        """The hypergradient, the conditions of the lower level, and what no adjoint explains.

        The conditions are those that f_y + g_y' a + h_y' b, the lesser of a and -g, and h vanish,
        with the multipliers a and b for which the first and a g are least. The adjoint solves the
        linear system of these conditions by least squares, with the constraints that are active.
        """
        x, y = y
        g, h = self.constraints(x, y)
        a, b = multipliers = self.multipliers((x, y))
        active = (a + g > 0).astype(g.dtype)

        def lagrangian(x: Any, y: Any) -> Pair:
            by_constraints = self.constraint_product(x, y, multipliers)
            return otu.add(self.lower_gradient(x, y, None), by_constraints)

        (_, L_y), of_lagrangian = jax.linearize(lagrangian, x, y)
        _, of_constraints = jax.linearize(self.constraints, x, y)
        still = otu.zeros_like(x)

        def product(adjoint: Any) -> tuple[Pair, Vectors]:
            """By x and y of the Lagrangian, and of the constraints."""
            v, (s, t) = adjoint
            by_constraints = self.constraint_product(x, y, (active * s, t))
            of_g, of_h = of_constraints(still, v)
            along = otu.add(of_lagrangian(still, v), by_constraints)
            return along, (active * of_g + (1 - active) * s, of_h)

        def symmetric(adjoint: Any) -> tuple[PyTree[Array], Vectors]:
            (_, by_y), rest = product(adjoint)
            return by_y, rest

        F_x, F_y = self.upper_gradient(x, y, None)
        given = F_y, otu.zeros_like((g, h))
        adjoint = symmetric_least_squares(symmetric, given)
        (moved, _), _ = product(adjoint)
        hypergradient, set_x = otu.sub(F_x, moved), self.sets[0]
        if set_x is not None:
            hypergradient = otu.sub(x, set_x.project(otu.sub(x, hypergradient)))
        conditions = L_y, jnp.minimum(a, -g), h
        return hypergradient, conditions, otu.sub(given, symmetric(adjoint))

    def multipliers(self, y: Pair) -> Vectors:
        """Those that explain f_y best, with a g for the weight that a constraint is inactive by."""
        x, y = y
        g, h = self.constraints(x, y)
        _, f_y = self.lower_gradient(x, y, None)

        def along(v: PyTree[Array]) -> Vectors:
            return jax.jvp(lambda y: self.constraints(x, y), (y,), (v,))[1]

        def product(ab: Vectors) -> Vectors:
            of_g, of_h = along(self.constraint_product(x, y, ab)[1])
            return of_g + g**2 * ab[0], of_h

        return symmetric_least_squares(product, otu.scale(-1, along(f_y)))

    def measures(self, y: Pair) -> dict[str, Float[Array, ""]]:
        return super().measures(y) | {"violation": otu.norm(self._violated(*y))}

    def diagnosed(self, y: Pair, status: Any) -> Any:
        """`infeasible` where no move of x and y makes the constraints any less violated."""
        violated = self._violated(*y)
        square = otu.norm(violated, squared=True)
        slope = self.constraint_product(*y, violated)
        # What a move as long as the pair promises.
        promised = otu.norm(slope) * (1 + otu.norm(y))
        eps = jnp.finfo(square.dtype).eps
        at_rest = (status == Status.stalled) | (status == Status.max_steps)
        flat = (square > eps) & (promised <= eps**0.25 * square)
        return Status.where(at_rest & flat, Status.infeasible, status)

    def traced(self, y: Pair) -> Self:
        fns: dict[str, Any] = {"upper": self.upper, "lower": self.lower_fn}
        fns |= {"inequality": self.inequality, "equality": self.equality}
        for name, fn in fns.items():
            if fn is not None:
                fns[name], out = trace_function(fn, *y, self.args, name=name)
                if name in ("upper", "lower"):
                    require_scalar(out, name)
                else:
                    require_vector(out, name)
        return eqx.tree_at(
            lambda p: (p.upper, p.lower_fn, p.inequality, p.equality),
            self,
            tuple(fns.values()),
            is_leaf=lambda leaf: leaf is None,
        )

    def rescaled(self, y_scale: Pair, value_scale: ArrayLike) -> Self:
        raise ValueError("a `ConstrainedBilevel` cannot be scaled: scale its functions.")

    def _violated(self, x: Any, y: Any) -> Vectors:
        g, h = self.constraints(x, y)
        return jnp.maximum(g, 0), h
