"""What the engine costs: `rp.solve` with a lifted Optimistix BFGS against `optx.minimise`.

Ten CUTEst problems, float64, the same solver with the same tolerances. `warm` is the ratio of the
medians of repeated calls, taken in turn; `first` that of first calls, tracing and compilation
included, each in turn on a function never seen before. `optx.minimise` runs under
`eqx.filter_jit`, which is how it is fast; both return their whole solution.

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
    """The same solve by the engine and by Optimistix, on functions of their own."""
    solver = optx.BFGS(rtol=1e-8, atol=1e-8)
    ours = rp.Minimize(lambda y, args: problem.fn(y, args), problem.y0, problem.args)
    theirs = lambda y, args: problem.fn(y, args)

    minimise = eqx.filter_jit(optx.minimise)
    options = {"max_steps": 2000, "throw": False}
    return (
        lambda: rp.solve(ours, solver, **options),
        lambda: minimise(theirs, solver, problem.y0, problem.args, **options),
    )


def compare(name):
    problem = cutest(name)
    firsts = []
    for turn in range(4):  # the first pair warms what both share
        pair = calls(problem)
        order = (0, 1) if turn % 2 else (1, 0)
        times = {which: seconds(pair[which]) for which in order}
        firsts.append((times[0], times[1]))
    warms = [(seconds(pair[0]), seconds(pair[1])) for _ in range(REPEATS)]
    medians = [
        tuple(map(statistics.median, zip(*rows, strict=True))) for rows in (warms, firsts[1:])
    ]
    return [ours / theirs for ours, theirs in medians], medians


def main():
    print(f"{'problem':<12}{'warm':>7}{'first':>7}{'warm ours':>12}{'first ours':>12}")
    ratios = []
    for name in PROBLEMS:
        (warm, first), ((warm_ours, _), (first_ours, _)) = compare(name)
        ratios.append((warm, first))
        print(
            f"{name:<12}{warm:>7.2f}{first:>7.2f}{warm_ours * 1e3:>9.3f} ms{first_ours:>10.2f} s",
            flush=True,
        )
    warm, first = np.median(np.array(ratios), axis=0)
    print(f"{'median':<12}{warm:>7.2f}{first:>7.2f}   (asked: 1.05 and 1.25)")


if __name__ == "__main__":
    main()
