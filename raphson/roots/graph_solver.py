"""A layer on graphs whose output is the fixed point of contractions that it reads off the graph.

Park, Choo, Park (2022), Convergent Graph Solvers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from ..derivatives import answer_of
from ..method import iterate
from ..validate import as_function, as_start, require_number
from .krasnoselskii_mann import KrasnoselskiiMann
from .problem import FixedPoint


class ConvergentGraphSolver(eqx.Module):
    """A decoder of H = gamma A_m H + B_m, with A_m and B_m for m = 1, ..., M learned from a graph.

    A_m has an entry for each edge: the scores of the edges into a node, made positive and divided
    by their sum. So each map contracts by gamma in the maximum norm whatever is learned, and has
    one fixed point on any graph, of any size. What no edge leads into has H = B_m. Derivatives are
    those of the fixed point, by one linear solve. Graphs side by side, with no edge between them,
    are a batch.

    Args:
        score: `score(receiver, sender, edge)` of the features of both nodes and of the edge, M
            numbers.
        source: `source(node)`, B_1, ..., B_M at the node, of shape (M, p).
        decode: `decode(node, states)`, what to return for the node, from H of shape (M, p).
        gamma: in (0, 1); information fades by it with every edge.
        tolerance: the iteration ends where the residual has shrunk by it, in (0, 1).
        direct: whether to solve a dense linear system of n unknowns for each map instead, all at
            once, which suits graphs of up to some hundred nodes; `tolerance` is not asked then.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> add = lambda node, states: node + states.sum()
        >>> layer = rp.roots.ConvergentGraphSolver(
        ...     lambda receiver, sender, edge: edge, lambda node: node[None], add
        ... )
        >>> nodes, edges = jnp.array([[0.0], [1.0]]), jnp.array([[3.0]])
        >>> layer(nodes, edges, senders=jnp.array([1]), receivers=jnp.array([0])).tolist()
        [[0.5], [2.0]]
    """

    score: Callable[[Array, Array, Any], Float[Array, " M"]]
    source: Callable[[Array], Float[Array, "M p"]]
    decode: Callable[[Array, Array], Array]
    gamma: float
    tolerance: float
    direct: bool

    def __init__(
        self,
        score: Callable[[Array, Array, Any], Array],
        source: Callable[[Array], Array],
        decode: Callable[[Array, Array], Array],
        *,
        gamma: float = 0.5,
        tolerance: float = 1e-5,
        direct: bool = False,
    ):
        self.score, self.source = as_function(score, "score"), as_function(source, "source")
        self.decode = as_function(decode, "decode")
        require_number(gamma, "`gamma`", 0, 1)
        require_number(tolerance, "`tolerance`", 0, 1)
        self.gamma, self.tolerance, self.direct = gamma, tolerance, direct

    def __call__(
        self,
        nodes: Float[Array, "n d"],
        edges: PyTree[Array],
        senders: Int[Array, " e"],
        receivers: Int[Array, " e"],
    ) -> Float[Array, "n ..."]:
        """What `decode` makes of the fixed points.

        Args:
            nodes: the features of the nodes.
            edges: those of the edges, stacked along the first axis; None if there are none.
            senders: where each edge comes from.
            receivers: where it leads to.
        """
        problem = self.contraction(nodes, edges, senders, receivers)
        if self.direct:
            return jax.vmap(self.decode)(nodes, _directly(*problem.args))
        still = jax.lax.stop_gradient((problem.y0, problem.args))
        # |H_k+1 - H_k| <= gamma^k |B| in the maximum norm: after so many steps only rounding can
        # keep the residual up.
        steps = jnp.log(self.tolerance / problem.y0.size**0.5) / jnp.log(self.gamma)
        run = iterate(
            FixedPoint(_contraction, *still),
            KrasnoselskiiMann(),
            still[0],
            rtol=self.tolerance,
            atol=0.0,
            max_steps=jnp.ceil(steps),
        )
        # Where the data hold a NaN the run ends at once; the image tells.
        image = jax.lax.stop_gradient(problem.apply(run.y))
        finite = jnp.all(jnp.isfinite(image))
        states = answer_of(problem, jnp.where(finite, image, jnp.nan), finite)
        return jax.vmap(self.decode)(nodes, states)

    def contraction(
        self,
        nodes: Float[Array, "n d"],
        edges: PyTree[Array],
        senders: Int[Array, " e"],
        receivers: Int[Array, " e"],
    ) -> FixedPoint:
        """The fixed points as a problem in H of shape (n, M, p) from 0, for any method."""
        B = jax.vmap(self.source)(as_start(nodes, "nodes"))
        scores = jax.nn.softplus(jax.vmap(self.score)(nodes[receivers], nodes[senders], edges))
        sums = jax.ops.segment_sum(scores, receivers, len(nodes))[receivers]
        # Scores may all underflow to 0.
        weights = scores / jnp.where(sums > 0, sums, 1)
        gamma = jnp.asarray(self.gamma, B.dtype)
        return FixedPoint(_contraction, jnp.zeros_like(B), (gamma, weights, B, senders, receivers))


def _contraction(H: Float[Array, "n M p"], args: Any) -> Float[Array, "n M p"]:
    gamma, weights, B, senders, receivers = args
    arriving = weights[:, :, None] * H[senders]
    return gamma * jax.ops.segment_sum(arriving, receivers, len(H)) + B


def _directly(
    gamma: Array, weights: Array, B: Float[Array, "n M p"], senders: Array, receivers: Array
) -> Float[Array, "n M p"]:
    def of_map(weights: Float[Array, " e"], B: Float[Array, "n p"]) -> Float[Array, "n p"]:
        A = jnp.zeros((len(B), len(B)), B.dtype).at[receivers, senders].add(weights)
        return jnp.linalg.solve(jnp.eye(len(B), dtype=B.dtype) - gamma * A, B)

    return jax.vmap(of_map, 1, 1)(weights, B)
