"""The Nystrom method for implicit gradients: its bound, and who needs fewer products."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array

from ..compiled import compiled
from ..linear import Neumann, Nystrom
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="nystrom-implicit",
    title="Nystrom Method for Accurate and Scalable Implicit Differentiation",
    authors="Hataya, Yamada",
    year=2023,
    implements=("raphson.linear.Nystrom", "raphson.bilevel.ImplicitGradient"),
    note=(
        "On exact products and spectra that fall fast, conjugate gradients are more accurate than "
        "the Nystrom method with as many of them, unless these are as many as the matrix has rank. "
        "What it has over them is that its products do not wait for each other, and serve all "
        "right-hand sides. That the paper finds otherwise is quoted from memory."
    ),
)

DAMPING, SIZE = 1e-2, 100


@claim(
    PAPER,
    "The damped inverse H_k of the approximation errs by at most |E| / (d (d + |E|)), E = H - H_k.",
)
def nystrom_error_bound(budget: Budget) -> Verdict:
    def excess(without_core: bool) -> float:
        def ratio(H: np.ndarray, rank: int) -> float:
            C, W = H[:, :rank], H[:rank, :rank]
            low = C @ C.T if without_core else C @ np.linalg.pinv(W) @ C.T
            damped = lambda matrix: np.linalg.inv(matrix + DAMPING * np.eye(SIZE))
            ours = damped(low) if without_core else np.asarray(compiled(_inverse, H, rank))
            E = np.linalg.norm(H - C @ np.linalg.pinv(W) @ C.T, 2)
            return float(np.linalg.norm(damped(H) - ours, 2) / (E / (DAMPING * (DAMPING + E))))

        return max(ratio(H, rank) for H in _hessians(budget) for rank in (5, 20))

    case = f"greatest error / bound, {len(_hessians(budget))} Hessians; control: C C^T for H_k"
    return Verdict(excess(False), 1.0, excess(True), case)


@claim(
    PAPER,
    "With 20 products its answers are more accurate than 20 terms of the Neumann series with the "
    "best of step sizes.",
)
def beats_the_neumann_series(budget: Budget) -> Verdict:
    hessians = _hessians(budget)
    nystrom = max(_error(H, Nystrom(20, DAMPING)) for H in hessians)
    series = [Neumann(20, c / (1 + DAMPING)) for c in (1.0, 1.5, 1.9, 1.99)]
    control = min(min(_error(H, solver) for solver in series) for H in hessians)
    case = f"greatest relative error, {len(hessians)} Hessians; control: least of the series"
    return Verdict(nystrom, 0.4, control, case)


@claim(
    PAPER,
    "Conjugate gradients with 20 products are more accurate than the Nystrom method with as many, "
    "where the paper finds them less so.",
    reproduces=False,
)
def conjugate_gradients_are_more_accurate(budget: Budget) -> Verdict:
    hessians = _hessians(budget)
    nystrom = [_error(H, Nystrom(20, DAMPING)) for H in hessians]

    def ratio(solver: lx.AbstractLinearSolver) -> float:
        return max(_error(H, solver) / n for H, n in zip(hessians, nystrom, strict=True))

    case = "greatest error / that of the Nystrom method; control: the Neumann series, s = 1.9 / L"
    gradients = lx.CG(0.0, 0.0, max_steps=20)
    return Verdict(ratio(gradients), 0.1, ratio(Neumann(20, 1.9 / (1 + DAMPING))), case)


def _hessians(budget: Budget) -> list[np.ndarray]:
    """Matrices with the greatest eigenvalue 1 and others that fall fast, in random directions."""
    found = []
    for seed in range(budget.pick(2, 10)):
        rng = np.random.default_rng(seed)
        Q = np.linalg.qr(rng.normal(size=(SIZE, SIZE)))[0]
        spectra = 0.8 ** np.arange(SIZE), 1 / np.arange(1, SIZE + 1) ** 2
        found += [(Q * spectrum) @ Q.T for spectrum in spectra]
    return found


def _error(H: np.ndarray, solver: lx.AbstractLinearSolver) -> float:
    """The relative error of (H + d)^-1 b for a random b."""
    b = np.random.default_rng(1).normal(size=SIZE)
    exact = np.linalg.solve(H + DAMPING * np.eye(SIZE), b)
    # The Nystrom method adds the damping by itself.
    matrix = H if isinstance(solver, Nystrom) else H + DAMPING * np.eye(SIZE)
    found = np.asarray(compiled(_solved, matrix, b, solver))
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def _solved(matrix: Array, b: Array, solver: lx.AbstractLinearSolver) -> Array:
    tags = lx.symmetric_tag, lx.positive_semidefinite_tag
    operator = lx.MatrixLinearOperator(jnp.asarray(matrix), tags)
    return lx.linear_solve(operator, jnp.asarray(b), solver, throw=False).value


def _inverse(H: Array, rank: int) -> Array:
    return jax.vmap(lambda b: _solved(H, b, Nystrom(rank, DAMPING)))(jnp.eye(SIZE))
