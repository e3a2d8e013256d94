"""ChebCB: predict what each parameter costs in a context by Chebyshev series, and trust the best.

Khodak, Chow, Balcan, Talwalkar (2024), Learning to Relax: Setting Solver Parameters Across a
Sequence of Linear System Instances; after Foster, Rakhlin (2020), Beyond UCB: Optimal and Efficient
Contextual Bandits with Regression Oracles.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from ..validate import whole_number
from ._shared import as_grid
from .tune_online import AbstractTuner


class ChebCBState(eqx.Module):
    coefficients: Float[Array, "d m"]
    gram: Float[Array, "d m m"]
    moments: Float[Array, "d m"]
    highest: Float[Array, ""]
    lowest: Float[Array, ""]
    error: Float[Array, ""]  # sum of squares of what the predictions were off by
    rounds: Int[Array, ""]
    arm: Int[Array, ""]
    features: Float[Array, " m"]


class ChebCB(AbstractTuner[ChebCBState]):
    """The ChebCB contextual bandit over a grid of values.

    For each value the cost is fitted as a Chebyshev series of the context, by least squares with
    coefficients bounded as those of a Lipschitz function are, where the range of costs seen stands
    for the Lipschitz constant. The value that is predicted to be best is suggested, others the less
    often the worse they are predicted to be (inverse-gap weighting). Its average cost approaches
    that of the best value for each context.

    Args:
        grid: the d values to try, of shape (d,).
        interval: least and largest context; contexts beyond are taken for the nearer of the two.
        degree: of the series; 5, as in the paper's experiments.

    Raises:
        ValueError: if `grid` is not a vector of finite numbers, or `interval` or `degree` is unfit.

    Example:
        The best value depends on the context: it is the nearer one.

        >>> import jax
        >>> import jax.numpy as jnp
        >>> tuner = ChebCB(jnp.array([0.0, 1.0]), interval=(0.0, 1.0), degree=1)
        >>> def play(state, given):
        ...     context, key = given
        ...     value, state = tuner.suggest(state, key, context)
        ...     return tuner.observe(state, 10 + 90 * abs(context - value)), value
        >>> contexts = jnp.tile(jnp.array([0.0, 1.0]), 50)
        >>> keys = jax.random.split(jax.random.key(0), 100)
        >>> state, values = jax.lax.scan(play, tuner.init(), (contexts, keys))
        >>> bool(jnp.mean(values[50:] == contexts[50:]) > 0.9)
        True
    """

    grid: Float[Array, " d"] = eqx.field(converter=as_grid)
    interval: tuple[float, float]
    degree: int = 5

    def __check_init__(self):
        whole_number(self.degree, "degree")
        try:
            low, high = map(float, self.interval)
        except (TypeError, ValueError):
            low, high = np.nan, np.nan
        if not (np.isfinite([low, high]).all() and low < high):
            raise ValueError(
                f"`interval` must be two finite numbers, low and high, got {self.interval!r}."
            )

    def init(self) -> ChebCBState:
        d, m, dtype = len(self.grid), self.degree + 1, self.grid.dtype
        count = jnp.zeros((), jnp.int32)
        return ChebCBState(
            coefficients=jnp.zeros((d, m), dtype),
            gram=jnp.zeros((d, m, m), dtype),
            moments=jnp.zeros((d, m), dtype),
            highest=jnp.array(-jnp.inf, dtype),
            lowest=jnp.array(jnp.inf, dtype),
            error=jnp.zeros((), dtype),
            rounds=count,
            arm=count,
            features=jnp.zeros(m, dtype),
        )

    def features(self, context: ArrayLike | None) -> Float[Array, " m"]:
        """The Chebyshev polynomials T_0 ... T_degree at the context."""
        if context is None:
            raise ValueError("`context` must be a number for ChebCB, got None.")
        low, high = self.interval
        x = 2 * (jnp.asarray(context, self.grid.dtype) - low) / (high - low) - 1
        angle = jnp.arccos(jnp.clip(x, -1, 1))
        return jnp.cos(jnp.arange(self.degree + 1, dtype=self.grid.dtype) * angle)

    def probabilities(self, state: ChebCBState, context: ArrayLike | None) -> Float[Array, " d"]:
        """With what probability each value is suggested in this context."""
        predicted = state.coefficients @ self.features(context)
        best = jnp.argmin(predicted)
        gaps = predicted - predicted[best]
        p = (1 / (len(self.grid) + self.exploitation(state) * gaps)).at[best].set(0)
        return p.at[best].set(1 - p.sum())

    def exploitation(self, state: ChebCBState) -> Float[Array, ""]:
        """How sharply gaps count: grows about linearly in the rounds t.

        It is 2 t sqrt(d t / (R + 2 t alpha^2)): R bounds the regret of the regression, and alpha
        is how closely a Lipschitz function can be approximated by such a series.
        """
        d, m, t = len(self.grid), self.degree + 1, state.rounds.astype(self.grid.dtype)
        spread = jnp.where(state.rounds > 0, state.highest - state.lowest, 0)
        alpha = (jnp.pi + 2 / jnp.pi * jnp.log(2 * m + 1)) / (2 * (m + 1)) * spread
        tiny = jnp.finfo(t.dtype).tiny
        return 2 * t * jnp.sqrt(d * t / jnp.maximum(state.error + 2 * t * alpha**2, tiny))

    def suggest(
        self, state: ChebCBState, key: Array, context: ArrayLike | None = None
    ) -> tuple[Float[Array, ""], ChebCBState]:
        p = self.probabilities(state, context)
        arm = jax.random.categorical(key, jnp.log(p)).astype(jnp.int32)
        drawn = (arm, self.features(context))
        return self.grid[arm], eqx.tree_at(lambda s: (s.arm, s.features), state, drawn)

    def observe(self, state: ChebCBState, cost: ArrayLike) -> ChebCBState:
        cost = jnp.asarray(cost, self.grid.dtype)
        arm, features = state.arm, state.features
        error = state.coefficients[arm] @ features - (cost - 1)
        highest = jnp.maximum(state.highest, cost)
        lowest = jnp.minimum(state.lowest, cost)
        gram = state.gram.at[arm].add(jnp.outer(features, features))
        moments = state.moments.at[arm].add((cost - 1) * features)
        orders = jnp.arange(1, self.degree + 1, dtype=cost.dtype)
        bound = jnp.append(highest, 2 * (highest - lowest) / orders)
        # Another arm meets bounds that have widened since its last fit when it is next drawn.
        fit = bounded_least_squares(gram[arm], moments[arm], bound)
        return ChebCBState(
            coefficients=state.coefficients.at[arm].set(fit),
            gram=gram,
            moments=moments,
            highest=highest,
            lowest=lowest,
            error=state.error + error**2,
            rounds=state.rounds + 1,
            arm=arm,
            features=features,
        )


@jax.jit
def bounded_least_squares(
    gram: Float[Array, "m m"], moment: Float[Array, " m"], bound: Float[Array, " m"]
) -> Float[Array, " m"]:
    """The least x'Gx/2 - h'x over |x| <= bound, by the active-set method.

    Where data are too few to settle x, a slight ridge picks about the shortest.
    """
    m, eps = len(moment), jnp.finfo(gram.dtype).eps
    gram = gram + eps**0.5 * jnp.trace(gram) / m * jnp.eye(m, dtype=gram.dtype)
    rounding = 100 * eps * jnp.abs(moment).max()

    def going(carry: Any) -> Bool[Array, ""]:
        _, _, done, steps = carry
        return ~done & (steps < 10 * m)

    def move(carry: Any) -> Any:
        x, free, _, steps = carry
        reduced = jnp.where(jnp.outer(free, free), gram, jnp.eye(m, dtype=gram.dtype))
        step = jnp.linalg.solve(reduced, jnp.where(free, moment - gram @ x, 0))
        room = jnp.where(step == 0, jnp.inf, (bound - jnp.sign(step) * x) / jnp.abs(step))
        blocker = jnp.argmin(room)
        blocked = room[blocker] < 1
        x = x + jnp.minimum(room[blocker], 1) * step
        x = jnp.where(blocked, x.at[blocker].set(jnp.sign(step[blocker]) * bound[blocker]), x)
        # At the least over the free entries, one that is pulled off its bound becomes free.
        pull = jnp.where(free, 0, jnp.sign(x) * (gram @ x - moment))
        freed = jnp.argmax(pull)
        done = ~blocked & (pull[freed] <= rounding)
        changed = jnp.where(blocked, free.at[blocker].set(False), free.at[freed].set(True))
        return x, changed, done, steps + 1

    start = jnp.zeros_like(moment), jnp.ones(m, bool), jnp.array(False), jnp.array(0)
    return jax.lax.while_loop(going, move, start)[0]
