"""Periodic orbits as roots: shoot along the flow, from one point or several, and ask to come round.

Lakshmi, Fantuzzi, Fernandez-Caballero, Hwang, Chernyshenko (2020), Finding Extremal Periodic Orbits
with Polynomial Optimization, with Application to a Nine-Mode Model of Shear Flow; Viswanath (2003),
Symbolic Dynamics and Periodic Orbits of the Lorenz Attractor. With several points: Keller (1968),
Numerical Methods for Two-Point Boundary-Value Problems.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Complex, Float, PyTree

from ..validate import as_function, as_start, require_number, whole_number
from .problem import RootFind

Field = Callable[[Array, Any], Array]


def periodic_orbit(
    field: Field,
    u0: ArrayLike,
    period: ArrayLike,
    args: PyTree = None,
    *,
    tolerance: float = 1e-11,
    max_steps: int = 10_000,
) -> RootFind:
    """Find a point u and a period T such that the flow of du/dt = f(u) leads from u to u in T.

    The residual is phi_T(u) - u and f(u0)'(u - u0), which keeps u from sliding along its orbit.
    Diffrax integrates, adaptively. The Jacobian is [M - I, f(phi_T(u)); f(u0)', 0] with the
    monodromy matrix M, by forward sensitivities; there is no reverse mode, so that answers have
    derivatives by `jax.jvp` and `jax.jacfwd` alone.

    From one point, orbits that are long for their instability are out of reach: the residual then
    depends on u by more than rounding leaves of it. Multiple shooting reaches them: the unknown is
    u_1, ..., u_m, the residual phi_(T/m)(u_i) - u_(i+1), of the last phi_(T/m)(u_m) - u_1, and the
    condition that holds u_1. No segment then stretches errors by more than T/m of time does.

    Args:
        field: `field(u, args)`, f; such as the `fn` of a problem of `raphson.problems`.
        u0: a point near the orbit, a vector; for multiple shooting a matrix with m such points in
            its rows, T/m of time after one another.
        period: about T, positive.
        args: any data for `field`.
        tolerance: of the integration, relative and absolute, positive; 1e-5 for single precision.
        max_steps: of the integration; where it takes more, the residual is NaN.

    Returns:
        The problem in y = (u, T), u shaped as `u0`, for any method that solves equations.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> turn = lambda u, w: jnp.stack([-w * u[1], w * u[0]]) + (1 - u @ u) * u
        >>> problem = rp.roots.periodic_orbit(turn, [1.2, 0.0], 3.0, 2.0, tolerance=1e-5)
        >>> u, period = rp.solve(problem, atol=1e-3).value
        >>> round(float(period), 2)
        3.14
    """
    as_function(field, "field")
    whole_number(max_steps, "max_steps", 1)
    require_number(tolerance, "`tolerance`", 0)
    require_number(period, "`period`", 0)
    u = as_start(np.asarray(u0), "u0")
    if u.ndim not in (1, 2) or not u.size:
        raise ValueError(f"`u0` must be a point or have points in its rows, got shape {u.shape}.")
    start = u, jnp.asarray(period, u.dtype)
    return RootFind(_Shot(field, tolerance, max_steps), start, (args, jnp.atleast_2d(u)[0]))


def floquet_multipliers(problem: RootFind, y: tuple[Array, Array]) -> Complex[Array, " n"]:
    """The eigenvalues of the monodromy matrix, by which a turn stretches what is off the orbit.

    One of them is 1, along the orbit; the orbit attracts if all others lie within the unit circle.
    The monodromy matrix is the product of those of the segments, so that multipliers far below the
    greatest are lost to rounding.

    Args:
        problem: a problem of `periodic_orbit`.
        y: its answer (u, T).

    Returns:
        The multipliers, the greatest first.

    Raises:
        ValueError: if `problem` is not one of `periodic_orbit`.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> turn = lambda u, _: jnp.stack([-u[1], u[0]]) + 0.1 * (1 - u @ u) * u
        >>> problem = rp.roots.periodic_orbit(turn, [1.0, 0.0], 2 * jnp.pi, tolerance=1e-5)
        >>> rp.roots.floquet_multipliers(problem, problem.y0).real.round(2).tolist()
        [1.0, 0.28]
    """
    if not isinstance(getattr(problem, "fn", None), _Shot):
        raise ValueError(f"`problem` must be made by `periodic_orbit`, got {problem!r:.40}.")
    u, period = y
    n = u.shape[-1]

    def stretched(v: Array) -> Array:
        """M_i v of all segments, from the same v at both ends of each."""
        moves = jnp.broadcast_to(v, u.shape)
        return problem.jvp(y, (moves, jnp.zeros_like(period)))[0] + moves

    columns = jax.vmap(stretched)(jnp.eye(n, dtype=u.dtype)).reshape(n, -1, n)
    segments = jnp.moveaxis(columns, 0, -1)
    monodromy = reduce(lambda product, segment: segment @ product, segments)
    multipliers = jnp.linalg.eigvals(monodromy)
    return multipliers[jnp.argsort(-jnp.abs(multipliers))]


class _Shot(eqx.Module):
    """What the flow misses by, from each point to the next."""

    field: Field = eqx.field(static=True)
    tolerance: float
    max_steps: int = eqx.field(static=True)

    def __call__(
        self, y: tuple[Array, Array], args: tuple[Any, Array]
    ) -> tuple[Float[Array, "..."], Float[Array, ""]]:
        import diffrax as dfx  # a third of the time that `import raphson` would take

        (u, period), (data, anchor) = y, args
        points = jnp.atleast_2d(u)
        field = jax.vmap(lambda point: self.field(point, data))
        solution = dfx.diffeqsolve(
            # Time in units of a segment's, by which the ends are differentiated too.
            dfx.ODETerm(lambda t, points, time: time * field(points)),
            dfx.Dopri8(),
            0.0,
            1.0,
            None,
            points,
            period / len(points),
            stepsize_controller=dfx.PIDController(self.tolerance, self.tolerance),
            adjoint=dfx.ForwardMode(),
            max_steps=self.max_steps,
            throw=False,
        )
        assert solution.ys is not None
        arrived = solution.result == dfx.RESULTS.successful
        ends = jnp.where(arrived, solution.ys[-1], jnp.nan)
        missed = (ends - jnp.roll(points, -1, axis=0)).reshape(u.shape)
        return missed, jnp.vdot(self.field(anchor, data), points[0] - anchor)
