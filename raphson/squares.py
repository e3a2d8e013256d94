"""See in a function's program that its value is a sum of squares, and of what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var
from jaxtyping import Array, PyTree

# Primitives that only arrange the entries of one array anew, and that add them up.
_KEEPING = ("copy", "reshape", "squeeze", "transpose", "reduce_sum")


def residuals(fn: Callable[[Any], Array], y: PyTree[Array]) -> list[Array] | None:
    """Arrays r(y) whose squares add up to `fn(y)`, where its program shows them; else None.

    Sums, products with numbers that are not negative and even powers are followed from the result
    inwards; what is squared is not looked into.

    Args:
        fn: a scalar function.
        y: where it is asked.

    Example:
        >>> import jax.numpy as jnp
        >>> fn = lambda y: 4 * jnp.sum((y - 1) ** 2) + y[0] ** 4
        >>> [r.tolist() for r in residuals(fn, jnp.array([2.0, 3.0]))]
        [[2.0, 4.0], 4.0]
        >>> residuals(jnp.sum, jnp.ones(2)) is None
        True
    """
    program = jax.make_jaxpr(fn)(y)
    _, (squared,) = _followed(program, jax.tree.leaves(y), [None] * len(jax.tree.leaves(y)))
    return squared


def _followed(program: ClosedJaxpr, inputs: list[Any], known: list[Any]) -> tuple[list, list]:
    """The outputs of a program, and for each the arrays whose squares have the same sum, or None.

    Args:
        program: the program.
        inputs: its inputs.
        known: for each input the arrays whose squares have the same sum, or None.
    """
    jaxpr = program.jaxpr
    values = dict(zip(jaxpr.constvars, program.consts, strict=True))
    values |= dict(zip(jaxpr.invars, inputs, strict=True))
    squares = dict(zip(jaxpr.invars, known, strict=True))

    def of(table: dict, atom: Any) -> Any:
        return table.get(atom) if not isinstance(atom, Literal) else None

    def value(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for eqn in jaxpr.eqns:
        arguments = [value(atom) for atom in eqn.invars]
        roots = [of(squares, atom) for atom in eqn.invars]
        if eqn.primitive.name in ("jit", "pjit"):
            answers, found = _followed(eqn.params["jaxpr"], arguments, roots)
        else:
            read = {a: v for a, v in zip(eqn.invars, arguments, strict=True) if type(a) is Var}
            unnamed = jaxpr.debug_info.with_unknown_names()
            alone = Jaxpr((), list(read), eqn.outvars, [eqn], debug_info=unnamed)
            answers = jax.core.eval_jaxpr(alone, (), *read.values())
            found = [_squared(eqn, arguments, roots)] + [None] * (len(answers) - 1)
        values |= dict(zip(eqn.outvars, answers, strict=True))
        squares |= dict(zip(eqn.outvars, found, strict=True))
    return [value(atom) for atom in jaxpr.outvars], [of(squares, atom) for atom in jaxpr.outvars]


def _squared(eqn: Any, arguments: list[Any], roots: list[Any]) -> list[Array] | None:
    """The arrays whose squares have the same sum as the answer of one primitive, or None."""
    name, atoms = eqn.primitive.name, eqn.invars
    twice = len(atoms) == 2 and atoms[0] is atoms[1]
    if name == "square" or (name == "mul" and twice):
        return [arguments[0]]
    if name == "dot_general" and twice and eqn.outvars[0].aval.shape == ():
        (left, right), _ = eqn.params["dimension_numbers"]
        return [arguments[0]] if left == right else None
    if name == "integer_pow" and eqn.params["y"] > 0 and eqn.params["y"] % 2 == 0:
        return [arguments[0] ** (eqn.params["y"] // 2)]
    if name in _KEEPING:
        return roots[0]
    if name == "convert_element_type" and jnp.issubdtype(eqn.params["new_dtype"], jnp.floating):
        return roots[0] and [root.astype(eqn.params["new_dtype"]) for root in roots[0]]
    if name == "add" and roots[0] and roots[1]:
        return roots[0] + roots[1]
    if name == "div" and roots[0]:
        return _weighted(roots[0], atoms[1], lambda root, number: root / number**0.5)
    if name == "mul" and (roots[0] or roots[1]):
        number, root = (atoms[1], roots[0]) if roots[0] else (atoms[0], roots[1])
        return _weighted(root, number, lambda root, number: number**0.5 * root)
    return None


def _weighted(
    roots: list[Array], number: Any, weighted: Callable[[Array, Any], Array]
) -> list[Array] | None:
    if isinstance(number, Literal) and jnp.shape(number.val) == () and number.val > 0:
        return [weighted(root, jnp.asarray(number.val, root.dtype)) for root in roots]
    return None
