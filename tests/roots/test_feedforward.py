"""Sweeps over a chain against `jax.lax.scan`, and their number in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from raphson.roots import solve_feedforward

W = np.random.default_rng(0).normal(size=(2, 3, 3)) / 2


def cell(s, x):
    return {"u": jnp.tanh(W[0] @ s["u"] + s["v"] * x["b"]), "v": s["v"] / 2 + jnp.sum(x["a"])}


def chain(T=40, dtype=jnp.float64):
    rng = np.random.default_rng(1)
    start = {"u": jnp.array(rng.normal(size=3), dtype), "v": jnp.array(0.3, dtype)}
    return start, {"a": jnp.array(rng.normal(size=(T, 2))), "b": jnp.array(rng.normal(size=(T, 3)))}


def scanned(step, start, inputs):
    return jax.lax.scan(lambda s, x: (step(s, x),) * 2, start, inputs)[1]


def agree(a, b, **tolerances):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **tolerances)


def test_is_the_sequence():
    start, inputs = chain()
    states, sweeps = solve_feedforward(cell, start, inputs)
    agree(states, scanned(cell, start, inputs), rtol=1e-12)
    assert 2 < int(sweeps) <= 40


@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_a_chain_that_forgets_takes_as_many_sweeps_as_that_takes(decay):
    # Sweep k + 1 changes each state past the k-th by decay^k.
    forgetful = lambda s, x: decay * s + x
    for atol in (1e-2, 1e-4):
        states, sweeps = solve_feedforward(forgetful, 0.0, jnp.ones(200), atol=atol)
        assert int(sweeps) == np.ceil(np.log(atol) / np.log(decay)) + 1
        exact = (1 - decay ** np.arange(1, 201)) / (1 - decay)
        np.testing.assert_allclose(states, exact, rtol=0, atol=atol / (1 - decay))


def test_a_chain_that_forgets_nothing_takes_all_sweeps():
    states, sweeps = solve_feedforward(lambda s, x: s + x, 0.0, jnp.ones(30))
    assert int(sweeps) == 30
    np.testing.assert_array_equal(states, np.arange(1, 31))


def test_a_guess_saves_sweeps():
    start, inputs = chain()
    exact, cold = solve_feedforward(cell, start, inputs)
    again, sweeps = solve_feedforward(cell, start, inputs, guess=exact)
    assert int(sweeps) == 1
    agree(again, exact, rtol=0)
    near = jax.tree.map(lambda leaf: leaf + 1e-6, exact)
    _, warm = solve_feedforward(cell, start, inputs, guess=near, atol=1e-7)
    assert 1 < int(warm) < int(cold)


def test_a_bad_guess_is_forgotten():
    # The root of a negative guess is NaN, and none of the chain's.
    rooted = lambda s, x: jnp.sqrt(s) + x
    inputs = jnp.linspace(0.1, 1, 12)
    states, sweeps = solve_feedforward(rooted, 1.0, inputs, guess=jnp.full(12, -1.0))
    np.testing.assert_allclose(states, scanned(rooted, jnp.array(1.0), inputs), rtol=1e-14)
    assert int(sweeps) == 12


def test_a_chain_without_steps():
    states, sweeps = solve_feedforward(lambda s, x: s + x, jnp.ones(2), jnp.zeros((0, 2)))
    assert states.shape == (0, 2) and int(sweeps) == 0


def test_jit_vmap_forward_derivatives_and_single_precision():
    def last(a):
        return solve_feedforward(lambda s, x: a * s + x, jnp.zeros_like(a), jnp.ones(20))[0][-1]

    a = jnp.array([0.1, 0.5])
    together = jax.jit(jax.vmap(last))(a)
    np.testing.assert_allclose(together, [last(one) for one in a], rtol=1e-14)
    k = np.arange(20)
    np.testing.assert_allclose(jax.jacfwd(last)(a[1]), np.sum(k[1:] * 0.5 ** (k[1:] - 1)))
    states, _ = solve_feedforward(lambda s, x: s / 2 + x, jnp.float32(0), jnp.ones(9, jnp.float32))
    assert states.dtype == jnp.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": 3}, "`step` must be a function, got 3"),
        ({"step": lambda s, x: s[:1]}, r"`step\(start, input\)` must be shaped as `start`"),
        ({"start": jnp.array([1, 2])}, "`start` must be made of real floating-point arrays"),
        ({"inputs": (jnp.ones(3), jnp.ones(4))}, "`inputs` must be arrays that agree in their"),
        ({"inputs": jnp.array(1.0)}, "`inputs` must be arrays that agree in their first axis"),
        ({"guess": jnp.ones(3)}, "`guess` must be shaped as the states"),
        ({"atol": -1.0}, "`atol` must be a finite number of at least 0"),
    ],
)
def test_refuses(change, message):
    arguments = {"step": lambda s, x: s + x, "start": jnp.ones(2), "inputs": jnp.ones((3, 2))}
    with pytest.raises(ValueError, match=message):
        solve_feedforward(**(arguments | change))
