"""One call for each common question, with SciPy's habits and a method that suits the problem."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import Any

import lineax as lx
from jaxtyping import ArrayLike, PyTree

from .engine import solve
from .linear.problem import LinearSystem
from .roots.problem import (
    BoundedLeastSquares,
    BoundedRootFind,
    FixedPoint,
    LeastSquares,
    RootFind,
)
from .smooth.problem import Minimize
from .solution import Solution
from .validate import pair

_OPTIONS = [n for n, p in inspect.signature(solve).parameters.items() if p.kind is p.KEYWORD_ONLY]


def _solved(problem: Any, method: Any, options: dict[str, Any]) -> Solution:
    for name in options:
        if name not in _OPTIONS:
            near = difflib.get_close_matches(name, _OPTIONS, 1)
            meant = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(_OPTIONS)}."
            raise TypeError(f"`{name}` is no option of a solve; {meant}")
    return solve(problem, method, **options)


def minimize(
    fn: Callable[[Any, Any], Any],
    y0: PyTree[ArrayLike],
    args: PyTree = None,
    *,
    method: Any = None,
    **options: Any,
) -> Solution:
    """Minimize a scalar function of arrays.

    Args:
        fn: `fn(y, args)`, returning a real scalar. Define it once: a new function compiles anew.
        y0: the start, a PyTree of floating-point arrays.
        args: any data for `fn`; the answer can be differentiated by it.
        method: as in `solve`.
        **options: `key`, `rtol`, `atol`, `max_steps`, `throw`, as in `solve`.

    Returns:
        The solution, as `solve` returns it.

    Raises:
        ValueError: if an argument is unfit.
        SolveError: if the answer is not usable and `throw` is not False.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> solution = rp.minimize(lambda y, a: jnp.sum((y - a) ** 2), jnp.zeros(2), 3.0)
        >>> solution.value.round(3).tolist()
        [3.0, 3.0]
    """
    return _solved(Minimize(fn, y0, args), method, options)


def root(
    fn: Callable[[Any, Any], Any],
    y0: PyTree[ArrayLike],
    args: PyTree = None,
    *,
    bounds: tuple[PyTree[ArrayLike], PyTree[ArrayLike]] | None = None,
    method: Any = None,
    **options: Any,
) -> Solution:
    """Find y where F(y) = 0.

    Args:
        fn: `fn(y, args)`, returning arrays with as many entries as `y`.
        y0: the start, a PyTree of floating-point arrays.
        args: any data for `fn`; the answer can be differentiated by it.
        bounds: `(lower, upper)`, each shaped as the start or one number, infinite where there is
            none; the answer is sought within.
        method: as in `solve`.
        **options: `key`, `rtol`, `atol`, `max_steps`, `throw`, as in `solve`.

    Returns:
        The solution, as `solve` returns it.

    Raises:
        ValueError: if an argument is unfit.
        SolveError: if the answer is not usable and `throw` is not False.

    Example:
        >>> import raphson as rp
        >>> round(float(rp.root(lambda y, a: y**2 - a, 1.0, 2.0).value), 3)
        1.414
        >>> round(float(rp.root(lambda y, a: y**2 - a, -1.0, 2.0, bounds=(-5.0, 0.0)).value), 3)
        -1.414
    """
    if bounds is not None:
        return _solved(BoundedRootFind(fn, y0, *pair(bounds, "bounds"), args), method, options)
    return _solved(RootFind(fn, y0, args), method, options)


def least_squares(
    fn: Callable[[Any, Any], Any],
    y0: PyTree[ArrayLike],
    args: PyTree = None,
    *,
    bounds: tuple[PyTree[ArrayLike], PyTree[ArrayLike]] | None = None,
    method: Any = None,
    **options: Any,
) -> Solution:
    """Minimize half the sum of squared residuals.

    Args:
        fn: `fn(y, args)`, returning the residuals, a PyTree of arrays.
        y0: the start, a PyTree of floating-point arrays.
        args: any data for `fn`; the answer can be differentiated by it.
        bounds: `(lower, upper)`, each shaped as the start or one number, infinite where there is
            none; the answer is sought within.
        method: as in `solve`.
        **options: `key`, `rtol`, `atol`, `max_steps`, `throw`, as in `solve`.

    Returns:
        The solution, as `solve` returns it.

    Raises:
        ValueError: if an argument is unfit.
        SolveError: if the answer is not usable and `throw` is not False.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> t = jnp.array([0.0, 1.0, 2.0])
        >>> data = (t, jnp.exp(-0.5 * t))
        >>> fit = rp.least_squares(lambda k, d: jnp.exp(-k * d[0]) - d[1], 1.0, data)
        >>> round(float(fit.value), 3)
        0.5
    """
    if bounds is not None:
        return _solved(BoundedLeastSquares(fn, y0, *pair(bounds, "bounds"), args), method, options)
    return _solved(LeastSquares(fn, y0, args), method, options)


def fixed_point(
    fn: Callable[[Any, Any], Any],
    y0: PyTree[ArrayLike],
    args: PyTree = None,
    *,
    method: Any = None,
    **options: Any,
) -> Solution:
    """Find y where T(y) = y.

    Args:
        fn: `fn(y, args)`, returning what is shaped as `y`.
        y0: the start, a PyTree of floating-point arrays.
        args: any data for `fn`; the answer can be differentiated by it.
        method: as in `solve`.
        **options: `key`, `rtol`, `atol`, `max_steps`, `throw`, as in `solve`.

    Returns:
        The solution, as `solve` returns it.

    Raises:
        ValueError: if an argument is unfit.
        SolveError: if the answer is not usable and `throw` is not False.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> round(float(rp.fixed_point(lambda y, _: jnp.cos(y), 0.5).value), 3)
        0.739
    """
    return _solved(FixedPoint(fn, y0, args), method, options)


def linear_solve(
    operator: lx.AbstractLinearOperator | ArrayLike,
    vector: PyTree[ArrayLike],
    *,
    method: Any = None,
    **options: Any,
) -> Solution:
    """Solve A y = b.

    Args:
        operator: A, a Lineax operator or a matrix of shape (n, n).
        vector: b, a PyTree of floating-point arrays shaped as A's output.
        method: as in `solve`.
        **options: `key`, `rtol`, `atol`, `max_steps`, `throw`, as in `solve`.

    Returns:
        The solution, as `solve` returns it.

    Raises:
        ValueError: if an argument is unfit.
        SolveError: if the answer is not usable and `throw` is not False.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> rp.linear_solve(jnp.array([[2.0, 0.0], [0.0, 4.0]]), jnp.ones(2)).value.tolist()
        [0.5, 0.25]
    """
    return _solved(LinearSystem(operator, vector), method, options)
