"""AdaHessian: curvature by random signs in Adam's place for squares of gradients."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from ..compiled import compiled
from ..train import adahessian
from ..train._hutchinson import drawn_diagonal
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="adahessian",
    title="ADAHESSIAN: An Adaptive Second Order Optimizer for Machine Learning",
    authors="Yao, Gholami, Shen, Mustafa, Keutzer, Mahoney",
    year=2020,
    implements=("raphson.train.adahessian",),
    note=(
        "The paper's experiments are not repeated. On the perceptron on digits, with Hessians of "
        "all samples and each at its best learning rate, the training loss after 10 epochs was "
        "between those of Adam and of momentum, both of which are cheaper."
    ),
)


@claim(PAPER, "The mean of z * (H z) over random signs z is the diagonal of the Hessian H.")
def draws_are_the_diagonal_on_the_mean(budget: Budget) -> Verdict:
    draws, rng = budget.pick(4000, 100_000), np.random.default_rng(0)
    root = rng.normal(size=(20, 20))
    hessian = jnp.asarray(root @ root.T)
    found = np.asarray(compiled(_drawn, hessian, jax.random.split(jax.random.key(0), draws)))
    diagonal = np.diag(hessian)

    def error(drawn: np.ndarray) -> float:
        return float(np.max(np.abs(np.mean(drawn, axis=0) / diagonal - 1)))

    case = f"greatest relative error of the mean of {draws} draws; control: of the mean of |H z|"
    return Verdict(error(found), 0.1, error(np.abs(found)), case)


@claim(
    PAPER,
    "On diagonal quadratics AdaHessian needs as many steps whatever the condition number is.",
)
def steps_do_not_depend_on_the_condition_number(budget: Budget) -> Verdict:
    conditions = budget.pick((1.0, 1e6), (1.0, 1e3, 1e6))

    def spread(optimizers: list[optax.GradientTransformation]) -> float:
        steps = [
            int(compiled(_steps, optimizer, np.geomspace(1, condition, 10)))
            for optimizer, condition in zip(optimizers, conditions, strict=True)
        ]
        return max(steps) / min(steps)

    ours = spread([adahessian(0.15) for _ in conditions])
    momentum = spread([optax.sgd(0.15 / condition, momentum=0.9) for condition in conditions])
    case = (
        f"most steps over fewest to 1e-6 of the start, conditions {min(conditions):g} to "
        f"{max(conditions):g}; control: momentum, at learning rates over the greatest curvature"
    )
    return Verdict(ours, 1.05, momentum, case)


def _drawn(hessian: Array, keys: Array) -> Array:
    x = jnp.zeros(len(hessian))
    return jax.vmap(lambda key: drawn_diagonal(key, lambda x: x @ hessian @ x / 2, x))(keys)


def _steps(optimizer: Any, curvature: Array) -> Array:
    """Until every entry is below 1e-6 of where it began, at most 100,000."""

    def loss(x: Array) -> Array:
        return jnp.sum(curvature * x**2) / 2

    def step(carry: tuple[Array, Array, Any]) -> tuple[Array, Array, Any]:
        count, x, state = carry
        update, state = optimizer.update(jax.grad(loss)(x), state, x, value_fn=loss)
        return count + 1, x + update, state

    def far(carry: tuple[Array, Array, Any]) -> Array:
        return (jnp.max(jnp.abs(carry[1])) > 1e-6) & (carry[0] < 100_000)

    x = jnp.ones_like(curvature)
    optimizer = optax.with_extra_args_support(optimizer)
    return jax.lax.while_loop(far, step, (jnp.array(0), x, optimizer.init(x)))[0]
