"""How many of CUTEst's bounded equations the default method and SciPy's solve.

The budget is 1,000 steps from the problem's own start. Most of the problems are fits that have no
root, so each is stated as least squares within its bounds. A returned point is a `root` when
|F| <= 1e-6 max(1, |F_0|), a `sharp` one when |F| <= 1e-8; it is `solved` when the projected
gradient of |F|^2 / 2 is at most 1e-6 max(1, that at the start), and `best` when besides |F| is
within 1e-6 max(1, |F|) of the least that a solver reached. All is evaluated by the problem's own
function, whatever the solver says; a solver that claims success at a point that is not solved has a
false success.

    python benchmarks/cutest_bounded_equations.py [--max-size 50] [--solver NAME ...] [--only P ...]
"""

from __future__ import annotations

import argparse
import json

import joblib
import numpy as np

SOLVERS = ("raphson", "scipy.trf", "scipy.dogbox")


def run(problem_name, solver_names):
    import jax

    jax.config.update("jax_enable_x64", True)
    import raphson as rp
    from raphson.problems.cutest import cutest

    system = cutest(problem_name)
    problem = rp.BoundedLeastSquares(system.fn, system.y0, system.lower, system.upper)

    @jax.jit
    def norms(y):
        return [jax.numpy.linalg.norm(p.optimality(y)) for p in (system, problem)]

    F0, g0 = map(float, norms(problem.y0))
    rows = []
    for name in solver_names:
        family, _, kind = name.partition(".")
        solver = rp.SciPyLeastSquares(kind) if family == "scipy" else None
        options = {"rtol": 1e-9, "atol": 1e-9, "max_steps": 1000, "throw": False}
        row = {"problem": problem_name, "solver": name, "n": problem.y0.size}
        try:
            solution = rp.solve(rp.Counted(problem), solver, **options)
        except Exception as error:
            rows.append(row | {"status": f"raised {error}"[:80], "F": np.inf, "g": np.inf})
            continue
        F, g = map(float, norms(solution.value))
        row |= {
            "status": rp.status_name(solution.status),
            "F": F,
            "g": g,
            "root": F <= 1e-6 * max(1, F0),
            "sharp": F <= 1e-8,
            "solved": g <= 1e-6 * max(1, g0),
            "claimed": bool(solution.usable),
            "evaluations": int(solution.stats.counts["residual"]),
        }
        rows.append(row)
    least = min(row["F"] for row in rows)
    for row in rows:
        row["best"] = row.get("solved", False) and row["F"] - least <= 1e-6 * max(1, least)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--max-size", type=int, default=50)
    parser.add_argument("--solver", nargs="*", default=list(SOLVERS))
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--jobs", type=int, default=-1)
    parser.add_argument("--out", help="write all rows to this JSON file")
    options = parser.parse_args()
    from raphson.problems.cutest import cutest_names

    names = options.only or cutest_names("bounded_equations", max_size=options.max_size)
    tasks = [joblib.delayed(run)(name, options.solver) for name in names]
    rows = sum(joblib.Parallel(options.jobs)(tasks), [])
    if options.out:
        with open(options.out, "w") as file:
            json.dump(rows, file, indent=1)
    print(f"{len(names)} problems")
    columns = ("root", "sharp", "solved", "best", "claimed")
    titles = "".join(f"{column:>9}" for column in columns)
    print(f"{'solver':<14}{titles}{'false':>7}{'evals 50%':>11}{'90%':>7}")
    for name in options.solver:
        mine = [row for row in rows if row["solver"] == name]
        sums = "".join(f"{sum(row.get(column, False) for row in mine):>9}" for column in columns)
        false = [row for row in mine if row.get("claimed") and not row["solved"]]
        counts = [row["evaluations"] for row in mine if row.get("solved")]
        quantiles = np.quantile(counts, [0.5, 0.9]) if counts else (np.nan, np.nan)
        print(f"{name:<14}{sums}{len(false):>7}{quantiles[0]:>11.0f}{quantiles[1]:>7.0f}")
        for row in mine:
            if not row["best"]:
                reached = f"|F| = {row['F']:.4e}  |g| = {row['g']:.0e}"
                print(f"    {row['problem']:<12}{row['status']:<12}{reached}")


if __name__ == "__main__":
    main()
