"""Games and robust models: matrix and Markov games, and real data against an adversary.

Data are those of scikit-learn, split and standardized as in `raphson.problems.data`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.projections
from jaxtyping import Array, Float, Int, PyTree

from ..composite import AbstractConvexSet, Ball, Box, Simplex, SquaredNorm
from ..problem import Facts
from ..saddle.composite import CompositeSaddle
from ..saddle.problem import Saddle, SaddleSum
from ..validate import whole_number
from ._shared import dense, fed_forward, logistic_loss, positive
from .data import split

# Steps of projected gradient by which held-out digits are attacked, and their length in radii.
ATTACKS, ATTACK_STEP = 10, 0.25
# Policies of so few states are exact after far fewer rounds of policy iteration.
ROUNDS = 20
Layers = tuple[tuple[Array, Array], ...]


def matrix_game(rows: int = 20, columns: int = 30, *, seed: int = 0) -> Saddle:
    """The zero-sum game of f(x, y) = x'A y, in which x and y are mixed strategies.

    Args:
        rows: n, how many moves the minimizing player has.
        columns: m, how many the maximizing player has.
        seed: of the payoff A, which is normal.

    Returns:
        A saddle from the uniform strategies, on two simplices, with `metrics` {"gap": what both
        players together would gain by their best responses}, which is 0 at an equilibrium alone.
        Facts: `minimizer`, the equilibrium by linear programming; `optimum`, the value of the game;
        `lipschitz`, the norm of A; `convex`.

    Raises:
        ValueError: if a number is not positive and whole.

    Example:
        >>> import raphson as rp
        >>> game = matrix_game(3, 4)
        >>> bool(game.metrics["gap"](rp.solve(game).value, game.args) < 1e-3)
        True
    """
    n, m = whole_number(rows, "rows", 1), whole_number(columns, "columns", 1)
    A = np.random.default_rng(whole_number(seed, "seed")).standard_normal((n, m))
    value, x, y = _solved(A)
    facts = Facts(
        optimum=value,
        minimizer=(jnp.asarray(x), jnp.asarray(y)),
        lipschitz=float(np.linalg.norm(A, 2)),
        convex=True,
    )
    return Saddle(
        _payoff,
        jnp.full(n, 1 / n),
        jnp.full(m, 1 / m),
        jnp.asarray(A),
        nonsmooth=(Simplex(), Simplex()),
        metrics={"gap": _matrix_gap},
        facts=facts,
    )


def markov_game(
    states: int = 5, actions: int = 3, *, discount: float = 0.75, seed: int = 0
) -> Saddle:
    """A zero-sum Markov game: f(x, y) is what the first player pays, discounted, on average.

    In each state both players move at once, by their policies; the pair of moves says what is paid
    and how likely each next state is. The first state is any with the same probability. f is
    neither convex in x nor concave in y, but no player has a local optimum that is not global.

    Args:
        states: n.
        actions: m, for either player in every state.
        discount: what a payment of the next step is worth now, between 0 and 1.
        seed: of payments, uniform on [0, 1], and of the transitions.

    Returns:
        A saddle from uniform policies, x and y of shape (n, m) with rows on simplices, and
        `metrics` {"gap": what both players together would gain by their best responses, which are
        found exactly}. Facts: `minimizer` and `optimum`, the value of the game, by Shapley's value
        iteration; not `convex`.

    Raises:
        ValueError: if a number is not positive and whole, or `discount` not between 0 and 1.

    Example:
        >>> game = markov_game(2, 2)
        >>> bool(game.metrics["gap"](game.facts.minimizer, game.args) < 1e-6)
        True
    """
    n, m = whole_number(states, "states", 1), whole_number(actions, "actions", 1)
    if not positive(discount, "discount") < 1:
        raise ValueError(f"`discount` must be below 1, got {discount!r}.")
    rng = np.random.default_rng(whole_number(seed, "seed"))
    payment, transition = rng.uniform(size=(n, m, m)), rng.dirichlet(np.ones(n), size=(n, m, m))
    values = np.zeros(n)
    while True:
        games = [_solved(q) for q in payment + discount * transition @ values]
        before, values = values, np.array([value for value, _, _ in games])
        if np.max(np.abs(values - before)) <= 1e-12 * np.max(np.abs(values)):
            break
    x, y = (jnp.asarray(np.stack(policies)) for policies in list(zip(*games, strict=True))[1:])
    uniform = jnp.full((n, m), 1 / m)
    return Saddle(
        _paid,
        uniform,
        uniform,
        (jnp.asarray(payment), jnp.asarray(transition), float(discount)),
        nonsmooth=(Simplices(), Simplices()),
        metrics={"gap": _markov_gap},
        facts=Facts(optimum=float(values.mean()), minimizer=(x, y), convex=False),
    )


def robust_least_squares(data: str = "diabetes", *, radius: float = 0.5) -> CompositeSaddle:
    """Least squares where an adversary may change all data: the worst |(A + D) x - (b + d)|.

    Over all changes [D d] of Frobenius norm r the worst is |A x - b| + r sqrt(|x|^2 + 1), which is
    the greatest of f(x) + y'(A x - b) over |y| <= 1, with f the second term: ridge regression that
    finds its parameter itself.

    Args:
        data: `"diabetes"` as in `ridge`; A and b are divided by the root of the number of samples,
            so that |A x - b|^2 is the mean square.
        radius: r, positive: how large the change is, in the same units.

    Returns:
        A `CompositeSaddle` from 0, in x of shape (11,) and y of shape (354,) in a ball, with
        `metrics` {"suboptimality": of the worst case of x, "held_out": half the mean square of the
        residuals held out}. The gradient of f is r-Lipschitz. Facts: `minimizer`; `convex`.

    Raises:
        ValueError: if there is no such data set, or `radius` is not positive.

    Example:
        >>> problem = robust_least_squares()
        >>> x, y = problem.facts.minimizer
        >>> x.shape, round(float(problem.metrics["held_out"]((x, y), problem.args)), 2)
        ((11,), 0.28)
    """
    (A, b), held_out = split(data, ("diabetes",), constant=True)
    r = positive(radius, "radius")
    A, b = A / len(b) ** 0.5, b / len(b) ** 0.5
    x = _ridge_of_its_own(A, b, r)
    residual = A @ x - b
    least = float(np.linalg.norm(residual) + r * np.sqrt(x @ x + 1))
    return CompositeSaddle(
        _spread,
        _residual,
        jnp.zeros(len(x)),
        jnp.zeros(len(b)),
        jax.tree.map(jnp.asarray, (A, b, r, least, held_out)),
        nonsmooth=(None, Ball(1.0)),
        metrics={"suboptimality": _robust_suboptimality, "held_out": _robust_held_out},
        facts=Facts(
            minimizer=(jnp.asarray(x), jnp.asarray(residual / np.linalg.norm(residual))),
            convex=True,
        ),
    )


def distributionally_robust_logistic(
    data: str = "breast_cancer", *, regularization: float = 1e-3, penalty: float = 1.0
) -> CompositeSaddle:
    """Logistic regression where an adversary weighs the samples.

    f(x) = mu/2 |x|^2, the coupling is the mean loss under the weights p of the samples, and h the
    penalty w n/2 |p - 1/n|^2, w times the chi-square divergence of p from equal weights. So that
    both players are of one scale the unknown is y = p sqrt n: h has the modulus w in it.

    Args:
        data: `"breast_cancer"` as in `logistic`.
        regularization: mu, positive.
        penalty: w, positive: the smaller, the more a few bad samples weigh.

    Returns:
        A `CompositeSaddle` from x = 0 and equal weights, x of shape (31,), y of shape (456,) on a
        simplex of the total sqrt n, with `metrics` {"worst": f plus the worst weighted loss less
        its penalty, the primal objective, "held_out": the mean loss of samples held out,
        "held_out_error": the part of them that is classified wrong}. Fact: it is `convex`.

    Raises:
        ValueError: if there is no such data set, or a number is not positive.

    Example:
        >>> problem = distributionally_robust_logistic()
        >>> round(float(problem.metrics["worst"](problem.y0, problem.args)), 4)  # log 2
        0.6931
    """
    parts = split(data, ("breast_cancer",), constant=True)
    training, held_out = [(features, 2.0 * target - 1) for features, target in parts]
    n, mu = len(training[1]), positive(regularization, "regularization")
    even = n**-0.5
    h = SquaredNorm(positive(penalty, "penalty"), even, Simplex(n**0.5))
    args = jax.tree.map(jnp.asarray, (training, held_out, mu, penalty))
    return CompositeSaddle(
        _decay,
        _weighed,
        jnp.zeros(training[0].shape[1]),
        jnp.full(n, even),
        args,
        nonsmooth=(None, h),
        metrics={
            "worst": _worst,
            "held_out": _weighed_held_out,
            "held_out_error": _weighed_error,
        },
        facts=Facts(convex=True),
    )


def digits_gan(
    *,
    latent: int = 8,
    hidden: int = 32,
    penalty: float = 1e-2,
    batch_size: int | None = 64,
    seed: int = 0,
) -> SaddleSum:
    """A generator of digits against a discriminator that tells them from real ones.

    f = log D(a) + log(1 - D(G(u))) - w/2 |y|^2 on average over real digits a and latent vectors u,
    one drawn for each digit: the generator G minimizes over x, the discriminator D maximizes over
    y. Both are perceptrons with one hidden layer of tanh units, G with pixels between 0 and 1.

    Args:
        latent: how many numbers the generator makes an image of.
        hidden: units of either hidden layer.
        penalty: w, positive, on the discriminator's parameters.
        batch_size: digits that a stochastic method draws at each step; None for all of them.
        seed: of the latent vectors, normal, and of the start, as in `perceptron`.

    Returns:
        A `SaddleSum` over 1438 digits; x and y are tuples of layers as in `perceptron`. `metrics`:
        {"moments": the distance of generated from held-out digits, between their means and
        covariances, the root of the sum of squares, relative to that of one gray image}. Fact: not
        `convex`.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> problem = digits_gan()
        >>> round(float(problem.metrics["moments"](problem.y0, problem.args)), 2) > 0.5
        True
    """
    (real, _), (held_out, _) = split("digits", ("digits",), constant=False)
    rng = np.random.default_rng(whole_number(seed, "seed"))
    latent, hidden = whole_number(latent, "latent", 1), whole_number(hidden, "hidden", 1)
    u, fresh = (rng.standard_normal((len(part), latent)) for part in (real, held_out))
    pixels = real.shape[1]
    return SaddleSum(
        _told_apart,
        dense((latent, hidden, pixels), rng),
        dense((pixels, hidden, 1), rng),
        (real, u),
        jax.tree.map(jnp.asarray, (positive(penalty, "penalty"), held_out, fresh)),
        batch_size=batch_size,
        metrics={"moments": _moments},
        facts=Facts(convex=False),
    )


def adversarial_training(
    data: str = "digits", *, hidden: int = 32, radius: float = 0.1, seed: int = 0
) -> Saddle:
    """A classifier of digits against changes of each of their pixels by at most a radius.

    f is the mean cross-entropy of the changed digits: the classifier, a `perceptron`, minimizes
    over x. So that both players are of one scale, y is the changes over sqrt n of the n digits.

    Args:
        data: `"digits"` as in `softmax`.
        hidden: number of hidden units.
        radius: how much a pixel, between 0 and 1, may change; positive.
        seed: of the start, as in `perceptron`.

    Returns:
        A saddle from digits without changes; x is a tuple of layers as in `perceptron`, y has the
        shape (1438, 64). `metrics` on digits held out: {"held_out": the mean cross-entropy,
        "held_out_error": the part that is classified wrong, "attacked_error": the same of digits
        that ten steps of projected gradient changed}. Fact: it is not `convex`.

    Raises:
        ValueError: if there is no such data set, or an argument is unfit.

    Example:
        >>> problem = adversarial_training()
        >>> list(problem.metrics)
        ['held_out', 'held_out_error', 'attacked_error']
    """
    (features, target), held_out = split(data, ("digits",), constant=False)
    sizes = (features.shape[1], whole_number(hidden, "hidden", 1), int(target.max()) + 1)
    layers = dense(sizes, np.random.default_rng(whole_number(seed, "seed")))
    r, n = positive(radius, "radius"), len(target)
    return Saddle(
        _changed_loss,
        layers,
        jnp.zeros(features.shape),
        jax.tree.map(jnp.asarray, ((features, target), held_out, r)),
        nonsmooth=(None, Box(-r / n**0.5, r / n**0.5)),
        metrics={
            "held_out": _clean_loss,
            "held_out_error": _clean_error,
            "attacked_error": _attacked_error,
        },
        facts=Facts(convex=False),
    )


class Simplices(AbstractConvexSet):
    """The matrices whose rows are probabilities."""

    def project(self, y: PyTree[Array]) -> PyTree[Array]:
        return jax.tree.map(jax.vmap(optax.projections.projection_simplex), y)


def _solved(A: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """The value of the matrix game min over x, max over y, of x'A y, and its strategies."""
    n, m = A.shape
    # The least v with A'x <= v; the multipliers of these constraints are the other strategy.
    from scipy.optimize import linprog  # 0.4 s that `import raphson` need not take

    program = linprog(
        np.append(np.zeros(n), 1.0),
        A_ub=np.column_stack([A.T, -np.ones(m)]),
        b_ub=np.zeros(m),
        A_eq=np.append(np.ones(n), 0.0)[None],
        b_eq=[1.0],
        bounds=[(0, None)] * n + [(None, None)],
    )
    return float(program.fun), program.x[:n], -program.ineqlin.marginals


def _ridge_of_its_own(A: np.ndarray, b: np.ndarray, r: float) -> np.ndarray:
    """The minimizer of |A x - b| + r sqrt(|x|^2 + 1).

    It is that of |A x - b|^2 + w |x|^2 with w = r |A x - b| / sqrt(|x|^2 + 1), in which the right
    side, less w, falls as w grows.
    """
    from scipy.optimize import root_scalar

    left, values, right = np.linalg.svd(A, full_matrices=False)

    def ridge(w: float) -> np.ndarray:
        return right.T @ (values / (values**2 + w) * (left.T @ b))

    def excess(w: float) -> float:
        x = ridge(w)
        return r * float(np.linalg.norm(A @ x - b) / np.sqrt(x @ x + 1)) - w

    # The residual is never above |b|, that of x = 0.
    most = r * float(np.linalg.norm(b)) + 1.0
    return ridge(root_scalar(excess, bracket=(0.0, most), xtol=1e-16).root)


# The functions are those of the module, with all that varies in their arguments: two problems of
# one kind then compile once, and pickle.


def _payoff(x: Float[Array, " n"], y: Float[Array, " m"], A: Float[Array, "n m"]) -> Array:
    return x @ (A @ y)


def _matrix_gap(z: tuple[Array, Array], A: Float[Array, "n m"]) -> Float[Array, ""]:
    x, y = z
    return jnp.max(x @ A) - jnp.min(A @ y)


def _paid(x: Float[Array, "n m"], y: Float[Array, "n m"], args: Any) -> Float[Array, ""]:
    payment, transition, discount = args
    reward = jnp.einsum("si,sj,sij->s", x, y, payment)
    moves = jnp.einsum("si,sj,sijt->st", x, y, transition)
    return jnp.mean(jnp.linalg.solve(jnp.eye(len(reward)) - discount * moves, reward))


def _markov_gap(z: tuple[Array, Array], args: Any) -> Float[Array, ""]:
    x, y = z
    payment, transition, discount = args
    # Against a policy that is known the other player has a decision process of one's own.
    against_x = jnp.einsum("si,sij->sj", x, payment), jnp.einsum("si,sijt->sjt", x, transition)
    against_y = jnp.einsum("sj,sij->si", y, payment), jnp.einsum("sj,sijt->sit", y, transition)
    most = _best(*against_x, discount)
    least = -_best(-against_y[0], against_y[1], discount)
    return most - least


def _best(
    reward: Float[Array, "n m"], moves: Float[Array, "n m n"], discount: float
) -> Float[Array, ""]:
    """The greatest mean value of a decision process, by policy iteration."""
    states = jnp.arange(len(reward))

    def value(policy: Int[Array, " n"]) -> Float[Array, " n"]:
        stay = jnp.eye(len(reward)) - discount * moves[states, policy]
        return jnp.linalg.solve(stay, reward[states, policy])

    def improved(_: Array, policy: Int[Array, " n"]) -> Int[Array, " n"]:
        return jnp.argmax(reward + discount * moves @ value(policy), axis=1)

    return jnp.mean(value(jax.lax.fori_loop(0, ROUNDS, improved, jnp.argmax(reward, axis=1))))


def _spread(x: Float[Array, " d"], args: Any) -> Float[Array, ""]:
    _, _, r, *_ = args
    return r * jnp.sqrt(x @ x + 1)


def _residual(x: Float[Array, " d"], y: Float[Array, " n"], args: Any) -> Float[Array, ""]:
    A, b, *_ = args
    return y @ (A @ x - b)


def _robust_suboptimality(z: tuple[Array, Array], args: Any) -> Float[Array, ""]:
    A, b, r, least, _ = args
    x = z[0]
    return jnp.linalg.norm(A @ x - b) + r * jnp.sqrt(x @ x + 1) - least


def _robust_held_out(z: tuple[Array, Array], args: Any) -> Float[Array, ""]:
    features, target = args[-1]
    return jnp.mean((features @ z[0] - target) ** 2) / 2


def _losses(x: Float[Array, " d"], samples: tuple[Array, Array]) -> Float[Array, " n"]:
    return jax.vmap(lambda sample: logistic_loss(x, sample, 0.0))(samples)


def _decay(x: Float[Array, " d"], args: Any) -> Float[Array, ""]:
    return args[2] / 2 * (x @ x)


def _weighed(x: Float[Array, " d"], y: Float[Array, " n"], args: Any) -> Float[Array, ""]:
    return y @ _losses(x, args[0]) / y.size**0.5


def _worst(z: tuple[Array, Array], args: Any) -> Float[Array, ""]:
    training, _, _, penalty = args
    loss, n = _losses(z[0], training), z[1].size
    # The best weights y are the nearest to where y would be without a simplex.
    y = optax.projections.projection_simplex(n**-0.5 * (1 + loss / penalty), n**0.5)
    return _decay(z[0], args) + y @ loss / n**0.5 - penalty / 2 * jnp.sum((y - n**-0.5) ** 2)


def _weighed_held_out(z: tuple[Array, Array], args: Any) -> Float[Array, ""]:
    return jnp.mean(_losses(z[0], args[1]))


def _weighed_error(z: tuple[Array, Array], args: Any) -> Float[Array, ""]:
    features, target = args[1]
    return jnp.mean(target * (features @ z[0]) <= 0, dtype=z[0].dtype)


def _told_apart(x: Layers, y: Layers, sample: tuple[Array, Array], args: Any) -> Float[Array, ""]:
    image, u = sample
    real, made = (fed_forward(y, pixels)[0] for pixels in (image, _generated(x, u)))
    size = sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(y))
    return jax.nn.log_sigmoid(real) + jax.nn.log_sigmoid(-made) - args[0] / 2 * size


def _generated(x: Layers, u: Float[Array, " latent"]) -> Float[Array, " pixels"]:
    return jax.nn.sigmoid(fed_forward(x, u))


def _moments(z: tuple[Layers, Layers], args: Any) -> Float[Array, ""]:
    _, real, u = args
    made = jax.vmap(lambda u: _generated(z[0], u))(u)

    mean, spread = jnp.mean(real, axis=0), jnp.cov(real, rowvar=False)
    by_mean = jnp.mean(made, axis=0) - mean
    by_spread = jnp.cov(made, rowvar=False) - spread
    # Gray images, all alike, have no covariance.
    gray = jnp.sum((jnp.mean(mean) - mean) ** 2) + jnp.sum(spread**2)
    return jnp.sqrt((jnp.sum(by_mean**2) + jnp.sum(by_spread**2)) / gray)


def _entropies(
    x: Layers, features: Float[Array, "n d"], target: Int[Array, " n"]
) -> Float[Array, " n"]:
    logits = jax.vmap(lambda a: fed_forward(x, a))(features)
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, target)


def _changed_loss(x: Layers, y: Float[Array, "n d"], args: Any) -> Float[Array, ""]:
    features, target = args[0]
    return jnp.mean(_entropies(x, features + len(y) ** 0.5 * y, target))


def _clean_loss(z: tuple[Layers, Array], args: Any) -> Float[Array, ""]:
    return jnp.mean(_entropies(z[0], *args[1]))


def _error(x: Layers, features: Float[Array, "n d"], target: Int[Array, " n"]) -> Array:
    logits = jax.vmap(lambda a: fed_forward(x, a))(features)
    return jnp.mean(jnp.argmax(logits, axis=1) != target, dtype=logits.dtype)


def _clean_error(z: tuple[Layers, Array], args: Any) -> Float[Array, ""]:
    return _error(z[0], *args[1])


def _attacked_error(z: tuple[Layers, Array], args: Any) -> Float[Array, ""]:
    _, (features, target), r = args
    climb = jax.grad(lambda change: jnp.sum(_entropies(z[0], features + change, target)))

    def attacked(_: Array, change: Array) -> Array:
        return jnp.clip(change + ATTACK_STEP * r * jnp.sign(climb(change)), -r, r)

    change = jax.lax.fori_loop(0, ATTACKS, attacked, jnp.zeros_like(features))
    return _error(z[0], features + change, target)
