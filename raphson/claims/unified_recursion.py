"""Tran-Dinh and van Dijk's descent inequality, estimators of the gradient, and what they save."""

from __future__ import annotations

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..compiled import compiled
from ..problems import huber_chain, logistic, logistic_synthetic, polyak_lojasiewicz
from ..smooth import FiniteSum, GradientDescent, HybridSARAH, LooplessSVRG, NormalizedSpider
from . import Budget, Paper, Verdict, claim
from ._history import history

PAPER = Paper(
    slug="unified-recursion",
    title="Gradient Descent-Type Methods: Background and Simple Unified Convergence Analysis",
    authors="Tran-Dinh, van Dijk",
    year=2022,
    implements=(
        "raphson.smooth.GradientDescent",
        "raphson.smooth.HybridSARAH",
        "raphson.smooth.LooplessSVRG",
        "raphson.smooth.NormalizedSpider",
    ),
    note=(
        "The descent inequality holds for every estimator of the gradient. SARAH is "
        "`NormalizedSpider` with its infinite radius. The proximal forms are not implemented."
    ),
)


@claim(
    PAPER,
    "A step y+ = y - s v along any v keeps f(y+) <= f(y) - s/2 |g|^2 - (1/(2s) - L/2) |y+ - y|^2 "
    "+ s/2 |v - g|^2, g being the gradient at y.",
)
def descent_inequality(budget: Budget) -> Verdict:
    steps = budget.pick(200, 5000)
    problems = [polyak_lojasiewicz(20), huber_chain(), logistic_synthetic()]

    def excess(length: float) -> float:
        return float(np.max([compiled(_greatest_excess, p, length, steps) for p in problems]))

    case = (
        f"greatest (left - right) / (|left| + |right|) over {steps} steps on 3 problems, "
        "s = 1/(2L), v the gradient plus noise of 0.1 to 10 times its size; control: y+ = y - 2 s v"
    )
    # What rounding may add.
    return Verdict(excess(1.0), 1e-12, excess(2.0), case)


@claim(
    PAPER,
    "Gradient descent with s <= 1/L keeps the mean over its first t gradients of |g|^2, and so the "
    "least, at most 2 (f(y0) - f*) / (s t), without convexity.",
)
def gradient_descent_nonconvex(budget: Budget) -> Verdict:
    steps = budget.pick(100, 1000)
    starts = np.linspace(-10, 10, budget.pick(20, 200))

    def excess(factor: float) -> float:
        def ratio(start: float) -> float:
            problem = eqx.tree_at(lambda p: p.y0, polyak_lojasiewicz(), jnp.array([start]))
            size = factor / problem.facts.lipschitz
            run = history(problem, GradientDescent(size), steps)
            return float(np.max(np.cumsum(run["residual"] ** 2) * size / (2 * run["gap"][0])))

        return float(np.max([ratio(start) for start in starts]))

    case = (
        f"greatest mean |g|^2 / bound over {steps} steps from {len(starts)} starts in [-10, 10], "
        "f = y^2 + 3 sin(y)^2, s = 1 / L; control: s = 2.5 / L"
    )
    return Verdict(excess(1.0), 1.0, excess(2.5), case)


@claim(
    PAPER,
    "SARAH on batches of b keeps the error of its estimate, from one full gradient to the next, at "
    "E|v_t - g_t|^2 <= (L^2 / b) sum E|y_{i+1} - y_i|^2 over i < t, L being that of the samples in "
    "mean square.",
)
def sarah_error(budget: Budget) -> Verdict:
    seeds, steps = budget.pick(2000, 20000), 30
    sarah = _excess(partial(NormalizedSpider, refresh_every=2**30), 0.0, steps, seeds)
    plain = _excess(partial(HybridSARAH, weight=1.0), 0.0, steps, seeds)
    case = (
        f"greatest (mean + 3 standard errors over {seeds} seeds) / bound over {steps} steps, least "
        "squares with 50 samples, b = 4; control: gradients of batches without the correction"
    )
    return Verdict(sarah, 1.0, plain, case)


@claim(
    PAPER,
    "The hybrid estimator of weight w keeps E|v_t - g_t|^2 <= B_t, where B_{t+1} = (1 - w)^2 (B_t "
    "+ (L^2 / b) E|y_{t+1} - y_t|^2) + w^2 E sigma^2(y_{t+1}) / b: it forgets the path.",
)
def hybrid_error(budget: Budget) -> Verdict:
    seeds, steps, weight = budget.pick(2000, 20000), 30, 0.1
    hybrid = _excess(partial(HybridSARAH, weight=weight), weight, steps, seeds)
    sarah = _excess(partial(HybridSARAH, weight=0.0), weight, steps, seeds)
    case = (
        f"greatest (mean + 3 standard errors over {seeds} seeds) / bound over {steps} steps, least "
        f"squares with 50 samples, b = 4, w = {weight}; control: SARAH, w = 0, held to the same"
    )
    return Verdict(hybrid, 1.0, sarah, case)


@claim(
    PAPER,
    "On logistic regression of breast cancer SARAH and L-SVRG come to |g| <= 1e-6 on fewer "
    "gradients of one sample than gradient descent, and than stochastic gradient descent.",
)
def fewer_component_gradients(budget: Budget) -> Verdict:
    mu, b, share = budget.pick(3e-2, 1e-3), 8, 0.1
    exact, batches = (logistic(regularization=mu, batch_size=size) for size in (None, b))
    n, s = exact.num_samples, 1 / float(exact.facts.lipschitz or np.nan)
    descent = _needed(exact, GradientDescent(s), lambda *_: n, round(15 / (mu * s)))

    def relative(method: Any, cost: Any, least: int) -> float:
        """Its gradients of one sample over those of descent; infinite above the share."""
        steps = round(share * descent / least)
        return (n + _needed(batches, method, cost, steps)) / descent

    def of_sarah(_: Any, after: Any) -> Array:
        return jnp.where(after.age == 0, n, 2 * b)

    def of_svrg(before: Any, after: Any) -> Array:
        return 2 * b + n * jnp.any(after.reference != before.reference)

    def of_plain(*_: Any) -> int:
        return b

    sarah = relative(NormalizedSpider(s, refresh_every=n // b), of_sarah, 2 * b)
    svrg, never_renewed = (relative(LooplessSVRG(s, p), of_svrg, 2 * b) for p in (b / n, 1e-9))
    plain = [relative(HybridSARAH(c * s, 1.0), of_plain, b) for c in (0.01, 0.1, 1.0)]
    case = (
        f"the greater of SARAH ({sarah:.3f}) and L-SVRG ({svrg:.3f}) over the {descent:.2g} of "
        f"gradient descent, mu = {mu}, b = {b}, s = 1 / L; control: the least of L-SVRG that never "
        "renews its reference and stochastic gradients at s = 0.01, 0.1 and 1 / L"
    )
    return Verdict(max(sarah, svrg), share, min(never_renewed, *plain), case)


def _greatest_excess(problem: Any, length: Any, steps: int) -> Any:
    """How far steps of `length` times s break the inequality for s, relative to its sides."""
    L = problem.facts.lipschitz
    s = 1 / (2 * L)
    method = GradientDescent(length * s)

    def step(carry: tuple[Any, Any], key: Any) -> tuple[tuple[Any, Any], Any]:
        y, state = carry
        size_key, noise_key = jax.random.split(key)
        g = problem.gradient(y)
        noise = jax.random.normal(noise_key, g.shape, g.dtype)
        relative = 10 ** jax.random.uniform(size_key, minval=-1, maxval=1)
        v = g + relative * jnp.linalg.norm(g) / jnp.linalg.norm(noise) * noise

        after, state = method.step(problem, y, eqx.tree_at(lambda s: s.gradient, state, v))
        move, error = jnp.sum((after - y) ** 2), jnp.sum((v - g) ** 2)
        left = problem.value(after)
        right = problem.value(y) - s / 2 * jnp.sum(g**2) - (1 / (2 * s) - L / 2) * move
        right += s / 2 * error
        return (after, state), (left - right) / (jnp.abs(left) + jnp.abs(right))

    start = problem.y0, method.init(problem, problem.y0, None)
    keys = jax.random.split(jax.random.key(0), steps)
    return jnp.max(jax.lax.scan(step, start, keys)[1])


def _needed(problem: FiniteSum, method: Any, cost: Any, steps: int) -> float:
    """What the steps to |g| <= 1e-6 cost; infinite if so many do not lead there."""
    slopes, costs = compiled(_slopes, problem.without_facts, method, cost, steps)
    solved = np.asarray(slopes) <= 1e-6
    return float(np.sum(costs[: np.argmax(solved) + 1])) if solved.any() else np.inf


def _slopes(problem: Any, method: Any, cost: Any, steps: int) -> Any:
    """|g| after each step, and what the step cost by the states before and after it."""

    def step(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], tuple[Array, Any]]:
        y, state = method.step(problem, *carry)
        return (y, state), (jnp.linalg.norm(problem.gradient(y)), cost(carry[1], state))

    start = problem.y0, method.init(problem, problem.y0, jax.random.key(0))
    return jax.lax.scan(step, start, length=steps)[1]


def _excess(make: Any, weight: float, steps: int, seeds: int) -> float:
    """The greatest mean error of the estimates, with three standard errors, over the bound."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((50, 3))
    data = a, a @ np.ones(3) + 0.01 * rng.standard_normal(50)
    problem, b, size = FiniteSum(_squared_error, jnp.zeros(3), data, batch_size=4), 4, 0.1
    square = np.linalg.eigvalsh(np.einsum("ni,nj,n->ij", a, a, np.sum(a**2, axis=1)) / 50)[-1]
    keys = jax.random.split(jax.random.key(0), seeds)
    error, move, noise = map(
        np.asarray, compiled(_estimates, problem, make(size), size, keys, steps)
    )
    bound = [0.0]
    for moved, spread in zip(np.mean(move, axis=0), np.mean(noise, axis=0)[1:], strict=False):
        followed = bound[-1] + square / b * moved
        bound.append((1 - weight) ** 2 * followed + weight**2 * spread / b)
    deviation = error.std(axis=0, ddof=1) / seeds**0.5
    # At the start both are 0.
    return float(np.max((error.mean(axis=0) + 3 * deviation)[1:] / bound[1:]))


def _estimates(problem: Any, method: Any, size: Any, keys: Array, steps: int) -> Any:
    """By seed and step: |v - g|^2, |y+ - y|^2, and the variance of the gradients of the samples."""

    def run(key: Array) -> Any:
        def step(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], Any]:
            y, _ = carry
            after, state = method.step(problem, *carry)
            g = problem.gradient(y)
            each = jax.vmap(jax.grad(problem.fn), (None, 0, None))(y, problem.data, None)
            error, move = (y - after) / size - g, after - y
            return (after, state), (jnp.sum(error**2), jnp.sum(move**2), jnp.sum(jnp.var(each, 0)))

        start = problem.y0, method.init(problem, problem.y0, key)
        return jax.lax.scan(step, start, length=steps)[1]

    return jax.vmap(run)(keys)


def _squared_error(y: Any, sample: Any, _: None) -> Any:
    a, b = sample
    return (jnp.vdot(a, y) - b) ** 2 / 2
