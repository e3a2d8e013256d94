"""Rates of convergence on saddles whose solutions are known, each beside a control that fails.

A rate is the slope of a measure against the step count in log-log scale, by least squares from step
100 on, the worst over several problems of one kind; where convergence is linear it is the mean
factor a step instead. Measured are the last iterate and the mean of all, for which
the theories promise different things. `promised` is the slope or factor of the theory, from above;
a control is there to show that the measure can fail.

    python benchmarks/saddle.py
"""

from __future__ import annotations

import functools
import time

import jax
import numpy as np

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import optax.tree as otu  # noqa: E402

import raphson as rp  # noqa: E402
from raphson.claims._history import history  # noqa: E402
from raphson.compiled import compiled  # noqa: E402
from raphson.problems import (  # noqa: E402
    bilinear,
    cocoercive_sum,
    least_squares_saddle,
    local_minimax,
    matrix_game,
    strongly_monotone,
)
from raphson.saddle import (  # noqa: E402
    AcceleratedPrimalDual,
    Extragradient,
    GradientDescentAscent,
    VarianceReducedHalpern,
)

SEEDS = range(3)
# Singular values down to where no linear rate is seen within the steps.
DENSE = np.linspace(1e-4, 1.0, 200)
VARIANTS = ("extragradient", "past", "reflected", "optimistic")


def slope(values, first):
    t = np.arange(first, len(values))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return float(np.polyfit(np.log(t), np.log(values[first:]), 1)[0])


def factor(values):
    """The mean factor a step, until rounding is met."""
    end = np.argmax(values <= 1e-12 * values[0]) or len(values) - 1
    return float((values[end] / values[0]) ** (1 / end))


def worst(figure, problems, method, measure, steps):
    return max(figure(history(p, method, steps)[measure]) for p in problems)


def show(problem, iterate, promised, figures):
    """A row for each method; the last is the control."""
    for name, figure in figures.items():
        control = "  control" if name.startswith("*") else ""
        print(
            f"{problem:28}{name.lstrip('*'):32}{iterate:8}{figure:9.3f}{promised:>11}{control}",
            flush=True,
        )


def extragradients(lipschitz, average=False):
    return {v: Extragradient.from_lipschitz(lipschitz, v, average=average) for v in VARIANTS}


def monotone():
    """Bilinear: the mean falls like 1 / t, the last iterate at least like 1 / sqrt(t)."""
    steps, first = 10_000, 100
    problems = [bilinear(DENSE, seed=seed) for seed in SEEDS]
    for iterate, promised, average in (("last", "-0.5", False), ("mean", "-1", True)):
        methods = extragradients(1.0, average) | {
            "*descent ascent": GradientDescentAscent(0.1, average=average)
        }
        figure = functools.partial(slope, first=first)
        found = {n: worst(figure, problems, m, "residual", steps) for n, m in methods.items()}
        show("bilinear, dense spectrum", iterate, promised, found)


def linear():
    """Strongly monotone: a factor of at most 1 - mu / (4 L) a step."""
    mu = 0.05
    problems = [strongly_monotone(np.geomspace(0.1, 1, 10), mu, seed=seed) for seed in SEEDS]
    lipschitz = float(problems[0].facts.lipschitz)
    methods = extragradients(lipschitz)
    # Below 2 mu / L^2 descent ascent converges, at a factor of 1 - mu^2 / L^2 at best.
    methods["*descent ascent, best step"] = GradientDescentAscent(mu / lipschitz**2)
    methods["*descent ascent, same step"] = GradientDescentAscent(0.45 / lipschitz)
    found = {n: worst(factor, problems, m, "distance", 2000) for n, m in methods.items()}
    show("strongly monotone (factor)", "last", f"{1 - mu / (4 * lipschitz):.3f}", found)


def primal_dual():
    """f badly conditioned, h strongly convex: 1 / N^2 accelerated, 1 / N linearized."""
    problems = [least_squares_saddle(seed=seed) for seed in SEEDS]
    options = {"strong_concavity": 1.0, "restart_every": None}
    methods = {
        "accelerated": AcceleratedPrimalDual(100.0, 1.0, **options),
        "*linearized": AcceleratedPrimalDual(100.0, 1.0, accelerated=False, **options),
        "*extragradient": Extragradient.from_lipschitz(100.0),
    }
    figure = functools.partial(slope, first=100)
    found = {n: worst(figure, problems, m, "suboptimality", 3000) for n, m in methods.items()}
    show("least squares, gap", "mean", "-2", found)


def anchored():
    """A mean of cocoercive operators: the last iterate of Halpern's method falls like 1 / k."""
    steps, k = 2000, np.arange(1000, 2001)
    problem = cocoercive_sum(400, 10, batch_size=20)
    methods = {
        "variance-reduced Halpern": VarianceReducedHalpern(0.25, restart=0.0),
        "*descent ascent on batches": GradientDescentAscent(0.25),
    }
    runs = {n: history(problem, m, steps, jax.random.key(0)) for n, m in methods.items()}
    fits = {n: np.polyfit(np.log(k), np.log(run["residual"][k]), 1) for n, run in runs.items()}
    show("cocoercive, sampled", "last", "-1", {n: float(fit[0]) for n, fit in fits.items()})


def games():
    """Matrix games: the duality gap of the mean falls like 1 / t."""
    problems = [matrix_game(seed=seed) for seed in SEEDS]
    lipschitz = max(float(p.facts.lipschitz) for p in problems)
    methods = extragradients(lipschitz, average=True) | {
        "primal-dual": AcceleratedPrimalDual(1e-9, lipschitz, restart_every=None),
        "*descent ascent": GradientDescentAscent(0.45 / lipschitz, average=True),
    }

    def apart(problem):
        """The same game with its parts known apart."""
        return rp.CompositeSaddle(
            lambda x, A: 0.0 * jnp.sum(x),
            problem.fn,
            *problem.y0,
            problem.args,
            nonsmooth=problem.nonsmooth,
            metrics=problem.metrics,
        )

    figure = functools.partial(slope, first=100)
    cases = list(map(apart, problems))
    found = {n: worst(figure, cases, m, "gap", 5000) for n, m in methods.items()}
    show("matrix game, duality gap", "mean", "-1", found)


def two_time_scales():
    """A local minimax point where f_yy vanishes: only extragradient, with y the faster, stays."""
    problem = local_minimax()
    methods = {
        "extragradient (0.1, 0.5)": Extragradient((0.1, 0.5)),
        "*extragradient (0.04, 0.2)": Extragradient((0.04, 0.2)),
        "*descent ascent (0.1, 0.5)": GradientDescentAscent((0.1, 0.5)),
    }
    found = {n: factor(history(problem, m, 400)["distance"]) for n, m in methods.items()}
    show("x y - x^2 / 10 (factor)", "last", "< 1", found)


def noisy():
    """Noise, strongly monotone: with steps like 1 / t the mean square distance falls like 1 / t."""
    problem = strongly_monotone(np.linspace(0.2, 1, 5), 1.0)
    steps, runs, b = 3000, 64, 8 * float(problem.facts.lipschitz)

    def mean_square(method):
        keys = jax.random.split(jax.random.key(0), runs)
        return slope(np.asarray(compiled(_square_distances, problem, method, keys, steps)), 300)

    methods = {
        "extragradient": Extragradient(lambda t: 2 / (t + b)),
        "past": Extragradient(lambda t: 2 / (t + b), "past"),
        "descent ascent": GradientDescentAscent(lambda t: 2 / (t + b)),
        "*past, constant step": Extragradient(2 / b, "past"),
    }
    found = {n: mean_square(m) for n, m in methods.items()}
    show("strongly monotone, noisy", "last", "-1", found)


def _square_distances(problem, method, keys, steps):
    def one(key):
        door = rp.Noisy(problem, key, noise=0.5)
        run = rp.method.begin(door, method, door.y0, None, rtol=0.0, atol=0.0)

        def leg(run, until):
            run = rp.method.advance(door, method, run, rtol=0.0, atol=0.0, until=until)
            return run, otu.norm(otu.sub(run.y, problem.facts.minimizer), squared=True)

        return jax.lax.scan(leg, run, jnp.arange(steps + 1))[1]

    return jnp.mean(jax.vmap(one)(keys), axis=0)


def main():
    print(f"{'problem':28}{'method':32}{'iterate':8}{'slope':>9}{'promised':>11}")
    start = time.perf_counter()
    for study in (monotone, linear, primal_dual, anchored, games, two_time_scales, noisy):
        study()
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
