"""Generators of smooth convex functions whose constants are known exactly.

What varies is data of a function of the module, so that two problems of one kind and size compile
once. Numbers drawn at random come from NumPy and are the same in single and double precision.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ..problem import Facts
from ..smooth.problem import FiniteSum, Minimize
from ..validate import whole_number
from ._shared import logistic_sum, positive


def quadratic(spectrum: ArrayLike | None = None, *, seed: int = 0) -> Minimize:
    """The quadratic f(y) = 1/2 (y - c)' H (y - c), where H has the eigenvalues asked for.

    Args:
        spectrum: the eigenvalues of H, at least 0 and not all 0, shape (n,); by default 20 numbers
            from 0.01 to 1 in geometric progression.
        seed: of the eigenvectors and of c, which is normal in the range of H.

    Returns:
        The problem from y = 0. Facts: `optimum` = 0 and the nearest `minimizer` c; `lipschitz`,
        `strong_convexity` and `polyak_lojasiewicz`, the greatest, the least and the least positive
        eigenvalue; `hessian_lipschitz` = 0; `convex`.

    Raises:
        ValueError: if an eigenvalue is negative or not finite, or none is positive.

    Example:
        >>> problem = quadratic([1.0, 4.0])
        >>> problem.facts.lipschitz, problem.facts.strong_convexity
        (4.0, 1.0)
    """
    values = np.geomspace(0.01, 1, 20) if spectrum is None else np.asarray(spectrum, float)
    fit = values.ndim == 1 and np.all(np.isfinite(values) & (values >= 0)) and np.any(values > 0)
    if not fit:
        raise ValueError(
            "`spectrum` must be a vector of finite numbers of at least 0, one of them positive, "
            f"got {spectrum!r}."
        )
    rng = np.random.default_rng(whole_number(seed, "seed"))
    basis = np.linalg.qr(rng.standard_normal((values.size, values.size)))[0]
    center = basis @ np.where(values > 0, rng.standard_normal(values.size), 0.0)
    minimizer = jnp.asarray(center)
    facts = Facts(
        optimum=0.0,
        minimizer=minimizer,
        lipschitz=float(values.max()),
        strong_convexity=float(values.min()),
        polyak_lojasiewicz=float(values[values > 0].min()),
        hessian_lipschitz=0.0,
        convex=True,
    )
    hessian = jnp.asarray((basis * values) @ basis.T)
    return Minimize(_quadratic, jnp.zeros(values.size), (hessian, minimizer), facts=facts)


def logistic_synthetic(
    n: int = 200,
    d: int = 20,
    *,
    regularization: float = 1e-2,
    batch_size: int | None = None,
    seed: int = 0,
) -> FiniteSum:
    """Logistic regression on normal features, with labels -1 and 1 drawn from a logistic model.

    Args:
        n: number of samples.
        d: number of features.
        regularization: mu, positive.
        batch_size: samples that a stochastic method draws at each step; all of them by default.
        seed: of the features, the model and the labels.

    Returns:
        The problem from y = 0, with the facts of `logistic`.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> problem = logistic_synthetic(50, 3)
        >>> problem.num_samples, problem.y0.shape
        (50, (3,))
    """
    n, d = whole_number(n, "n", 1), whole_number(d, "d", 1)
    rng = np.random.default_rng(whole_number(seed, "seed"))
    features = rng.standard_normal((n, d))
    model = 3 * rng.standard_normal(d) / d**0.5
    labels = np.where(rng.random(n) < 1 / (1 + np.exp(-features @ model)), 1.0, -1.0)
    return logistic_sum((features, labels), positive(regularization, "regularization"), batch_size)


def nesterov_worst(
    n: int = 101, *, smoothness: float = 1.0, strong_convexity: float = 0.0
) -> Minimize:
    """The function in Nesterov's chain that no method of gradients can minimize fast.

    f(y) = (L - mu)/8 (y_1^2 + sum (y_i - y_{i+1})^2 + c y_n^2 - 2 y_1) + mu/2 |y|^2. Each gradient
    reveals one coordinate more to a method that starts at 0.

    For mu = 0, c = 1, and t = (n - 1)/2 gradients leave f - f* >= 3/32 L |y*|^2 / (t + 1)^2.
    For mu > 0, c = 2 / (sqrt(L / mu) + 1), for which the solution has the geometric entries q^i of
    the one in infinite dimension, q = (sqrt(L / mu) - 1) / (sqrt(L / mu) + 1): after t gradients
    |y - y*|^2 is at least the sum of q^(2i) over i from t + 1 to n.

    Nesterov (2004), Introductory Lectures on Convex Optimization, section 2.1; Bubeck (2015),
    Convex Optimization: Algorithms and Complexity, section 3.5.

    Args:
        n: number of unknowns.
        smoothness: L, positive, the constant of the class of functions.
        strong_convexity: mu, at least 0 and less than L, likewise.

    Returns:
        The problem from y = 0. Facts: `optimum` and `minimizer` in closed form; `lipschitz` and
        `strong_convexity`, the extreme eigenvalues of the Hessian, which are a little less than L
        and more than mu; `hessian_lipschitz` = 0; `convex`.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> problem = nesterov_worst(3)
        >>> problem.facts.minimizer.tolist(), problem.facts.optimum
        ([0.75, 0.5, 0.25], -0.09375)
    """
    n, smoothness = whole_number(n, "n", 1), positive(smoothness, "smoothness")
    if strong_convexity != 0:
        strong_convexity = positive(strong_convexity, "strong_convexity")
    if strong_convexity >= smoothness:
        raise ValueError(
            "`strong_convexity` must be less than `smoothness`, "
            f"got {strong_convexity:g} and {smoothness:g}."
        )
    from scipy.linalg import eigvalsh_tridiagonal  # 0.1 s that `import raphson` need not take

    if strong_convexity == 0:
        corner, minimizer = 1.0, 1 - np.arange(1, n + 1) / (n + 1)
    else:
        root = (smoothness / strong_convexity) ** 0.5
        corner = 2 / (root + 1)
        minimizer = ((root - 1) / (root + 1)) ** np.arange(1, n + 1)
    weight = (smoothness - strong_convexity) / 4
    diagonal = np.full(n, 2 * weight + strong_convexity)
    diagonal[-1] += (corner - 1) * weight
    eigenvalues = eigvalsh_tridiagonal(diagonal, np.full(n - 1, -weight))
    facts = Facts(
        optimum=float(-weight * minimizer[0] / 2),
        minimizer=jnp.asarray(minimizer),
        lipschitz=float(eigenvalues[-1]),
        strong_convexity=float(eigenvalues[0]),
        polyak_lojasiewicz=float(eigenvalues[0]),
        hessian_lipschitz=0.0,
        convex=True,
    )
    return Minimize(
        _nesterov_worst, jnp.zeros(n), (weight, corner, float(strong_convexity)), facts=facts
    )


def nonsmooth_worst(n: int = 100, *, lipschitz: float = 1.0, radius: float = 1.0) -> Minimize:
    """The function with kinks that no method of subgradients can minimize fast.

    f(y) = gamma max y_i + alpha/2 |y|^2, gamma = L sqrt(n) / (1 + sqrt(n)), alpha = L / (R (1 +
    sqrt(n))), where of the greatest entries the first alone has a say in the subgradient. Each
    subgradient reveals one coordinate more to a method that starts at 0, and before it has seen n
    it leaves f - f* >= R L / (2 (1 + sqrt(n))).

    Bubeck (2015), Convex Optimization: Algorithms and Complexity, section 3.5.

    Args:
        n: number of unknowns.
        lipschitz: L, positive, that of f in the ball of radius R.
        radius: R, positive, the distance from the start to the minimizer.

    Returns:
        The problem from y = 0. Facts: `optimum` and `minimizer` in closed form;
        `strong_convexity` = alpha; `convex`.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> problem = nonsmooth_worst(4, lipschitz=3.0)
        >>> problem.facts.optimum, problem.gradient(problem.y0).tolist()
        (-0.5, [2.0, 0.0, 0.0, 0.0])
    """
    n, root = whole_number(n, "n", 1), float(n) ** 0.5
    lipschitz, radius = positive(lipschitz, "lipschitz"), positive(radius, "radius")
    alpha = lipschitz / (radius * (1 + root))
    facts = Facts(
        optimum=-radius * lipschitz / (2 * (1 + root)),
        minimizer=jnp.full(n, -radius / root),
        strong_convexity=alpha,
        convex=True,
    )
    args = lipschitz * root / (1 + root), alpha
    return Minimize(_nonsmooth_worst, jnp.zeros(n), args, facts=facts)


def huber_chain(n: int = 20, *, width: float = 0.1) -> Minimize:
    """A chain of Huber functions of the differences y_1 - 1, y_2 - y_1, ..., y_n - y_{n-1}.

    Huber's function is u^2 / 2 up to |u| = w and w |u| - w^2 / 2 beyond: f is convex, has no second
    derivative where a difference is w, and neither constant curvature nor strong convexity.

    Args:
        n: number of unknowns.
        width: w, positive.

    Returns:
        The problem from y = 0. Facts: `optimum` = 0 and `minimizer`, ones; `lipschitz` =
        2 + 2 cos(pi / (n + 1/2)), the greatest curvature; `convex`.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> problem = huber_chain(2, width=1.0)
        >>> float(problem.value(problem.y0)), problem.gradient(problem.y0).tolist()
        (0.5, [-1.0, 0.0])
    """
    n, width = whole_number(n, "n", 1), positive(width, "width")
    facts = Facts(
        optimum=0.0,
        minimizer=jnp.ones(n),
        lipschitz=float(2 + 2 * np.cos(2 * np.pi / (2 * n + 1))),
        convex=True,
    )
    return Minimize(_huber_chain, jnp.zeros(n), width, facts=facts)


def _quadratic(
    y: Float[Array, " n"], args: tuple[Float[Array, "n n"], Float[Array, " n"]]
) -> Float[Array, ""]:
    hessian, center = args
    shift = y - center
    return jnp.vdot(shift, hessian @ shift) / 2


def _nesterov_worst(y: Float[Array, " n"], args: tuple[float, float, float]) -> Float[Array, ""]:
    weight, corner, strong_convexity = args
    links = y[0] ** 2 + jnp.sum((y[1:] - y[:-1]) ** 2) + corner * y[-1] ** 2
    return weight / 2 * (links - 2 * y[0]) + strong_convexity / 2 * jnp.vdot(y, y)


def _nonsmooth_worst(y: Float[Array, " n"], args: tuple[float, float]) -> Float[Array, ""]:
    gamma, alpha = args
    # The derivative of `max` would be shared among all that are greatest.
    return gamma * y[jnp.argmax(y)] + alpha / 2 * jnp.vdot(y, y)


def _huber_chain(y: Float[Array, " n"], width: float) -> Float[Array, ""]:
    size = jnp.abs(jnp.diff(y, prepend=1.0))
    within = jnp.minimum(size, width)
    return jnp.sum(within * (size - within / 2))
