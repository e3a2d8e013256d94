"""The settings of a dynamic range compressor, from what it makes of a signal.

Yu, Fazekas and others (2025), Sound Matching an Analogue Levelling Amplifier Using the
Newton-Raphson Method.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..problem import Facts
from ..roots.problem import LeastSquares
from ..validate import require_number, whole_number

# Threshold in dB, ratio, attack and release in ms, make-up in dB.
SETTINGS = (-24.0, 4.0, 10.0, 120.0, 6.0)


def compressor_match(
    sample_rate: int = 8000, seconds: float = 0.5, *, seed: int = 0
) -> LeastSquares:
    """Find the five settings of a compressor by which it makes the given sound of another.

    A sample x of level e = 20 log10 |x| is due a gain of (1/R - 1) max(e - T, 0) dB. The gain in
    force goes after that by a part of the way per sample: 1 - exp(-2200 / (ms sample_rate)), with
    the time of the attack in ms where it falls and that of the release where it rises. It and the
    make-up gain are put on x. Compared are the sounds after a filter that lifts the high notes,
    (1 - z^-1) / (1 - 0.995 z^-1).

    The signal is noise in bursts. The unknowns are T / 10, log(R - 1), the logarithms of both times
    in ms, and the make-up / 10, so that all are of order 1 and none has bounds.

    Args:
        sample_rate: samples a second.
        seconds: length of the signal.
        seed: of the noise.

    Returns:
        The problem from settings that are 30 % off. Facts: the `minimizer`, where the residual is
        0; `raphson.problems.compressor.settings` reads it in dB and ms.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> problem = compressor_match(2000, 0.2)
        >>> settings(problem.facts.minimizer).round(3).tolist()
        [-24.0, 4.0, 10.0, 120.0, 6.0]
        >>> settings(problem.y0).round(3).tolist()
        [-16.8, 2.8, 13.0, 84.0, 4.2]
    """
    rate = whole_number(sample_rate, "sample_rate", 100)
    require_number(seconds, "`seconds`", 0, 1000)
    samples = whole_number(round(rate * seconds), "sample_rate * seconds", 10)
    rng = np.random.default_rng(whole_number(seed, "seed"))
    # Bursts of all levels, each followed by a rest at a hundredth of it.
    edges = np.arange(samples) * 20 // samples
    levels = np.where(edges % 2, 0.01, 1.0) * rng.uniform(0.1, 1, 20)[edges]
    x = jnp.asarray(levels * rng.standard_normal(samples))
    answer = _unknowns(np.array(SETTINGS))
    target = _filtered(_compressed(answer, x, jnp.asarray(float(rate))))
    y0 = _unknowns(np.array(SETTINGS) * np.array([0.7, 0.7, 1.3, 0.7, 0.7]))
    args = (x, target, jnp.asarray(float(rate)))
    return LeastSquares(_residual, y0, args, facts=Facts(optimum=0.0, minimizer=answer))


def settings(y: Float[Array, " 5"]) -> Float[Array, " 5"]:
    """Threshold in dB, ratio, attack and release in ms, make-up in dB, of the unknowns `y`."""
    return jnp.stack([10 * y[0], 1 + jnp.exp(y[1]), jnp.exp(y[2]), jnp.exp(y[3]), 10 * y[4]])


def _unknowns(values: np.ndarray) -> Float[Array, " 5"]:
    threshold, ratio, attack, release, makeup = values
    logarithms = np.log([ratio - 1, attack, release])
    return jnp.asarray(np.concatenate([[threshold / 10], logarithms, [makeup / 10]]))


def _compressed(
    y: Float[Array, " 5"], x: Float[Array, " n"], rate: Float[Array, ""]
) -> Float[Array, " n"]:
    threshold, ratio, attack, release, makeup = settings(y)
    level = 20 * jnp.log10(jnp.maximum(jnp.abs(x), 1e-10))
    due = (1 / ratio - 1) * jnp.maximum(level - threshold, 0)
    fall, rise = (1 - jnp.exp(-2200 / (time * rate)) for time in (attack, release))

    def follow(gain: Array, due: Array) -> tuple[Array, Array]:
        gain = gain + jnp.where(due < gain, fall, rise) * (due - gain)
        return gain, gain

    _, gain = jax.lax.scan(follow, jnp.zeros_like(threshold), due)
    return x * 10 ** ((gain + makeup) / 20)


def _filtered(x: Float[Array, " n"]) -> Float[Array, " n"]:
    """y_k = x_k - x_{k-1} + 0.995 y_{k-1}."""
    steps = jnp.diff(x, prepend=jnp.zeros_like(x[:1]))

    def recur(y: Array, step: Array) -> tuple[Array, Array]:
        y = 0.995 * y + step
        return y, y

    return jax.lax.scan(recur, jnp.zeros_like(x[0]), steps)[1]


def _residual(y: Float[Array, " 5"], args: tuple[Array, ...]) -> Float[Array, " n"]:
    x, target, rate = args
    return _filtered(_compressed(y, x, rate)) - target
