"""How many CUTEst systems of equations the defaults and their peers solve.

A solver has 2,000 steps (or evaluations, where it counts these) from the problem's own start, and
the point that it returns is judged here, whatever it says of it: `root` if |F| <= 1e-6 max(1,
|F_0|), `least` if |J'F| <= 1e-6 max(1, |J_0'F_0|), the test of a least-squares solution, which
systems without a root can pass as well. Systems with bounds have a point outside fail. The solvers
of one system share a process; one that takes longer than the time limit is killed and passes none.

    python benchmarks/cutest_equations.py [--max-size 100] [--solver NAME ...] [--only P ...]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np

SOLVERS = (
    "raphson.root",
    "raphson.least_squares",
    "scipy.trf",
    "scipy.dogbox",
    "scipy.lm",
    "scipy.root.hybr",
    "scipy.root.lm",
    "scipy.root.krylov",
    "optimistix.LevenbergMarquardt",
    "optimistix.Dogleg",
    "optimistix.Newton",
)
BUDGET = 2000
# A Jacobian of more entries is not formed: trf and dogbox then get products with it, krylov and
# ours ask for no more, and the others stay out.
DENSE_ENTRIES = 5_000_000


def answer(solver, F, J, y0, bounds):
    """The point that a solver returns, and what it says of it."""
    import jax.numpy as jnp
    import optimistix as optx
    import scipy.optimize

    import raphson as rp

    family, _, kind = solver.partition(".")
    fn = lambda y, _: F(y)
    sparse = F(y0).size * y0.size > DENSE_ENTRIES
    if sparse and family != "raphson" and kind not in ("trf", "dogbox", "root.krylov"):
        raise ValueError("needs a dense Jacobian")
    limited = {} if bounds is None else {"bounds": bounds}
    if family == "raphson":
        # The tolerance of the tests, where the residual and the gradient are the measures.
        solution = getattr(rp, kind)(
            fn, y0, rtol=1e-6, atol=1e-6, max_steps=BUDGET, throw=False, **limited
        )
        return solution.value, rp.status_name(solution.status), solution.stats.steps
    if family == "optimistix":
        tight = getattr(optx, kind)(1e-10, 1e-10)
        solve = optx.root_find if kind == "Newton" else optx.least_squares
        found = solve(fn, tight, y0, max_steps=BUDGET, throw=False)
        said = "converged" if found.result == optx.RESULTS.successful else "failed"
        return found.value, said, found.stats["num_steps"]
    numpy_F = lambda y: np.array(F(jnp.asarray(y)))
    numpy_J = products(F, y0) if sparse else lambda y: np.array(J(jnp.asarray(y)))
    y0 = np.asarray(y0)
    if kind.startswith("root."):
        method = kind.removeprefix("root.")
        name = {"hybr": "maxfev", "lm": "maxiter", "krylov": "maxiter"}[method]
        derivative = None if method == "krylov" else numpy_J
        found = scipy.optimize.root(
            numpy_F, y0, jac=derivative, method=method, options={name: BUDGET}
        )
        return found.x, "converged" if found.success else "failed", getattr(found, "nfev", 0)
    tight = {"ftol": 1e-12, "xtol": 1e-12, "gtol": 1e-12}
    found = scipy.optimize.least_squares(
        numpy_F, y0, numpy_J, method=kind, max_nfev=BUDGET, **tight, **limited
    )
    return found.x, "converged" if found.success else "failed", found.nfev


def products(F, y0):
    """The Jacobian of F as a SciPy operator."""
    import jax
    import jax.numpy as jnp
    from scipy.sparse.linalg import LinearOperator

    jvp = jax.jit(lambda y, v: jax.jvp(F, (y,), (v,))[1])
    vjp = jax.jit(lambda y, w: jax.vjp(F, y)[1](w)[0])
    shape = F(y0).size, y0.size

    def jacobian(y):
        y = jnp.asarray(y)
        return LinearOperator(
            shape,
            matvec=lambda v: np.array(jvp(y, jnp.asarray(v, y.dtype).reshape(shape[1]))),
            rmatvec=lambda w: np.array(vjp(y, jnp.asarray(w, y.dtype).reshape(shape[0]))),
            dtype=y.dtype,
        )

    return jacobian


def stated(problem_name):
    """The problem, its function and Jacobian, and the sizes of a residual and its gradient."""
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.clear_caches()
    import jax.numpy as jnp

    from raphson.problems.cutest import cutest

    problem = cutest(problem_name)
    F = jax.jit(lambda y: problem.fn(y, problem.args))

    @jax.jit
    def sizes(y):
        residual, pull = jax.vjp(F, y)
        return jnp.linalg.norm(residual), jnp.linalg.norm(pull(residual)[0])

    return problem, F, jax.jit(jax.jacfwd(F)), sizes


def run(problem_name, solvers, time_limit):
    """The rows of all solvers, by a process that is begun anew after one that had to be killed."""
    rows, left = [], list(solvers)
    while left:
        command = [sys.executable, __file__, "--run", problem_name, *left]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        with subprocess.Popen(command, **pipes) as child:
            while left:
                timer = threading.Timer(time_limit, child.kill)
                timer.start()
                line = child.stdout.readline()
                timer.cancel()
                failed = {"problem": problem_name, "solver": left.pop(0), "said": "killed"}
                rows.append(json.loads(line) if line else failed | NO_ANSWER)
                if not line:
                    break
    return rows


NO_ANSWER = {"root": False, "least": False, "seconds": 0}


def row_of(problem_name, solver, problem, F, J, sizes):
    import jax.numpy as jnp

    y0 = problem.y0
    bounds = (problem.lower, problem.upper) if hasattr(problem, "lower") else None
    row = {"problem": problem_name, "solver": solver, "n": y0.size, "m": F(y0).size}
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            y, said, steps = answer(solver, F, J, y0, bounds)
    except Exception as error:
        return row | NO_ANSWER | {"said": f"raised {error}"[:60]}
    seconds = time.perf_counter() - start
    y = jnp.asarray(y)
    (residual, slope), (residual_0, slope_0) = (map(float, sizes(at)) for at in (y, y0))
    inside = bounds is None or bool(jnp.all((y >= bounds[0]) & (y <= bounds[1])))
    return row | {
        "root": inside and residual <= 1e-6 * max(1, residual_0),
        "least": inside and slope <= 1e-6 * max(1, slope_0),
        "said": said,
        "steps": int(steps),
        "seconds": seconds,
        "residual": residual,
        "slope": slope,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--max-size", type=int, default=100)
    parser.add_argument("--min-size", type=int, default=1)
    parser.add_argument("--kind", default="nonlinear_equations")
    parser.add_argument("--solver", nargs="*", default=list(SOLVERS))
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--time-limit", type=float, default=120, help="seconds, compilation included"
    )
    parser.add_argument("--out", help="write all rows to this JSON file")
    parser.add_argument("--run", nargs="+", help="a problem and solvers, in this process")
    options = parser.parse_args()
    if options.run:
        name, *solvers = options.run
        problem = stated(name)
        for solver in solvers:
            print(json.dumps(row_of(name, solver, *problem)), flush=True)
        return
    from raphson.problems.cutest import cutest_names

    sizes = {"min_size": options.min_size, "max_size": options.max_size}
    names = options.only or cutest_names(options.kind, **sizes)
    rows = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for found in pool.map(lambda name: run(name, options.solver, options.time_limit), names):
            rows.extend(found)
            if options.out:
                with open(options.out, "w") as file:
                    json.dump(rows, file, indent=1)
    report(rows, names, options.solver)


def report(rows, names, solvers):
    print(f"{len(names)} systems")
    print(f"{'solver':<32}{'root':>6}{'least':>7}{'either':>8}{'only here':>11}")
    passed = {
        s: {r["problem"] for r in rows if r["solver"] == s and (r["root"] or r["least"])}
        for s in solvers
    }
    for name in solvers:
        mine = [row for row in rows if row["solver"] == name]
        others = set().union(
            *(passed[s] for s in solvers if s.partition(".")[0] != name.partition(".")[0])
        )
        cells = (sum(r["root"] for r in mine), sum(r["least"] for r in mine), len(passed[name]))
        print(f"{name:<32}{cells[0]:>6}{cells[1]:>7}{cells[2]:>8}{len(passed[name] - others):>11}")
        missed = sorted(set().union(*passed.values()) - passed[name])
        if name.startswith("raphson") and missed:
            print(f"    not solved here, but elsewhere: {' '.join(missed)}")


if __name__ == "__main__":
    main()
