"""SANIA: steps that do not see the units of the parameters, without a learning rate."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..compiled import compiled
from ..train import sania
from ..train.sania import Metric
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="sania",
    title=(
        "SANIA: Polyak-type Optimization Framework Leads to Scale Invariant Stochastic Algorithms"
    ),
    authors="Abdukhakimov, Xiang, Kamzolov, Gower, Takáč",
    year=2023,
    implements=("raphson.train.sania",),
    note=(
        "The paper's eps is what breaks the invariance; the claims take 0. On small batches the "
        "first steps of AdaGrad-SQR, about as long as 1 / g, raise the loss tenfold, and its sums "
        "never forget: the claim of speed is of Adam-SQR."
    ),
)


@claim(
    PAPER,
    "With a metric of squared gradients and no eps, the losses of logistic regression are the same "
    "whatever the scales of the columns are.",
)
def losses_do_not_depend_on_scales(budget: Budget) -> Verdict:
    steps, data = budget.pick(200, 1000), _separable()
    scaled = data * _scales(6.0)

    def apart(preconditioner: Metric) -> float:
        def make(rate: Any) -> optax.GradientTransformation:
            return sania(rate, preconditioner, eps=0.0)

        plain, other = (compiled(_losses, make, np.ones(1), a, steps) for a in (data, scaled))
        return float(np.max(np.abs(plain / other - 1)))

    case = (
        f"greatest relative deviation of {steps} losses, scales e^-6 to e^6, AdaGrad-SQR in "
        "batches of 16; control: AdaGrad, with the root"
    )
    return Verdict(apart("adagrad_sqr"), 1e-5, apart("adagrad"), case)


@claim(
    PAPER,
    "On badly scaled columns SANIA with Adam's squares comes without a learning rate to at most "
    "half the loss of Adam at its best one.",
)
def beats_tuned_adam_on_bad_scales(budget: Budget) -> Verdict:
    steps, data = budget.pick(200, 2000), _separable() * _scales(6.0)

    def least(make: Any, rates: np.ndarray) -> float:
        losses = compiled(_losses, make, rates, data, steps)
        return float(np.min(np.mean(losses[:, -20:], axis=1)))

    adam = least(optax.adam, np.geomspace(1e-4, 1.0, budget.pick(9, 17)))
    squares = least(lambda rate: sania(rate, "adam_sqr", eps=0.0), np.ones(1))
    roots = least(lambda rate: sania(rate, "adam", eps=0.0), np.ones(1))
    case = (
        f"mean of the last 20 losses of {steps} in batches of 16 over that of Adam ({adam:.2e}); "
        "control: with the root"
    )
    return Verdict(squares / adam, 0.5, roots / adam, case)


def _separable() -> Float[np.ndarray, "256 20"]:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(256, 20))
    return features * np.sign(features @ rng.normal(size=20))[:, None]


def _scales(k: float) -> Float[np.ndarray, " 20"]:
    return np.exp(np.random.default_rng(1).uniform(-k, k, 20))


def _losses(make: Any, rates: Array, data: Array, steps: int) -> Float[Array, "rates steps"]:
    """Of all samples, after each step on 16 of them, at each learning rate."""

    def losses(rate: Array) -> Array:
        optimizer = optax.with_extra_args_support(make(rate))

        def step(carry: tuple[Array, Any], key: Array) -> tuple[tuple[Array, Any], Array]:
            x, state = carry
            batch = data[jax.random.choice(key, len(data), (16,), replace=False)]
            value, g = jax.value_and_grad(_loss)(x, batch)
            updates: Any
            updates, state = optimizer.update(g, state, x, value=value)
            return (x + updates, state), _loss(x + updates, data)

        x = jnp.zeros(data.shape[1])
        keys = jax.random.split(jax.random.key(0), steps)
        return jax.lax.scan(step, (x, optimizer.init(x)), keys)[1]

    return jax.vmap(losses)(rates)


def _loss(x: Array, rows: Array) -> Array:
    return jnp.mean(jnp.logaddexp(0, -rows @ x))
