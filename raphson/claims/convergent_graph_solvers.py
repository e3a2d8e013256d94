"""Convergent graph solvers: a layer that reaches as far as the graph does."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from ..roots import ConvergentGraphSolver, FixedPoint
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="convergent-graph-solvers",
    title="Convergent Graph Solvers",
    authors="Park, Choo, Park",
    year=2022,
    implements=("raphson.roots.ConvergentGraphSolver",),
    note="Scores are made positive by softplus and divided by their sum. Of the paper's data the "
    "value functions are generated anew; porous media and graph classification are left out.",
)

_GAMMA = 0.9
Graph = tuple[Array, Array, Array, Array]


def _graphs(rng: np.random.Generator, count: int, n: int) -> tuple[Graph, Array]:
    """Markov reward processes side by side, and their value functions.

    A state has a reward and three successors; the edges hold the logarithms of what the
    probabilities are in proportion to.
    """
    rewards, logits = rng.normal(size=(count, n)), rng.normal(size=(count, n, 3))
    successors = np.argsort(rng.random((count, n, n)))[..., :3]
    P = np.zeros((count, n, n))
    likely = np.exp(logits)
    np.put_along_axis(P, successors, likely / likely.sum(-1, keepdims=True), -1)
    values = np.linalg.solve(np.eye(n) - _GAMMA * P, rewards[..., None])
    senders = (successors + n * np.arange(count)[:, None, None]).ravel()
    receivers = np.repeat(np.arange(count * n), 3)
    nodes, edges = jnp.asarray(rewards.reshape(-1, 1)), jnp.asarray(logits.reshape(-1, 1))
    graph = nodes, edges, jnp.asarray(senders), jnp.asarray(receivers)
    return graph, jnp.asarray(values.reshape(-1, 1))


def _solver(key: Array, tolerance: float = 1e-5) -> ConvergentGraphSolver:
    score, source, decode = jax.random.split(key, 3)
    score = eqx.nn.MLP(1, 1, 8, 1, key=score)
    source, decode = eqx.nn.Linear(1, 1, key=source), eqx.nn.Linear(2, 1, key=decode)
    return ConvergentGraphSolver(
        _OfEdge(score), _Column(source), _OfBoth(decode), gamma=_GAMMA, tolerance=tolerance
    )


class _OfEdge(eqx.Module):
    net: Any

    def __call__(self, receiver: Array, sender: Array, edge: Array) -> Array:
        return self.net(edge)


class _Column(eqx.Module):
    net: Any

    def __call__(self, node: Array) -> Array:
        return self.net(node)[None]


class _OfBoth(eqx.Module):
    net: Any

    def __call__(self, node: Array, states: Array) -> Array:
        return self.net(jnp.append(node, states))


class _ThreeLayers(eqx.Module):
    """A graph network that hears of three edges away, with 34 parameters in place of 30."""

    score: eqx.nn.MLP
    layers: list[eqx.nn.Linear]

    def __init__(self, key: Array):
        score, *keys = jax.random.split(key, 4)
        self.score = eqx.nn.MLP(1, 1, 4, 1, key=score)
        sizes = ((2, 2), (4, 2), (4, 1))
        self.layers = [eqx.nn.Linear(*s, key=k) for s, k in zip(sizes, keys, strict=True)]

    def __call__(self, nodes: Array, edges: Array, senders: Array, receivers: Array) -> Array:
        scores = jax.nn.softplus(jax.vmap(self.score)(edges))
        heard = lambda rows: jax.ops.segment_sum(rows, receivers, len(nodes))
        weights = scores / heard(scores)[receivers]
        for i, layer in enumerate(self.layers):
            both = jnp.concatenate([nodes, heard(weights * nodes[senders])], axis=1)
            nodes = jax.vmap(layer)(both)
            nodes = nodes if i == 2 else jax.nn.tanh(nodes)
        return nodes


@claim(
    PAPER,
    "The gradient by one linear solve at the fixed point is that of 200 unrolled steps within "
    "1e-5 at gamma = 0.9.",
)
def gradient_is_that_of_unrolled_steps(budget: Budget) -> Verdict:
    graph, values = _graphs(np.random.default_rng(0), budget.pick(2, 10), 10)
    solver = _solver(jax.random.key(0), 1e-12)
    data, rest = eqx.partition(solver, eqx.is_array)

    def loss(data: Any, steps: int | None) -> Array:
        solver = eqx.combine(data, rest)
        if steps is None:
            return jnp.mean((solver(*graph) - values) ** 2)
        problem = solver.contraction(*graph)
        step = lambda H, _: (problem.apply(H), None)
        H, _ = jax.lax.scan(step, problem.y0, length=steps)
        return jnp.mean((jax.vmap(solver.decode)(graph[0], H) - values) ** 2)

    @jax.jit
    def run(data: Any) -> tuple[Array, Array]:
        slope = lambda steps: ravel_pytree(jax.grad(loss)(data, steps))[0]
        exact = slope(200)
        error = lambda other: jnp.linalg.norm(other - exact) / jnp.linalg.norm(exact)
        return error(slope(None)), error(slope(20))

    measured, control = map(float, run(data))
    return Verdict(measured, 1e-5, control, "relative error; control: 20 unrolled steps")


@claim(
    PAPER,
    "Each step shrinks the residual by gamma in the maximum norm, so that log(tol) / log(gamma) "
    "steps reach tol, whatever is learned.",
)
def residual_shrinks_by_gamma(budget: Budget) -> Verdict:
    steps = budget.pick(50, 100)
    (nodes, edges, senders, receivers), _ = _graphs(np.random.default_rng(0), 1, 30)
    # Rewards of one sign do not cancel.
    graph = jnp.abs(nodes), 10 * edges, senders, receivers
    problem = _solver(jax.random.key(0)).contraction(*graph)

    def worst(problem: FixedPoint) -> float:
        def step(H: Array, _: None) -> tuple[Array, Array]:
            image = problem.apply(H)
            return image, jnp.max(jnp.abs(image - H))

        run = jax.jit(lambda y0: jax.lax.scan(step, y0, length=steps)[1])
        residual = np.asarray(run(problem.y0))
        return float(np.max(residual[1:] / residual[:-1]))

    gamma, weights, B, senders, receivers = problem.args
    turned = FixedPoint(problem.fn, problem.y0, (gamma, weights, B, receivers, senders))
    case = f"greatest factor in {steps} steps; control: sums over the edges out of a node"
    rounding = 1e-9
    return Verdict(worst(problem), _GAMMA + rounding, worst(turned), case)


@claim(
    PAPER,
    "Trained on the value functions of Markov reward processes, the solver errs on processes of "
    "four times the size by at most twice what it errs at the size of training; a graph network "
    "of three layers errs by more.",
)
def values_on_larger_graphs(budget: Budget) -> Verdict:
    n, steps = 10, budget.pick(150, 1000)
    rng = np.random.default_rng(0)
    train, same, larger = _graphs(rng, 8, n), _graphs(rng, 8, n), _graphs(rng, 4, 4 * n)
    adam = optax.adam(0.03)

    def errors(model: Any) -> list[float]:
        data, rest = eqx.partition(model, eqx.is_inexact_array)

        def loss(data: Any, sample: tuple[Graph, Array]) -> Array:
            graph, values = sample
            found = eqx.combine(data, rest)(*graph)
            return jnp.mean((found - values) ** 2)

        def step(carry: Any, _: None) -> Any:
            data, state = carry
            change, state = adam.update(jax.grad(loss)(data, train), state)
            return (optax.apply_updates(data, change), state), None

        @jax.jit
        def run(data: Any) -> list[Array]:
            (data, _), _ = jax.lax.scan(step, (data, adam.init(data)), length=steps)
            return [loss(data, sample) for sample in (same, larger)]

        return [float(error) for error in run(data)]

    key = jax.random.key(0)
    at_size, measured = errors(_solver(key))
    case = (
        f"mean squared error at {4 * n} states, {at_size:.2g} at {n}; control: a graph "
        "network of three layers with 34 parameters in place of 30"
    )
    return Verdict(measured, 2 * at_size, errors(_ThreeLayers(key))[1], case)
