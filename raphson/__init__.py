"""Raphson: the literature of iterative methods as one library for JAX.

State a problem once, run any method on it, get the answer with a certificate:

    >>> import jax.numpy as jnp
    >>> import raphson as rp
    >>> problem = rp.Minimize(lambda y, _: jnp.sum((y - 1.0) ** 2), jnp.zeros(2))
    >>> rp.solve(problem).value.round(3).tolist()
    [1.0, 1.0]
"""

from importlib import import_module as _import_module, metadata as _metadata
from typing import TYPE_CHECKING as _TYPE_CHECKING, Any as _Any

from . import (
    composite as composite,
    conditions as conditions,
    linear as linear,
    roots as roots,
    smooth as smooth,
)
from .composite.problem import Composite as Composite
from .convenience import (
    fixed_point as fixed_point,
    least_squares as least_squares,
    linear_solve as linear_solve,
    minimize as minimize,
    root as root,
)
from .derivatives import implicit as implicit
from .engine import Record as Record, Trace as Trace, solve as solve, trace as trace, watch as watch
from .lifts import (
    SciPyLeastSquares as SciPyLeastSquares,
    SciPyMinimize as SciPyMinimize,
    SciPyRoot as SciPyRoot,
    as_lineax as as_lineax,
    as_method as as_method,
    as_optimistix as as_optimistix,
)
from .linear.problem import LinearSystem as LinearSystem
from .method import AbstractMethod as AbstractMethod, iterate as iterate
from .problem import (
    AbstractObjective as AbstractObjective,
    AbstractProblem as AbstractProblem,
    AbstractResidual as AbstractResidual,
    Facts as Facts,
    Known as Known,
    oracle as oracle,
)
from .progress import progress as progress
from .roots.problem import (
    BoundedLeastSquares as BoundedLeastSquares,
    BoundedRootFind as BoundedRootFind,
    FixedPoint as FixedPoint,
    LeastSquares as LeastSquares,
    RootFind as RootFind,
)
from .smooth.problem import FiniteSum as FiniteSum, Minimize as Minimize
from .solution import (
    Certificate as Certificate,
    Solution as Solution,
    SolveError as SolveError,
    Stats as Stats,
    Status as Status,
    status_name as status_name,
)
from .wrappers import (
    Counted as Counted,
    Delayed as Delayed,
    Faulty as Faulty,
    Inexact as Inexact,
    Noisy as Noisy,
    Scaled as Scaled,
)

if _TYPE_CHECKING:
    from . import (
        bilevel as bilevel,
        probes as probes,
        problems as problems,
        saddle as saddle,
        train as train,
    )
    from .bilevel import Bilevel as Bilevel, BilevelSum as BilevelSum
    from .saddle import (
        CompositeSaddle as CompositeSaddle,
        Saddle as Saddle,
        SaddleSum as SaddleSum,
        VariationalInequality as VariationalInequality,
        VariationalSum as VariationalSum,
    )

# What few programs ask for is loaded when it is first named: that halves what importing adds.
_MODULES = ("bilevel", "probes", "problems", "saddle", "train")
_MEMBERS = {
    **dict.fromkeys(("Bilevel", "BilevelSum"), "bilevel"),
    **dict.fromkeys(("CompositeSaddle", "Saddle", "SaddleSum"), "saddle"),
    **dict.fromkeys(("VariationalInequality", "VariationalSum"), "saddle"),
}


def __getattr__(name: str) -> _Any:
    if name in _MODULES:
        return _import_module(f".{name}", __name__)
    if name in _MEMBERS:
        return getattr(__getattr__(_MEMBERS[name]), name)
    if name == "__version__":
        return _metadata.version("raphson")
    raise AttributeError(f"module 'raphson' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_MEMBERS})
