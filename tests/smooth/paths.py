"""What the tests of this folder hold methods against: their paths, and a function in NumPy."""

import equinox as eqx
import jax
import numpy as np


@eqx.filter_jit
def scanned(problem, method, count):
    def step(carry, _):
        return method.step(problem, *carry), carry

    start = (problem.y0, method.init(problem, problem.y0, None))
    return jax.lax.scan(step, start, length=count + 1)[1]


def path(problem, method, count):
    """The iterates and states after 0, 1, ..., `count` steps."""
    return jax.tree.map(np.asarray, scanned(problem.without_facts, method, count))


def chain(y):
    """Rosenbrock's chain and its gradient."""
    a, b = y[1:] - y[:-1] ** 2, 1 - y[:-1]
    slope = np.zeros_like(y)
    slope[1:] += 200 * a
    slope[:-1] -= 400 * a * y[:-1] + 2 * b
    return np.sum(100 * a**2 + b**2), slope
