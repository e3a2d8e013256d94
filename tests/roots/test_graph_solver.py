"""Convergent graph solvers against the dense linear systems that they solve."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.roots import ConvergentGraphSolver

# Into node 3 leads no edge, and into node 2 two from the same node.
SENDERS, RECEIVERS = np.array([1, 2, 0, 3, 3, 1]), np.array([0, 0, 1, 2, 2, 2])
RNG = np.random.default_rng(0)
NODES, EDGES = RNG.normal(size=(4, 2)), RNG.normal(size=(6, 3))
PARAMETERS = {"edge": RNG.normal(size=(2, 3)), "node": RNG.normal(size=(2, 2, 2))}


def layer(parameters, **options):
    """Two heads with two numbers each."""
    return ConvergentGraphSolver(
        lambda receiver, sender, edge: parameters["edge"] @ edge + receiver[0] * sender[1],
        lambda node: parameters["node"] @ node,
        lambda node, states: jnp.concatenate([states.ravel(), node]),
        **options,
    )


@jax.jit
def solved(parameters, nodes, gamma=0.9, tolerance=1e-12):
    return layer(parameters, gamma=gamma, tolerance=tolerance)(nodes, EDGES, SENDERS, RECEIVERS)


def dense(parameters, gamma, nodes=NODES, xp=np):
    """The same by a linear system for each head."""
    heads = []
    for edge, node in zip(parameters["edge"], parameters["node"], strict=True):
        scores = xp.log1p(xp.exp(EDGES @ edge + nodes[RECEIVERS, 0] * nodes[SENDERS, 1]))
        A = np.eye(4)[RECEIVERS].T @ (scores[:, None] * np.eye(4)[SENDERS])
        sums = A.sum(1, keepdims=True)
        A = A / xp.where(sums > 0, sums, 1)
        heads.append(xp.linalg.solve(xp.eye(4) - gamma * A, nodes @ node.T))
    return xp.concatenate([*heads, nodes], axis=1)


@pytest.mark.parametrize("gamma", [0.3, 0.9])
def test_solves_the_linear_systems(gamma):
    found = solved(PARAMETERS, NODES, gamma)
    np.testing.assert_allclose(found, dense(PARAMETERS, gamma), rtol=1e-10)


def test_stops_where_the_residual_has_shrunk_by_the_tolerance():
    exact = dense(PARAMETERS, 0.9)
    error = np.linalg.norm(solved(PARAMETERS, NODES, 0.9, 1e-3) - exact)
    assert 1e-6 < error < 1e-2 * np.linalg.norm(exact)


def test_derivatives_are_those_of_the_linear_systems():
    weigh = lambda out: jnp.sum(jnp.sin(out) * jnp.arange(24.0).reshape(4, 6))

    by_layer = lambda parameters, nodes: weigh(solved(parameters, nodes, 0.8))
    by_solve = lambda parameters, nodes: weigh(dense(parameters, 0.8, nodes, jnp))
    data = jax.tree.map(jnp.asarray, (PARAMETERS, NODES))
    found, exact = (jax.jit(jax.grad(fn, (0, 1)))(*data) for fn in (by_layer, by_solve))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8)


def test_the_direct_solve_agrees_with_the_iteration_and_so_do_its_derivatives():
    def total(parameters, nodes, direct):
        block = layer(parameters, gamma=0.9, tolerance=1e-12, direct=direct)
        found = block(nodes, EDGES, SENDERS, RECEIVERS)
        return jnp.sum(jnp.sin(found) * jnp.arange(24.0).reshape(4, 6)), found

    run = jax.jit(jax.grad(total, (0, 1), has_aux=True), static_argnums=2)
    data = jax.tree.map(jnp.asarray, (PARAMETERS, NODES))
    (direct, exact), (iterated, near) = run(*data, True), run(*data, False)
    np.testing.assert_allclose(exact, dense(PARAMETERS, 0.9), rtol=1e-13)
    np.testing.assert_allclose(near, exact, rtol=1e-10)
    for a, b in zip(jax.tree.leaves(direct), jax.tree.leaves(iterated), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8)
    none = np.zeros(0, int)
    alone = layer(PARAMETERS, direct=True)(NODES, np.zeros((0, 3)), none, none)
    sources = np.einsum("mpd,nd->nmp", PARAMETERS["node"], NODES).reshape(4, 4)
    np.testing.assert_allclose(alone[:, :4], sources, rtol=1e-12)


def test_graphs_side_by_side_are_a_batch():
    twice = jax.jit(layer(PARAMETERS, gamma=0.8, tolerance=1e-12))(
        np.concatenate([NODES, 2 * NODES]),
        np.concatenate([EDGES, EDGES]),
        np.concatenate([SENDERS, SENDERS + 4]),
        np.concatenate([RECEIVERS, RECEIVERS + 4]),
    )
    for part, nodes in ((twice[:4], NODES), (twice[4:], 2 * NODES)):
        np.testing.assert_allclose(part, solved(PARAMETERS, nodes, 0.8), rtol=1e-9)


def test_a_graph_without_edges_has_its_sources():
    none = np.zeros(0, int)
    found = jax.jit(layer(PARAMETERS))(NODES, np.zeros((0, 3)), none, none)
    sources = np.einsum("mpd,nd->nmp", PARAMETERS["node"], NODES).reshape(4, 4)
    np.testing.assert_allclose(found[:, :4], sources, rtol=1e-12)


def test_scores_that_underflow_leave_finite_derivatives():
    # Of the edges into node 2 only.
    parameters = PARAMETERS | {"edge": -1e6 * np.sign(EDGES[3:].sum(0)) * np.ones((2, 1))}
    total = jax.jit(jax.value_and_grad(lambda parameters: jnp.sum(solved(parameters, NODES))))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(total(parameters)))


def test_a_nan_is_not_hidden():
    nodes = jnp.asarray(NODES).at[3, 0].set(jnp.nan)
    assert np.all(np.isnan(solved(PARAMETERS, nodes)[:, :4]))


def test_any_method_solves_the_contraction():
    block = layer(PARAMETERS, gamma=0.9)
    problem = block.contraction(NODES, EDGES, SENDERS, RECEIVERS)
    solution = rp.solve(problem, rp.roots.Anderson(), rtol=0.0, atol=1e-11)
    expected = dense(PARAMETERS, 0.9)[:, :4]
    np.testing.assert_allclose(solution.value.reshape(4, 4), expected, rtol=1e-9)


def test_stays_in_single_precision():
    data, nodes, edges = jax.tree.map(jnp.float32, (PARAMETERS, NODES, EDGES))
    found = jax.jit(lambda data: layer(data, gamma=0.9)(nodes, edges, SENDERS, RECEIVERS))(data)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, dense(PARAMETERS, 0.9), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"score": 3}, "`score` must be a function"),
        ({"source": 3}, "`source` must be a function"),
        ({"decode": 3}, "`decode` must be a function"),
        ({"gamma": 1.0}, "`gamma` must be a number in"),
        ({"tolerance": 0.0}, "`tolerance` must be a number in"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    fine = {"score": jnp.add, "source": jnp.sin, "decode": jnp.add}
    with pytest.raises(ValueError, match=message):
        ConvergentGraphSolver(**(fine | arguments))
