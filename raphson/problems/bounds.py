"""What no method of gradients can promise on a class of problems."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def first_order_lower_bound(
    gradients: ArrayLike, lipschitz: float, distance: float, strong_convexity: float = 0.0
) -> np.ndarray:
    """The gap f - f* that every method leaves after so many gradients on some function of a class.

    The class is that of convex functions with a Lipschitz gradient, the methods those that move by
    combinations of the gradients they saw. With t gradients the bound is 3/32 L D^2 / (t + 1)^2, or
    mu/2 q^(2 t) D^2 with q = (sqrt(L/mu) - 1) / (sqrt(L/mu) + 1) on mu-strongly convex functions.
    A function of n unknowns attains the first for t up to (n - 1) / 2; the second needs infinitely
    many. On a given function of the class a method may well do better.

    Nesterov (2004), Introductory Lectures on Convex Optimization; Bubeck (2015), Convex
    Optimization: Algorithms and Complexity.

    Args:
        gradients: t, one number or an array of them.
        lipschitz: L, the Lipschitz constant of the gradient.
        distance: D, from the start to the minimizer.
        strong_convexity: mu, 0 where the function is only convex.

    Returns:
        The bounds, shaped as `gradients`.

    Example:
        >>> from raphson.problems import first_order_lower_bound
        >>> float(first_order_lower_bound(1, lipschitz=1.0, distance=2.0))
        0.09375
    """
    t = np.asarray(gradients, float)
    if strong_convexity == 0:
        return 3 / 32 * lipschitz * distance**2 / (t + 1) ** 2
    root = np.sqrt(lipschitz / strong_convexity)
    return strong_convexity / 2 * ((root - 1) / (root + 1)) ** (2 * t) * distance**2
