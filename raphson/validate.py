"""Bad input refused before anything runs: each check writes the one sentence that says why."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, PyTree


def as_function(fn: Any, name: str = "fn") -> Callable[..., Any]:
    """`fn`, if it can be called."""
    if not callable(fn):
        raise ValueError(f"`{name}` must be a function, got {_shown(fn)}.")
    return fn


def as_batch_size(batch_size: Any) -> int | None:
    """How many samples a step draws; None for all of them."""
    return None if batch_size is None else whole_number(batch_size, "batch_size", 1)


def as_metrics(metrics: Any) -> dict[str, Callable[..., Any]]:
    """Further measures by name, none by default."""
    metrics = metrics or {}
    if not (isinstance(metrics, dict) and all(callable(metric) for metric in metrics.values())):
        raise ValueError(f"`metrics` must be a dict of functions by name, got {metrics!r}.")
    return metrics


def as_operator(
    value: lx.AbstractLinearOperator | ArrayLike, name: str
) -> lx.AbstractLinearOperator:
    """`value` as a Lineax operator; a matrix of real floating-point numbers becomes one."""
    if isinstance(value, lx.AbstractLinearOperator):
        return value
    if np.ndim(value) != 2:
        came = f"an array of shape {np.shape(value)}" if hasattr(value, "shape") else _shown(value)
        raise ValueError(f"`{name}` must be a Lineax operator or a matrix, got {came}.")
    return lx.MatrixLinearOperator(as_start(jnp.asarray(value), name))


def as_start(y0: Any, name: str = "y0") -> PyTree[Array]:
    """`y0` as a PyTree of real floating-point JAX arrays of fixed dtype."""
    leaves, treedef = jax.tree.flatten(y0, is_leaf=lambda x: x is None)
    if not leaves:
        raise ValueError(f"`{name}` must hold at least one array, got {_shown(y0)}.")
    # By `map`, for a comprehension would be one more frame above the sentence.
    leaves = list(map(_as_floating, leaves, [name] * len(leaves)))
    dtypes = sorted({str(leaf.dtype) for leaf in leaves})
    if len(dtypes) > 1:
        raise ValueError(
            f"`{name}` must be made of arrays of one dtype, got {' and '.join(dtypes)}."
        )
    return treedef.unflatten(leaves)


def pair(value: Any, name: str) -> tuple[Any, Any]:
    """`value`, if it is a pair."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError(f"`{name}` must be a pair (lower, upper), got {_shown(value)}.")
    return value[0], value[1]


def as_bounds(lower: Any, upper: Any, y0: PyTree[Array]) -> tuple[PyTree[Array], PyTree[Array]]:
    """`lower` and `upper` shaped as the start, if they leave room in every entry and it is inside.

    What is not known yet (under `jit`) is let through, and a start that is not finite is no matter
    of bounds.
    """
    lower, upper = _as_bound(lower, "lower", y0), _as_bound(upper, "upper", y0)
    for low, high, y in zip(*map(jax.tree.leaves, (lower, upper, y0)), strict=True):
        if not isinstance(low, Tracer) and not isinstance(high, Tracer) and np.any(low >= high):
            at = np.argmax(np.ravel(low >= high))
            raise ValueError(
                "`lower` must be below `upper` in every entry of the bounds, got "
                f"{np.ravel(low)[at]:g} and {np.ravel(high)[at]:g}; what is fixed is no unknown, "
                "and belongs into `args`."
            )
        if any(isinstance(leaf, Tracer) for leaf in (low, high, y)):
            continue
        outside = np.isfinite(y) & ((y < low) | (y > high))
        if np.any(outside):
            low, high, y = (np.ravel(leaf)[np.argmax(np.ravel(outside))] for leaf in (low, high, y))
            raise ValueError(f"`y0` must be within the bounds [{low:g}, {high:g}], got {y:g}.")
    return lower, upper


def _as_bound(value: Any, name: str, y0: PyTree[Array]) -> PyTree[Array]:
    leaves, treedef = jax.tree.flatten(y0)
    one = isinstance(value, int | float | np.number) or getattr(value, "shape", None) == ()
    if one and not isinstance(value, bool):
        bounds = [jnp.full_like(leaf, value) for leaf in leaves]
    else:
        try:
            bounds = jax.tree.leaves(jax.tree.map(jnp.asarray, value))
            fits = jax.tree.structure(value) == treedef
            fits = fits and [*map(jnp.shape, bounds)] == [*map(jnp.shape, leaves)]
        except (TypeError, ValueError):
            fits = False
        if not fits:
            raise ValueError(
                f"`{name}` must be one number or shaped as the start, {_described(y0)}, "
                f"got {_shown(value)}."
            )
        bounds = [
            jnp.asarray(bound, leaf.dtype) for bound, leaf in zip(bounds, leaves, strict=True)
        ]
    if any(not isinstance(bound, Tracer) and np.any(np.isnan(bound)) for bound in bounds):
        raise ValueError(f"`{name}` must not hold NaN, got {_shown(value)}.")
    return treedef.unflatten(bounds)


def _as_floating(leaf: Any, name: str) -> Array:
    dtype = getattr(leaf, "dtype", None)
    if dtype is None:
        try:
            dtype = np.result_type(np.asarray(leaf))
        except (TypeError, ValueError):
            dtype = np.dtype(object)
    if not jnp.issubdtype(dtype, jnp.floating):
        held = f"{dtype} ({_shown(leaf)})" if dtype != np.dtype(object) else _shown(leaf)
        raise ValueError(
            f"`{name}` must be made of real floating-point arrays, got {held}"
            + ("; split it into real and imaginary parts." if dtype.kind == "c" else ".")
        )
    if jnp.finfo(dtype).bits not in (32, 64):
        # The factorizations exist in single and double precision only.
        raise ValueError(f"`{name}` must be made of float32 or float64 arrays, got {dtype}.")
    # A weak type would change along the run, and with it what is compiled.
    return jax.lax.convert_element_type(leaf, jax.dtypes.canonicalize_dtype(dtype))


def require_scalar(out: Any, name: str = "fn") -> None:
    """Refuse the output of an objective that is not one real floating-point number."""
    ok = (
        isinstance(out, jax.ShapeDtypeStruct)
        and out.shape == ()
        and jnp.issubdtype(out.dtype, jnp.floating)
    )
    if not ok:
        raise Refusal(f"`{name}` must return one real scalar, got {_described(out)}.")


def require_vector(out: Any, name: str = "fn") -> None:
    """Refuse the output of a residual that is not made of real floating-point arrays."""
    leaves = jax.tree.leaves(out)
    if not leaves or not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves):
        raise Refusal(f"`{name}` must return real floating-point arrays, got {_described(out)}.")


def require_like(out: Any, y: PyTree[Array], name: str = "fn") -> None:
    """Refuse an output that is not shaped as the iterate."""
    same = jax.tree.structure(out) == jax.tree.structure(y) and all(
        a.shape == b.shape for a, b in zip(jax.tree.leaves(out), jax.tree.leaves(y), strict=True)
    )
    if not same:
        raise Refusal(
            f"`{name}` must return what is shaped as its input {_described(y)}, "
            f"got {_described(out)}."
        )


def require_structure(value: Any, structure: Any, name: str, what: str) -> None:
    """Refuse arrays whose shapes and dtypes are not those of `structure`."""
    came, expected = _described(value), _described(structure)
    if came != expected:
        raise ValueError(f"`{name}` must be shaped as {what}, {expected}, got {came}.")


def require_operator_on(owner: Any, name: str, y: PyTree[Array]) -> None:
    """Refuse a method's operator that does not map the entries of y, as one vector, to such."""
    operator, vector = getattr(owner, name), jax.eval_shape(lambda: ravel_pytree(y)[0])
    came = _described(operator.in_structure()), _described(operator.out_structure())
    expected = _described(vector)
    if came != (expected, expected):
        raise Refusal(
            f"`{name}` of {type(owner).__name__} must map {expected}, the entries of the start, to "
            f"the same, got a map of {came[0]} to {came[1]}."
        )


def require_square(out: Any, y: PyTree[Array]) -> None:
    """Refuse a system whose number of equations is not its number of unknowns."""
    equations = sum(leaf.size for leaf in jax.tree.leaves(out))
    unknowns = sum(leaf.size for leaf in jax.tree.leaves(y))
    if equations < unknowns:
        raise Refusal(
            f"`fn` gives {equations} equations for {unknowns} unknowns: an isolated root needs at "
            "least as many equations; ask `LeastSquares` for a best fit instead."
        )


def in_range(
    owner: Any,
    name: str,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    closed: str = "neither",
) -> None:
    """Refuse a hyperparameter of a method outside its range, as `require_number` does."""
    what = f"`{name}` of {type(owner).__name__}"
    require_number(getattr(owner, name), what, low, high, closed=closed)


def require_number(
    value: Any,
    what: str,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    closed: str = "neither",
) -> None:
    """Refuse what is no number, or numbers, in a range; `closed` names the ends that belong to it.

    A value that is not known yet (under `jit`) is let through.
    """
    if isinstance(value, Tracer):
        return
    left, right = closed in ("left", "both"), closed in ("right", "both")
    where = f"{'[' if left else '('}{low:g}, {high:g}{']' if right else ')'}"
    message = f"{what} must be a number in {where}, got {_shown(value)}."
    try:
        number = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise ValueError(message) from None
    above = (number >= low) if left else (number > low)
    below = (number <= high) if right else (number < high)
    one = number.ndim == 0 or isinstance(value, tuple)
    if isinstance(value, bool | str) or not one or not np.all(above & below):
        raise ValueError(message)


def numbers_of(owner: Any, name: str) -> np.ndarray:
    """The numbers that a field holds in all, refused if they are none; NaN if not known yet."""
    value = getattr(owner, name)
    leaves = jax.tree.leaves(value)
    if any(isinstance(leaf, Tracer) for leaf in leaves):
        return np.array([np.nan])
    try:
        numbers = np.concatenate([np.asarray(leaf, float).ravel() for leaf in leaves])
    except (TypeError, ValueError):
        numbers = np.array([np.nan])
    if np.any(np.isnan(numbers)):
        raise ValueError(
            f"`{name}` of {type(owner).__name__} must be one number, or numbers shaped as the "
            f"start, got {_shown(value)}."
        )
    return numbers


def one_of(owner: Any, name: str, allowed: tuple[Any, ...]) -> None:
    """Refuse a choice that is not among those allowed."""
    value = getattr(owner, name)
    if value not in allowed:
        listed = ", ".join(repr(item) for item in allowed)
        raise ValueError(
            f"`{name}` of {type(owner).__name__} must be one of {listed}, got {_shown(value)}."
        )


def whole_number(value: Any, name: str, least: int = 0) -> int:
    """`value` as an int of at least `least`; steps and calls are counted in 32 bits."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < least:
        raise ValueError(
            f"`{name}` must be a whole number of at least {least}, got {_shown(value)}."
        )
    if value > np.iinfo(np.int32).max:
        raise ValueError(f"`{name}` must be a whole number below 2**31, got {_shown(value)}.")
    return int(value)


def tolerance(value: Any, name: str) -> Any:
    """`value` if it is a finite number of at least zero; traced values are let through."""
    if isinstance(value, Tracer) or (type(value) is float and 0 <= value < math.inf):
        return value
    known = isinstance(value, int | float | np.number | jax.Array) and not isinstance(value, bool)
    real = known and jnp.ndim(value) == 0 and jnp.isrealobj(value)
    if not (real and math.isfinite(value) and value >= 0):
        raise ValueError(f"`{name}` must be a finite number of at least 0, got {_shown(value)}.")
    return float(value)


def random_key(key: Any) -> None:
    """Refuse what is not one random key."""
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and shape == ()
    if not typed and not (dtype == jnp.uint32 and len(shape or ()) == 1):
        raise ValueError(f"`key` must be one random key, jax.random.key(0), got {_shown(key)}.")


class Refusal(ValueError):
    """Bad input that shows only while the user's function is traced."""


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Raise a `Refusal` from here, without the frames between the check and the user's call.

    What was raised inside of compiled code comes with its cause first too.
    """
    try:
        yield
    except Refusal as refusal:
        error = ValueError(str(refusal))
    except jax.errors.JaxRuntimeError as failure:
        error = RuntimeError(_cause(str(failure)))
    else:
        return
    raise error from None


def _cause(message: str) -> str:
    """Of a traceback that XLA made one string of, the sentence that it ends in."""
    lines = message.split("\n")
    after = [i for i, line in enumerate(lines) if line.startswith("  File ")]
    return lines[after[-1] + 1].partition(": ")[2] if after else message


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _described(out: Any) -> str:
    """Shapes and dtypes, such as `float64[3]`."""
    leaves, treedef = jax.tree.flatten(out)
    shapes = [f"{leaf.dtype.name}[{','.join(map(str, leaf.shape))}]" for leaf in leaves]
    if len(leaves) == 1 and treedef == jax.tree.structure(0):
        return shapes[0]
    return str(treedef.unflatten(shapes)) if leaves else "nothing"
