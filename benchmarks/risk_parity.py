"""Risk parity portfolios: coordinate descent and Newton's method against the published packages.

Random correlations with equal budgets, float64. Each solver is asked for the loosest tolerance at
which its answer passes our measure: no asset's share of the risk is off by more than 1e-6. Times
are medians of warm calls, taken in turn; `of peers` is the time of `RiskParityCCD` over that of the
fastest peer. The second table is of many portfolios at once, as a backtest asks: ours in one
compiled call, the peers' one after another.

The peers are optional: `pip install -e .[peers]`.

    python benchmarks/risk_parity.py
"""

from __future__ import annotations

import functools
import statistics
import time

import jax
import numpy as np

jax.config.update("jax_enable_x64", True)

import optimistix as optx  # noqa: E402

import raphson as rp  # noqa: E402
from raphson.smooth import RiskParityCCD  # noqa: E402

try:
    from riskparityportfolio import vanilla
except ImportError:
    vanilla = None
try:
    import pyfeng
except ImportError:
    pyfeng = None

SIZES = (10, 50, 200, 500, 1000, 2000)
BATCHES = ((10, 1000), (50, 500), (200, 100))
IMBALANCE = 1e-6
DENSE = 500  # up to here Newton's method, which factorizes matrices, takes part


def correlation(n, seed=0):
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(n, n)))[0]
    covariance = (basis * rng.uniform(size=n)) @ basis.T
    s = np.sqrt(np.diag(covariance))
    return covariance / np.outer(s, s)


def imbalance(y, C):
    contributions = y * (C @ y)
    return np.abs(contributions / contributions.sum() - 1 / len(y)).max()


def loosest(answers, matrices):
    """The loosest tolerance at which every answer passes."""
    for tol in (IMBALANCE * 2.0**k for k in range(6, -12, -1)):
        if max(map(imbalance, answers(tol), matrices)) <= IMBALANCE:
            return tol
    raise RuntimeError("no tolerance of the ladder passes")


def ours(C):
    problem, equations = rp.problems.risk_parity(C), rp.problems.risk_parity_equations(C)

    def ccd(variant):
        method = RiskParityCCD(variant)
        return lambda tol: rp.solve(problem, method, rtol=0.0, atol=tol).value

    def newton(tol):
        return rp.solve(equations, optx.Newton(tol, tol), rtol=0.0, atol=tol).value

    solvers = {"RiskParityCCD": ccd("improved"), "original": ccd("original")}
    return solvers | ({"Newton": newton} if len(C) <= DENSE else {})


def peers(C):
    """What is installed, each a function of its tolerance."""
    budget, found = np.full(len(C), 1 / len(C)), {}
    if vanilla is not None:
        for method in ("choi", "spinu"):
            found[f"riskparityportfolio.{method}"] = lambda tol, method=method: vanilla.design(
                C, budget, tol, 1000, method
            )
    if pyfeng is not None:
        model = pyfeng.RiskParity(cov_m=C, budget=budget)
        found["pyfeng.ccd"] = model.fit_ccd
        if len(C) <= DENSE:
            found["pyfeng.newton"] = model.fit_newton
    return found


def seconds(call):
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def medians(calls, repeats):
    rows = [{name: seconds(call) for name, call in calls.items()} for _ in range(repeats)]
    return {name: statistics.median(row[name] for row in rows) for name in calls}


def compare(n):
    C = correlation(n)
    calls = {}
    for name, call in (ours(C) | peers(C)).items():
        tol = loosest(lambda tol: [np.asarray(call(tol))], [C])  # noqa: B023
        calls[name] = functools.partial(call, tol)
    return medians(calls, 101 if n <= 200 else 15 if n <= 500 else 7)


def compare_batch(n, count):
    matrices = np.stack([correlation(n, seed) for seed in range(count)])

    def solved(C, tol):
        problem = rp.problems.risk_parity(C)
        return rp.solve(problem, RiskParityCCD(), rtol=0.0, atol=tol, throw=False).value

    together = jax.jit(jax.vmap(solved, (0, None)))
    tol = loosest(lambda tol: np.asarray(together(matrices, tol)), matrices)
    calls = {"RiskParityCCD": lambda: together(matrices, tol)}
    names = [name for name in peers(matrices[0]) if name.startswith("riskparityportfolio")]
    for name in names:
        each = [peers(C)[name] for C in matrices]
        calls[name] = lambda each=each: [call(IMBALANCE) for call in each]
    return {name: time / count for name, time in medians(calls, 7).items()}


def show(label, times):
    others = [t for name, t in times.items() if "." in name]
    ratio = f"{times['RiskParityCCD'] / min(others):8.2f}" if others else "       -"
    figures = "  ".join(f"{name} {t * 1e3:.3f}" for name, t in times.items())
    print(f"{label:<12}{ratio}   {figures}", flush=True)


def main():
    if vanilla is None or pyfeng is None:
        print("a peer is missing: pip install -e .[peers]")
    print(f"{'assets':<12}{'of peers':>8}   ms a portfolio")
    for n in SIZES:
        show(str(n), compare(n))
    for n, count in BATCHES:
        show(f"{n} x {count}", compare_batch(n, count))


if __name__ == "__main__":
    main()
