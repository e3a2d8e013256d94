"""Sums of squares are seen in programs, and fitted by default."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import raphson as rp
from raphson.squares import residuals

X = np.random.default_rng(0).normal(size=(5, 3))
b = np.arange(5.0)
Y = jnp.array([1.0, -2.0, 0.5])


def twice(r):
    return r @ r


def crossed(R):
    return jax.lax.dot_general(R, R, (((0, 1), (1, 0)), ((), ())))


SUMS = {
    "mean": lambda y: jnp.mean((X @ y - b) ** 2),
    "half": lambda y: 0.5 * jnp.sum(jnp.square(X @ y - b)),
    "over": lambda y: jnp.sum((X @ y - b) ** 2) / 7.0,
    "product of one with itself": lambda y: twice(X @ y - b),
    "ridge": lambda y: jnp.mean((X @ y - b) ** 2) + 0.1 * jnp.sum(y**2),
    "fourth powers": lambda y: jnp.sum((y - 1) ** 4) + 3.0 * y[0] ** 2,
    "of samples": lambda y: jax.vmap(lambda x, t: (x @ y - t) ** 2)(jnp.array(X), b).mean(),
    "within jit": jax.jit(lambda y: jnp.sum((X @ y - b) ** 2)),
    "square of a jit": lambda y: jax.jit(lambda r: r - b)(X @ y)[0] ** 2,
    "optax": lambda y: optax.l2_loss(X @ y, b).mean(),
    "wider": lambda y: jnp.sum((y.astype(jnp.float32) ** 2).astype(jnp.float64)),
}
OTHERS = {
    "a difference": lambda y: jnp.sum(y**2) - y[0] ** 2,
    "one over a square": lambda y: 1 / y[0] ** 2,
    "a weight that may be negative": lambda y: y[1] * y[0] ** 2,
    "a negative weight": lambda y: -2.0 * y[0] ** 2,
    "odd powers": lambda y: jnp.sum(y**3),
    "a constant besides": lambda y: jnp.sum(y**2) + jnp.cos(y[0]),
    "the trace of a square": lambda y: crossed(y[:, None] * X[:3]),
    "rounded down": lambda y: jnp.sum((y**2).astype(int)).astype(float),
    "a logarithm": lambda y: jnp.log(jnp.sum(y**2)),
    "each thrice": lambda y: jnp.sum(jnp.broadcast_to(y**2, (3, 3))),
}


@pytest.mark.parametrize("name", SUMS)
def test_squares_add_up_to_the_function(name):
    found = jax.jit(lambda y: residuals(SUMS[name], y))(Y)
    total = sum(jnp.sum(r**2) for r in found)
    np.testing.assert_allclose(total, SUMS[name](Y), rtol=1e-6)


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_sum_of_squares_is_not_called_one(name):
    assert residuals(OTHERS[name], Y) is None


FITTED, STEPPED = "AdaptiveLevenbergMarquardt", "TrustRegionNewton"


def loss(y, x, t):
    return (x @ y - t) ** 2


@pytest.mark.parametrize(
    ("problem", "method"),
    [
        (rp.Minimize(lambda y, _: SUMS["ridge"](y), Y), FITTED),
        (rp.Counted(rp.Minimize(lambda y, _: SUMS["mean"](y), Y)), FITTED),
        (rp.FiniteSum(lambda y, s, _: loss(y, *s), Y, (X, b)), FITTED),
        # Fewer residuals than unknowns, other terms, oracles and wrappers that change answers.
        (rp.Minimize(lambda y, _: (jnp.sum(y) - 1) ** 2, Y), STEPPED),
        (rp.Minimize(lambda y, _: jnp.sum(y**2) + jnp.sum(jnp.exp(y)), Y), STEPPED),
        (
            rp.Minimize(lambda y, _: jnp.sum(y**2), Y, hvp=lambda y, v, _: 2 * v),
            STEPPED,
        ),
        (rp.Delayed(rp.Minimize(lambda y, _: jnp.sum(y**2), Y), 1), STEPPED),
    ],
)
def test_sums_of_squares_are_fitted_where_no_method_is_named(problem, method):
    solution = rp.solve(problem, throw=False)
    assert solution.stats.method == method
    assert "squares" in solution.stats.reason
    if bool(solution.usable):
        # The answer is judged and differentiated as that of the question as it was put.
        np.testing.assert_allclose(
            solution.certificate.residual,
            np.linalg.norm(problem.bare.gradient(solution.value)),
            rtol=1e-9,
            atol=1e-15,
        )


def test_answers_depend_on_the_data_as_before():
    fit = lambda t: rp.minimize(lambda y, t: jnp.sum((X @ y - t) ** 2), Y, t).value
    np.testing.assert_allclose(jax.jacobian(fit)(jnp.array(b)), np.linalg.pinv(X), atol=1e-9)
    fits = jax.vmap(fit)(jnp.stack([b, 2 * b]))
    np.testing.assert_allclose(fits[1], 2 * fits[0], rtol=1e-6)


def test_a_trace_takes_the_same_steps():
    problem = rp.Minimize(lambda y, _: (1 - y[0]) ** 2 + 100 * (y[1] - y[0] ** 2) ** 2, Y[:2])
    traced, solved = rp.trace(rp.Counted(problem)), rp.solve(rp.Counted(problem))
    np.testing.assert_array_equal(traced.solution.value, solved.value)
    assert int(traced.counts["residual"][-1]) == int(solved.stats.counts["residual"]) > 2
