"""Anderson acceleration: GMRES on affine maps, a few steps for many of Picard's on others."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..compiled import compiled
from ..engine import solve
from ..method import AbstractMethod
from ..roots import Anderson, FixedPoint, Halpern, KrasnoselskiiMann
from ..wrappers import Counted
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="anderson",
    title="Anderson Acceleration for Fixed-Point Iterations",
    authors="Walker, Ni",
    year=2011,
    implements=("raphson.roots.Anderson",),
    note="The paper drops the oldest moves while the least-squares problem is ill-conditioned; "
    "here it is regularized. Its test problems are replaced by Chandrasekhar's H-equation. For "
    "that at c = 0.9999 acceleration with 2 moves or more finds the root that Picard does not.",
)


@claim(
    PAPER,
    "On an affine map, with all moves kept, each step goes to the image of the iterate of GMRES "
    "(theorem 2.2).",
)
def anderson_is_gmres_on_affine_maps(budget: Budget) -> Verdict:
    n = budget.pick(12, 40)
    rng = np.random.default_rng(0)
    A, b, start = rng.normal(size=(n, n)), rng.normal(size=n), rng.normal(size=n)
    A *= 0.9 / np.linalg.norm(A, 2)
    problem = FixedPoint(_affine, start, (jnp.array(A), jnp.array(b)))
    images = _krylov(np.eye(n) - A, b, start) @ A.T + b

    def deviation(memory: int) -> float:
        method = Anderson(memory, regularization=1e-24)
        errors = np.asarray(compiled(_iterates, problem, method, n)) - images
        return float(np.max(np.linalg.norm(errors, axis=1)) / np.linalg.norm(images[-1]))

    case = f"greatest relative difference of {n} iterates in {n} variables; control: half the moves"
    return Verdict(deviation(n), 1e-6, deviation(n // 2), case)


@claim(
    PAPER,
    "On the H-equation at c = 0.999, 5 moves save nine tenths of the evaluations that Picard's "
    "iteration needs to shrink the residual by 1e-10.",
)
def anderson_saves_evaluations(budget: Budget) -> Verdict:
    problem = _radiation(budget)
    often = _evaluations(problem, KrasnoselskiiMann())
    accelerated, control = (_evaluations(problem, method) for method in (Anderson(), Halpern()))
    case = f"evaluations over those of Picard ({often:.0f}); control: Halpern"
    return Verdict(accelerated / often, 0.1, control / often, case)


@claim(
    PAPER,
    "The least-squares problem must be kept well-conditioned: then 50 moves take at most twice the "
    "evaluations of 5 on the H-equation at c = 0.999.",
)
def anderson_needs_a_conditioned_fit(budget: Budget) -> Verdict:
    problem = _radiation(budget)
    few = _evaluations(problem, Anderson())
    many, control = (_evaluations(problem, Anderson(50, 1.0, weight)) for weight in (1e-12, 1e-30))
    case = f"evaluations over those of 5 moves ({few:.0f}); control: lambda = 1e-30"
    return Verdict(many / few, 2.0, control / few, case)


def _affine(y: Array, args: tuple[Array, Array]) -> Array:
    return args[0] @ y + args[1]


def _krylov(A: np.ndarray, b: np.ndarray, start: np.ndarray) -> np.ndarray:
    """The iterates of GMRES from the start on: least |A y - b| over ever larger Krylov spaces."""
    residual = b - A @ start
    basis, ys = residual[:, None] / np.linalg.norm(residual), [start]
    for _ in range(len(b) - 1):
        ys.append(start + basis @ np.linalg.lstsq(A @ basis, residual, rcond=None)[0])
        following = np.column_stack([basis, A @ basis[:, -1]])
        basis = np.linalg.qr(following)[0]
    return np.array(ys)


def _iterates(problem: FixedPoint, method: AbstractMethod, steps: int) -> Array:
    def step(carry: Any, _: None) -> tuple[Any, Array]:
        y, state = method.step(problem, *carry)
        return (y, state), y

    start = problem.y0, method.init(problem, problem.y0, None)
    return jax.lax.scan(step, start, length=steps)[1]


def _scattered(H: Array, args: tuple[Array, Array]) -> Array:
    kernel, c = args
    return 1 / (1 - c / 2 * (kernel @ H))


def _radiation(budget: Budget) -> FixedPoint:
    """Chandrasekhar's H-equation for a nearly conservative atmosphere, by the midpoint rule."""
    n = budget.pick(100, 500)
    mu = (np.arange(n) + 0.5) / n
    kernel = jnp.array(mu[:, None] / (mu[:, None] + mu[None, :]) / n)
    return FixedPoint(_scattered, jnp.ones(n), (kernel, jnp.array(0.999)))


def _evaluations(problem: FixedPoint, method: AbstractMethod) -> float:
    solution = solve(Counted(problem), method, rtol=1e-10, atol=0.0)
    return float(solution.stats.counts["apply"])
