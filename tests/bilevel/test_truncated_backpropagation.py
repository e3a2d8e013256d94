"""Truncated back-propagation against autodiff through the steps, and its Neumann series."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import raphson as rp
from raphson.bilevel import TruncatedBackpropagation
from raphson.problems import ridge_penalty

TARGET = jnp.array([0.8, -1.5, 0.3])


def upper(x, y, _):
    return jnp.sum((y - TARGET) ** 2) / 2 + jnp.sin(x["a"]) * y[0] + x["b"] @ x["b"]


def lower(x, y, _):
    return jnp.sum(y**4) / 4 + (1 + x["a"] ** 2) * y @ y / 2 - y[:2] @ x["b"] + y[0] * y[2]


def problem(sets=(None, None)):
    x = {"a": jnp.array(0.3), "b": jnp.array([0.9, -0.4])}
    return rp.Bilevel(upper, lower, x, jnp.array([0.5, 0.1, -0.6]), sets=sets)


def unrolled(x, y, steps, back, step_size, momentum, project):
    """dF/dx through the last `back` steps, and the last y."""

    def run(x, y, m, count):
        for _ in range(count):
            m = momentum * m + jax.grad(lower, 1)(x, y, None)
            y = project(y - step_size * m)
        return y, m

    early = run(x, y, jnp.zeros(3), steps - back)
    value = lambda x: (lambda y: (upper(x, y, None), y))(run(x, *early, back)[0])
    return jax.grad(value, has_aux=True)(x)


HELD = {
    "free": ((None, None), lambda y: y),
    "box": ((None, rp.composite.Box(-0.4, 0.4)), lambda y: jnp.clip(y, -0.4, 0.4)),
    "ball": (
        (None, rp.composite.Ball(0.5)),
        lambda y: y / jnp.maximum(1, jnp.linalg.norm(y) / 0.5),
    ),
}


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize(("back", "momentum"), [(1, 0.0), (7, 0.0), (4, 0.6), (7, 0.6)])
def test_steps_are_those_of_autodiff(held, back, momentum):
    sets, project = HELD[held]
    levels = problem(sets)
    method = TruncatedBackpropagation(0.3, 0.2, 7, back, momentum)
    step = jax.jit(lambda y, state: method.step(levels, y, state))
    (x, y), state = levels.y0, method.init(levels, levels.y0, None)
    z = x, y
    for _ in range(4):
        gradient, y = unrolled(x, y, 7, back, 0.2, momentum, project)
        x = jax.tree.map(lambda x, h: x - 0.3 * h, x, gradient)
        z, state = step(z, state)
        ours, theirs = jax.tree.leaves((z, state.hypergradient)), jax.tree.leaves((x, y, gradient))
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-13)


def test_at_the_minimum_it_is_the_neumann_series():
    ridge = ridge_penalty(20, 4)
    A, b, A_out, b_out = map(np.asarray, ridge.args)
    H = A.T @ A / 20 + np.exp(-1.0) * np.eye(4)
    y = np.linalg.solve(H, A.T @ b / 20)
    F_y = A_out.T @ (A_out @ y - b_out) / len(b_out)
    series = 0.2 * sum(np.linalg.matrix_power(np.eye(4) - 0.2 * H, j) for j in range(6))
    method = TruncatedBackpropagation(0.3, 0.2, 10, 6)
    at = jnp.array(-1.0), jnp.asarray(y)
    _, state = method.step(ridge, at, method.init(ridge, at, None))
    np.testing.assert_allclose(state.hypergradient, -np.exp(-1.0) * y @ series @ F_y, rtol=1e-12)


def test_cost_is_a_gradient_a_step_and_a_product_a_step_back():
    method = TruncatedBackpropagation(0.1, 0.2, 9, 4)
    run = lambda steps: (
        rp.solve(
            rp.Counted(problem()), method, rtol=0, atol=0, max_steps=steps, throw=False
        ).stats.counts
    )
    one, three = run(1), run(3)
    spent = {name: int(three[name] - one[name]) for name in one}
    assert (spent["lower_gradient"], spent["product"], spent["upper_gradient"]) == (18, 8, 2)


def test_solves_with_enough_steps_back_and_not_with_few():
    ridge = ridge_penalty(20, 4)
    solve = lambda back: rp.solve(
        ridge, TruncatedBackpropagation(2.0, 0.3, 60, back), max_steps=2000, throw=False
    )
    full, one = solve(None), solve(1)
    # At rest, it stops: whether the answer holds is for the certificate to say.
    assert bool(full.usable) and int(full.stats.steps) < 2000
    for ours, exact in zip(full.value, ridge.facts.minimizer, strict=True):
        np.testing.assert_allclose(ours, exact, atol=1e-6)
    assert not bool(one.usable)
    assert abs(float(one.value[0] - ridge.facts.minimizer[0])) > 1e-3


def test_batches_are_replayed_on_the_way_back():
    rng = np.random.default_rng(0)
    samples = jnp.asarray(rng.normal(size=(7, 2)))
    above = lambda x, y, a, _: (y - a[0]) ** 2
    below = lambda x, y, a, _: (a[1] * y**2 + jnp.exp(a[0]) * (y - x) ** 2) / 2
    sampled = rp.BilevelSum(above, below, 0.5, 0.2, samples, samples**2, batch_size=2)
    method = TruncatedBackpropagation(1.0, 0.1, 4, 3)
    key = jax.random.key(5)
    z, state = method.step(sampled, sampled.y0, method.init(sampled, sampled.y0, key))
    keys = jax.random.split(key, 6)
    batches = [sampled.sample(each)[1] for each in keys[2:]]
    # Drawn with the keys in order, each batch is another one.
    assert len({np.asarray(batch).tobytes() for batch in batches}) > 1

    def run(x, y, some):
        for batch in some:
            y = y - 0.1 * jax.grad(sampled.lower_value, 1)(x, y, batch)
        return y

    x, y = sampled.y0
    early, last = run(x, y, batches[:1]), sampled.sample(keys[1])[0]
    gradient = jax.grad(lambda x: sampled.upper_value(x, run(x, early, batches[1:]), last))(x)
    np.testing.assert_allclose(state.hypergradient, gradient, rtol=1e-12)
    np.testing.assert_allclose(z[0], x - gradient, rtol=1e-12)


def test_takes_a_transformation_for_the_upper_level():
    method = TruncatedBackpropagation(optax.adam(0.05), 0.3, 60)
    ridge = ridge_penalty(20, 4)
    solution = rp.solve(ridge, method, max_steps=1000, throw=False, atol=1e-5)
    np.testing.assert_allclose(solution.value[0], ridge.facts.minimizer[0], atol=1e-3)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"upper": 0.0}, r"`upper` of TruncatedBackpropagation must be a number in \(0, inf\)"),
        ({"step_size": -1.0}, "`step_size` of TruncatedBackpropagation must be"),
        ({"inner_steps": 0}, "`inner_steps` must be a whole number of at least 1"),
        ({"back": 0}, "`back` must be a whole number of at least 1"),
        ({"back": 21}, "`back` must be at most `inner_steps`, got 21 and 20"),
        ({"momentum": 1.0}, r"`momentum` of TruncatedBackpropagation must be a number in \[0, 1\)"),
    ],
)
def test_unfit_hyperparameters_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        TruncatedBackpropagation(**options)
