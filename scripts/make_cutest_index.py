"""Write `raphson/problems/cutest_index.json`: what `sif2jax` holds, without importing it.

Run `python scripts/make_cutest_index.py` after a new release of sif2jax, and read the diff.
Each entry gives the module (below `sif2jax.cutest`) and class of a problem, its kind, its number of
variables `n`, its number of equations and constraints `m` (bounds not counted) and the numbers of
the starts it knows.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp

jax.config.update("jax_enable_x64", True)

import sif2jax  # noqa: E402

TARGET = Path(__file__).parents[1] / "raphson" / "problems" / "cutest_index.json"

QUADRATIC = (
    sif2jax.AbstractBoundedQuadraticProblem,
    sif2jax.AbstractConstrainedQuadraticProblem,
)


def kind(problem):
    if isinstance(problem, sif2jax.AbstractNonlinearEquations):
        return "nonlinear_equations" if problem.bounds is None else "bounded_equations"
    if isinstance(problem, QUADRATIC):
        return "quadratic"
    if isinstance(problem, sif2jax.AbstractConstrainedMinimisation):
        return "constrained"
    if isinstance(problem, sif2jax.AbstractBoundedMinimisation):
        return "bounded"
    return "unconstrained"


def num_constraints(problem):
    if not hasattr(problem, "constraint"):
        return 0
    shapes = jax.eval_shape(problem.constraint, problem.y0)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def starts(problem):
    """The start numbers that the class can be made with; some announce more than they take."""
    found = [0]
    for number in sorted(problem.provided_y0s - {0}):
        try:
            other = type(problem)(y0_iD=number)
        except TypeError:
            continue
        if not jnp.array_equal(other.y0, problem.y0):
            found.append(number)
    return found


def entry(problem):
    cls = type(problem)
    if not jnp.array_equal(cls().y0, problem.y0) or problem.y0.ndim != 1:
        raise RuntimeError(f"{problem.name}: the start of {cls.__name__}() is not its own.")
    return {
        "module": cls.__module__.removeprefix("sif2jax.cutest."),
        "class": cls.__name__,
        "kind": kind(problem),
        "n": problem.y0.size,
        "m": num_constraints(problem),
        "starts": starts(problem),
    }


# Some problems are registered twice: the one of the more specific kind is kept.
entries = {}
for problem in sif2jax.problems:
    new = entry(problem)
    old = entries.setdefault(problem.name, new)
    if new["kind"] == "quadratic":
        entries[problem.name] = new
    elif old["kind"] not in (new["kind"], "quadratic"):
        raise RuntimeError(f"{problem.name} is of two kinds: {old} and {new}.")

lines = (f"{json.dumps(name)}: {json.dumps(entries[name])}" for name in sorted(entries))
TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n")
print(f"{TARGET.name}: {len(entries)} names of {len(sif2jax.problems)} registered problems")
