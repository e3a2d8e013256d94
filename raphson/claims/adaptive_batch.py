"""Adaptive batch sizes: what the norm test promises, and how AdaGrad converges with it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..compiled import compiled
from ..problems import logistic
from ..smooth import FiniteSum
from ..train import adagrad_norm, coordinate_test, inner_product_test, norm_test
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="adaptive-batch",
    title="AdAdaGrad: Adaptive Batch Size Schemes for Adaptive Gradient Methods",
    authors="Lau, Liu, Kolar",
    year=2024,
    implements=(
        "raphson.train.norm_test",
        "raphson.train.coordinate_test",
        "raphson.train.inner_product_test",
        "raphson.train.adagrad_norm",
    ),
    note=(
        "The loop that changes the batch is left to the user. What grows is the batch, not the "
        "speed by sample: the run of the last claim draws some 500 times the samples of the one "
        "with 2 at each step."
    ),
)


@claim(
    PAPER,
    "A batch of the size that the norm test tells has a relative error of at most eta, root mean "
    "square over batches.",
)
def norm_test_keeps_the_error(budget: Budget) -> Verdict:
    case = "greatest over five points of the error over eta = 0.1; control: half the size"
    measured, control = _errors(
        budget, norm_test, lambda errors, mean: np.sum(np.mean(errors**2, axis=0)) / (mean @ mean)
    )
    return Verdict(measured, 1.1, control, case)


@claim(
    PAPER,
    "A batch of the size that the coordinate test tells has a relative error of at most eta in "
    "each entry, root mean square over batches.",
)
def coordinate_test_keeps_each_error(budget: Budget) -> Verdict:
    case = "greatest over five points and all entries, over eta = 0.1; control: half the size"
    measured, control = _errors(
        budget, coordinate_test, lambda errors, mean: np.mean(errors**2, axis=0) / mean**2
    )
    return Verdict(measured, 1.1, control, case)


@claim(
    PAPER,
    "A batch of the size that the inner-product test tells has a relative error of at most eta "
    "along the gradient, root mean square over batches.",
)
def inner_product_test_keeps_the_error_along(budget: Budget) -> Verdict:
    case = "greatest over five points of the error over eta = 0.02; control: half the size"
    measured, control = _errors(
        budget,
        inner_product_test,
        lambda errors, mean: np.mean((errors @ mean) ** 2) / (mean @ mean) ** 2,
        eta=0.02,
    )
    return Verdict(measured, 1.1, control, case)


@claim(
    PAPER,
    "With the norm test, the square of the gradient falls at least as 1 / k along AdaGrad-Norm.",
)
def adagrad_converges_as_promised(budget: Budget) -> Verdict:
    seeds, steps = budget.pick(3, 10), 1000

    def slope(test: Any) -> float:
        falls = []
        for seed in range(seeds):
            squares = _run(test, steps, seed)
            early, late = np.mean(squares[50:100]), np.mean(squares[500:])
            falls.append(np.log(late / early) / np.log(10))
        return float(np.median(falls))

    case = (
        f"slope of log |gradient|^2 over log k from 75 to 750, median of {seeds} runs, logistic "
        "regression on breast cancer, eta = 0.9; control: 2 samples a step"
    )
    return Verdict(slope(norm_test), -1.0, slope(None), case)


def _errors(budget: Budget, test: Any, relative: Any, eta: float = 0.1) -> tuple[float, float]:
    """The greatest error over eta, with the size that the test tells and with half of it."""
    problem, batches = logistic("breast_cancer"), budget.pick(300, 10_000)
    rng, worst = np.random.default_rng(0), [0.0, 0.0]
    for scale in (0.0, 0.03, 0.1, 0.3, 1.0):
        y = scale * rng.normal(size=problem.y0.shape)
        gradients = np.asarray(compiled(_gradients, problem, y, problem.data))
        mean = np.mean(gradients, axis=0)
        size = int(test(gradients, eta))
        for which, drawn in enumerate((size, size // 2)):
            # How often each sample is drawn is all that the mean of a batch depends on.
            counts = rng.multinomial(drawn, np.full(len(gradients), 1 / len(gradients)), batches)
            error = np.sqrt(np.max(relative(counts @ gradients / drawn - mean, mean))) / eta
            worst[which] = max(worst[which], float(error))
    return worst[0], worst[1]


def _run(test: Any, steps: int, seed: int) -> np.ndarray:
    """The squares of the gradient along AdaGrad-Norm."""
    problem, largest = logistic("breast_cancer"), 2**10
    optimizer = adagrad_norm(1.0)
    y, state, size, squares = problem.y0, optimizer.init(problem.y0), 2, []
    for key in jax.random.split(jax.random.key(seed), steps):
        y, state, told, square = compiled(_step, optimizer, problem, y, state, key, size)
        squares.append(float(square))
        if test is not None:
            # Powers of two, so that few shapes are compiled.
            size = max(size, min(largest, 2 ** int(told - 1).bit_length()))
    return np.array(squares)


def _gradients(problem: FiniteSum, y: Array, samples: Any) -> Float[Array, "b n"]:
    """Of each sample."""

    def loss(y: Array, sample: Any) -> Array:
        return problem.batch_value(y, jax.tree.map(lambda leaf: leaf[None], sample))

    return jax.vmap(jax.grad(loss), (None, 0))(y, samples)


def _step(optimizer: Any, problem: FiniteSum, y: Array, state: Any, key: Array, size: int) -> Any:
    """An update of AdaGrad-Norm, the next batch size, and the square of the whole gradient."""
    chosen = jax.random.randint(key, (size,), 0, problem.num_samples)
    gradients = _gradients(problem, y, jax.tree.map(lambda leaf: leaf[chosen], problem.data))
    updates, state = optimizer.update(jnp.mean(gradients, axis=0), state)
    y = y + updates
    return y, state, norm_test(gradients, 0.9), jnp.sum(problem.gradient(y) ** 2)
