"""Hessian fitting on Lie groups: how fast preconditioners come to the inverse of the Hessian."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..compiled import compiled
from ..train._lie_groups import Kron, TriangularGroup
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="lie-group-hessian-fitting",
    title="Stochastic Hessian Fitting on Lie Group",
    authors="Li",
    year=2024,
    implements=("raphson.train.psgd",),
    note=(
        "The groups are those of psgd's forms 'dense' and 'triangular', at its rate, 0.1. The "
        "closed form that they are held against is (mean of h h')^-1/2 over all pairs so far."
    ),
)

SIZE = 20
GROUPS = {
    "root": Kron("Q0.5EQ1.5", full=True),
    "qeq": Kron("QEQ", full=True),
    "triangular": TriangularGroup(),
}


@claim(
    PAPER,
    "From exact products with a Hessian of condition number 100, descent along Q0.5 E Q1.5 and "
    "along Q E Q comes geometrically to its inverse: after 5000 pairs to rounding.",
)
def inverse_is_fitted_geometrically(budget: Budget) -> Verdict:
    pairs = budget.pick(5000, 20_000)
    group = max(_errors(name, [pairs])[0] for name in ("root", "qeq"))
    case = f"|P H - I| after {pairs} pairs, {SIZE} parameters; control: the closed form"
    return Verdict(group, 1e-10, _errors("closed", [pairs])[0], case)


@claim(PAPER, "The closed form comes to the inverse as the number of pairs to the power -1/2.")
def closed_form_is_sublinear(budget: Budget) -> Verdict:
    def departure(name: str, marks: list[int]) -> float:
        slope = np.polyfit(np.log(marks), np.log(_errors(name, marks)), 1)[0]
        return abs(float(slope) + 0.5)

    marks = [budget.pick(1000, 10_000) * 2**k for k in range(5)]
    case = (
        f"departure of the power from -1/2, {marks[0]} to {marks[-1]} pairs; control: descent "
        "along Q0.5 E Q1.5, before it ends at rounding"
    )
    return Verdict(departure("closed", marks), 0.1, departure("root", [250, 500, 1000, 2000]), case)


@claim(
    PAPER,
    "Descent on the triangular group is geometric too, but slower: the error falls to 0.3 from "
    "10000 pairs to 20000, where k^-1/2 falls to 0.71.",
)
def triangular_group_is_slower(budget: Budget) -> Verdict:
    marks = [10_000, budget.pick(20_000, 40_000)]

    def fall(name: str) -> float:
        early, late = _errors(name, marks)
        return late / early

    case = f"error after {marks[1]} pairs over that after {marks[0]}; control: the closed form"
    return Verdict(fall("triangular"), 0.3, fall("closed"), case)


@claim(
    PAPER,
    "A Hessian that drifts is tracked by the group, not by the closed form, which averages over "
    "what has been.",
)
def drift_is_tracked(budget: Budget) -> Verdict:
    pairs = budget.pick(10_000, 50_000)
    group, closed = (_errors(name, [pairs], drift=1.0)[0] for name in ("root", "closed"))
    case = f"|P H - I| at the end of {pairs} pairs on the way from one Hessian to another"
    return Verdict(group, 1.0, closed, f"{case}; control: the closed form")


def _hessian(seed: int) -> Float[np.ndarray, "n n"]:
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(SIZE, SIZE)))
    return rotation * np.geomspace(1, 100, SIZE) @ rotation.T


def _errors(name: str, marks: list[int], drift: float = 0.0) -> list[float]:
    """|P H - I| after so many pairs; the Hessian goes, by the drift, to another at the end."""
    ends = _hessian(0), _hessian(1)
    return compiled(_fitted, name, np.array(marks), *ends, drift).tolist()


def _fitted(
    name: str,
    marks: Int[Array, " k"],
    first: Float[Array, "n n"],
    last: Float[Array, "n n"],
    drift: Any,
) -> Float[Array, " k"]:
    group: Any = GROUPS.get(name)

    def hessian(count: Any) -> Float[Array, "n n"]:
        share = drift * count / marks[-1]
        return (1 - share) * first + share * last

    def step(count: Array, fitted: Any) -> Any:
        draw, key = jax.random.split(jax.random.fold_in(jax.random.key(0), count))
        v = jax.random.normal(draw, (SIZE,))
        h = hessian(count) @ v
        return fitted + jnp.outer(h, h) if group is None else group.fit(fitted, h, v, 0.1, key)

    def error(fitted: Any, count: Array) -> Float[Array, ""]:
        if group is None:
            eigenvalues, vectors = jnp.linalg.eigh(fitted / count)
            p = vectors @ jnp.diag(eigenvalues**-0.5) @ vectors.T
        else:
            p = jax.vmap(lambda e: group.apply(fitted, e))(jnp.eye(SIZE))
        return jnp.linalg.norm(p @ hessian(count) - jnp.eye(SIZE))

    if group is None:
        fitted = jnp.zeros((SIZE, SIZE))
    else:
        # As psgd would begin, about.
        fitted = group.start((SIZE,), first.dtype, jax.random.key(0))
        fitted = group.scaled(fitted, jnp.asarray(0.15))
    errors, before = [], 0
    for mark in marks:
        fitted = jax.lax.fori_loop(before, mark, step, fitted)
        errors.append(error(fitted, mark))
        before = mark
    return jnp.stack(errors)
