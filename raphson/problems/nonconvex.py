"""Generators of smooth functions that are not convex, with a known least value."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr
from jaxtyping import Array, Float

from ..problem import Facts
from ..smooth.problem import FiniteSum, Minimize
from ..validate import whole_number

# Phi(infinity) of the hard chain.
CHAIN_LIMIT = math.sqrt(2 * math.pi * math.e)


def rosenbrock(n: int = 2) -> Minimize:
    """Rosenbrock's chain, the sum of 100 (y_{i+1} - y_i^2)^2 + (1 - y_i)^2 over i from 1 to n - 1.

    From n = 4 on there is a second local minimizer, near (-1, 1, ..., 1).

    Args:
        n: number of unknowns, at least 2.

    Returns:
        The problem from y = (-1.2, 1, -1.2, 1, ...). Facts: `optimum` = 0 and `minimizer`, ones; it
        is not `convex`.

    Raises:
        ValueError: if `n` is unfit.

    Example:
        >>> problem = rosenbrock()
        >>> float(problem.value(problem.y0))
        24.2
    """
    n = whole_number(n, "n", 2)
    facts = Facts(optimum=0.0, minimizer=jnp.ones(n), convex=False)
    return Minimize(_rosenbrock, rosenbrock_start(n), facts=facts)


def rosenbrock_start(n: int) -> Float[Array, " n"]:
    """Rosenbrock's start, repeated along the chain."""
    return jnp.where(jnp.arange(n) % 2 == 0, -1.2, 1.0)


def polyak_lojasiewicz(n: int = 1) -> Minimize:
    """The sum of y_i^2 + 3 sin(y_i)^2: not convex, yet with only one stationary point.

    Karimi, Nutini, Schmidt (2016), Linear Convergence of Gradient and Proximal-Gradient Methods
    Under the Polyak-Lojasiewicz Condition, where the constant is given as 1/32.

    Args:
        n: number of unknowns.

    Returns:
        The problem from y = 3. Facts: `optimum` = 0 and `minimizer`, zeros; `lipschitz` = 8 and
        `hessian_lipschitz` = 12, both attained; `polyak_lojasiewicz` = 0.1755, the best possible to
        its digits (at |y| = 2.2017); it is not `convex`.

    Raises:
        ValueError: if `n` is unfit.

    Example:
        >>> problem = polyak_lojasiewicz(2)
        >>> problem.gradient(problem.facts.minimizer).tolist()
        [0.0, 0.0]
    """
    n = whole_number(n, "n", 1)
    facts = Facts(
        optimum=0.0,
        minimizer=jnp.zeros(n),
        lipschitz=8.0,
        polyak_lojasiewicz=0.1755,
        hessian_lipschitz=12.0,
        convex=False,
    )
    return Minimize(_polyak_lojasiewicz, jnp.full(n, 3.0), facts=facts)


def hard_nonconvex_chain(n: int = 30, *, seed: int | None = None) -> Minimize:
    """The chain on which no method of derivatives finds a stationary point fast.

    f(y) = -Psi(1) Phi(y_1) + sum over i from 2 to n of Psi(-y_{i-1}) Phi(-y_i)
    - Psi(y_{i-1}) Phi(y_i), where Psi(t) = exp(1 - 1 / (2t - 1)^2) for t > 1/2, else 0, and Phi(t)
    is the integral of exp(1/2 - s^2 / 2) up to t. To a method that starts at 0 and moves along what
    it has seen, derivatives of whatever order reveal at most one coordinate more at each point; but
    |g(y)| > 1 as long as |y_n| < 1. There is no minimizer: the least value is that at infinity.

    `raphson.Scaled(problem, 1 / s, L * s**2 / 152)` is L s^2/152 f(y / s), whose gradient is
    L-Lipschitz: with s = 152 e / L and n = L D / (1824 e^2) links, its least value is at most D
    below that at 0, and such a method does not find |g| <= e with n gradients.

    Carmon, Duchi, Hinder, Sidford (2017), Lower Bounds for Finding Stationary Points I; Zhang, Li
    (2022), Quantum Lower Bounds for Finding Stationary Points of Nonconvex Functions.

    Args:
        n: number of unknowns, the length of the chain.
        seed: of a random orthogonal U, for the problem f(U y), which hides the coordinates also
            from a method that knows of them; by default U is the identity.

    Returns:
        The problem from y = 0. Facts: `optimum` is the infimum, at most 12 n below f(0);
        `lipschitz` = 152, a bound that is not attained; it is not `convex`.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> problem = hard_nonconvex_chain(3)
        >>> problem.gradient(problem.y0).round(3).tolist()
        [-1.649, 0.0, 0.0]
    """
    n = whole_number(n, "n", 1)
    if seed is None:
        return Minimize(_hard_chain, jnp.zeros(n), facts=_hard_chain_facts(n))
    rng = np.random.default_rng(whole_number(seed, "seed"))
    rotation = jnp.asarray(np.linalg.qr(rng.standard_normal((n, n)))[0])
    return Minimize(_rotated_hard_chain, jnp.zeros(n), rotation, facts=_hard_chain_facts(n))


def hard_stochastic_chain(
    n: int = 30, one_in: int = 10, *, batch_size: int | None = 1
) -> FiniteSum:
    """The chain of `hard_nonconvex_chain`, of which few samples show the next link.

    Each sample has the value of the chain. Its gradient is that of the chain, times `one_in` for
    the first sample and times 0 for all others in the entries after the last |y_i| > 1/4. The mean
    over the samples is exact; a method that draws one of them a step waits `one_in` steps for each
    coordinate.

    Arjevani, Carmon, Duchi, Foster, Srebro, Woodworth (2019), Lower Bounds for Non-Convex
    Stochastic Optimization.

    Args:
        n: number of unknowns, the length of the chain.
        one_in: number of samples, 1 / q for the probability q of the paper.
        batch_size: samples that a stochastic method draws at each step; None for all of them.

    Returns:
        The problem from y = 0, with the facts of `hard_nonconvex_chain`.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> problem = hard_stochastic_chain(3, 4)
        >>> problem.batch_value_and_gradient(problem.y0, problem.data[1:2])[1].tolist()
        [0.0, 0.0, 0.0]
    """
    n, one_in = whole_number(n, "n", 1), whole_number(one_in, "one_in", 1)
    shown = jnp.zeros(one_in).at[0].set(one_in)
    facts = _hard_chain_facts(n)
    return FiniteSum(_hard_sample, jnp.zeros(n), shown, batch_size=batch_size, facts=facts)


def _rosenbrock(y: Float[Array, " n"], _: None) -> Float[Array, ""]:
    return jnp.sum(100 * (y[1:] - y[:-1] ** 2) ** 2 + (1 - y[:-1]) ** 2)


def _polyak_lojasiewicz(y: Float[Array, " n"], _: None) -> Float[Array, ""]:
    return jnp.sum(y**2 + 3 * jnp.sin(y) ** 2)


def _hard_chain(y: Float[Array, " n"], _: None) -> Float[Array, ""]:
    links = _psi(-y[:-1]) * _phi(-y[1:]) - _psi(y[:-1]) * _phi(y[1:])
    return jnp.sum(links) - _phi(y[0])


def _rotated_hard_chain(y: Float[Array, " n"], rotation: Float[Array, "n n"]) -> Float[Array, ""]:
    return _hard_chain(rotation @ y, None)


def _hard_sample(y: Float[Array, " n"], shown: Float[Array, ""], _: None) -> Float[Array, ""]:
    return _partly_shown(y, shown)


@jax.custom_jvp
def _partly_shown(y: Float[Array, " n"], shown: Float[Array, ""]) -> Float[Array, ""]:
    return _hard_chain(y, None)


@_partly_shown.defjvp
def _partly_shown_jvp(inputs: tuple[Array, Array], tangents: tuple[Array, Array]) -> Any:
    (y, shown), (v, _) = inputs, tangents
    value, gradient = jax.value_and_grad(_hard_chain)(y, None)
    reached = jnp.cumsum(jnp.abs(y[::-1]) > 0.25)[::-1] > 0
    return value, jnp.vdot(jnp.where(reached, 1, shown) * gradient, v)


def _psi(t: Float[Array, "..."]) -> Float[Array, "..."]:
    # Closer to 1/2 the exponential is below what double precision holds, and its derivatives would
    # be 0 times infinity.
    above = 2 * t - 1 > 0.03
    return jnp.where(above, jnp.exp(1 - 1 / jnp.where(above, 2 * t - 1, 1) ** 2), 0)


def _phi(t: Float[Array, "..."]) -> Float[Array, "..."]:
    return CHAIN_LIMIT * ndtr(t)


def _hard_chain_facts(n: int) -> Facts:
    # Every Psi is below e and every Phi below its limit, and far out all of them come near.
    return Facts(optimum=-CHAIN_LIMIT * (1 + (n - 1) * math.e), lipschitz=152.0, convex=False)
