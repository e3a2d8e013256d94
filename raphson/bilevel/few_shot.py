"""The question of few-shot learning: from many tasks, what new ones need few samples for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax.tree as otu
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..problem import Facts
from ..validate import as_function, as_start, require_number
from .blocks import MultiBlockBilevel


class FewShot(MultiBlockBilevel):
    """Find a prior under which each task is learned from its few samples.

    The upper unknown x is the prior of the weights of a task, normal with the mean x["mean"] and
    independent entries of the variance exp(x["log_variance"]). The lower ones are the weights y_i
    of the m tasks: y_i is least for the mean loss of the n support samples of task i plus 1 / n of
    1/2 the sum of (y_i - mean)^2 / variance, which is the most probable y_i where the loss is minus
    the logarithm of a likelihood. F is the mean loss of the query samples.

    Args:
        loss: `loss(weights, sample, args)`, of one sample, a real scalar.
        weights: the mean at the start, and the weights of every task; a PyTree of floating-point
            arrays.
        support: samples to learn each task from, a PyTree of arrays of the shape (m, n, ...).
        query: samples by which what was learned is judged, likewise; n may differ.
        args: any further data for the loss.
        variance: of the prior at the start, positive.
        tasks_per_step: how many tasks a method draws at each step, none twice; None (the default)
            stands for all of them.
        metrics: further measures by name, each `metric((x, y), args)`, such as a loss on new tasks.
        facts: what is known of the problem.
        **oracles: as in `Bilevel`, with a batch.

    Raises:
        ValueError: if tasks or samples do not match in number, or an argument is unfit.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> loss = lambda mean, sample, _: (mean - sample) ** 2 / 2
        >>> samples = jnp.array([[0.9, 1.1], [1.9, 2.1], [2.9, 3.1]])
        >>> problem = rp.bilevel.FewShot(loss, 0.0, samples, samples)
        >>> problem.num_blocks, sorted(problem.y0[0])
        (3, ['log_variance', 'mean'])
    """

    def __init__(
        self,
        loss: Callable[[Any, Any, Any], Any],
        weights: PyTree[ArrayLike],
        support: PyTree[ArrayLike],
        query: PyTree[ArrayLike],
        args: PyTree = None,
        *,
        variance: float = 1.0,
        tasks_per_step: int | None = None,
        metrics: dict[str, Callable[[Any, Any], Any]] | None = None,
        facts: Facts | None = None,
        **oracles: Callable[..., Any],
    ):
        require_number(variance, "`variance`", 0)
        mean, loss = as_start(weights, "weights"), as_function(loss, "loss")
        spread = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.log(variance)), mean)
        m, n = (*np.shape(jax.tree.leaves(support)[0]), 1, 1)[:2]
        super().__init__(
            _Query(loss),
            _Support(loss, n),
            {"mean": mean, "log_variance": spread},
            jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (m, *leaf.shape)), mean),
            query,
            support,
            args,
            blocks_per_step=tasks_per_step,
            metrics=metrics,
            facts=facts,
            **oracles,  # pyright: ignore[reportArgumentType]
        )


def adapted(
    loss: Callable[[Any, Any, Any], Any],
    x: dict[str, PyTree[Array]],
    support: PyTree[Array],
    args: PyTree,
    steps: int,
    step_size: float,
) -> PyTree[Array]:
    """The weights that the prior and the samples of one new task lead to, by gradient steps.

    They begin at the mean; `step_size` is that of the loss, and shrinks where the prior is narrow.

    Args:
        loss: as in `FewShot`.
        x: a prior, the upper unknown of a `FewShot`.
        support: samples of the task, with one leading axis.
        args: further data for the loss.
        steps: how many.
        step_size: positive.

    Returns:
        The weights, shaped as the prior's mean.

    Example:
        >>> import jax.numpy as jnp
        >>> prior = {"mean": jnp.array(0.0), "log_variance": jnp.array(0.0)}
        >>> loss = lambda mean, sample, _: (mean - sample) ** 2 / 2
        >>> weights = adapted(loss, prior, jnp.array([2.0, 4.0]), None, 50, 0.5)
        >>> round(float(weights), 3)  # two samples and a prior of the weight of one
        2.0
    """
    n = jax.tree.leaves(support)[0].shape[0]
    of = _Support(loss, n)
    total = lambda y: jnp.mean(jax.vmap(lambda sample: of(x, y, sample, args))(support))

    def step(y: PyTree[Array], _: None) -> tuple[PyTree[Array], None]:
        sizes = prior_step(x, n, step_size)
        return otu.sub(y, otu.mul(sizes, jax.grad(total)(y))), None

    return jax.lax.scan(step, x["mean"], None, length=steps)[0]


def prior_step(x: dict[str, PyTree[Array]], n: int, step_size: Any) -> PyTree[Array]:
    """The step of each weight with which a gradient step is implicit in the prior's part."""
    of = lambda log_variance: step_size / (1 + step_size / n * jnp.exp(-log_variance))
    return jax.tree.map(of, x["log_variance"])


class _Query(eqx.Module):
    loss: Callable[..., Any]

    def __call__(self, x: Any, y: Any, sample: Any, args: Any) -> Float[Array, ""]:
        return self.loss(y, sample, args)


class _Support(eqx.Module):
    loss: Callable[..., Any]
    n: int = eqx.field(static=True)

    def __call__(self, x: Any, y: Any, sample: Any, args: Any) -> Float[Array, ""]:
        far = jax.tree.map(
            lambda y, mean, spread: (y - mean) ** 2 * jnp.exp(-spread),
            y,
            x["mean"],
            x["log_variance"],
        )
        return self.loss(y, sample, args) + otu.sum(far) / (2 * self.n)
