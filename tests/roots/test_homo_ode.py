"""HomoODE against its flow in closed form, and against the equilibria that it flows to."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.roots import Anderson, HomoODE


def test_the_flow_of_an_affine_cell():
    # dz/dt = -z/2 + x ends at 2 x + e^(-t/2) (z(0) - 2 x).
    block = HomoODE(lambda z, x: z / 2 + x, jnp.array([3.0]), time=1.5, tolerance=1e-8)
    end = block(jnp.array([0.4]))
    expected = 0.8 + np.exp(-0.75) * (3 - 0.8)
    np.testing.assert_allclose(end.value, [expected], rtol=1e-7)
    np.testing.assert_allclose(end.residual, [0.4 - expected / 2], rtol=1e-7)


def test_ends_at_the_equilibrium_and_counts_what_it_took():
    calls = []

    def cell(z, x):
        jax.debug.callback(lambda _: calls.append(1), z)
        return jnp.tanh(jnp.array([[0.3, -0.5], [0.4, 0.2]]) @ z + x)

    x = jnp.array([0.5, -1.0])
    end = HomoODE(cell, jnp.zeros(2), tolerance=1e-5)(x)
    jax.effects_barrier()
    # The event that tells rest asks once a step more; what it asks is not asked of the model.
    assert len(calls) >= int(end.evaluations) > 10
    problem = rp.FixedPoint(cell, jnp.zeros(2), x)
    np.testing.assert_allclose(end.value, rp.solve(problem, Anderson()).value, atol=1e-4)
    assert np.abs(end.residual).max() < 1e-4


def test_a_start_at_the_equilibrium_needs_next_to_nothing():
    block = HomoODE(lambda z, x: z / 2 + x, jnp.array([3.0]))
    there = eqx.tree_at(lambda b: b.start, block, jnp.array([0.8]))
    x = jnp.array([0.4])
    assert int(there(x).evaluations) < int(block(x).evaluations) / 3


def test_the_start_and_the_cell_have_gradients():
    x = jnp.array([0.4])

    def value(start, slope):
        return HomoODE(lambda z, x: slope * z + x, start, time=1.0, tolerance=1e-8)(x).value[0]

    by_start, by_slope = jax.grad(value, (0, 1))(jnp.array([3.0]), 0.5)
    np.testing.assert_allclose(by_start, [np.exp(-0.5)], rtol=1e-6)
    at = lambda a: 0.4 / (1 - a) + np.exp(a - 1) * (3 - 0.4 / (1 - a))
    np.testing.assert_allclose(by_slope, (at(0.5 + 1e-5) - at(0.5 - 1e-5)) / 2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cell": 3}, "`cell` must be a function"),
        ({"start": "here"}, "`start` must be made of real floating-point"),
        ({"time": 0.0}, "`time` must be a number in"),
        ({"tolerance": -1.0}, "`tolerance` must be a number in"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        HomoODE(**({"cell": lambda z, x: z, "start": jnp.zeros(1)} | arguments))
