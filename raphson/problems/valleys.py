"""Bilevel problems on which penalties of the lower level are tried, with what is known exactly."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, Float

from ..bilevel.constrained import ConstrainedBilevel
from ..bilevel.problem import Bilevel
from ..composite import Box
from ..problem import Facts
from ..validate import whole_number


def quartic_levels() -> Bilevel:
    """Two scalars, F = (y - 2)^2 / 2 + x^2 / 10 and f = y^2 / 2 + y^4 / 40 - x y.

    The lower answer is the real root of y + y^3 / 10 = x, whose curvature changes with x.

    Returns:
        The problem from x = 1, y = 0. Facts: `minimizer`, to rounding, near x = 1.735; `optimum`.

    Example:
        >>> import raphson as rp
        >>> x, y = rp.solve(quartic_levels()).value
        >>> round(float(x), 1), round(float(y), 1)
        (1.7, 1.4)
    """
    from scipy.optimize import brentq  # 0.4 s that `import raphson` need not take

    slope = lambda y: (y + y**3 / 10) / 5 * (1 + 0.3 * y**2) + y - 2
    y = float(brentq(slope, 0, 2, xtol=1e-15))  # pyright: ignore[reportArgumentType]
    x = y + y**3 / 10
    facts = Facts(minimizer=(jnp.asarray(x), jnp.asarray(y)), optimum=(y - 2) ** 2 / 2 + x**2 / 10)
    return Bilevel(_distant, _quartic, jnp.array(1.0), jnp.array(0.0), facts=facts)


def flat_valley() -> Bilevel:
    """A line of lower minima: F = |y - (1, 0)|^2 / 2 + x^2 / 4 and f = (y_1 + y_2 - x)^2 / 2.

    The best of them gives the objective (x - 1)^2 / 4 + x^2 / 4, and the penalty sigma F of f the
    objective (x - 1)^2 / (2 (sigma + 2)) + x^2 / 4.

    Returns:
        The problem from x = 2, y = (0, 0). Facts: `minimizer`, x = 1/2 and y = (3/4, -1/4);
        `optimum` = 1/8.

    Example:
        >>> problem = flat_valley()
        >>> float(problem.upper_value(*problem.facts.minimizer, None))
        0.125
    """
    facts = Facts(minimizer=(jnp.array(0.5), jnp.array([0.75, -0.25])), optimum=0.125)
    return Bilevel(_nearest, _line, jnp.array(2.0), jnp.zeros(2), facts=facts)


def jumping_minimum() -> Bilevel:
    """A lower minimum that jumps: F = (x + 1)^2 / 2 + 2 y, f = x y, -1 <= y <= 1.

    Below x = 0 the lower answer is y = 1, above y = -1, and at 0 any y. The objective
    (x + 1)^2 / 2 - 2 sign(x) is least at x = 0, y = -1, where it is -3/2, but not stationary there:
    no certificate can hold near it. At x = -1, y = 1 it has a local minimum.

    Returns:
        The problem from x = 1, y = 0. Facts: `optimum` = -3/2, and the `minimizer`, the jump.

    Example:
        >>> problem = jumping_minimum()
        >>> float(problem.measures(problem.facts.minimizer)["residual"]) > 0.9
        True
    """
    facts = Facts(minimizer=(jnp.array(0.0), jnp.array(-1.0)), optimum=-1.5)
    start = jnp.array(1.0), jnp.array(0.0)
    return Bilevel(_tilted, _product, *start, sets=(None, Box(-1.0, 1.0)), facts=facts)


def coupled_levels(n: int = 5) -> ConstrainedBilevel:
    """A lower level of a linear objective whose equation holds all three unknowns.

    F = |x - y_2|^2 / 2 + |y_1 - 1|^2 / 2 and f = |y_1|^2 / 2 - x'y_1 + sum(y_2), subject to
    sum(x) + sum(y_1) + sum(y_2) = 0: below, y_1 = x + 1, and only the sum of y_2 is determined.

    Args:
        n: entries of each of x, y_1 and y_2, at least 1.

    Returns:
        The problem from x = 0, y = (0, 0), with its projection. Facts: `minimizer`, x = -0.3,
        y = (0.7, -0.4); `optimum` = n / 20.

    Raises:
        ValueError: if n is not a whole number of at least 1.

    Example:
        >>> problem = coupled_levels()
        >>> bool(problem.measures(problem.facts.minimizer)["residual"] < 1e-5)
        True
    """
    full = partial(jnp.full, whole_number(n, "n", 1))
    facts = Facts(minimizer=(full(-0.3), (full(0.7), full(-0.4))), optimum=n / 20)
    start = full(0.0), (full(0.0), full(0.0))
    return ConstrainedBilevel(
        _apart, _sloping, *start, equality=_total, feasible=_balanced, facts=facts
    )


def _distant(x: Float[Array, ""], y: Float[Array, ""], args: None) -> Float[Array, ""]:
    return (y - 2) ** 2 / 2 + x**2 / 10


def _quartic(x: Float[Array, ""], y: Float[Array, ""], args: None) -> Float[Array, ""]:
    return y**2 / 2 + y**4 / 40 - x * y


def _nearest(x: Float[Array, ""], y: Float[Array, "2"], args: None) -> Float[Array, ""]:
    return ((y[0] - 1) ** 2 + y[1] ** 2) / 2 + x**2 / 4


def _line(x: Float[Array, ""], y: Float[Array, "2"], args: None) -> Float[Array, ""]:
    return (y[0] + y[1] - x) ** 2 / 2


def _tilted(x: Float[Array, ""], y: Float[Array, ""], args: None) -> Float[Array, ""]:
    return (x + 1) ** 2 / 2 + 2 * y


def _product(x: Float[Array, ""], y: Float[Array, ""], args: None) -> Float[Array, ""]:
    return x * y


def _apart(x: Float[Array, " n"], y: tuple[Array, Array], args: None) -> Float[Array, ""]:
    return (jnp.sum((x - y[1]) ** 2) + jnp.sum((y[0] - 1) ** 2)) / 2


def _sloping(x: Float[Array, " n"], y: tuple[Array, Array], args: None) -> Float[Array, ""]:
    return y[0] @ y[0] / 2 - x @ y[0] + jnp.sum(y[1])


def _total(x: Float[Array, " n"], y: tuple[Array, Array], args: None) -> Float[Array, ""]:
    return jnp.sum(x) + jnp.sum(y[0]) + jnp.sum(y[1])


def _balanced(z: Any, args: None) -> Any:
    """The nearest entries that add up to 0."""
    return otu.add_scale(z, -jnp.asarray(otu.sum(z)) / (3 * len(z[0])), otu.ones_like(z))
