"""PSGD: what preconditioners on Lie groups find, and what they are worth."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..compiled import compiled
from ..train import psgd
from ..train._lie_groups import Kron, LowRankGroup, XMatGroup
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="psgd",
    title="Curvature-Informed SGD via General Purpose Lie-Group Preconditioners",
    authors="Pooladzandi, Li",
    year=2024,
    implements=("raphson.train.psgd",),
    note=(
        "The paper's results on vision, language and games, better than those of Adam, Shampoo and "
        "KFAC, are not checked. Bounds of the curvature follow the author's later work, but for "
        "'xmat', whose steps each have their own; so does 'kron', by its coordinates."
    ),
)


@claim(
    PAPER,
    "With exact Newton pairs, XMat is in the valley of Rosenbrock's function below 1e-8 in 800 "
    "steps, from every seed at the learning rate 0.1.",
)
def xmat_follows_the_valley(budget: Budget) -> Verdict:
    keys = jax.random.split(jax.random.key(0), budget.pick(5, 100))
    psgds = compiled(_valley, "xmat", keys, np.array([0.1]), 800)
    rates = np.geomspace(3e-4, 5e-3, 5)
    descents = compiled(_valley, "sgd", keys[:1], rates, 3000)
    case = (
        f"greatest loss of {len(keys)} seeds after 800 steps; control: gradient descent after "
        "3000 at the best of 5 learning rates"
    )
    return Verdict(float(np.max(psgds)), 1e-8, float(np.nanmin(descents)), case)


@claim(
    PAPER,
    "Q = (I + U V') diag(d) with 3 columns finds the inverse of a diagonal plus a matrix of rank "
    "3: |P H - I| is below 0.1 after 15000 pairs.",
)
def low_rank_finds_its_hessians(budget: Budget) -> Verdict:
    pairs, n = budget.pick(15_000, 60_000), 50
    columns, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(n, 3)))
    hessian = np.eye(n) + 10 * columns @ columns.T
    three, two = (_error(LowRankGroup(rank), (n,), hessian, pairs) for rank in (3, 2))
    case = f"|P H - I| after {pairs} pairs, {n} parameters; control: 2 columns"
    return Verdict(three, 0.1, two, case)


@claim(
    PAPER,
    "A Hessian that is a Kronecker product over the axes of a leaf is inverted to rounding by as "
    "many factors, whose numbers are 72 here where the inverse has 1296.",
)
def kronecker_products_are_inverted(budget: Budget) -> Verdict:
    pairs, size = budget.pick(4000, 20_000), 6
    rng = np.random.default_rng(0)
    turns = [np.linalg.qr(rng.normal(size=(size, size)))[0] for _ in range(2)]
    left, right = (turn * np.geomspace(1, 10, size) @ turn.T for turn in turns)
    shape, hessian = (size, size), np.kron(left, right)
    kron = _error(Kron("Q0.5EQ1.5"), shape, hessian, pairs)
    case = f"|P H - I| after {pairs} pairs, condition number 100; control: XMat, with 72 too"
    return Verdict(kron, 1e-8, _error(XMatGroup(), (size**2,), hessian, pairs), case)


def _error(group: Any, shape: tuple[int, ...], hessian: np.ndarray, pairs: int) -> float:
    return float(compiled(_fitted, group, shape, hessian, pairs))


def _fitted(
    group: Any, shape: tuple[int, ...], hessian: Float[Array, "n n"], pairs: int
) -> Float[Array, ""]:
    """|P H - I| after so many pairs."""

    def step(count: Array, q: Any) -> Any:
        draw, key = jax.random.split(jax.random.fold_in(jax.random.key(1), count))
        v = jax.random.normal(draw, (len(hessian),))
        return group.fit(q, (hessian @ v).reshape(shape), v.reshape(shape), 0.1, key)

    start = group.start(shape, hessian.dtype, jax.random.key(0))
    q = jax.lax.fori_loop(0, pairs, step, start)
    eye = jnp.eye(len(hessian))
    p = jax.vmap(lambda e: group.apply(q, e.reshape(shape)).ravel())(eye)
    return jnp.linalg.norm(p @ hessian - eye)


def _valley(
    name: str, keys: Array, rates: Float[Array, " rates"], steps: int
) -> Float[Array, "rates seeds"]:
    def loss(x: Float[Array, "2"]) -> Float[Array, ""]:
        return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2

    def last(rate: Any, key: Array) -> Float[Array, ""]:
        optimizer = optax.with_extra_args_support(
            optax.sgd(rate) if name == "sgd" else psgd(rate, name, whiten=False, key=key)
        )

        def step(_: Array, carry: Any) -> Any:
            x, state = carry
            updates, state = optimizer.update(jax.grad(loss)(x), state, x, value_fn=loss)
            return optax.apply_updates(x, updates), state

        start = jnp.array([-1.0, 1.0])
        return loss(jax.lax.fori_loop(0, steps, step, (start, optimizer.init(start)))[0])

    return jax.vmap(jax.vmap(last, (None, 0)), (0, None))(rates, keys)
