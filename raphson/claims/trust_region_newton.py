"""Trust regions in scaled unknowns: units do not matter, and bad ones do not slow the method."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..problems import rosenbrock
from ..smooth import Minimize, TruncatedNewton, TrustRegionNewton
from . import Budget, Paper, Verdict, claim
from ._history import history

PAPER = Paper(
    slug="trust-region-newton",
    title="The Levenberg-Marquardt Algorithm: Implementation and Theory",
    authors="More",
    year=1978,
    implements=("raphson.smooth.TrustRegionNewton",),
    note="The scaling, there by the columns of a Jacobian, is by the diagonal of the Hessian here; "
    "the step inside the region is Steihaug's (1983).",
)


@claim(
    PAPER,
    "Units of the unknowns that differ by factors up to 1e8 change no iterate beyond rounding.",
)
def units_change_nothing(budget: Budget) -> Verdict:
    n, steps, cases = 8, 15, budget.pick(5, 50)
    rng = np.random.default_rng(0)
    units = 10 ** rng.uniform(-4, 4, (cases, n))
    chain, start = rosenbrock(n).fn, rng.normal(size=n)
    fn = lambda y, units: chain(y / units, None)

    def departure(method: Any) -> float:
        problems = (Minimize(fn, start * u, jnp.asarray(u)) for u in (np.ones(n), *units))
        right, *others = [history(problem, method, steps)["value"] for problem in problems]
        return float(np.max(np.abs(np.array(others) - right) / (1 + np.abs(right))))

    case = f"greatest departure of f in {steps} steps over {cases} units of Rosenbrock's chain"
    measured, control = map(departure, (TrustRegionNewton(), TruncatedNewton()))
    return Verdict(measured, 1e-6, control, f"{case}; control: no scales")


@claim(
    PAPER,
    "Unknowns of different size do not slow it: logistic regression on raw measurements is at its "
    "least value within 1e-8 after at most 20 steps.",
)
def raw_measurements_do_not_slow_it(budget: Budget) -> Verdict:
    from sklearn.datasets import load_breast_cancer  # takes a second

    features, outcomes = load_breast_cancer(return_X_y=True)
    signs, sizes = jnp.asarray(2.0 * outcomes - 1), jnp.std(jnp.asarray(features), axis=0)

    def fn(y: jax.Array, A: jax.Array) -> jax.Array:
        return jnp.mean(jnp.logaddexp(0, -signs * (A @ y))) + jnp.sum((sizes * y) ** 2) / 2e4

    problem = Minimize(fn, jnp.zeros(sizes.size), jnp.asarray(features))
    methods = TrustRegionNewton(), TruncatedNewton()
    measured, control = (history(problem, method, 100)["value"] for method in methods)
    least = min(measured.min(), control.min())
    steps = lambda values: float(np.flatnonzero(np.append(values, least) <= least + 1e-8)[0])
    case = (
        f"steps, breast cancer data of sizes {float(sizes.min()):.1g} to {float(sizes.max()):.0f}; "
        "control: no scales"
    )
    return Verdict(steps(measured), 20, steps(control), case)
