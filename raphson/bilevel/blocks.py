"""The question of many lower levels: one x, and below it a y for each of m blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

from ..composite import AbstractConvexSet
from ..problem import Facts, as_data, oracle, trace_function
from ..validate import (
    as_batch_size,
    as_function,
    as_metrics,
    as_start,
    require_scalar,
    whole_number,
)
from .problem import AbstractBilevel, Pair, as_sets

# Which blocks, and samples of each; None stands for all.
Batch = tuple[Int[Array, " I"], PyTree[Array]] | None


class MultiBlockBilevel(AbstractBilevel):
    """Minimize over x the mean of F_i(x, y_i) over m blocks, where y_i minimizes f_i(x, .).

    F_i and f_i are one function each, of the samples of block i. What is drawn at a step are
    blocks, and of each of them samples; a batch is a pair for each level, the numbers of the
    blocks, which both levels share, and their samples. f(x, y), too, is the mean over the blocks:
    entry i of f_y is f_i,y / m, and on a batch of I blocks f_i,y / I for those, 0 for others.

    Args:
        upper: `upper(x, y, sample, args)`, F of one sample of a block with its y, a real scalar.
        lower: `lower(x, y, sample, args)`, f of one sample, likewise.
        x: where the upper unknown starts, a PyTree of floating-point arrays.
        y: where the lower unknowns start, likewise, with a leading axis that counts the m blocks.
        upper_data: a PyTree of arrays of the shape (m, n, ...), n samples for each block; put the
            numbers of blocks in it where each block has a part of x.
        lower_data: likewise for the lower level, where n may differ.
        args: any further data for both; the answer can be differentiated by it.
        blocks_per_step: how many blocks a stochastic method draws at each step, no block twice;
            None (the default) stands for all of them.
        batch_size: how many samples of each level it draws from each of these, with replacement;
            None (the default) stands for all of them.
        sets: as in `Bilevel`.
        metrics: as in `Bilevel`.
        facts: what is known of the problem.
        **oracles: as in `Bilevel`, with a batch.

    Raises:
        ValueError: if blocks or samples do not match in number, or an argument is unfit.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> upper = lambda x, y, a, _: (y - a) ** 2 + x**2
        >>> lower = lambda x, y, a, _: (y - a * x) ** 2
        >>> data = jnp.array([[1.0], [2.0]])
        >>> problem = rp.bilevel.MultiBlockBilevel(upper, lower, 0.0, jnp.zeros(2), data, data)
        >>> x, y = rp.solve(problem, rp.bilevel.ImplicitGradient()).value
        >>> round(float(x), 3), y.round(3).tolist()
        (0.714, [0.714, 1.429])
    """

    upper: Callable[..., Any]
    lower_fn: Callable[..., Any]
    y0: Pair
    args: PyTree
    upper_data: PyTree[Array]
    lower_data: PyTree[Array]
    blocks_per_step: int | None = eqx.field(static=True)
    batch_size: int | None = eqx.field(static=True)
    sets: tuple[AbstractConvexSet | None, AbstractConvexSet | None]
    metrics: dict[str, Callable[..., Any]]
    oracles: dict[str, Callable[..., Any]]
    facts: Facts
    wrappers: tuple[Any, ...]

    def __init__(
        self,
        upper: Callable[[Any, Any, Any, Any], Any],
        lower: Callable[[Any, Any, Any, Any], Any],
        x: PyTree[ArrayLike],
        y: PyTree[ArrayLike],
        upper_data: PyTree[ArrayLike],
        lower_data: PyTree[ArrayLike],
        args: PyTree = None,
        *,
        blocks_per_step: int | None = None,
        batch_size: int | None = None,
        sets: tuple[AbstractConvexSet | None, AbstractConvexSet | None] = (None, None),
        metrics: dict[str, Callable[[Any, Any], Any]] | None = None,
        facts: Facts | None = None,
        **oracles: Callable[..., Any],
    ):
        self.upper, self.lower_fn = as_function(upper, "upper"), as_function(lower, "lower")
        self.y0, self.args = (as_start(x, "x"), as_start(y, "y")), args
        self.upper_data = _as_blocks(upper_data, "upper_data")
        self.lower_data = _as_blocks(lower_data, "lower_data")
        as_data((self.y0[1], self.upper_data, self.lower_data), "y, upper_data, lower_data")
        self.batch_size = as_batch_size(batch_size)
        self.blocks_per_step = blocks_per_step
        if blocks_per_step is not None:
            whole_number(blocks_per_step, "blocks_per_step", 1)
            if blocks_per_step > self.num_blocks:
                raise ValueError(
                    f"`blocks_per_step` must be at most the number of blocks, {self.num_blocks}, "
                    f"got {blocks_per_step}."
                )
        self.sets, self.metrics = as_sets(sets), as_metrics(metrics)
        self.oracles, self.facts, self.wrappers = oracles, facts or Facts(), ()

    @property
    def num_blocks(self) -> int:
        """m, the number of lower levels."""
        return jax.tree.leaves(self.y0[1])[0].shape[0]

    @property
    def stochastic(self) -> bool:
        return self.blocks_per_step is not None or self.batch_size is not None

    @oracle
    def sample(self, key: Array | None) -> tuple[Batch, Batch]:
        """`blocks_per_step` blocks and `batch_size` samples of each for each level, or None."""
        if key is None or not self.stochastic:
            return None, None
        which, *keys = jax.random.split(key, 3)
        chosen = jnp.arange(self.num_blocks)
        if self.blocks_per_step is not None:
            chosen = jax.random.choice(which, chosen, (self.blocks_per_step,), replace=False)
        both = zip((self.upper_data, self.lower_data), keys, strict=True)
        upper, lower = ((chosen, self._drawn(data, chosen, key)) for data, key in both)
        return upper, lower

    def upper_objective(self, x: Any, y: Any, batch: Any) -> Float[Array, ""]:
        return self._mean(self.upper, x, y, self.upper_data, batch)

    def lower_objective(self, x: Any, y: Any, batch: Any) -> Float[Array, ""]:
        return self._mean(self.lower_fn, x, y, self.lower_data, batch)

    def traced(self, y: Pair) -> Self:
        fns, of_block = [], jax.tree.map(lambda leaf: leaf[0], y[1])
        for name, fn, data in (
            ("upper", self.upper, self.upper_data),
            ("lower", self.lower_fn, self.lower_data),
        ):
            sample = jax.tree.map(lambda leaf: leaf[0, 0], data)
            traced, out = trace_function(fn, y[0], of_block, sample, self.args, name=name)
            require_scalar(out, name)
            fns.append(traced)
        return eqx.tree_at(lambda p: (p.upper, p.lower_fn), self, tuple(fns))

    def rescaled(self, y_scale: Pair, value_scale: ArrayLike) -> Self:
        raise ValueError("a `MultiBlockBilevel` cannot be scaled: scale its functions.")

    def _drawn(self, data: PyTree[Array], chosen: Array, key: Array) -> PyTree[Array]:
        """Samples of the chosen blocks."""
        if self.batch_size is None:
            return jax.tree.map(lambda leaf: leaf[chosen], data)
        shape, n = (chosen.size, self.batch_size), jax.tree.leaves(data)[0].shape[1]
        of = jax.random.randint(key, shape, 0, n)
        return jax.tree.map(lambda leaf: leaf[chosen[:, None], of], data)

    def _mean(self, fn: Any, x: Any, y: Any, data: Any, batch: Batch) -> Float[Array, ""]:
        if batch is not None:
            chosen, data = batch
            y = jax.tree.map(lambda leaf: leaf[chosen], y)
        of = lambda y, samples: jax.vmap(lambda sample: fn(x, y, sample, self.args))(samples)
        return jnp.mean(jax.vmap(of)(y, data))


def drawn_blocks(
    problem: Any, key: Array | None
) -> tuple[tuple[Batch, Batch], Int[Array, " I"], Array | None]:
    """A batch for each level, the blocks that it is of, and the next key."""
    now = None
    if problem.stochastic:
        key, now = jax.random.split(key)  # pyright: ignore[reportArgumentType]
    batches = problem.sample(now)
    chosen = jnp.arange(problem.num_blocks) if batches[0] is None else batches[0][0]
    return batches, chosen, key


def of_blocks(mean: PyTree[Array], chosen: Int[Array, " I"]) -> PyTree[Array]:
    """Of the derivative by y of a mean over the chosen blocks, that of each."""
    return jax.tree.map(lambda leaf: chosen.size * leaf[chosen], mean)


def _as_blocks(data: PyTree[ArrayLike], name: str) -> PyTree[Array]:
    """Samples of blocks as arrays, refused where they have no two common leading axes."""
    data = as_data(data, name)
    sizes = {leaf.shape[1:2] for leaf in jax.tree.leaves(data)}
    if len(sizes) != 1 or sizes & {(), (0,)}:
        raise ValueError(
            f"`{name}` must hold arrays whose first two axes count the blocks and the samples of "
            f"each, at least 1, got second axes {sorted(sizes)}."
        )
    return data
