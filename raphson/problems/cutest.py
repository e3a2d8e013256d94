"""The CUTEst test problems, as `sif2jax` transcribes them, one at a time.

Gould, Orban, Toint (2015), CUTEst: a Constrained and Unconstrained Testing Environment with safe
threads for mathematical optimization.

Importing `sif2jax` builds its more than 800 problems and switches JAX to double precision. Here its
packages are entered as empty shells under a private name, so that a problem costs its own file
alone, nothing is switched, and a later `import sif2jax` meets nothing of ours.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import importlib.machinery
import importlib.util
import json
import math
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from ..problem import AbstractProblem, Facts
from ..roots.problem import BoundedRootFind, RootFind
from ..smooth.problem import Minimize


def cutest(name: str) -> AbstractProblem:
    """The CUTEst problem of that name.

    Its functions compute in the precision that JAX is set to and answer in that of the iterate.
    A problem loaded twice, or in two processes, has functions that compare equal, so that nothing
    is compiled again.

    Args:
        name: a name of `cutest_names`, such as `"ROSENBR"`; `"MISRA1ALS:1"` asks for the second of
            the starts of a problem that has several.

    Returns:
        A `Minimize` for the kind `"unconstrained"`, its fact `optimum` being `cutest_best` where
        a run has solved the problem; a `RootFind` for the kind `"nonlinear_equations"` and a
        `BoundedRootFind` for `"bounded_equations"`, where a system with more equations than
        unknowns need not have a root. `y0` is a vector. Variables that the bounds fix are no
        unknowns, and a start outside of the bounds is moved to the nearest point within.

    Raises:
        ValueError: if there is no problem, or no start, of that name.
        NotImplementedError: if it is one of minimization with bounds or constraints.

    Example:
        >>> from raphson.problems import cutest
        >>> problem = cutest("ROSENBR")
        >>> problem.y0.tolist(), float(problem.facts.optimum)
        ([-1.2, 1.0], 0.0)
    """
    name, start = _parsed(name)
    kind = _table("index")[name]["kind"]
    if kind not in ("unconstrained", "nonlinear_equations", "bounded_equations"):
        raise NotImplementedError(
            f"{name} is of the kind {kind!r}: only equations and minimization without bounds and "
            "constraints can be stated so far."
        )
    source = _sif2jax_problem(name, start, _precision())
    with _default_rules():
        y0, args = source.y0, source.args
    if kind == "bounded_equations":
        lower, upper = _bounds(source)
        free = lower < upper
        lower, upper, y0 = lower[free], upper[free], np.asarray(y0)[free]
        return BoundedRootFind(_BoundedFunction(name), np.clip(y0, lower, upper), lower, upper)
    if kind == "nonlinear_equations":
        return RootFind(_Function(name), y0)
    return Minimize(_Function(name), y0, args, facts=Facts(_optimum(name)))


def cutest_names(
    kind: str = "unconstrained", *, min_size: int | None = None, max_size: int | None = None
) -> list[str]:
    """The names of the CUTEst problems of a kind, in alphabetical order.

    Args:
        kind: `"unconstrained"`, `"nonlinear_equations"` or `"bounded_equations"`, which `cutest`
            loads; `"bounded"`, `"quadratic"` or `"constrained"`, which it does not yet.
        min_size: least number of variables.
        max_size: greatest number of variables.

    Raises:
        ValueError: if there is no such kind.

    Example:
        >>> from raphson.problems import cutest_names
        >>> cutest_names(max_size=2)[:3]
        ['AKIVA', 'BEALE', 'BOXBODLS']
    """
    kinds = sorted({entry["kind"] for entry in _table("index").values()})
    if kind not in kinds:
        raise ValueError(f"`kind` must be one of {', '.join(kinds)}, got {kind!r}.")
    low = 0 if min_size is None else min_size
    high = sys.maxsize if max_size is None else max_size
    return [
        name
        for name, entry in _table("index").items()
        if entry["kind"] == kind and low <= entry["n"] <= high
    ]


def cutest_best(name: str) -> float | None:
    """The least objective value known of a CUTEst problem, from whichever start.

    The table is our own, since about a fifth of the expected values in `sif2jax` are wrong; it
    tells, with each value, the run that found it. It holds the unconstrained problems.

    Returns:
        The value in double precision, minus infinity where the problem is unbounded below, or None
        where none is known.

    Raises:
        ValueError: if there is no problem of that name.

    Example:
        >>> from raphson.problems import cutest_best
        >>> cutest_best("JENSMP")
        124.362182
    """
    entry = _table("best").get(_parsed(name)[0], {})
    return -math.inf if "unbounded" in entry else entry.get("f")


def _optimum(name: str) -> float | None:
    """The best value known, unless runs have only come some of the way down."""
    entry = _table("best")[name]
    return None if "unbounded" in entry or "unsolved" in entry else entry["f"]


@dataclasses.dataclass(frozen=True)
class _Function:
    """The function of a problem, known by the problem's name: it compares, hashes and pickles."""

    name: str

    def __call__(self, y: Array, args: Any) -> Array:
        source = _sif2jax_problem(self.name, 0, _precision())
        with _default_rules():
            # Constants of sif2jax are of the precision that JAX is set to, so `y` is as well.
            wide = jnp.asarray(y, float)
            if hasattr(source, "constraint"):
                out, _ = ravel_pytree(source.constraint(wide)[0])
            else:
                out = source.objective(wide, args)
        return jnp.asarray(out, y.dtype)


class _BoundedFunction(_Function):
    """The function of the variables that the bounds leave free, the others being fixed."""

    def __call__(self, y: Array, args: Any) -> Array:
        lower, upper = _bounds(_sif2jax_problem(self.name, 0, _precision()))
        free = np.flatnonzero(lower < upper)
        return super().__call__(jnp.asarray(lower, y.dtype).at[free].set(y), args)


def _bounds(source: Any) -> tuple[np.ndarray, np.ndarray]:
    """The bounds of a problem of `sif2jax`, equal where a variable is fixed."""
    with jax.ensure_compile_time_eval(), _default_rules():
        lower, upper = source.bounds
        return np.asarray(lower), np.asarray(upper)


@functools.cache
def _sif2jax_problem(name: str, start: int, precision: str) -> Any:
    """The object of `sif2jax`, whose arrays have the precision in force when its file is run."""
    entry = _table("index")[name]
    # The first call may come from a function that is being traced, and the arrays outlive it.
    with jax.ensure_compile_time_eval(), _default_rules():
        module = importlib.import_module(f"{_shell(precision)}.cutest.{entry['module']}")
        cls = getattr(module, entry["class"])
        return cls(y0_iD=start) if start else cls()


@contextlib.contextmanager
def _default_rules() -> Iterator[None]:
    """JAX's default rules of promotion, on which `sif2jax` counts, whatever the user's are."""
    with (
        jax.numpy_rank_promotion("allow"),
        jax.numpy_dtype_promotion("standard"),
        warnings.catch_warnings(),
    ):
        # It asks for double precision in many places, also where JAX is set to single.
        warnings.filterwarnings("ignore", "Explicitly requested dtype", UserWarning)
        yield


def _precision() -> str:
    """`"float32"` or `"float64"`, as JAX is set."""
    return jnp.result_type(float).name


@functools.cache
def _shell(precision: str) -> str:
    """The name under which the files of `sif2jax` are imported, its packages being left empty."""
    spec = importlib.util.find_spec("sif2jax")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("the CUTEst problems need sif2jax: `pip install sif2jax`.")
    folder = Path(spec.submodule_search_locations[0])
    root = f"{__name__}_{precision}"
    families = {entry["module"].split(".")[0] for entry in _table("index").values()}
    for package in ("", "cutest", *(f"cutest.{family}" for family in families)):
        parts = package.split(".") if package else []
        shell = importlib.machinery.ModuleSpec(".".join([root, *parts]), None, is_package=True)
        shell.submodule_search_locations = [str(folder.joinpath(*parts))]
        sys.modules[shell.name] = importlib.util.module_from_spec(shell)
    return root


def _parsed(name: str) -> tuple[str, int]:
    """The name of a problem and the number of its start, refused where there is none such."""
    index = _table("index")
    problem, _, start = str(name).partition(":")
    if problem not in index:
        near = difflib.get_close_matches(problem.upper(), index, 3)
        hint = f"did you mean {' or '.join(near)}?" if near else "`cutest_names` lists them."
        raise ValueError(f"`name` must be that of a CUTEst problem, got {name!r}; {hint}")
    starts = [str(number) for number in index[problem]["starts"]]
    if (start or "0") not in starts:
        raise ValueError(f"{problem} has the starts {', '.join(starts)}, got {name!r}.")
    return problem, int(start or 0)


@functools.cache
def _table(which: str) -> dict[str, dict[str, Any]]:
    """`cutest_index.json` or `cutest_best.json`, by the problems' names."""
    return json.loads(Path(__file__).with_name(f"cutest_{which}.json").read_text())
