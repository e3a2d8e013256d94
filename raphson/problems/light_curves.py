"""Light curves of an eclipsing binary star: fits of a physical and of a phenomenological model.

After Tkachenko, Andronov (2014), Determination of Characteristics of Eclipsing Binaries with Spots:
Phenomenological vs Physical Models; Andronov, Tkachenko (2013), Comparative Analysis of Numerical
Methods for Parameter Determination. Their stars are not ours: the observations are synthetic.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..roots.problem import LeastSquares
from ..validate import whole_number
from ._shared import positive

# What the observations are made from: inclination in radians, radii, light of the first star.
STAR = (float(np.deg2rad(87.0)), 0.25, 0.15, 0.7)


def eclipsing_binary(n: int = 200, *, noise: float = 0.005, seed: int = 0) -> LeastSquares:
    """Two spherical stars on a circular orbit that eclipse one another: their measures from light.

    The unknowns are the inclination i of the orbit in radians, the radii R_1 and R_2 over that of
    the orbit, and the share l_1 of the first star in the light; the second star has the rest. At
    phase p the discs are z = sqrt(1 - sin^2 i cos^2 2 pi p) apart; of the light is lost what their
    overlap is of the star behind, times its share: the first star is behind near p = 0, the second
    near p = 1/2. A residual is a magnitude's error over the noise.

    Args:
        n: number of observations, at phases that are even in [-1/4, 3/4).
        noise: standard deviation of a magnitude, positive.
        seed: of the noise.

    Returns:
        The problem from parameters that are about 10 % off. The observations are made from
        `raphson.problems.light_curves.STAR`; no minimizer is known, as the noise moves it. The
        stars may change places, and a start without eclipses has no gradient that leads to them.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> import raphson as rp
        >>> i, R_1, R_2, l_1 = rp.solve(eclipsing_binary()).value
        >>> round(float(R_1), 2), round(float(R_2), 2)
        (0.25, 0.15)
    """
    y0 = jnp.array(STAR) * jnp.array([0.98, 1.1, 0.92, 0.9])
    return LeastSquares(_physical_residual, y0, _observed(n, noise, seed))


def eclipsing_binary_nav(n: int = 200, *, noise: float = 0.005, seed: int = 0) -> LeastSquares:
    """The same light by the phenomenological model NAV: waves, and an eclipse of a special shape.

    The magnitude at phase p is C_1 + C_2 cos 2 pi p + C_3 sin 2 pi p + C_4 cos 4 pi p +
    C_5 sin 4 pi p + C_6 H(p; w, b_1) + C_7 H(p - 1/2; w, b_2), where H(z; w, b) =
    (1 - |z / w|^b)^(3/2) for phases |z| < w and 0 elsewhere. The ten unknowns are C_1 to C_7, the
    half-width w of both eclipses, and their shapes b_1 and b_2.

    Args:
        n: as in `eclipsing_binary`.
        noise: as in `eclipsing_binary`.
        seed: as in `eclipsing_binary`.

    Returns:
        The problem from half-width 0.08 and shapes 1, with depths 1/2.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> import raphson as rp
        >>> solution = rp.solve(eclipsing_binary_nav(), throw=False)
        >>> 0.05 < float(solution.value[7]) < 0.07
        True
    """
    y0 = jnp.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0.08, 1.0, 1.0])
    return LeastSquares(_nav_residual, y0, _observed(n, noise, seed))


def eclipsed_magnitude(y: Float[Array, " 4"], phases: Float[Array, " n"]) -> Float[Array, " n"]:
    """The magnitude of the binary with parameters (i, R_1, R_2, l_1) at `phases`."""
    i, R1, R2, l1 = y
    # Of cos^2 i rather than 1 - sin^2 i, which rounds near the eclipse.
    z2 = jnp.cos(i) ** 2 + (jnp.sin(i) * jnp.sin(2 * jnp.pi * phases)) ** 2
    # The derivative of a root is infinite at 0, where an orbit seen edge-on has its mid-eclipse.
    z = jnp.sqrt(jnp.where(z2 > 0, z2, 1))
    z = jnp.where(z2 > 0, z, 0)
    overlap = _overlap(z, R1, R2) / jnp.pi
    behind = jnp.where(jnp.cos(2 * jnp.pi * phases) > 0, l1 / R1**2, (1 - l1) / R2**2)
    return -2.5 * jnp.log10(1 - behind * overlap)


def _overlap(z: Float[Array, " n"], R1: Array, R2: Array) -> Float[Array, " n"]:
    """The area that discs of radii R1 and R2 have in common, their centers z apart."""
    smaller = jnp.minimum(jnp.abs(R1), jnp.abs(R2))
    apart, within = z >= R1 + R2, z <= jnp.abs(R1 - R2)
    partial = ~(apart | within)
    # Beyond the contacts the formula has no derivative; there it is asked elsewhere.
    z = jnp.where(partial, z, jnp.sqrt(R1**2 + R2**2))
    first = R1**2 * jnp.arccos((z**2 + R1**2 - R2**2) / (2 * z * R1))
    second = R2**2 * jnp.arccos((z**2 + R2**2 - R1**2) / (2 * z * R2))
    square = (-z + R1 + R2) * (z + R1 - R2) * (z - R1 + R2) * (z + R1 + R2)
    crossing = first + second - jnp.sqrt(square) / 2
    return jnp.where(partial, crossing, jnp.where(apart, 0, jnp.pi * smaller**2))


def _nav_magnitude(y: Float[Array, " 10"], phases: Float[Array, " n"]) -> Float[Array, " n"]:
    *C, w, b1, b2 = y
    angle = 2 * jnp.pi * phases
    waves = [jnp.ones_like(angle), jnp.cos(angle), jnp.sin(angle)]
    waves += [jnp.cos(2 * angle), jnp.sin(2 * angle)]
    eclipses = [_eclipse(phases, w, b1), _eclipse(phases - 0.5, w, b2)]
    return jnp.stack(C) @ jnp.stack(waves + eclipses)


def _eclipse(phases: Float[Array, " n"], w: Array, b: Array) -> Float[Array, " n"]:
    """H(z; w, b), with z wrapped to [-1/2, 1/2]."""
    ratio = jnp.abs(phases - jnp.round(phases)) / w
    inside = (ratio < 1) & (ratio > 0)
    depth = 1 - jnp.where(inside, ratio, 0.5) ** b
    shape = jnp.where(inside, depth, 1) ** 1.5
    return jnp.where(inside, shape, jnp.where(ratio == 0, 1, 0))


def _physical_residual(y: Float[Array, " 4"], args: tuple[Array, ...]) -> Float[Array, " n"]:
    phases, magnitudes, noise = args
    return (eclipsed_magnitude(y, phases) - magnitudes) / noise


def _nav_residual(y: Float[Array, " 10"], args: tuple[Array, ...]) -> Float[Array, " n"]:
    phases, magnitudes, noise = args
    return (_nav_magnitude(y, phases) - magnitudes) / noise


def _observed(n: int, noise: float, seed: int) -> tuple[Array, Array, Array]:
    """Phases, magnitudes, and the standard deviation of these."""
    rng = np.random.default_rng(whole_number(seed, "seed"))
    phases = jnp.asarray(np.arange(whole_number(n, "n", 10)) / n - 0.25)
    clean = eclipsed_magnitude(jnp.array(STAR), phases)
    errors = jnp.asarray(positive(noise, "noise") * rng.standard_normal(n), clean.dtype)
    return phases, clean + errors, jnp.asarray(noise, clean.dtype)
