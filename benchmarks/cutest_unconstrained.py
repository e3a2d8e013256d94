"""How many unconstrained CUTEst problems the default minimizer and its peers solve, and how fast.

A solver has 2,000 steps from the problem's own start, and the point that it returns is judged here,
whatever it says of it. `gradient`: asked for |g| <= 1e-6 max(1, |g_0|), does it pass this test?
`both`: asked for |g| <= 1e-9, does it pass the test, with f within 1e-6 max(1, |f|) of the best
value known? A solver that claims success at a point that fails the test has a false success.

Methods are tuned on the problems of odd place in the alphabet, `--half tuned`; the others, `--half
unseen`, tell how they fare on problems that nobody looked at.

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
HALVES = {"tuned": slice(0, None, 2), "unseen": slice(1, None, 2), "all": slice(None)}
LOOSE = {"rtol": 1e-6, "atol": 1e-6}
TIGHT = {"rtol": 0.0, "atol": 1e-9}
BUDGET = {"max_steps": 2000, "throw": False}


def solver(name):
    import optimistix as optx

    import raphson as rp

    family, _, kind = name.partition(".")
    if family == "raphson":
        return getattr(rp.smooth, kind)() if kind else None
    if family == "scipy":
        return rp.SciPyMinimize(kind)
    return getattr(optx, kind)(1e-10, 1e-10)


def run(problem_name, solver_name, repeats):
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.clear_caches()  # a process cannot keep what it compiled for hundreds of runs
    import raphson as rp
    from raphson.problems.cutest import cutest, cutest_best

    problem = cutest(problem_name)
    row = {"problem": problem_name, "solver": solver_name, "n": problem.y0.size}
    value_and_gradient = jax.jit(lambda y: jax.value_and_grad(problem.value)(y))
    size = np.linalg.norm(value_and_gradient(problem.y0)[1])
    method = solver(solver_name)

    def judged(y):
        f, g = value_and_gradient(y)
        return float(f), float(np.linalg.norm(g)), bool(np.linalg.norm(g) <= 1e-6 * max(1, size))

    start = time.perf_counter()
    try:
        solution = rp.solve(rp.Counted(problem), method, **LOOSE, **BUDGET)
        tight = rp.solve(rp.Counted(problem), method, **TIGHT, **BUDGET)
    except Exception as error:
        failed = {"gradient": False, "both": False, "claimed": False}
        return row | failed | {"status": f"raised {error}"[:80]}
    first = time.perf_counter() - start
    f, g, gradient = judged(solution.value)
    tight_f, tight_g, sharp = judged(tight.value)
    best = cutest_best(problem_name)
    near = best is None or tight_f - best <= 1e-6 * max(1.0, abs(best))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(rp.solve(problem, method, **LOOSE, **BUDGET).value)
        seconds.append(time.perf_counter() - start)
    counts = {name: int(count) for name, count in solution.stats.counts.items()}
    return row | {
        "status": rp.status_name(solution.status),
        "steps": int(solution.stats.steps),
        "claimed": bool(solution.usable),
        "gradient": gradient,
        "both": sharp and near,
        "f": f,
        "g": g,
        "tight": [rp.status_name(tight.status), tight_f, tight_g, int(tight.stats.steps)],
        "best": best,
        "first_seconds": first,
        "seconds": min(seconds[1:], default=None),
        "method": solution.stats.method,
        "evaluations": counts["value"] + counts.get("residual", 0),
        "hessians": counts["hessian"],
        "products": counts.get("product", 0),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--max-size", type=int, default=100)
    parser.add_argument("--min-size", type=int, default=1)
    parser.add_argument("--solver", nargs="*", default=list(SOLVERS))
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--half", choices=HALVES, default="all")
    parser.add_argument("--jobs", type=int, default=-1, help="1 where times matter")
    parser.add_argument("--repeats", type=int, default=0, help="timed runs of each")
    parser.add_argument("--out", help="write all rows to this JSON file")
    options = parser.parse_args()
    from raphson.problems.cutest import cutest_names

    names = options.only or [
        name
        for name in cutest_names()[HALVES[options.half]]
        if name in cutest_names(min_size=options.min_size, max_size=options.max_size)
    ]
    pairs = [(p, s, options.repeats) for p in names for s in options.solver]
    rows = []
    parallel = joblib.Parallel(options.jobs, return_as="generator")
    for row in parallel(joblib.delayed(run)(*pair) for pair in pairs):
        rows.append(row)
        if options.out:
            with open(options.out, "w") as file:
                json.dump(rows, file, indent=1)
    report(rows, names, options.solver)


def report(rows, names, solvers):
    print(f"{len(names)} problems; evaluations and milliseconds at 50 % / 90 % of those solved")
    columns = ("gradient", "both", "claimed", "false", "evals", "ms")
    print(f"{'solver':<24}" + "".join(f"{column:>13}" for column in columns))
    for name in solvers:
        mine = [row for row in rows if row["solver"] == name]
        false = [row["problem"] for row in mine if row["claimed"] and not row["gradient"]]
        solved = [row for row in mine if row["gradient"]]
        cells = [sum(row[key] for row in mine) for key in ("gradient", "both", "claimed")]
        cells += [
            len(false),
            quantiles(solved, "evaluations", 1),
            quantiles(solved, "seconds", 1e3),
        ]
        print(f"{name:<24}" + "".join(f"{cell:>13}" for cell in cells))
        for row in mine:
            if not (row["gradient"] and row["both"]) or row["problem"] in false:
                print(f"    {row['problem']:<12} {told(row)}")


def quantiles(rows, key, unit):
    values = [unit * row[key] for row in rows if row[key] is not None]
    return "{:.4g} / {:.4g}".format(*np.quantile(values, [0.5, 0.9])) if values else "-"


def told(row):
    if "g" not in row:
        return row["status"]
    status, f, g, steps = row["tight"]
    return (
        f"{row['status']} |g| = {row['g']:.1e} after {row['steps']}; asked for 1e-9: {status} "
        f"|g| = {g:.1e} after {steps}, f = {f:.9g}, best {row['best']:.9g}"
    )


if __name__ == "__main__":
    main()
