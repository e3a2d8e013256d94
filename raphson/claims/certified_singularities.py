"""Singular roots: slow and blurred for Newton's method, regular and certified after deflation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..problems import circle_and_hyperbola, griewank_osborne
from ..roots import PolynomialSystem, alpha_certificate, deflated
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="certified-singularities",
    title="Punctual Hilbert Schemes and Certified Approximate Singularities",
    authors="Mantzaflaris, Mourrain, Szanto",
    year=2020,
    implements=("raphson.roots.alpha_certificate", "raphson.roots.deflated"),
    note="Deflation is that of Leykin, Verschelde and Zhao; the paper's own system, of the dual "
    "space of the root, is not implemented. Near the root of Griewank and Osborne Newton's method "
    "is not slow but repelled. The certificate is computed in floating point.",
)


def _newton(problem: PolynomialSystem, steps: int) -> np.ndarray:
    """The start and the iterates of Newton's method."""

    def step(y: Array, _: None) -> tuple[Array, Array]:
        J = problem.jacobian(y).as_matrix()
        return y - jnp.linalg.solve(J, problem.residual(y)), y

    return np.asarray(jax.jit(lambda y: jax.lax.scan(step, y, length=steps + 1)[1])(problem.y0))


def _errors(problem: PolynomialSystem, order: int, steps: int) -> np.ndarray:
    """Of Newton's method on the system deflated so many times."""
    system = deflated(problem, problem.y0, order=order) if order else problem
    n = len(problem.y0)
    return np.linalg.norm(
        _newton(system, steps)[:, :n] - np.asarray(problem.facts.minimizer), axis=1
    )


@claim(
    PAPER,
    "At the double root of a circle and a hyperbola Newton's method only halves the error: ratio "
    "within 0.01 of 1/2 after 10 steps.",
)
def newton_halves_the_error_at_a_double_root(budget: Budget) -> Verdict:
    def gap(order: int) -> float:
        errors = _errors(circle_and_hyperbola(), order, 10)
        ratio = errors[3] / errors[2] if order else errors[-1] / errors[-2]
        return float(abs(ratio - 0.5))

    case = "|ratio - 1/2| of errors; control: the deflated system, in its third step"
    return Verdict(gap(0), 1e-2, gap(1), case)


@claim(
    PAPER,
    "Deflated, Newton's method is quadratic at both singular roots: fitted order above 1.8.",
)
def deflated_newton_is_quadratic(budget: Budget) -> Verdict:
    def fitted(errors: np.ndarray) -> float:
        ahead = errors[(errors < 0.1) & (errors > 1e-13)]
        slopes = np.log(ahead[2:] / ahead[1:-1]) / np.log(ahead[1:-1] / ahead[:-2])
        return float(np.max(slopes))

    measured = min(
        fitted(_errors(circle_and_hyperbola(), 1, 12)), fitted(_errors(griewank_osborne(), 2, 12))
    )
    control = fitted(_errors(circle_and_hyperbola(), 0, 20))
    case = "least of both roots; control: the circle and the hyperbola, not deflated"
    return Verdict(measured, 1.8, control, case, at_most=False)


@claim(
    PAPER,
    "Deflated, Newton's method finds both singular roots to 1e-14; on the system itself it stalls "
    "where the residual is all rounding, at about 1e-8.",
)
def deflated_newton_is_accurate(budget: Budget) -> Verdict:
    def least(order: tuple[int, int], steps: int) -> float:
        problems = circle_and_hyperbola(), griewank_osborne()
        return float(max(np.nanmin(_errors(p, o, steps)) for p, o in zip(problems, order)))

    double = float(np.nanmin(_errors(circle_and_hyperbola(), 0, 100)))
    case = "least error, the greater of both roots; control: the double root, not deflated"
    return Verdict(least((1, 2), 20), 1e-14, double, case)


@claim(
    PAPER,
    "Smale's test certifies the iterates at both singular roots after at most 6 steps on the "
    "deflated system, and never on the system itself.",
)
def certificate_accepts_the_deflated_system(budget: Budget) -> Verdict:
    def steps(problem: PolynomialSystem, order: int) -> float:
        system = deflated(problem, problem.y0, order=order) if order else problem
        ys = jnp.asarray(_newton(system, 30))
        certified = jax.vmap(lambda y: alpha_certificate(system, y))(ys).certified
        return float(np.argmax(certified)) if bool(jnp.any(certified)) else np.inf

    measured = max(steps(circle_and_hyperbola(), 1), steps(griewank_osborne(), 2))
    control = min(steps(circle_and_hyperbola(), 0), steps(griewank_osborne(), 0))
    case = "steps until certified, the more of both; control: not deflated, in 30 steps"
    return Verdict(measured, 6, control, case)
