"""Tsallis-INF: draw a parameter by how little it has cost, the sooner the more at random.

Zimmert, Seldin (2021), Tsallis-INF: An Optimal Algorithm for Stochastic and Adversarial Bandits;
Khodak, Chow, Balcan, Talwalkar (2024), Learning to Relax: Setting Solver Parameters Across a
Sequence of Linear System Instances.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from ._shared import as_grid
from .tune_online import AbstractTuner


class TsallisINFState(eqx.Module):
    losses: Float[Array, " d"]  # estimates of what each arm would have cost so far
    total: Float[Array, ""]
    rounds: Int[Array, ""]
    arm: Int[Array, ""]
    probability: Float[Array, ""]


class TsallisINF(AbstractTuner[TsallisINFState]):
    """The Tsallis-INF bandit over a grid of values.

    On average over T rounds it costs O(sqrt(d / T)) more than the best of the d values in
    hindsight, whatever the costs. Contexts are ignored. Costs are measured in units of their mean,
    so that no range need be known; the learning rate is 2 / sqrt(t) in round t.

    Args:
        grid: the d values to try, of shape (d,). A coarse grid is learned sooner: the paper takes
            `jnp.linspace(1, 1.95, 20)` for the relaxation parameter of `SOR`.

    Raises:
        ValueError: if `grid` is not a vector of finite numbers.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> tuner = TsallisINF(jnp.array([1.0, 1.5]))
        >>> state = tuner.init()
        >>> for key in jax.random.split(jax.random.key(0), 30):
        ...     omega, state = tuner.suggest(state, key)
        ...     state = tuner.observe(state, 90 if omega == 1.0 else 10)
        >>> bool(tuner.probabilities(state)[1] > 0.8)
        True
    """

    grid: Float[Array, " d"] = eqx.field(converter=as_grid)

    def init(self) -> TsallisINFState:
        zero = jnp.zeros((), self.grid.dtype)
        count = jnp.zeros((), jnp.int32)
        return TsallisINFState(jnp.zeros_like(self.grid), zero, count, count, zero)

    def probabilities(self, state: TsallisINFState) -> Float[Array, " d"]:
        """With what probability each value is suggested next."""
        eta = 2 / jnp.sqrt((state.rounds + 1).astype(self.grid.dtype))
        mean = jnp.where(state.total > 0, state.total / jnp.maximum(state.rounds, 1), 1)
        return tsallis_distribution(state.losses / mean, eta)

    def suggest(
        self, state: TsallisINFState, key: Array, context: ArrayLike | None = None
    ) -> tuple[Float[Array, ""], TsallisINFState]:
        p = self.probabilities(state)
        arm = jax.random.categorical(key, jnp.log(p)).astype(jnp.int32)
        state = TsallisINFState(state.losses, state.total, state.rounds, arm, p[arm])
        return self.grid[arm], state

    def observe(self, state: TsallisINFState, cost: ArrayLike) -> TsallisINFState:
        loss = jnp.asarray(cost, self.grid.dtype) - 1
        losses = state.losses.at[state.arm].add(loss / state.probability)
        return TsallisINFState(
            losses, state.total + loss, state.rounds + 1, state.arm, state.probability
        )


@jax.jit
def tsallis_distribution(losses: Float[Array, " d"], eta: Float[Array, ""]) -> Float[Array, " d"]:
    """p_i = 4 (eta (losses_i - u))^-2, its normalizer u found by Newton's method."""
    losses = losses - losses.min()

    def newton(_: int, u: Float[Array, ""]) -> Float[Array, ""]:
        p = 4 / (eta * (losses - u)) ** 2
        return u - (p.sum() - 1) / (eta * (p**1.5).sum())

    # At this start the least loss alone has probability 1. The sum is convex in u and at least 1
    # there, so that the steps fall to the normalizer and never cross the pole at the least loss.
    u = jax.lax.fori_loop(0, 20, newton, -2 / eta)
    p = 4 / (eta * (losses - u)) ** 2
    return p / p.sum()
