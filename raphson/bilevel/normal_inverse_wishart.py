"""Hierarchical Bayes for few-shot learning: the prior is inferred from what the tasks' weights are.

Kim, Hospedales (2024), A Hierarchical Bayesian Model for Deep Few-Shot Meta Learning.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, PyTree

from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ..validate import in_range, whole_number
from .blocks import drawn_blocks, of_blocks
from .few_shot import FewShot, prior_step


class NormalInverseWishartState(eqx.Module):
    first: PyTree[Array]  # the prior at the start
    key: Array


class NormalInverseWishart(AbstractMethod[NormalInverseWishartState]):
    """Variational inference of a normal prior whose mean and variance are normal-inverse-Wishart.

    For N tasks with n samples each, support and query alike, of the weights the posterior of task i
    is taken to be normal around m_i with independent variances V_i: from the mean m of the prior,
    gradient steps on the loss with the prior lead to m_i, and V_i is one over n times the diagonal
    of the second derivatives there, estimated by products with random signs. Of the objective, the
    loss expected under the posteriors and their divergence from the prior, and with k the weight of
    the first prior, only the divergence has a derivative by (m, V) at these: the least of it is

        m'  =  (mean of m_i + k / N m_0) / (1 + k / N)
        V'  =  (mean of V_i + (m_i - m)^2 + k / N (V_0 + (m - m_0)^2)) / (1 + k / N)

    and m and V go there by the step s. The gradient does not pass through the inner steps.

    Args:
        step_size: s, in (0, 1]; 1, with all tasks, is expectation maximization.
        inner_steps: at least 1.
        lower_step_size: of these, positive; a prior that is narrow makes it shorter.
        prior: k, for how many tasks the prior at the start counts, at least 0.
        probes: products for the diagonal, at least 1.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> loss = lambda mean, sample, _: (mean - sample) ** 2 / 2
        >>> samples = jnp.array([[0.9, 1.1], [1.9, 2.1], [2.9, 3.1]])
        >>> problem = rp.bilevel.FewShot(loss, 0.0, samples, samples)
        >>> method = rp.bilevel.NormalInverseWishart(1.0)
        >>> options = {"key": jax.random.key(0), "max_steps": 100, "throw": False}
        >>> (x, _) = rp.solve(problem, method, **options).value
        >>> round(float(x["mean"]), 2), round(float(jnp.exp(x["log_variance"])), 2)
        (1.44, 1.46)
    """

    step_size: float = 0.1
    inner_steps: int = 20
    lower_step_size: float = 0.5
    prior: float = 1.0
    probes: int = 4

    question: ClassVar[type[AbstractProblem]] = FewShot
    stochastic: ClassVar[bool] = True
    samples: ClassVar[bool] = True

    def __check_init__(self):
        in_range(self, "step_size", 0, 1, closed="right")
        whole_number(self.inner_steps, "inner_steps", 1)
        in_range(self, "lower_step_size", 0)
        in_range(self, "prior", 0, closed="left")
        whole_number(self.probes, "probes", 1)

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> NormalInverseWishartState:
        assert key is not None
        return NormalInverseWishartState(y[0], key)

    def step(
        self, problem: Any, y: PyTree[Array], state: NormalInverseWishartState
    ) -> tuple[PyTree[Array], NormalInverseWishartState]:
        x, weights = y
        batches, chosen, key = drawn_blocks(problem, state.key)
        key, now = jax.random.split(key)  # pyright: ignore[reportArgumentType]
        sizes = [jax.tree.leaves(d)[0].shape[1] for d in (problem.upper_data, problem.lower_data)]

        def total(above: Any, below: Any, *at: PyTree[Array]) -> PyTree[Array]:
            """An oracle's answer by y for each task: of its loss and its prior, over n."""
            parts = [of(x, *at, b)[1] for of, b in zip((above, below), batches, strict=True)]
            parts = [otu.scale(size / n, part) for size, part in zip(sizes, parts, strict=True)]
            return of_blocks(otu.add(*parts), chosen)

        def closer(y: PyTree[Array], _: None) -> tuple[PyTree[Array], None]:
            gradient = total(problem.upper_gradient, problem.lower_gradient, y)
            step = lambda y, size, g: y.at[chosen].add(-size[None] * g)
            return jax.tree.map(step, y, prior_step(x, n, self.lower_step_size), gradient), None

        def probe(diagonal: PyTree[Array], key: Array) -> tuple[PyTree[Array], None]:
            signs = otu.random_like(key, weights, jax.random.rademacher)
            product = total(problem.upper_product, problem.lower_product, weights, signs)
            found = jax.tree.map(lambda s, p: s[chosen] * p, signs, product)
            return otu.add_scale(diagonal, 1 / self.probes, found), None

        n = sum(sizes)
        start = jax.tree.map(lambda y, mean: y.at[chosen].set(mean), weights, x["mean"])
        weights, _ = jax.lax.scan(closer, start, None, length=self.inner_steps)
        none = jax.tree.map(lambda y: jnp.zeros_like(y[chosen]), weights)
        curvature, _ = jax.lax.scan(probe, none, jax.random.split(now, self.probes))
        found, first = jax.tree.map(lambda y: y[chosen], weights), state.first
        s, k = self.step_size, self.prior / problem.num_blocks

        def shifted(mean: Array, found: Array, first: Array) -> Array:
            goal = (jnp.mean(found, axis=0) + k * first) / (1 + k)
            return mean + s * (goal - mean)

        mean = jax.tree.map(shifted, x["mean"], found, first["mean"])

        def widened(
            spread: Array, mean: Array, found: Array, curvature: Array, m_0: Array, first: Array
        ) -> Array:
            variance = jnp.exp(spread)
            # The loss alone is taken to be convex: what says otherwise is noise.
            own = 1 / jnp.maximum(n * curvature, 1 / variance[None])
            seen = jnp.mean(own + (found - mean[None]) ** 2, axis=0)
            goal = (seen + k * (jnp.exp(first) + (mean - m_0) ** 2)) / (1 + k)
            return jnp.log(variance + s * (goal - variance))

        spread = jax.tree.map(
            widened,
            *(x["log_variance"], mean, found, curvature, first["mean"], first["log_variance"]),
        )
        x = {"mean": mean, "log_variance": spread}
        return (x, weights), NormalInverseWishartState(first, key)

    def known(self, problem: Any, y: PyTree[Array], state: NormalInverseWishartState) -> Known:
        return Known()
