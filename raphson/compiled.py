"""Call a function compiled, with numbers as data: only structure, shapes and dtypes recompile."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.extend.core import get_opaque_trace_state

# XLA's newer emitters of fused loops take a third of the time that a solver's program takes to
# compile for a CPU, and LLVM's higher levels another tenth: the program is no faster for either.
OPTIONS = {"xla_cpu_use_fusion_emitters": False, "xla_backend_optimization_level": 1}
# JAX takes options outside of its transformations only.
_OUTSIDE = get_opaque_trace_state()


def compiled(fn: Callable[..., Any], *args: Any) -> Any:
    """`fn(*args)`, compiled once for each structure of `args`.

    Arrays and Python floats anywhere inside `args` are data, so that another step size or
    tolerance recompiles nothing; a float stays weakly typed, so that it bends to the data's
    precision. All else (functions, whole numbers, strings) is structure.
    """
    leaves, treedef = jax.tree.flatten(args)
    data, structure = [], []
    for leaf in leaves:
        known = _KNOWN.get(type(leaf))
        if _is_data(leaf) if known is None else known:
            data.append(leaf)
            leaf = _DATA
        structure.append(leaf)
    outside = get_opaque_trace_state() == _OUTSIDE
    return _compiled(fn, treedef, tuple(structure), outside)(*data)


_DATA = object()
# To ask what an array is costs JAX microseconds, and this is asked at every call.
_KNOWN: dict[type, bool] = {}


def _is_data(leaf: Any) -> bool:
    known = isinstance(leaf, jax.Array | float | np.ndarray | np.generic)
    if not isinstance(leaf, Tracer):
        _KNOWN[type(leaf)] = known
    return known


@functools.lru_cache(maxsize=1024)
def _compiled(
    fn: Any, treedef: Any, structure: tuple[Any, ...], outside: bool
) -> Callable[..., Any]:
    # One `jit` for each structure: static arguments would be compared at every call of it.
    @functools.partial(jax.jit, compiler_options=_options() if outside else None)
    def call(*data: Any) -> Any:
        flow = iter(data)
        return fn(*treedef.unflatten(next(flow) if s is _DATA else s for s in structure))

    return call


@functools.cache
def _options() -> dict[str, Any] | None:
    """The options for CPUs, where it is they that run and this XLA knows them.

    What the user's own flags say of them stands.
    """
    if jax.default_backend() != "cpu":
        return None
    said = os.environ.get("XLA_FLAGS", "")
    options = {name: value for name, value in OPTIONS.items() if name not in said}
    try:
        jax.jit(lambda: 0, compiler_options=options)()
    except jax.errors.JaxRuntimeError:
        return None
    return options
