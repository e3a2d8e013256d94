"""Periodic orbits by shooting, and the nine-mode model of shear flow."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import scipy.integrate
from jax.flatten_util import ravel_pytree

import raphson as rp

from ..problems import lorenz_orbit, shear_flow9, van_der_pol_orbit
from ..roots import bound_slack, floquet_multipliers, periodic_orbit
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="extremal-orbits",
    title="Finding Extremal Periodic Orbits with Polynomial Optimization, with Application to a "
    "Nine-Mode Model of Shear Flow",
    authors="Lakshmi, Fantuzzi, Fernandez-Caballero, Hwang, Chernyshenko",
    year=2020,
    implements=(
        "raphson.roots.bound_slack",
        "raphson.problems.shear_flow9",
        "raphson.roots.continuation",
        "raphson.roots.periodic_orbit",
        "raphson.roots.floquet_multipliers",
    ),
    note="The slack of a bound on time averages gives guesses of orbits; to find the bound by sums "
    "of squares needs a semidefinite program, which is not here. Energy conservation does not tell "
    "a triad of wrong size; the tests project the Navier-Stokes equations on the modes.",
)

_NEWTON = optx.Newton(rtol=1e-12, atol=1e-12)
_LONG: dict[str, Any] = {"rtol": 0.0, "atol": 1e-9, "max_steps": 30, "throw": False}
_PERIODS = (6.6632868593, 1.5586522107)


def _orbits() -> tuple[Any, Any]:
    return van_der_pol_orbit(), lorenz_orbit()


@claim(
    PAPER,
    "The nonlinear terms of the nine-mode model conserve the energy |a|^2, for all lengths, widths "
    "and amplitudes.",
)
def shear_flow_conserves_energy(budget: Budget) -> Verdict:
    rng = np.random.default_rng(0)
    amplitudes = jnp.asarray(rng.normal(size=(budget.pick(100, 10_000), 9)))
    sides = jnp.asarray(rng.uniform(1, 20, (len(amplitudes), 2)))
    fn = shear_flow9().fn

    def power(a: Any, sides: Any, flipped: float) -> Any:
        # Of terms of second order, what is even in a.
        args = (jnp.array(400.0), *sides)
        terms = (fn(a, args) + fn(-a, args)) / 2 - fn(jnp.zeros(9), args)
        terms = terms.at[8].multiply(flipped)
        return jnp.abs(a @ terms) / (jnp.linalg.norm(a) * jnp.linalg.norm(terms))

    def worst(flipped: float) -> float:
        return float(jnp.max(jax.vmap(lambda a, s: power(a, s, flipped))(amplitudes, sides)))

    case = f"power over |a| |N(a)|, {len(amplitudes)} random cases; control: the ninth sign flipped"
    return Verdict(worst(1.0), 1e-14, worst(-1.0), case)


@claim(PAPER, "The laminar flow is a fixed point of the nine modes, stable at Re = 100.")
def laminar_flow_is_stable(budget: Budget) -> Verdict:
    def growth(reynolds: float) -> float:
        problem = shear_flow9(reynolds)
        laminar = problem.facts.minimizer
        assert float(jnp.linalg.norm(problem.residual(laminar))) == 0
        spectrum = np.linalg.eigvals(np.asarray(problem.jacobian(laminar).as_matrix()))
        return float(np.max(spectrum.real))

    case = "greatest growth rate of disturbances; control: without friction, Re = 1e300"
    return Verdict(growth(100.0), -1e-3, growth(1e300), case)


@claim(
    PAPER,
    "Newton's method shoots the limit cycle of Van der Pol and the shortest orbit of Lorenz to a "
    "residual of 1e-10 in at most 10 steps.",
)
def newton_shoots_in_ten_steps(budget: Budget) -> Verdict:
    def newton(problem: Any) -> float:
        solution = rp.solve(problem, _NEWTON, rtol=0.0, atol=1e-10, max_steps=30, throw=False)
        return float(solution.stats.steps) if bool(solution.converged) else np.inf

    def chord(problem: Any) -> float:
        flat, unravel = ravel_pytree(problem.y0)
        shot = jax.jit(lambda flat: ravel_pytree(problem.residual(unravel(flat)))[0])
        J = problem.jacobian(problem.y0).as_matrix()
        for count in range(30):
            residual = shot(flat)
            if float(jnp.linalg.norm(residual)) <= 1e-10:
                return count
            flat = flat - jnp.linalg.solve(J, residual)
        return np.inf

    case = "steps, the more of both; control: with the Jacobian of the start"
    orbits = _orbits()
    return Verdict(max(map(newton, orbits)), 10, max(map(chord, orbits)), case)


@claim(
    PAPER,
    "The orbits have the periods 6.6632868593 and 1.5586522107, and one Floquet multiplier is 1 "
    "within 1e-6.",
)
def orbits_have_their_periods_and_a_multiplier_of_one(budget: Budget) -> Verdict:
    def error(problem: Any, period: float, y: Any) -> float:
        trivial = float(np.min(np.abs(np.asarray(floquet_multipliers(problem, y)) - 1)))
        return max(trivial, abs(float(y[1]) - period))

    found, guessed = [], []
    for problem, period in zip(_orbits(), _PERIODS):
        y = rp.solve(problem, _NEWTON, rtol=0.0, atol=1e-10, throw=False).value
        found.append(error(problem, period, y))
        guessed.append(error(problem, period, problem.y0))
    case = "greatest error of periods and trivial multipliers; control: at the guesses"
    return Verdict(max(found), 1e-6, min(guessed), case)


@claim(
    PAPER,
    "From where a chaotic trajectory of Lorenz comes near itself after 13 to 20 units of time, "
    "multiple shooting with 8 points converges to an orbit of about that period in two cases of "
    "three.",
)
def multiple_shooting_reaches_long_orbits(budget: Budget) -> Verdict:
    once, points, spacing = lorenz_orbit(), 8, 0.01
    field, constants = once.fn.field, once.args[0]
    flow = jax.jit(lambda t, u: field(u, constants))
    times = 20 + spacing * np.arange(budget.pick(10_000, 40_000))
    trajectory = scipy.integrate.solve_ivp(
        flow, (0, times[-1]), [1.0, 2.0, 20.0], "DOP853", t_eval=times, rtol=1e-9
    ).y.T

    def nearest(span: int) -> tuple[float, int, int]:
        distance = np.linalg.norm(trajectory[span:] - trajectory[:-span], axis=1)
        return float(np.min(distance)), int(np.argmin(distance)), span

    spans = range(1312, 2000, points)
    recurrences = sorted(map(nearest, spans))[: budget.pick(6, 40)]

    def converges(points: int, first: int, span: int) -> bool:
        u0, period = trajectory[first : first + span : span // points], spacing * span
        problem = periodic_orbit(field, u0, period, constants)
        solution = rp.solve(problem, rp.roots.LevenbergMarquardt(), **_LONG)
        return bool(solution.converged) and abs(float(solution.value[1]) / period - 1) < 0.1

    def share(points: int) -> float:
        return float(np.mean([converges(points, *found) for _, *found in recurrences]))

    case = f"share of {len(recurrences)} guesses; control: one point of each"
    return Verdict(share(points), 2 / 3, share(1), case, at_most=False)


@claim(
    PAPER,
    "The states of least slack in a sharp bound lie on the orbit that attains it: from random "
    "starts all minimizers are on it to 1e-6.",
)
def least_slack_leads_to_the_extremal_orbit(budget: Budget) -> Verdict:
    # The mean of |u|^2 is at most 1, on the circle of radius 1: with V = |u|^2 / 2 the slack is
    # (1 - |u|^2)^2.
    field = lambda u, _: jnp.stack([-u[1], u[0]]) + (1 - u @ u) * u
    starts = jnp.asarray(np.random.default_rng(0).normal(size=(budget.pick(20, 1000), 2)))

    def farthest(weight: float) -> float:
        def guess(u: Any) -> Any:
            auxiliary = lambda u, _: weight * (u @ u) / 2
            slack = bound_slack(field, lambda u, _: u @ u, auxiliary, 1.0, u)
            return rp.solve(slack, rtol=0.0, atol=1e-10, throw=False).value

        guesses = jax.jit(jax.vmap(guess))(starts)
        return float(jnp.max(jnp.abs(jnp.linalg.norm(guesses, axis=1) - 1)))

    case = f"greatest distance from the circle, {len(starts)} starts; control: twice that V"
    return Verdict(farthest(1.0), 1e-6, farthest(2.0), case)
