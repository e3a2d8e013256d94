"""Reverse derivative ascent: circuits of bits that learn by the derivatives of polynomials mod 2.

Wilson, Zanasi (2021), Reverse Derivative Ascent: A Categorical Approach to Learning Boolean
Circuits.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..validate import as_function


@jax.custom_vjp
def parity(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The remainder after division by 2, through which derivatives pass mod 2.

    A circuit is a polynomial over the whole numbers mod 2, and with this gate an ordinary function
    of arrays of 0.0 and 1.0: XOR is `parity(a + b)`, of many bits `parity(jnp.sum(bits))` or
    `parity(matrix @ bits)`; AND is `a * b`; NOT is `1 - a`. Reduced mod 2, what `jax.vjp` makes of
    that is the circuit's reverse derivative, gate by gate: (d, d) for XOR, (b d, a d) for AND, and
    the XOR of what comes back to a bit that is used twice.

    Args:
        x: whole numbers, as floats.

    Returns:
        0.0 where they are even, 1.0 where they are odd.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> rp.train.parity(jnp.array([0.0, 1.0, 2.0, 3.0])).tolist()
        [0.0, 1.0, 0.0, 1.0]
    """
    return jnp.mod(x, 2)


parity.defvjp(lambda x: (jnp.mod(x, 2), None), lambda _, d: (jnp.mod(d, 2),))


def boolean_step(
    circuit: Callable[[Float[Array, " k"], Float[Array, " n"]], Float[Array, " m"]],
    params: Float[Array, " k"],
    inputs: Float[Array, " n"],
    target: Float[Array, " m"],
) -> Float[Array, " k"]:
    """A step of reverse derivative ascent by one sample, without a learning rate.

    With the parameters p, the sample (a, b) and the circuit's reverse derivative R by p:

        p = p XOR R(p, a; circuit(p, a) XOR b)

    Where no bit of p is multiplied with itself, flipping it alone flips the outputs that the
    derivative says; bits that are flipped together may undo each other. `jax.lax.scan` goes through
    many samples.

    Args:
        circuit: of p and a to the output, built of sums, products and `parity`.
        params: bits, as 0.0 and 1.0.
        inputs: bits.
        target: bits that the output should be.

    Returns:
        The parameters after the step.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> bits = [jnp.array([a, b]) for a in (0.0, 1.0) for b in (0.0, 1.0)]
        >>> table = jnp.zeros(4)
        >>> for a in bits:  # learn AND
        ...     table = rp.train.boolean_step(rp.train.lookup_table, table, a, a[:1] * a[1:])
        >>> table.tolist()
        [0.0, 0.0, 0.0, 1.0]
    """
    as_function(circuit, "circuit")
    output, pull = jax.vjp(lambda p: circuit(p, inputs), params)
    (change,) = pull(parity(output + target))
    return parity(params + change)


def lookup_table(table: Float[Array, " 2**n"], inputs: Float[Array, " n"]) -> Float[Array, "1"]:
    """The circuit that reads the output off a table of 2^n bits; the first input counts most.

    A step of `boolean_step` sets the one entry that was read to the target, so that after one pass
    over samples that do not contradict each other there is no error left.

    Args:
        table: the output for each input, from 0...0 to 1...1.
        inputs: bits; n of them.

    Returns:
        The entry of the table.

    Raises:
        ValueError: if the table has not 2^n entries.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> rp.train.lookup_table(jnp.array([0.0, 0.0, 1.0, 0.0]), jnp.array([1.0, 0.0])).tolist()
        [1.0]
    """
    if table.shape != (2**inputs.size,):
        raise ValueError(
            f"`table` must hold {2**inputs.size} bits for {inputs.size} inputs, got the shape "
            f"{table.shape}."
        )
    chosen = jnp.ones(1, inputs.dtype)
    for bit in inputs:
        chosen = jnp.outer(chosen, jnp.stack([1 - bit, bit])).ravel()
    return parity(jnp.sum(table * chosen, keepdims=True))
