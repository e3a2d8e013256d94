"""What the engine costs: `rp.solve` with a lifted Optimistix BFGS against `optx.minimise`.

Ten CUTEst problems, float64, the same solver with the same tolerances. `warm` is the ratio of the
medians of repeated calls, taken in turn; `first` that of first calls, tracing and compilation
included, each in turn on a function never seen before, and `default` the same of Raphson's own
choice. `optx.minimise` runs under `eqx.filter_jit`, which is how it is fast; all return their whole
solution.

    python benchmarks/engine_overhead.py
"""

from __future__ import annotations

import statistics
import time

import equinox as eqx
import jax
import numpy as np

jax.config.update("jax_enable_x64", True)

import optimistix as optx  # noqa: E402

import raphson as rp  # noqa: E402
from raphson.problems.cutest import cutest  # noqa: E402

PROBLEMS = (
    "ROSENBR",
    "BEALE",
    "HATFLDD",
    "ENGVAL2",
    "PALMER1C",
    "VIBRBEAM",
    "HILBERTB",
    "OSBORNEA",
    "HEART6LS",
    "TRIGON1",
)
REPEATS = 300


def seconds(call):
    start = time.perf_counter()
    call().value.block_until_ready()
    return time.perf_counter() - start


def calls(problem):
    """The solve by the engine, by Optimistix and by default, on functions of their own."""
    solver = optx.BFGS(rtol=1e-8, atol=1e-8)
    ours, chosen = (
        rp.Minimize(lambda y, args: problem.fn(y, args), problem.y0, problem.args) for _ in range(2)
    )
    theirs = lambda y, args: problem.fn(y, args)

    minimise = eqx.filter_jit(optx.minimise)
    options = {"max_steps": 2000, "throw": False}
    return (
        lambda: rp.solve(ours, solver, **options),
        lambda: minimise(theirs, solver, problem.y0, problem.args, **options),
        lambda: rp.solve(chosen, **options),
    )


def compare(name):
    problem = cutest(name)
    firsts = []
    for turn in range(4):  # the first round warms what all share
        three = calls(problem)
        order = (0, 1, 2) if turn % 2 else (2, 1, 0)
        times = {which: seconds(three[which]) for which in order}
        firsts.append((times[0], times[1], times[2]))
    warms = [(seconds(three[0]), seconds(three[1])) for _ in range(REPEATS)]
    warm, first = (
        tuple(map(statistics.median, zip(*rows, strict=True))) for rows in (warms, firsts[1:])
    )
    ratios = warm[0] / warm[1], first[0] / first[1], first[2] / first[1]
    return ratios, (warm[0], first[0], first[2])


def main():
    columns = ("warm", "first", "default", "warm ours", "first ours", "default")
    print(f"{'problem':<12}" + "".join(f"{column:>12}" for column in columns))
    rows = []
    for name in PROBLEMS:
        ratios, (warm, first, default) = compare(name)
        rows.append(ratios)
        cells = "".join(f"{ratio:>12.2f}" for ratio in ratios)
        print(
            f"{name:<12}{cells}{warm * 1e3:>9.3f} ms{first:>10.2f} s{default:>10.2f} s", flush=True
        )
    cells = "".join(f"{ratio:>12.2f}" for ratio in np.median(np.array(rows), axis=0))
    print(f"{'median':<12}{cells}   (asked: 1.05, 1.25 and 1.5)")


if __name__ == "__main__":
    main()
