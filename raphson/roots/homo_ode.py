"""A layer whose output is the end of an ODE that flows to an equilibrium from a learned start.

Ding, Cui, Wang, Shi (2023), Two Sides of The Same Coin: Bridging Deep Equilibrium Models and Neural
ODEs via Homotopy Continuation.
"""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

from ..validate import as_function, as_start, require_number


class Equilibrium(eqx.Module):
    """Where a `HomoODE` ended.

    Attributes:
        value: z at the end.
        residual: f(z, x) - z: nothing promises that the end is an equilibrium.
        evaluations: how often f was asked for.
    """

    value: Float[Array, " n"]
    residual: Float[Array, " n"]
    evaluations: Int[Array, ""]


class HomoODE(eqx.Module):
    """The equilibrium z = f(z, x) that dz/dt = f(z, x) - z leads to from z(0), learned with f.

    The start is shared by all inputs x. Trained with a loss that pulls it towards the equilibria,
    such as |z(0) - z|^2 with z held fixed, it shortens what is left to integrate.

    Args:
        cell: f(z, x), any Equinox module; the deep equilibrium model of the same size solves
            z = f(z, x) itself.
        start: z(0).
        time: how long to integrate at most, positive.
        tolerance: of the adaptive integration, relative and absolute, positive; it ends where the
            field is within it.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> block = rp.roots.HomoODE(lambda z, x: jnp.tanh(z / 2 + x), jnp.zeros(1))
        >>> end = block(jnp.array([0.3]))
        >>> bool(jnp.abs(end.residual[0]) < 1e-2), round(float(end.value[0]), 1)
        (True, 0.5)
    """

    cell: Callable[[Array, PyTree], Array]
    start: Float[Array, " n"]
    time: float
    tolerance: float

    def __init__(
        self,
        cell: Callable[[Array, PyTree], Array],
        start: ArrayLike,
        *,
        time: float = 100.0,
        tolerance: float = 1e-3,
    ):
        self.cell, self.start = as_function(cell, "cell"), as_start(start, "start")
        require_number(time, "`time`", 0)
        require_number(tolerance, "`tolerance`", 0)
        self.time, self.tolerance = time, tolerance

    def __call__(self, x: PyTree[Array]) -> Equilibrium:
        import diffrax as dfx  # a third of the time that `import raphson` would take

        field = lambda t, z, x: self.cell(z, x) - z
        solution = dfx.diffeqsolve(
            dfx.ODETerm(field),
            dfx.Tsit5(),
            0.0,
            self.time,
            None,
            self.start,
            x,
            stepsize_controller=dfx.PIDController(self.tolerance, self.tolerance),
            event=dfx.Event(dfx.steady_state_event()),
        )
        assert solution.ys is not None  # the end is saved
        z = solution.ys[-1]
        # Two to choose the first step, six for each step, and one for the residual.
        return Equilibrium(z, self.cell(z, x) - z, 6 * solution.stats["num_steps"] + 3)
