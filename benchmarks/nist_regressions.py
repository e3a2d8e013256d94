"""The NIST regressions among the CUTEst systems: how many certified digits a fit reproduces.

A fit counts as solved when its sum of squares agrees with NIST's certified value to six digits, or,
for the two made-up data sets whose sum is all rounding, is no more than 1e-10. Every start that the
set has is taken.

    python benchmarks/nist_regressions.py
"""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import scipy.optimize

import raphson as rp
from raphson.problems.cutest import cutest

jax.config.update("jax_enable_x64", True)

# The residual sums of squares of the Statistical Reference Datasets; their standard errors are 1.
CERTIFIED = {
    "BENNETT5": 5.2404744073e-04,
    "BOXBOD": 1.1680088766e03,
    "DANIWOOD": 4.3173084083e-03,
    "ECKERLE4": 1.4635887487e-03,
    "ENSO": 7.8853978668e02,
    "GAUSS1": 1.3158222432e03,
    "GAUSS2": 1.2475282092e03,
    "GAUSS3": 1.2444846360e03,
    "KIRBY2": 3.9050739624e00,
    "LANCZOS1": 1.4307867721e-25,
    "LANCZOS2": 2.2299428125e-11,
    "LANCZOS3": 1.6117193594e-08,
    "MGH09": 3.0750560385e-04,
    "MGH10": 8.7945855171e01,
    "MGH17": 5.4648946975e-05,
    "MISRA1A": 1.2455138894e-01,
    "MISRA1B": 7.5464681533e-02,
    "MISRA1C": 4.0966836971e-02,
    "MISRA1D": 5.6419295283e-02,
    "NELSON": 3.7976833176e00,
    "RAT42": 8.0565229338e00,
    "RAT43": 8.7864049080e03,
}
STARTS = {"BOXBOD": 1, "DANIWOOD": 1, "ENSO": 1, "GAUSS1": 1, "GAUSS2": 1, "GAUSS3": 1}


def fits(problem):
    """The fit of each solver."""
    F = jax.jit(lambda y: problem.fn(y, problem.args))
    J = jax.jit(jax.jacfwd(F))
    tight = {"ftol": 1e-15, "xtol": 1e-15, "gtol": 1e-15, "max_nfev": 10_000}
    numpy_F, numpy_J = (lambda y: np.array(F(y))), (lambda y: np.array(J(y)))
    residual = lambda y, _: F(y)

    def raphson():
        options = {"rtol": 0.0, "atol": 1e-12, "max_steps": 10_000, "throw": False}
        return rp.least_squares(residual, problem.y0, **options).value

    def optimistix():
        solver = optx.LevenbergMarquardt(1e-12, 1e-12)
        return optx.least_squares(residual, solver, problem.y0, max_steps=10_000, throw=False).value

    def peer(method):
        return scipy.optimize.least_squares(numpy_F, problem.y0, numpy_J, method=method, **tight).x

    yield "raphson", raphson
    yield "optimistix.LevenbergMarquardt", optimistix
    for method in ("trf", "dogbox", "lm"):
        yield f"scipy.{method}", lambda method=method: peer(method)


def main():
    solved = {}
    for name, certified in CERTIFIED.items():
        for start in range(STARTS.get(name, 2)):
            problem = cutest(f"{name}:{start}")
            for solver, fit in fits(problem):
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        square = float(jnp.sum(problem.residual(jnp.asarray(fit())) ** 2))
                except Exception as error:
                    square = np.nan
                    print(f"{name}:{start} {solver} raised {error}"[:90])
                off = abs(square - certified) / certified
                done = square <= 1e-10 if certified < 1e-10 else off < 5e-7
                solved.setdefault(solver, []).append(done)
                if not done:
                    print(f"{name}:{start} {solver}: {square:.9g}, certified {certified:.9g}")
    for solver, done in solved.items():
        print(f"{solver:<32}{sum(done)} of {len(done)}")


if __name__ == "__main__":
    main()
