"""The proximal Lagrangian: constraints that couple two levels, by gradients alone.

Yao, Yu, Zeng, Zhang (2024), Constrained Bi-Level Optimization: Proximal Lagrangian Value Function
Approach and Hessian-free Algorithm.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, Int, PyTree

from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ..validate import in_range
from .constrained import ConstrainedBilevel, Vectors
from .problem import AbstractLevels, Pair


class ProximalLagrangianState(eqx.Module):
    theta: PyTree[Array]  # near a saddle of the proximal Lagrangian, with the multipliers
    multipliers: Vectors
    centers: Vectors
    count: Int[Array, ""]


class ProximalLagrangian(AbstractMethod[ProximalLagrangianState]):
    """The Hessian-free method of the proximal Lagrangian value function.

    The lower level is replaced by the constraint that f(x, y) does not exceed the saddle value of

        f(x, t) + a'g(x, t) + |t - y|^2 / (2 r) - |a - z|^2 / (2 q)     over t and a >= 0

    whose penalty at step k = 0, 1, ... is w = penalty (k + 1)^power. With P the projection on the
    pairs that satisfy the constraints:

        t  =  t - d (f_y(x, t) + g_y(x, t)'a + (t - y) / r)
        a  =  max(a + d (g(x, t) - (a - z) / q), 0)
        u  =  F_x / w + f_x(x, y) - f_x(x, t) - g_x(x, t)'a
        v  =  F_y / w + f_y(x, y) - (y - t) / r
        x, y  =  P(x - s u, y - s v)          z  =  z + e (a - z) / q, at most `bound`

    Multipliers of equations may have either sign. The bias falls like 1 / w. Without constraints
    there is no a, and P projects on the sets.

    Args:
        step_size: s, positive.
        inner_step_size: d, positive; the larger g_y is, the smaller.
        center_step_size: e, positive, at most q.
        radius: r, positive; below 1 / L where f may be concave in y, of a curvature L at most.
        multiplier_radius: q, positive.
        penalty: w of the first step, positive.
        power: in (0, 1/2).
        bound: of the multipliers' centers, positive; more than the true multipliers.

    Raises:
        ValueError: if a hyperparameter is outside its range, or the problem has constraints but no
            `feasible`.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> upper = lambda x, y, _: (x - 3.0) ** 2 + (y - 1.0) ** 2
        >>> lower = lambda x, y, _: (y - 4.0) ** 2
        >>> def nearest(z, _):
        ...     above = jnp.maximum(z[1] - z[0], 0)
        ...     return z[0] + above / 2, z[1] - above / 2
        >>> below = {"inequality": lambda x, y, _: y - x, "feasible": nearest}
        >>> problem = rp.bilevel.ConstrainedBilevel(upper, lower, 0.0, 0.0, **below)
        >>> method = rp.bilevel.ProximalLagrangian()
        >>> x, y = rp.solve(problem, method, max_steps=3000, throw=False).value
        >>> round(float(x), 1), round(float(y), 1)
        (2.0, 2.0)
    """

    step_size: float = 0.1
    inner_step_size: float = 0.1
    center_step_size: float = 0.1
    radius: float = 10.0
    multiplier_radius: float = 10.0
    penalty: float = 1.0
    power: float = 0.3
    bound: float = 1000.0

    question: ClassVar[type[AbstractProblem]] = AbstractLevels

    def __check_init__(self):
        for name in ("step_size", "inner_step_size", "radius", "multiplier_radius", "penalty"):
            in_range(self, name, 0)
        in_range(self, "center_step_size", 0)
        in_range(self, "power", 0, 0.5)
        in_range(self, "bound", 0)

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> ProximalLagrangianState:
        count, none = jnp.array(0, jnp.int32), jnp.zeros(0, jnp.result_type(*jax.tree.leaves(y)))
        if not isinstance(problem, ConstrainedBilevel):
            theta = problem.project(y)[1]
            return ProximalLagrangianState(theta, (none, none), (none, none), count)
        if problem.feasible is None:
            raise ValueError(
                "`feasible` of the ConstrainedBilevel must be given for ProximalLagrangian, which "
                "projects on the pairs that satisfy the constraints, got None."
            )
        zeros = otu.zeros_like(problem.constraints(*y))
        return ProximalLagrangianState(y[1], zeros, zeros, count)

    def step(
        self, problem: Any, y: PyTree[Array], state: ProximalLagrangianState
    ) -> tuple[PyTree[Array], ProximalLagrangianState]:
        (x, y), t, (a, b), z = y, state.theta, state.multipliers, state.centers
        dtype = jnp.result_type(*jax.tree.leaves(x))
        # In the precision of the levels, whatever the numbers came in.
        own = jax.tree.map(lambda number: jnp.asarray(number, dtype), self)
        s, d, e = own.step_size, own.inner_step_size, own.center_step_size
        r, q, bound = own.radius, own.multiplier_radius, own.bound
        w = own.penalty * (state.count.astype(dtype) + 1) ** own.power
        constrained = isinstance(problem, ConstrainedBilevel)

        def by_multipliers(t: PyTree[Array], multipliers: Vectors) -> Pair:
            """The gradients by x and y of f + a'g + b'h."""
            of_f = problem.lower_gradient(x, t, None)
            if not constrained:
                return of_f
            return otu.add(of_f, problem.constraint_product(x, t, multipliers))

        _, slope = by_multipliers(t, (a, b))
        t = otu.add_scale(t, -d, otu.add_scale(slope, 1 / r, otu.sub(t, y)))
        if constrained:
            climb = otu.add_scale(problem.constraints(x, t), -1 / q, otu.sub((a, b), z))
            a, b = otu.add_scale((a, b), d, climb)
            a = jnp.maximum(a, 0)
        else:
            t = problem.project((x, t))[1]

        F_x, F_y = problem.upper_gradient(x, y, None)
        f_x, f_y = problem.lower_gradient(x, y, None)
        u = otu.sub(f_x, by_multipliers(t, (a, b))[0])
        v = otu.add_scale(f_y, -1 / r, otu.sub(y, t))
        after = otu.add_scale((x, y), -s, otu.add_scale((u, v), 1 / w, (F_x, F_y)))
        after = problem.nearest_feasible(after) if constrained else problem.project(after)
        z = otu.add_scale(z, e / q, otu.sub((a, b), z))
        z = jax.tree.map(lambda each: jnp.clip(each, -bound, bound), z)
        return after, ProximalLagrangianState(t, (a, b), z, state.count + 1)

    def known(self, problem: Any, y: PyTree[Array], state: ProximalLagrangianState) -> Known:
        return Known()
