"""Derivatives of circuits against the rule of each gate, the Boolean difference, and tables."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from raphson.train import boolean_step, lookup_table, parity

RNG = np.random.default_rng(0)


def bits(n):
    return np.array(list(itertools.product([0.0, 1.0], repeat=n)))


def reverse(circuit, x, d):
    return np.mod(jax.vjp(circuit, jnp.asarray(x))[1](jnp.asarray(d))[0], 2)


def test_gates_have_the_rules_of_the_paper():
    for x in bits(2):
        for d in np.array([[0.0], [1.0]]):
            xor = reverse(lambda x: parity(x[:1] + x[1:]), x, d)
            both = reverse(lambda x: x[:1] * x[1:], x, d)
            negated = reverse(lambda x: 1 - x, x, [d[0], d[0]])
            np.testing.assert_array_equal(xor, [d[0], d[0]])
            np.testing.assert_array_equal(both, [x[1] * d[0], x[0] * d[0]])
            np.testing.assert_array_equal(negated, [d[0], d[0]])
        for d in bits(2):
            copied = reverse(lambda x: jnp.stack([x[0], x[0]]), x, d)
            np.testing.assert_array_equal(copied, [(d[0] + d[1]) % 2, 0])


def test_of_multilinear_polynomials_it_is_the_boolean_difference():
    n, m = 5, 3
    tables = RNG.integers(2, size=(m, 2**n)).astype(float)

    def circuit(x):
        return jnp.concatenate([lookup_table(jnp.asarray(table), x) for table in tables])

    derivative = jax.jit(lambda x, d: jax.vjp(circuit, x)[1](d)[0])
    for index, x in enumerate(bits(n)):
        d = RNG.integers(2, size=m).astype(float)
        values = tables[:, index]
        flipped = [tables[:, index ^ (1 << (n - 1 - i))] for i in range(n)]
        expected = [np.sum(np.abs(other - values) * d) % 2 for other in flipped]
        np.testing.assert_array_equal(np.mod(derivative(x, d), 2), expected)


def test_it_is_the_derivative_of_the_circuit_not_of_its_function():
    # x AND x is x, but as a polynomial x^2, whose derivative is 2 x = 0.
    np.testing.assert_array_equal(reverse(lambda x: x * x, [1.0], [1.0]), [0.0])
    np.testing.assert_array_equal(reverse(lambda x: x, [1.0], [1.0]), [1.0])


def test_deep_circuits_do_not_overflow():
    # Without `parity` on the way back, numbers would grow by 3 a gate, beyond what a float holds.
    matrix = np.ones((3, 3))

    def deep(x):
        for _ in range(100):
            x = parity(matrix @ x)
        return x

    expected = np.array([1.0, 0.0, 0.0])
    for _ in range(100):
        expected = matrix @ expected % 2
    np.testing.assert_array_equal(reverse(deep, [1.0, 1.0, 0.0], [1.0, 0.0, 0.0]), expected)


def test_step_follows_the_formula():
    # f_j = XOR_i p_ji a_i: the parameter p_ji is flipped where f_j is wrong and a_i is 1.
    p, a = (RNG.integers(2, size=size).astype(float) for size in (12, 4))
    wrong = np.array([1.0, 0.0, 1.0])
    b = (p.reshape(3, 4) @ a + wrong) % 2
    after = jax.jit(boolean_step, static_argnums=0)(
        lambda p, a: parity(p.reshape(3, 4) @ a), *map(jnp.asarray, (p, a, b))
    )
    np.testing.assert_array_equal(after, (p + np.outer(wrong, a).ravel()) % 2)
    assert a.any()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_table_is_learned_in_one_pass(dtype):
    x, table = jnp.asarray(bits(4), dtype), jnp.asarray(RNG.integers(2, size=16), dtype)

    def step(p, sample):
        return boolean_step(lookup_table, p, *sample), None

    learned, _ = jax.lax.scan(step, jnp.ones(16, dtype), (x, table[:, None]))
    assert learned.dtype == dtype
    np.testing.assert_array_equal(learned, table)
    np.testing.assert_array_equal(jax.vmap(lookup_table, (None, 0))(learned, x)[:, 0], table)


def test_a_table_of_another_size_is_refused_in_one_sentence():
    says = "`table` must hold 8 bits for 3 inputs, got the shape (4,)."
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        lookup_table(jnp.zeros(4), jnp.zeros(3))
