"""How many unconstrained CUTEst problems the default minimizer and its peers solve.

The budget is 2,000 steps from the problem's own start. A returned point counts as solved when
|g| <= 1e-6 max(1, |g_0|), evaluated by `jax.grad` of the problem's function, whatever the solver
says; a solver that claims success at a point that fails the test has a false success. `both` asks
besides that f is within 1e-6 max(1, |f|) of the best value known.

    python benchmarks/cutest_unconstrained.py [--max-size 100] [--solver NAME ...] [--only P ...]
"""

from __future__ import annotations

import argparse
import json
import time

import joblib
import numpy as np

SOLVERS = (
    "raphson",
    "optimistix.BFGS",
    "optimistix.LBFGS",
    "scipy.BFGS",
    "scipy.L-BFGS-B",
    "scipy.trust-exact",
    "scipy.trust-ncg",
)


def solver(name):
    import optimistix as optx

    import raphson as rp

    family, _, kind = name.partition(".")
    if family == "raphson":
        return getattr(rp.smooth, kind)() if kind else None
    if family == "scipy":
        return rp.SciPyMinimize(kind)
    return getattr(optx, kind)(1e-10, 1e-10)


def run(problem_name, solver_name):
    import jax

    jax.config.update("jax_enable_x64", True)
    import raphson as rp
    from raphson.problems.cutest import cutest, cutest_best

    problem = cutest(problem_name)
    row = {"problem": problem_name, "solver": solver_name, "n": problem.y0.size}
    start = time.perf_counter()
    tolerances = {"rtol": 1e-6, "atol": 1e-6, "max_steps": 2000, "throw": False}
    try:
        solution = rp.solve(rp.Counted(problem), solver(solver_name), **tolerances)
    except Exception as error:
        return row | {
            "status": f"raised {error}"[:80],
            "solved": False,
            "claimed": False,
            "both": False,
        }
    first = time.perf_counter() - start
    value_and_gradient = jax.jit(lambda y: jax.value_and_grad(problem.value)(y))
    _, g0 = value_and_gradient(problem.y0)
    f, g = value_and_gradient(solution.value)
    f, g, g0 = float(f), np.linalg.norm(g), np.linalg.norm(g0)
    solved = bool(g <= 1e-6 * max(1.0, g0))
    best = cutest_best(problem_name)
    near = best is None or f - best <= 1e-6 * max(1.0, abs(best))
    counts = {name: int(count) for name, count in solution.stats.counts.items()}
    return row | {
        "status": rp.status_name(solution.status),
        "steps": int(solution.stats.steps),
        "claimed": bool(solution.usable),
        "solved": solved,
        "both": solved and near,
        "f": f,
        "g": g,
        "best": best,
        "first_seconds": first,
        "evaluations": counts["value"],
        "hessians": counts["hessian"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--max-size", type=int, default=100)
    parser.add_argument("--solver", nargs="*", default=list(SOLVERS))
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--jobs", type=int, default=-1)
    parser.add_argument("--out", help="write all rows to this JSON file")
    options = parser.parse_args()
    from raphson.problems.cutest import cutest_names

    names = options.only or cutest_names(max_size=options.max_size)
    pairs = [(p, s) for s in options.solver for p in names]
    rows = joblib.Parallel(options.jobs)(joblib.delayed(run)(*pair) for pair in pairs)
    if options.out:
        with open(options.out, "w") as file:
            json.dump(rows, file, indent=1)
    print(f"{len(names)} problems")
    columns = f"{'solved':>7}{'both':>6}{'claimed':>8}{'false':>6}{'evals 50%':>11}{'90%':>7}"
    print(f"{'solver':<20}{columns}")
    for name in options.solver:
        mine = [row for row in rows if row["solver"] == name]
        false = [row["problem"] for row in mine if row["claimed"] and not row["solved"]]
        counts = [row["evaluations"] for row in mine if row["solved"]]
        quantiles = np.quantile(counts, [0.5, 0.9]) if counts else (np.nan, np.nan)
        sums = [sum(row[key] for row in mine) for key in ("solved", "both", "claimed")]
        print(
            f"{name:<20}{sums[0]:>7}{sums[1]:>6}{sums[2]:>8}{len(false):>6}{quantiles[0]:>11.0f}{quantiles[1]:>7.0f}"
        )
        for row in mine:
            if not row["solved"] or row["problem"] in false:
                print(
                    f"    {row['problem']:<12} {row['status']:<16} |g| = {row.get('g', np.nan):.2e}"
                )


if __name__ == "__main__":
    main()
