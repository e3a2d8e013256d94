"""Raphson: the literature of iterative methods as one library for JAX.

State a problem once, run any method on it, get the answer with a certificate:

    >>> import jax.numpy as jnp
    >>> import raphson as rp
    >>> problem = rp.Minimize(lambda y, _: jnp.sum((y - 1.0) ** 2), jnp.zeros(2))
    >>> rp.solve(problem).value.round(3).tolist()
    [1.0, 1.0]
"""

from importlib import metadata as _metadata

from . import (
    bilevel as bilevel,
    composite as composite,
    conditions as conditions,
    linear as linear,
    probes as probes,
    problems as problems,
    roots as roots,
    saddle as saddle,
    smooth as smooth,
    train as train,
)
from .bilevel.problem import Bilevel as Bilevel, BilevelSum as BilevelSum
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
from .saddle.composite import CompositeSaddle as CompositeSaddle
from .saddle.problem import (
    Saddle as Saddle,
    SaddleSum as SaddleSum,
    VariationalInequality as VariationalInequality,
    VariationalSum as VariationalSum,
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


def __getattr__(name: str) -> str:
    if name == "__version__":
        return _metadata.version("raphson")
    raise AttributeError(f"module 'raphson' has no attribute {name!r}")
