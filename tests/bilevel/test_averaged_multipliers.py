"""Averaged multipliers against their three steps written out with dense derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.bilevel import AveragedMultipliers
from raphson.problems import non_singleton

TARGET = np.array([0.8, -1.5, 0.3])
START = np.array([0.3, -0.9]), np.array([0.5, 0.1, -0.6])


def upper(x, y, _):
    return jnp.sum((y - TARGET) ** 2) + jnp.sin(x[0]) * y[0] * y[1] + x @ x


def lower(x, y, _):
    return jnp.sum(y[:2] ** 4) / 4 + (1 + x[0] ** 2) * y[0] ** 2 / 2 - y[:2] @ x


@jax.jit
def derivatives(x, y, mu):
    psi = lambda x, y: mu * upper(x, y, None) + (1 - mu) * lower(x, y, None)
    crossed = jax.jacfwd(jax.grad(psi, 0), 1)(x, y)
    return (
        *jax.grad(upper, (0, 1))(x, y, None),
        jax.grad(psi, 1)(x, y),
        jax.hessian(psi, 1)(x, y),
        crossed,
    )


def transcription(steps, mu0, p, tau, b, a, line_search):
    (x, y), v = START, np.zeros(3)
    rows = []
    for k in range(steps):
        mu = mu0 * (k + 1) ** (-p)
        F_x, F_y, psi_y, psi_yy, psi_xy = map(np.asarray, derivatives(x, y, mu))
        r = F_y - psi_yy @ v
        eta = r @ r / (r @ psi_yy @ r) if line_search else b * (k + 1) ** (-tau / 2)
        alpha = a * mu**3 * (k + 1) ** (-3 * tau / 2)
        x, y, v = x - alpha * (F_x - psi_xy @ v), y - b * psi_y, v + eta * r
        rows.append((x, y, v, r))
    return rows


@pytest.mark.parametrize(
    ("settings", "line_search"),
    [((0.9, 0.1, 1 / 40, 0.1, 0.1), False), ((0.5, 0.3, 0.4, 0.05, 0.2), True)],
)
def test_steps_are_those_written_out(settings, line_search):
    mu0, p, tau, b, a = settings
    method = AveragedMultipliers(a, b, mu0, p, tau / 2, line_search)
    problem = rp.Bilevel(upper, lower, *START)
    z, state = problem.y0, method.init(problem, problem.y0, None)
    step = jax.jit(lambda z, state: method.step(problem, z, state))
    for x, y, v, r in transcription(12, *settings, line_search):
        z, state = step(z, state)
        for ours, theirs in zip((*z, state.v, state.left), (x, y, v, r), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_paper_is_the_default():
    method = AveragedMultipliers()
    assert (method.step_size, method.weight, method.weight_power) == (0.1, 0.9, 0.1)
    assert method.step_power == 1 / 40 / 2


@pytest.mark.parametrize("line_search", [False, True])
def test_finds_the_best_of_many_minima(line_search):
    method = AveragedMultipliers(line_search=line_search)
    solution = rp.solve(non_singleton(), method, max_steps=10_000, throw=False)
    for ours, exact in zip(solution.value, (1.0, np.ones(2)), strict=True):
        np.testing.assert_allclose(ours, exact, atol=1e-6)
    np.testing.assert_allclose(solution.state.v, 0.0, atol=1e-6)


def test_a_line_search_where_psi_is_concave_takes_the_step_as_it_is():
    # psi_yy = -1 at once: the best step of v would lead away.
    concave = lambda x, y, _: -(y**2) / 2 + x * y
    problem = rp.Bilevel(concave, concave, 0.1, 0.2)
    method = AveragedMultipliers(line_search=True)
    _, state = method.step(problem, problem.y0, method.init(problem, problem.y0, None))
    np.testing.assert_allclose(state.v, 0.1 * (-0.2 + 0.1), rtol=1e-12)


def test_cost_is_a_gradient_and_a_product_of_each_level():
    def counts(steps, line_search):
        method = AveragedMultipliers(line_search=line_search)
        problem = rp.Counted(non_singleton())
        return rp.solve(problem, method, max_steps=steps, throw=False).stats.counts

    for line_search, products in ((False, 2), (True, 4)):
        one, four = counts(1, line_search), counts(4, line_search)
        spent = [int(four[name] - one[name]) for name in ("upper_gradient", "lower_gradient")]
        assert spent == [3, 3] and int(four["product"] - one["product"]) == 3 * products


def test_batches_estimate_gradients_and_products():
    samples = jnp.asarray(np.random.default_rng(0).normal(size=(7, 2)))
    above = lambda x, y, a, _: (y - a[0] * x) ** 2
    below = lambda x, y, a, _: (a[1] * y**2 + jnp.exp(a[0]) * (y - x) ** 2) / 2
    sampled = rp.BilevelSum(above, below, 0.5, 0.2, samples, samples**2, batch_size=2)
    method, key = AveragedMultipliers(), jax.random.key(3)
    z, state = sampled.y0, method.init(sampled, sampled.y0, key)
    for k in range(3):
        x, y, v = *z, state.v
        key, now = jax.random.split(key)
        first, second = sampled.sample(now)
        mu = 0.9 * (k + 1) ** -0.1
        F = lambda x, y, batch=first: sampled.upper_value(x, y, batch)
        f = lambda x, y, batch=second: sampled.lower_value(x, y, batch)
        psi = lambda x, y, mu=mu, F=F, f=f: mu * F(x, y) + (1 - mu) * f(x, y)
        eta = 0.1 * (k + 1) ** (-1 / 80)
        by_x = jax.grad(F)(x, y) - jax.grad(jax.grad(psi), 1)(x, y) * v
        z, state = method.step(sampled, z, state)
        np.testing.assert_allclose(z[0], x - 0.1 * (mu * eta / 0.1) ** 3 * by_x, rtol=1e-12)
        np.testing.assert_allclose(z[1], y - 0.1 * jax.grad(psi, 1)(x, y), rtol=1e-12)
        left = jax.grad(F, 1)(x, y) - jax.grad(jax.grad(psi, 1), 1)(x, y) * v
        np.testing.assert_allclose(state.v, v + eta * left, rtol=1e-12)


def test_x_is_kept_in_its_set_and_a_set_of_y_is_refused():
    box = rp.composite.Box(-1.0, 0.5)
    base = non_singleton()
    held = rp.Bilevel(base.upper, base.lower_fn, *base.y0, sets=(box, None))
    x, _ = rp.solve(held, AveragedMultipliers(), max_steps=3000, throw=False).value
    np.testing.assert_allclose(x, 0.5, atol=1e-12)
    below = rp.Bilevel(base.upper, base.lower_fn, *base.y0, sets=(None, box))
    with pytest.raises(ValueError, match="`sets` must leave y free for AveragedMultipliers"):
        rp.solve(below, AveragedMultipliers())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"upper_step_size": 0.0},
            r"`upper_step_size` of AveragedMultipliers must be .*\(0, inf\)",
        ),
        ({"step_size": -1.0}, "`step_size` of AveragedMultipliers must be"),
        ({"weight": 1.0}, r"`weight` of AveragedMultipliers must be a number in \(0, 1\)"),
        ({"weight_power": 0.0}, "`weight_power` of AveragedMultipliers must be"),
        ({"step_power": -0.1}, r"`step_power` of AveragedMultipliers must be .* \[0, inf\)"),
    ],
)
def test_unfit_hyperparameters_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        AveragedMultipliers(**options)
