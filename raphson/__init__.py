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
    linear as linear,
)
from . import (
    probes as probes,
)
from . import (
    problems as problems,
)
from . import (
    roots as roots,
)
from . import (
    saddle as saddle,
)
from . import (
    smooth as smooth,
)
from . import (
    train as train,
)
from .convenience import (
    fixed_point as fixed_point,
)
from .convenience import (
    least_squares as least_squares,
)
from .convenience import (
    linear_solve as linear_solve,
)
from .convenience import (
    minimize as minimize,
)
from .convenience import (
    root as root,
)
from .engine import Record as Record
from .engine import Trace as Trace
from .engine import solve as solve
from .engine import trace as trace
from .engine import watch as watch
from .lifts import (
    SciPyMinimize as SciPyMinimize,
)
from .lifts import (
    SciPyRoot as SciPyRoot,
)
from .lifts import (
    as_lineax as as_lineax,
)
from .lifts import (
    as_method as as_method,
)
from .lifts import (
    as_optimistix as as_optimistix,
)
from .linear.problem import LinearSystem as LinearSystem
from .method import AbstractMethod as AbstractMethod
from .method import iterate as iterate
from .problem import (
    AbstractObjective as AbstractObjective,
)
from .problem import (
    AbstractProblem as AbstractProblem,
)
from .problem import (
    AbstractResidual as AbstractResidual,
)
from .problem import (
    Facts as Facts,
)
from .problem import (
    Known as Known,
)
from .problem import (
    oracle as oracle,
)
from .progress import progress as progress
from .roots.problem import (
    FixedPoint as FixedPoint,
)
from .roots.problem import (
    LeastSquares as LeastSquares,
)
from .roots.problem import (
    RootFind as RootFind,
)
from .saddle.problem import Saddle as Saddle
from .smooth.problem import FiniteSum as FiniteSum
from .smooth.problem import Minimize as Minimize
from .solution import (
    Certificate as Certificate,
)
from .solution import (
    Solution as Solution,
)
from .solution import (
    SolveError as SolveError,
)
from .solution import (
    Stats as Stats,
)
from .solution import (
    Status as Status,
)
from .solution import (
    status_name as status_name,
)
from .wrappers import (
    Counted as Counted,
)
from .wrappers import (
    Delayed as Delayed,
)
from .wrappers import (
    Faulty as Faulty,
)
from .wrappers import (
    Inexact as Inexact,
)
from .wrappers import (
    Noisy as Noisy,
)
from .wrappers import (
    Scaled as Scaled,
)


def __getattr__(name: str) -> str:
    if name == "__version__":
        return _metadata.version("raphson")
    raise AttributeError(f"module 'raphson' has no attribute {name!r}")
