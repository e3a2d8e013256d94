"""Flows du/dt = f(u): their steady states and periodic orbits as equations."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..problem import Facts
from ..roots.problem import RootFind
from ..roots.shooting import periodic_orbit
from ..validate import require_number


def shear_flow9(
    reynolds: float = 100.0, length: float = 4 * math.pi, width: float = 2 * math.pi
) -> RootFind:
    """The steady states of nine Fourier modes of a shear flow between two walls.

    The flow is driven by a force that varies as a sine across the gap, without friction at the
    walls, and is the Galerkin projection of the Navier-Stokes equations on nine modes, of which the
    first is the laminar flow. The nonlinear terms conserve the energy |a|^2. Moehlis, Faisst,
    Eckhardt (2004), A Low-Dimensional Model for Turbulent Shear Flows.

    Args:
        reynolds: the Reynolds number, positive.
        length: period downstream, positive.
        width: period across the stream, positive.

    Returns:
        The problem from the laminar flow disturbed by 0.1 in each mode; its `fn` is the vector
        field. Fact: the root `minimizer`, the laminar flow (1, 0, ..., 0).

    Raises:
        ValueError: if an argument is not positive.

    Example:
        >>> problem = shear_flow9()
        >>> problem.residual(problem.facts.minimizer).tolist() == [0.0] * 9
        True
    """
    for value, name in ((reynolds, "reynolds"), (length, "length"), (width, "width")):
        require_number(value, f"`{name}`", 0)
    laminar = jnp.zeros(9).at[0].set(1)
    args = tuple(map(jnp.asarray, (reynolds, 2 * math.pi / length, 2 * math.pi / width)))
    return RootFind(_shear_flow9, laminar + 0.1, args, facts=Facts(minimizer=laminar))


def van_der_pol_orbit(damping: float = 1.0) -> RootFind:
    """The limit cycle of Van der Pol's oscillator x'' - m (1 - x^2) x' + x = 0.

    Its period is 6.6632868593 for m = 1.

    Args:
        damping: m, positive.

    Returns:
        The problem in (u, T), from u = (2, 0) and T = 6.5.

    Raises:
        ValueError: if `damping` is not positive.

    Example:
        >>> van_der_pol_orbit().y0[0].tolist()
        [2.0, 0.0]
    """
    require_number(damping, "`damping`", 0)
    return periodic_orbit(_van_der_pol, jnp.array([2.0, 0.0]), 6.5, jnp.asarray(damping))


def lorenz_orbit() -> RootFind:
    """The shortest periodic orbit of Lorenz's equations with s = 10, b = 8/3, r = 28.

    It is unstable, goes once around either wing and has the period 1.5586522107 (Viswanath, 2003,
    Symbolic Dynamics and Periodic Orbits of the Lorenz Attractor).

    Returns:
        The problem in (u, T), from u = (-13.7, -19.5, 27) and T = 1.55.

    Example:
        >>> lorenz_orbit().y0[0].tolist()
        [-13.7, -19.5, 27.0]
    """
    constants = tuple(map(jnp.asarray, (10.0, 8 / 3, 28.0)))
    return periodic_orbit(_lorenz, jnp.array([-13.7, -19.5, 27.0]), 1.55, constants)


def _van_der_pol(u: Float[Array, " 2"], m: Array) -> Float[Array, " 2"]:
    x, v = u
    return jnp.stack([v, m * (1 - x**2) * v - x])


def _lorenz(u: Float[Array, " 3"], args: tuple[Array, ...]) -> Float[Array, " 3"]:
    (x, y, z), (s, b, r) = u, args
    return jnp.stack([s * (y - x), x * (r - z) - y, x * y - b * z])


def _shear_flow9(a: Float[Array, " 9"], args: tuple[Array, ...]) -> Float[Array, " 9"]:
    a1, a2, a3, a4, a5, a6, a7, a8, a9 = a
    re, al, ga = args
    be = math.pi / 2
    ka, kb, kc = jnp.hypot(al, ga), jnp.hypot(be, ga), jnp.sqrt(al**2 + be**2 + ga**2)
    s, q = math.sqrt(3 / 2), 1 / math.sqrt(6)
    mean = a1 + a9
    up, bend = s * be * ga / kb, s * be * ga / kc
    turn, twist = q * al * be * ga / (ka * kb), q * al * be * ga / (ka * kc)
    third = 1 / (ka * kb * kc)
    return jnp.stack(
        [
            be**2 / re * (1 - a1) - bend * a6 * a8 + up * a2 * a3,
            -(4 * be**2 / 3 + ga**2) / re * a2
            + 10 / 3 * q * ga**2 / ka * a4 * a6
            - q * ga**2 / ka * a5 * a7
            - twist * a5 * a8
            - up * a3 * mean,
            -(be**2 + ga**2) / re * a3
            + 2 * turn * (a4 * a7 + a5 * a6)
            + q * third * (be**2 * (3 * al**2 + ga**2) - 3 * ga**2 * ka**2) * a4 * a8,
            -(al**2 + 4 * be**2 / 3) / re * a4
            - q * al * a5 * mean
            - 10 / 3 * q * al**2 / ka * a2 * a6
            - 3 * turn * a3 * a7
            - s * third * al**2 * be**2 * a3 * a8,
            -(al**2 + be**2) / re * a5
            + q * al * a4 * mean
            + q * al**2 / ka * a2 * a7
            - twist * a2 * a8
            + 2 * turn * a3 * a6,
            -(al**2 + 4 * be**2 / 3 + ga**2) / re * a6
            + q * al * a7 * mean
            + bend * a8 * mean
            + 10 / 3 * q * (al**2 - ga**2) / ka * a2 * a4
            - 4 * turn * a3 * a5,
            -(kc**2) / re * a7
            - q * al * a6 * mean
            + q * (ga**2 - al**2) / ka * a2 * a5
            + turn * a3 * a4,
            -(kc**2) / re * a8
            + 2 * twist * a2 * a5
            + q * third * ga**2 * (3 * al**2 - be**2 + 3 * ga**2) * a3 * a4,
            -9 * be**2 / re * a9 + up * a2 * a3 - bend * a6 * a8,
        ]
    )
