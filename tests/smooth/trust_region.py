"""Trust regions in NumPy, on Rosenbrock's chain: what the tests hold the methods against."""

import numpy as np

START = np.array([-1.2, 1.0, -1.2, 1.0, 0.3, -0.4])


def chain(y):
    """Rosenbrock's chain, its gradient and Hessian."""
    a, b, n = y[1:] - y[:-1] ** 2, 1 - y[:-1], y.size
    slope = np.zeros(n)
    slope[1:] += 200 * a
    slope[:-1] -= 400 * a * y[:-1] + 2 * b
    diagonal = np.zeros(n)
    diagonal[1:] += 200
    diagonal[:-1] += 1200 * y[:-1] ** 2 - 400 * y[1:] + 2
    beside = np.diag(-400 * y[:-1], 1)
    return np.sum(100 * a**2 + b**2), slope, np.diag(diagonal) + beside + beside.T


def to_border(h, p, radius):
    """The positive root of |h + t p| = r."""
    return np.max(np.roots([p @ p, 2 * h @ p, h @ h - radius**2]).real)


def steihaug(g, H, radius, tolerance):
    h, r, p = np.zeros_like(g), g, -g
    while True:
        curvature = p @ H @ p
        if curvature <= 0:
            return h + to_border(h, p, radius) * p
        alpha = r @ r / curvature
        if np.linalg.norm(h + alpha * p) >= radius:
            return h + to_border(h, p, radius) * p
        h, last, r = h + alpha * p, r, r + alpha * H @ p
        if np.linalg.norm(r) <= tolerance:
            return h
        p = -r + r @ r / (last @ last) * p


def iterates(y, radius, count, forcing, scale=lambda H: np.ones(len(H)), fn=chain):
    """The iterates, radii and ratios of `count` steps.

    Args:
        y: the start.
        radius: of the first step; None is the length of the start.
        count: how many steps.
        forcing: the greatest part of |g| that |g + H h| may be.
        scale: a Hessian to the units of the unknowns, of which the greatest so far count.
        fn: y to f, its gradient and Hessian.
    """
    f, g, H = fn(y)
    D = scale(H)
    first = np.linalg.norm(g / D)
    radius = radius or np.linalg.norm(D * y)
    for _ in range(count):
        slope = np.linalg.norm(g / D)
        tolerance = min(forcing, np.sqrt(slope / first)) * slope
        h = steihaug(g / D, H / np.outer(D, D), radius, tolerance) / D
        promised = -(g @ h + h @ H @ h / 2)
        if f - fn(y + h)[0] >= 1.5 * promised:
            while fn(y + 2 * h)[0] < fn(y + h)[0]:
                h = 2 * h
        ratio = (f - fn(y + h)[0]) / promised
        length = np.linalg.norm(D * h)
        if ratio < 0.25:
            radius = length / 2
        elif ratio >= 0.75 and length >= 0.99 * radius:
            radius = 2 * length
        if ratio >= 0.1:
            y = y + h
            f, g, H = fn(y)
            D = np.maximum(D, scale(H))
        yield y, radius, ratio
