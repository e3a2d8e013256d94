"""A million variables: seconds and memory of the default minimizer and of SciPy's.

The problems are those of CUTEst by their formulas, at this size. Each solver has a process of its
own, the problem from its own start, and the point that it returns is judged by |g| <= 1e-6 max(1,
|g_0|). Memory is by how much the process grew beyond one value and gradient, in vectors of the
problem's size, compilers included; of the default what its compiled program needs beside its data
is printed, too. Times are medians of up to nine runs, compiled.

    python benchmarks/large_scale.py [--size 1000000] [--only NAME ...]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

SOLVERS = ("raphson", "scipy.L-BFGS-B", "scipy.CG", "scipy.Newton-CG")
# So often a solver is timed, or for so many seconds.
REPEATS, LONGEST = 9, 10.0


def arwhead(y):
    return ((y[:-1] ** 2 + y[-1] ** 2) ** 2 - 4 * y[:-1] + 3).sum()


def engval1(y):
    return ((y[:-1] ** 2 + y[1:] ** 2) ** 2 - 4 * y[:-1] + 3).sum()


def freuroth(y):
    a, b = y[:-1], y[1:]
    one = a - 13 + ((5 - b) * b - 2) * b
    return (one**2 + (a - 29 + ((1 + b) * b - 14) * b) ** 2).sum()


def liarwhd(y):
    return (4 * (y**2 - y[0]) ** 2 + (y - 1) ** 2).sum()


def srosenbr(y):
    a, b = y[::2], y[1::2]
    return (100 * (b - a**2) ** 2 + (1 - a) ** 2).sum()


def woods(y):
    a, b, c, d = (y[i::4] for i in range(4))
    mixed = 10 * (b + d - 2) ** 2 + (b - d) ** 2 / 10
    return (
        100 * (b - a**2) ** 2 + (1 - a) ** 2 + 90 * (d - c**2) ** 2 + (1 - c) ** 2 + mixed
    ).sum()


# Each with its start, repeated.
PROBLEMS = {
    "ARWHEAD": (arwhead, [1.0]),
    "ENGVAL1": (engval1, [2.0]),
    "FREUROTH": (freuroth, [0.5, -2.0]),
    "LIARWHD": (liarwhd, [4.0]),
    "SROSENBR": (srosenbr, [-1.2, 1.0]),
    "WOODS": (woods, [-3.0, -1.0]),
}


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measured(name, solver, size):
    import jax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp
    import numpy as np
    import scipy.optimize

    import raphson as rp

    fn, start = PROBLEMS[name]
    y0 = jnp.tile(jnp.array(start), size // len(start))
    both = jax.jit(jax.value_and_grad(fn))
    tolerance = 1e-6 * max(1.0, float(jnp.linalg.norm(both(y0)[1])))
    before = peak()

    temporary = None
    if solver == "raphson":
        asked = {"rtol": 0.0, "atol": tolerance, "max_steps": 500, "throw": False}
        answer_of = lambda y: rp.minimize(lambda y, _: fn(y), y, **asked).value
        run = jax.jit(answer_of).lower(y0).compile()
        temporary = run.memory_analysis().temp_size_in_bytes / y0.nbytes
    else:
        product = jax.jit(lambda y, v: jax.jvp(jax.grad(fn), (y,), (v,))[1])
        least = {"maxiter": 500}
        if solver == "scipy.Newton-CG":
            options = {"hessp": lambda y, v: np.asarray(product(y, v))}
        else:
            options = {}
            # Both look at the greatest entry of the gradient.
            least |= {"gtol": tolerance / y0.size**0.5} | (
                {"ftol": 0.0} if solver == "scipy.L-BFGS-B" else {}
            )

        def asked(y):
            value, gradient = both(y)
            return float(value), np.asarray(gradient)

        def run(y):
            return scipy.optimize.minimize(
                asked, y, jac=True, method=solver[6:], options=least, **options
            ).x

    run(y0)
    times = []
    while len(times) < REPEATS and sum(times) < LONGEST:
        start = time.perf_counter()
        answer = jax.block_until_ready(run(y0))
        times.append(time.perf_counter() - start)
    slope = float(jnp.linalg.norm(both(jnp.asarray(answer))[1]))
    return {
        "n": y0.size,
        "seconds": statistics.median(times),
        "vectors": (peak() - before) / y0.nbytes,
        "temporary": temporary,
        "solved": slope <= tolerance,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--only", nargs="*", default=list(PROBLEMS))
    parser.add_argument("--run", nargs=2, help="a problem and a solver, in this process")
    options = parser.parse_args()
    if options.run:
        print(json.dumps(measured(*options.run, options.size)))
        return
    print(f"{'problem':<12}{'solver':<18}{'n':>9}{'seconds':>9}{'vectors':>9}{'program':>9}")
    for name in options.only:
        for solver in SOLVERS:
            command = [sys.executable, __file__, "--size", str(options.size)]
            command += ["--run", name, solver]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                print(f"{name:<12}{solver:<18} failed: {done.stderr.splitlines()[-1][:60]}")
                continue
            row = json.loads(done.stdout.splitlines()[-1])
            program = "-" if row["temporary"] is None else f"{row['temporary']:.1f}"
            print(
                f"{name:<12}{solver:<18}{row['n']:>9}{row['seconds']:>9.2f}{row['vectors']:>9.1f}"
                f"{program:>9}{'' if row['solved'] else '  not solved'}",
                flush=True,
            )


if __name__ == "__main__":
    main()
