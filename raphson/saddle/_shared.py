"""What the methods of two players share: steps that may be a pair, F clipped, proximal steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp
import optax.projections
import optax.tree as otu
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..problem import Facts, oracle
from ..validate import in_range
from .problem import AbstractVariational


def moved(z: PyTree[Array], step_size: Any, direction: PyTree[Array]) -> PyTree[Array]:
    """z - s d, with one step size s for all of z or one for each player."""

    def along(s: Any, z: PyTree[Array], d: PyTree[Array]) -> PyTree[Array]:
        return jax.tree.map(lambda z, d: z - jnp.asarray(s, z.dtype) * d, z, d)

    return jax.tree.map(along, step_size, z, direction)


def asked(problem: Any, z: PyTree[Array], batch: PyTree[Array] | None) -> PyTree[Array]:
    """F(z), estimated on a batch where there is one."""
    return problem.operator(z) if batch is None else problem.batch_operator(z, batch)


def clipped(operator: PyTree[Array], clip: Any) -> PyTree[Array]:
    """What F answered, scaled to the length `clip` where it is longer and there is a limit."""
    return operator if clip is None else optax.projections.projection_l2_ball(operator, clip)


def scheduled(number: Any, count: Float[Array, ""]) -> Any:
    """A hyperparameter at a step: itself, or what a function of the step count says."""
    return number(count) if callable(number) else number


def require_positive(method: Any, name: str, *, pair: bool = False, schedule: bool = False) -> None:
    """Refuse what is no positive number nor, where it may be one, a pair or a function."""
    value = getattr(method, name)
    if isinstance(value, tuple) and not (pair and len(value) == 2):
        wanted = "one number or a pair, for x and for y" if pair else "one number"
        raise ValueError(f"`{name}` of {method.name} must be {wanted}, got {value!r}.")
    unknown = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value))
    if not (unknown or (schedule and callable(value))):
        in_range(method, name, 0)


def require_players(method: Any, problem: Any) -> None:
    """Refuse a pair of step sizes where the iterate is not the pair of players."""
    if isinstance(method.step_size, tuple) and not problem.two_players:
        raise ValueError(
            f"`step_size` of {method.name} may be a pair only for a Saddle, whose iterate is "
            f"the pair of players, got a {type(problem).__name__}."
        )


class ProximalStep(AbstractVariational):
    """Find z where 0 is in F(z) + G(z) + (z - u) / s, through the door of the problem of F and G.

    F is that of the problem or another, asked as it is; the last term belongs to the resolvent, in
    closed form. Where s is a pair, a step for each player, the unknown is not z but z / sqrt s, for
    which the last term is strongly monotone with the modulus 1, whatever s.
    """

    problem: AbstractVariational
    fn: Callable[[PyTree[Array]], PyTree[Array]] | None
    y0: PyTree[Array]
    step_size: ArrayLike
    units: tuple[Array, Array] | None
    metrics: dict[str, Any]
    args: PyTree
    oracles: dict[str, Any]
    facts: Facts
    wrappers: tuple[Any, ...]

    def __init__(self, problem: AbstractVariational, u: Any, step_size: Any, fn: Any = None):
        self.problem, self.fn, self.y0 = problem, fn, u
        self.step_size, self.units = step_size, None
        if isinstance(step_size, tuple):
            self.step_size, self.units = 1.0, (step_size[0] ** 0.5, step_size[1] ** 0.5)
            self.y0 = self._scaled(u)
        self.metrics, self.args, self.oracles = {}, None, {}
        self.facts, self.wrappers = Facts(), ()

    @property
    def smooth(self) -> bool:
        return False

    @property
    def two_players(self) -> bool:
        return self.problem.two_players

    @property
    def stochastic(self) -> bool:
        return self.problem.stochastic

    @property
    def num_samples(self) -> int:
        """How many samples the data hold."""
        return self.problem.num_samples  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def batch_size(self) -> int:
        """How many are drawn."""
        return self.problem.batch_size  # pyright: ignore[reportAttributeAccessIssue]

    def unscaled(self, z: PyTree[Array]) -> PyTree[Array]:
        """What the unknown stands for."""
        return z if self.units is None else jax.tree.map(otu.scale, self.units, z)

    def field(self, z: PyTree[Array]) -> PyTree[Array]:
        return self.unscaled((self.fn or self.problem.operator)(self.unscaled(z)))

    def backward(self, z: PyTree[Array], step_size: Any) -> PyTree[Array]:
        # G and the quadratic are one step of G, from between z and u.
        share = jax.tree.map(lambda t: t / (t + self.step_size), step_size)
        left = jax.tree.map(lambda share: share * self.step_size, share)
        if self.units is not None:
            pair = left if isinstance(left, tuple) else (left, left)
            left = jax.tree.map(lambda unit, t: unit**2 * t, self.units, pair)
        z = self.unscaled(moved(z, share, otu.sub(z, self.y0)))
        return self._scaled(self.problem.resolvent(z, left))

    @oracle
    def sample(self, key: Array | None) -> PyTree[Array] | None:
        """A batch of the problem."""
        return self.problem.sample(key)

    @oracle
    def batch_operator(self, z: PyTree[Array], batch: PyTree[Array] | None) -> PyTree[Array]:
        """F estimated on a batch."""
        if batch is None:
            return self.operator(z)
        return self.unscaled(self.problem.batch_operator(self.unscaled(z), batch))

    def traced(self, y: PyTree[Array]) -> Self:
        return self

    def rescaled(self, y_scale: PyTree[Array], value_scale: ArrayLike) -> Self:
        raise ValueError("a proximal step cannot be scaled: scale the problem.")

    def _scaled(self, z: PyTree[Array]) -> PyTree[Array]:
        if self.units is None:
            return z
        return jax.tree.map(lambda unit, z: otu.scale(1 / unit, z), self.units, z)
