"""Two levels on real data: what is learned below is judged above, on samples of its own.

The samples are those of the sets of data: every fifth is held out of both levels, every fourth of
the others validates, which is the upper level, and the rest trains, which is the lower one. Arrays
have JAX's default precision. No solution is known; `metrics` tell of the samples held out.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from ..bilevel.constrained import ConstrainedBilevel
from ..bilevel.few_shot import FewShot, adapted
from ..bilevel.problem import Bilevel, BilevelSum
from ..composite import Box
from ..validate import require_number, whole_number
from ._shared import dense, fed_forward, positive
from .data import split

_Samples = tuple[np.ndarray, np.ndarray]


def hyper_cleaning(
    *,
    corrupted: float = 0.5,
    regularization: float = 1e-3,
    batch_size: int | None = None,
    seed: int = 0,
) -> BilevelSum:
    """Digits whose labels are in part wrong, each with a weight that clean digits choose.

    Below, softmax regression by the mean of s(x_i) times the cross-entropy of sample i plus
    regularization/2 |y|^2, with s the logistic function; above, the mean cross-entropy of the
    validating samples, whose labels are right.

    Args:
        corrupted: the part of the 1079 training labels that are wrong, in [0, 1): each of them is
            another digit, all equally likely.
        regularization: positive.
        batch_size: samples of each level that a stochastic method draws at each step; all of them
            by default.
        seed: of which labels are wrong, and how.

    Returns:
        The problem from weights of 1/2, x of shape (1079,), and y = 0, of shape (65, 10). Metrics:
        `loss`, the mean cross-entropy of the 359 samples held out, `accuracy`, the part of them
        that is told right, and `detection`, the F1 score of taking the samples of weight less than
        1/2 for the wrong ones.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> problem = hyper_cleaning()
        >>> problem.y0[0].shape, int(problem.args["corrupted"].sum())
        ((1079,), 540)
    """
    training, validation, held_out = _three("digits", constant=True)
    rng = np.random.default_rng(whole_number(seed, "seed"))
    features, label = training
    label, wrong = _relabeled(label, 10, corrupted, rng)
    x, y = jnp.zeros(len(label)), jnp.zeros((features.shape[1], 10))
    args = {
        "regularization": positive(regularization, "regularization"),
        "held_out": _arrays(held_out),
        "corrupted": jnp.asarray(wrong),
    }
    return BilevelSum(
        _softmax_above,
        _weighted_below,
        x,
        y,
        validation,
        (np.arange(len(label)), features, label),
        args,
        batch_size=batch_size,
        metrics={"loss": _softmax_loss, "accuracy": _softmax_accuracy, "detection": _detection},
    )


def weight_decay(*, start: float = 1e-2, batch_size: int | None = None) -> BilevelSum:
    """A decay for every weight of softmax regression on the digits.

    Below, the mean cross-entropy plus 1/2 the sum of exp(x) y^2; above, the mean cross-entropy of
    the validating samples. There are more decays than validating samples, which they may overfit.

    Args:
        start: the decay that all weights start from, positive.
        batch_size: as in `hyper_cleaning`.

    Returns:
        The problem; x and y have the shape (65, 10). Metrics: `loss` and `accuracy` as in
        `hyper_cleaning`.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> problem = weight_decay()
        >>> round(float(problem.measures(problem.y0)["loss"]), 4)  # the logarithm of 10
        2.3026
    """
    training, validation, held_out = _three("digits", constant=True)
    shape = training[0].shape[1], 10
    return BilevelSum(
        _softmax_above,
        _decayed_below,
        jnp.full(shape, np.log(positive(start, "start"))),
        jnp.zeros(shape),
        validation,
        training,
        {"held_out": _arrays(held_out)},
        batch_size=batch_size,
        metrics={"loss": _softmax_loss, "accuracy": _softmax_accuracy},
    )


def hyper_representation(
    *,
    width: int = 16,
    regularization: float = 1e-3,
    batch_size: int | None = None,
    seed: int = 0,
) -> BilevelSum:
    """Features of the digits that ten ridge regressions share, one for each digit.

    The features of the pixels a are h = tanh(W'a + b), with x = (W, b), and a constant. Both levels
    have the mean of 1/2 |h'y - t|^2 with t the unit vector of the digit, the lower one on training
    samples plus regularization/2 |y|^2.

    Args:
        width: how many features.
        regularization: positive.
        batch_size: as in `hyper_cleaning`.
        seed: of the start: W is normal with the variance 1/64, and b is 0.

    Returns:
        The problem; x has the shapes (64, width) and (width,), y (width + 1, 10). Metrics: `loss`,
        the mean of 1/2 |h'y - t|^2 over the samples held out, and `accuracy`.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> hyper_representation(width=8).y0[1].shape
        (9, 10)
    """
    training, validation, held_out = _three("digits", constant=False)
    rng = np.random.default_rng(whole_number(seed, "seed"))
    (x,) = dense((64, whole_number(width, "width", 1)), rng)
    args = {
        "regularization": positive(regularization, "regularization"),
        "held_out": _arrays(held_out),
    }
    return BilevelSum(
        _represented_above,
        _represented_below,
        x,
        jnp.zeros((width + 1, 10)),
        validation,
        training,
        args,
        batch_size=batch_size,
        metrics={"loss": _represented_loss, "accuracy": _represented_accuracy},
    )


def constrained_svm(*, corrupted: float = 0.2, start: float = 1e-2, seed: int = 0) -> Bilevel:
    """A support vector machine on tumors with a penalty for every sample, by its dual.

    The machine w is least for 1/2 |w|^2 + 1/2 sum_i exp(x_i) max(0, 1 - b_i a_i'w)^2. With it comes
    y >= 0, below: the least point of 1/2 |A'(b y)|^2 + 1/2 sum_i exp(-x_i) y_i^2 - sum_i y_i,
    divided by the number of samples, and w = A'(b y). Above is the mean over validating samples of
    log(1 + exp(-b a'w)), whose labels b are right.

    Args:
        corrupted: the part of the 342 training labels that are turned round, in [0, 1).
        start: the penalty that all samples start from, positive.
        seed: of which labels are turned round.

    Returns:
        The problem; x and y have the shape (342,), and y is in a `Box`. It starts from y = 0.
        Metrics: `loss`, as above but on the 113 samples held out, `accuracy` and, as in
        `hyper_cleaning`, `detection`: of the samples whose penalty is below `start`.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> problem = constrained_svm()
        >>> problem.y0[1].shape, int(problem.args["corrupted"].sum())
        ((342,), 68)
    """
    training, validation, held_out = _tumors()
    signed, wrong = _turned(*training, corrupted, seed)
    begin = float(np.log(positive(start, "start")))
    args = {
        "signed": signed,
        "validation": _arrays(validation),
        "held_out": _arrays(held_out),
        "corrupted": wrong,
        "start": begin,
    }
    metrics = {"loss": _machine_loss, "accuracy": _machine_accuracy, "detection": _detection}
    return Bilevel(
        _machine_above,
        _dual_below,
        jnp.full(len(signed), begin),
        jnp.zeros(len(signed)),
        args,
        sets=(None, Box(0.0, jnp.inf)),
        metrics=metrics,
    )


def margin_svm(
    *, samples: int = 100, corrupted: float = 0.2, regularization: float = 1.0, seed: int = 0
) -> ConstrainedBilevel:
    """A support vector machine on tumors that owes every sample a margin of its own.

    Below, the machine w and the slacks t are least for regularization/2 |w|^2 + 1/2 |t|^2 subject
    to b_i a_i'w >= x_i - t_i: the margins x enter by the constraints alone, and f knows nothing of
    them. Above is the mean over validating samples of log(1 + exp(-b a'w)), whose labels b are
    right.

    Args:
        samples: to train on, the first so many of 342.
        corrupted: the part of their labels that are turned round, in [0, 1).
        regularization: positive.
        seed: of which labels are turned round.

    Returns:
        The problem from margins of 1, w = 0 and slacks of 1, of the shapes (samples,), (31,) and
        (samples,), with its projection; the features a are divided by sqrt(31). Metrics: `loss`, as
        above but on the 113 samples held out, `accuracy` and, as in `hyper_cleaning`, `detection`:
        of the samples whose margin is below 1.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> problem = margin_svm()
        >>> g, _ = problem.constraints(*problem.y0)
        >>> g.shape, bool(jnp.all(g == 0)), int(problem.args["corrupted"].sum())
        ((100,), True, 20)
    """
    training, validation, held_out = _tumors()
    samples = whole_number(samples, "samples", 1)
    if samples > len(training[1]):
        raise ValueError(f"`samples` must be at most {len(training[1])}, got {samples}.")
    signed, wrong = _turned(training[0][:samples], training[1][:samples], corrupted, seed)
    scale = 1 / np.sqrt(signed.shape[1])
    args = {
        "signed": signed * scale,
        "regularization": positive(regularization, "regularization"),
        "validation": _arrays((validation[0] * scale, validation[1])),
        "held_out": _arrays((held_out[0] * scale, held_out[1])),
        "corrupted": wrong,
        "start": 1.0,
    }
    metrics = {"loss": _margin_loss, "accuracy": _margin_accuracy, "detection": _detection}
    return ConstrainedBilevel(
        _margin_above,
        _slack_below,
        jnp.ones(samples),
        (jnp.zeros(signed.shape[1]), jnp.ones(samples)),
        args,
        inequality=_short_of_margin,
        feasible=_with_margins,
        metrics=metrics,
    )


def few_shot_digits(
    *, tasks: int = 40, shots: int = 5, tasks_per_step: int | None = None, seed: int = 0
) -> FewShot:
    """Tell five of the ten digits apart by softmax regression; which five, is the task.

    Each task numbers its digits in their order and draws support and query samples, none twice;
    tasks that are held out draw from the samples held out.

    Args:
        tasks: how many.
        shots: support samples of each digit, and query samples.
        tasks_per_step: how many a method draws at each step; all by default.
        seed: of the tasks.

    Returns:
        The problem from a prior of mean 0 and variance 1; its weights have the shape (65, 5).
        Metrics: `loss` and `accuracy`, the means over 40 tasks held out, of their query samples,
        after 50 steps of size 0.5 on their support samples.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> problem = few_shot_digits()
        >>> problem.num_blocks, problem.lower_data[0].shape
        (40, (40, 25, 65))
    """
    training, held_out = split("digits", ("digits",), constant=True)
    shots, rng = whole_number(shots, "shots", 1), np.random.default_rng(whole_number(seed, "seed"))
    support, query = _tasks(training, whole_number(tasks, "tasks", 1), shots, rng)
    return FewShot(
        _told_apart,
        jnp.zeros((65, 5)),
        support,
        query,
        jax.tree.map(jnp.asarray, _tasks(held_out, 40, shots, rng)),
        tasks_per_step=tasks_per_step,
        metrics={"loss": _adapted_loss, "accuracy": _adapted_accuracy},
    )


def _tasks(
    samples: _Samples, tasks: int, shots: int, rng: np.random.Generator
) -> tuple[_Samples, _Samples]:
    """Support and query samples of tasks, each of five digits, numbered in their order."""
    features, digit = samples
    least = int(np.bincount(digit).min())
    if 2 * shots > least:
        raise ValueError(f"`shots` must be at most {least // 2}, got {shots}.")
    rows = np.array(
        [
            [rng.choice(np.flatnonzero(digit == one), 2 * shots, replace=False) for one in five]
            for five in (np.sort(rng.permutation(10)[:5]) for _ in range(tasks))
        ]
    )
    label = np.broadcast_to(np.repeat(np.arange(5), shots), (tasks, 5 * shots))
    halves = (half.reshape(tasks, -1) for half in (rows[..., :shots], rows[..., shots:]))
    support, query = ((features[half], label) for half in halves)
    return support, query


def _three(data: str, *, constant: bool) -> tuple[_Samples, _Samples, _Samples]:
    """Features and targets to train on, to validate with, and held out."""
    (features, target), held_out = split(data, (data,), constant=constant)
    validates = np.arange(len(target)) % 4 == 3
    training, validation = ((features[of], target[of]) for of in (~validates, validates))
    return training, validation, held_out


def _tumors() -> list[_Samples]:
    """Those of breast cancer, with the labels -1 and 1."""
    return [(a, 2 * b - 1) for a, b in _three("breast_cancer", constant=True)]


def _turned(a: np.ndarray, b: np.ndarray, corrupted: float, seed: int) -> tuple[Array, Array]:
    """The features times the labels, a part of which is turned round, and whether each one was."""
    rng = np.random.default_rng(whole_number(seed, "seed"))
    b, wrong = _relabeled((b + 1) // 2, 2, corrupted, rng)
    return jnp.asarray(a * (2 * b - 1)[:, None]), jnp.asarray(wrong)


def _relabeled(
    label: np.ndarray, classes: int, part: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The labels with a part of them turned into other classes, and whether each one was."""
    require_number(part, "`corrupted`", 0, 1, closed="left")
    wrong = np.zeros(len(label), bool)
    wrong[rng.choice(len(label), round(part * len(label)), replace=False)] = True
    other = (label + rng.integers(1, classes, len(label))) % classes
    return np.where(wrong, other, label), wrong


def _arrays(samples: _Samples) -> tuple[Array, Array]:
    features, target = samples
    return jnp.asarray(features), jnp.asarray(target)


# Functions of the module, with all that varies in their arguments: two problems of one kind then
# compile once, and pickle.

_Sample = tuple[Float[Array, " d"], Int[Array, ""]]


def _softmax_above(x: Any, y: Float[Array, "d k"], sample: _Sample, _: Any) -> Array:
    features, label = sample
    return optax.losses.softmax_cross_entropy_with_integer_labels(features @ y, label)


def _weighted_below(
    x: Float[Array, " n"], y: Float[Array, "d k"], sample: tuple[Array, Array, Array], args: Any
) -> Array:
    number, features, label = sample
    weight = jax.nn.sigmoid(x[number])
    penalty = args["regularization"] / 2 * jnp.vdot(y, y)
    return weight * _softmax_above(x, y, (features, label), args) + penalty


def _decayed_below(x: Array, y: Array, sample: _Sample, args: Any) -> Array:
    return _softmax_above(x, y, sample, args) + jnp.sum(jnp.exp(x) * y**2) / 2


def _represented(x: tuple[Array, Array], y: Array, pixels: Float[Array, " 64"]) -> Array:
    return fed_forward((x, (y[:-1], y[-1])), pixels)


def _represented_above(x: tuple[Array, Array], y: Array, sample: _Sample, _: Any) -> Array:
    pixels, digit = sample
    return jnp.sum((_represented(x, y, pixels) - jax.nn.one_hot(digit, 10)) ** 2) / 2


def _represented_below(x: tuple[Array, Array], y: Array, sample: _Sample, args: Any) -> Array:
    penalty = args["regularization"] / 2 * jnp.vdot(y, y)
    return _represented_above(x, y, sample, args) + penalty


def _machine_above(x: Array, y: Float[Array, " n"], args: Any) -> Array:
    return _logistic(y @ args["signed"], args["validation"])


def _dual_below(x: Float[Array, " n"], y: Float[Array, " n"], args: Any) -> Array:
    machine = y @ args["signed"]
    dual = (jnp.vdot(machine, machine) + jnp.sum(jnp.exp(-x) * y**2)) / 2 - jnp.sum(y)
    return dual / y.size


_Machine = tuple[Float[Array, " d"], Float[Array, " n"]]


def _margin_above(x: Float[Array, " n"], y: _Machine, args: Any) -> Array:
    return _logistic(y[0], args["validation"])


def _slack_below(x: Float[Array, " n"], y: _Machine, args: Any) -> Array:
    w, t = y
    return (args["regularization"] * jnp.vdot(w, w) + jnp.vdot(t, t)) / 2


def _short_of_margin(x: Float[Array, " n"], y: _Machine, args: Any) -> Array:
    w, t = y
    return x - t - args["signed"] @ w


def _with_margins(z: tuple[Array, _Machine], args: Any) -> tuple[Array, _Machine]:
    """The nearest margins, machine and slacks of which each sample has what it is owed.

    What a machine falls short of is shared by margin and slack. That leaves |w - w0|^2 / 2 plus a
    quarter of the squares of what w falls short of, whose minimum Newton's method finds.
    """
    (x, (start, t)), signed = z, args["signed"]

    def newton(_: Array, w: Array) -> Array:
        short = x - t - signed @ w > 0
        reached = jnp.where(short[:, None], signed, 0)
        matrix = jnp.eye(w.size, dtype=w.dtype) + reached.T @ reached / 2
        return jnp.linalg.solve(matrix, start + reached.T @ (x - t) / 2)

    w = jax.lax.fori_loop(0, 10, newton, start)
    short = jnp.maximum(x - t - signed @ w, 0)
    return x - short / 2, (w, t + short / 2)


def _logistic(machine: Float[Array, " d"], samples: tuple[Array, Array]) -> Array:
    a, b = samples
    return jnp.mean(jnp.logaddexp(0.0, -b * (a @ machine)))


# Metrics, on samples held out.

_Point = tuple[Any, Any]


def _softmax_loss(z: _Point, args: Any) -> Array:
    features, label = args["held_out"]
    return jnp.mean(optax.losses.softmax_cross_entropy_with_integer_labels(features @ z[1], label))


def _softmax_accuracy(z: _Point, args: Any) -> Array:
    features, label = args["held_out"]
    return jnp.mean(jnp.argmax(features @ z[1], axis=1) == label)


def _told_apart(weights: Float[Array, "d 5"], sample: _Sample, args: Any) -> Array:
    return _softmax_above(None, weights, sample, args)


def _adapted_to(x: Any, args: Any, judge: Any) -> Array:
    """The mean of a judge over query samples of the tasks held out, adapted to the others."""

    def of(support: _Sample, query: _Sample) -> Array:
        weights = adapted(_told_apart, x, support, None, 50, 0.5)
        return jnp.mean(jax.vmap(lambda *sample: judge(weights, sample))(*query))

    return jnp.mean(jax.vmap(of)(*args))


def _adapted_loss(z: _Point, args: Any) -> Array:
    return _adapted_to(z[0], args, lambda weights, sample: _told_apart(weights, sample, None))


def _adapted_accuracy(z: _Point, args: Any) -> Array:
    right = lambda weights, sample: jnp.argmax(sample[0] @ weights) == sample[1]
    return _adapted_to(z[0], args, right)


def _represented_loss(z: _Point, args: Any) -> Array:
    of = lambda *sample: _represented_above(*z, sample, args)
    return jnp.mean(jax.vmap(of)(*args["held_out"]))


def _represented_accuracy(z: _Point, args: Any) -> Array:
    pixels, digit = args["held_out"]
    told = jax.vmap(lambda pixels: jnp.argmax(_represented(*z, pixels)))(pixels)
    return jnp.mean(told == digit)


def _machine_loss(z: _Point, args: Any) -> Array:
    return _logistic(z[1] @ args["signed"], args["held_out"])


def _machine_accuracy(z: _Point, args: Any) -> Array:
    a, b = args["held_out"]
    return jnp.mean(b * (a @ (z[1] @ args["signed"])) > 0)


def _margin_loss(z: _Point, args: Any) -> Array:
    return _logistic(z[1][0], args["held_out"])


def _margin_accuracy(z: _Point, args: Any) -> Array:
    a, b = args["held_out"]
    return jnp.mean(b * (a @ z[1][0]) > 0)


def _detection(z: _Point, args: Any) -> Array:
    """The F1 score of the samples weighted less than at the start, as guesses of the wrong ones."""
    guessed, wrong = z[0] < args.get("start", 0.0), args["corrupted"]
    of_both = jnp.sum(guessed) + jnp.sum(wrong)
    return 2 * jnp.sum(guessed & wrong) / jnp.maximum(of_both, 1)
