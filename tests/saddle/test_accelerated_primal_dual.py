"""Accelerated primal-dual against a transcription in NumPy, its theorem and linear programming."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import raphson as rp
from raphson.composite import Box, Simplex, SquaredNorm
from raphson.problems import least_squares_saddle
from raphson.saddle import AcceleratedPrimalDual, Extragradient

STEPS = 20


def transcription(args, x, y, *, L, A_norm, mu, ratio=1.0, accelerated=True, restart=None):
    """The averages (x', y') after each step, h being mu/2 |y|^2, or 0 where there is no mu."""
    Q, c, A, b = (np.asarray(a) for a in args[:4])
    x_ag, y_ag, before, out = x, y, 0 * y, []
    for n in range(STEPS):
        k = n if restart is None else n % restart
        if k == 0:
            x, y = x_ag, y_ag
        if mu is None:
            inverse, coupled = A_norm / ratio, (k + 1) * A_norm * ratio
        else:
            inverse, coupled = mu * k / 2 + mu / (k + 1), 2 * A_norm**2 / mu
        eta = (k + 1) / ((2 * L if accelerated else (k + 1) * L) + coupled)
        beta = (k + 2) / 2
        x_md = (1 - 1 / beta) * x_ag + x / beta if accelerated else x
        slope = A @ x - b
        y = (inverse * y + slope + k / (k + 1) * (slope - before)) / (inverse + (mu or 0))
        before = slope
        x = x - eta * (Q @ x_md - c + A.T @ y)
        x_ag, y_ag = (1 - 1 / beta) * x_ag + x / beta, (1 - 1 / beta) * y_ag + y / beta
        out.append(np.concatenate([x_ag, y_ag]))
    return np.array(out)


def path(problem, method, steps=STEPS):
    z, state = problem.y0, method.init(problem, problem.y0, None)
    step, out = jax.jit(lambda z, state: method.step(problem, z, state)), []
    for _ in range(steps):
        z, state = step(z, state)
        out.append(np.concatenate(z))
    return np.array(out)


@pytest.mark.parametrize("restart", [None, 7])
@pytest.mark.parametrize("accelerated", [True, False])
@pytest.mark.parametrize("mu", [0.5, None])
def test_iterates_are_those_of_the_formulas(mu, accelerated, restart):
    problem = least_squares_saddle([0.1, 1.0, 4.0], 2, coupling=3.0, strong_concavity=0.5)
    if mu is None:
        problem = rp.CompositeSaddle(problem.fn, problem.coupling, *problem.y0, problem.args)
    method = AcceleratedPrimalDual(
        4.0, 3.0, mu, ratio=0.7, accelerated=accelerated, restart_every=restart
    )
    expected = transcription(
        problem.args,
        *map(np.asarray, problem.y0),
        L=4.0,
        A_norm=3.0,
        mu=mu,
        ratio=0.7,
        accelerated=accelerated,
        restart=restart,
    )
    np.testing.assert_allclose(path(problem, method), expected, rtol=0, atol=1e-11)


def test_exact_inner_steps_are_the_resolvent_in_closed_form():
    problem = least_squares_saddle([0.1, 1.0, 4.0], 2, coupling=3.0, strong_concavity=0.5)
    Q, c, A, b = (np.asarray(a) for a in problem.args[:4])
    mu, L = 0.5, 4.0
    x, y = map(np.asarray, problem.y0)
    x_ag, y_ag, expected = x, y, []
    for k in range(8):
        inverse, eta, w = mu * k / 2 + mu / (k + 1), (k + 1) / (2 * L), 2 / (k + 2)
        d = Q @ ((1 - w) * x_ag + w * x) - c
        # d + A'y+ + (x+ - x) / eta = 0 and -(A x+ - b) + mu y+ + (y+ - y) inverse = 0.
        matrix = np.block([[np.eye(3) / eta, A.T], [-A, (mu + inverse) * np.eye(2)]])
        z = np.linalg.solve(matrix, np.concatenate([x / eta - d, inverse * y - b]))
        x, y = z[:3], z[3:]
        x_ag, y_ag = (1 - w) * x_ag + w * x, (1 - w) * y_ag + w * y
        expected.append(np.concatenate([x_ag, y_ag]))
    inner = Extragradient(0.2)
    method = AcceleratedPrimalDual(4.0, strong_concavity=mu, inner=inner, inner_steps=300)
    np.testing.assert_allclose(path(problem, method, 8), expected, rtol=0, atol=1e-10)


def test_inner_and_outer_agree_on_the_answer_in_a_box():
    base = least_squares_saddle(np.geomspace(0.1, 4.0, 6), 4)
    parts = Box(-1.0, 1.0), SquaredNorm(1.0)
    problem = rp.CompositeSaddle(base.fn, base.coupling, *base.y0, base.args, nonsmooth=parts)
    tight = rp.solve(problem, Extragradient(), rtol=1e-12, atol=1e-12).value
    for method in (
        AcceleratedPrimalDual(),
        AcceleratedPrimalDual(4.0, strong_concavity=1.0, inner=Extragradient(0.4)),
    ):
        z = rp.solve(problem, method, max_steps=3000).value
        np.testing.assert_allclose(np.concatenate(z), np.concatenate(tight), atol=1e-7)


@pytest.mark.parametrize("mu", [0.3, 1.0])
def test_stays_within_its_bound(mu):
    A_norm, spectrum = 2.0, np.geomspace(1e-4, 5.0, 20)
    problem = least_squares_saddle(spectrum, 10, coupling=A_norm, strong_concavity=mu)
    Q, c, A, b, best, _ = (np.asarray(a) for a in problem.args)
    x0, y0 = map(np.asarray, problem.y0)
    method = AcceleratedPrimalDual(5.0, A_norm, mu, restart_every=None)
    for n, z in enumerate(path(problem, method, 200), 1):
        x = z[:20]
        away = x - best
        gap = away @ Q @ away / 2 + np.sum((A @ away) ** 2) / (2 * mu)
        answer = (A @ x - b) / mu
        far = (10 + 2 * A_norm**2 / mu) * np.sum((x0 - best) ** 2)
        assert gap <= (far + mu * np.sum((y0 - answer) ** 2)) / (n * (n + 1)) * (1 + 1e-9)


def test_power_iteration_finds_the_constants():
    problem = least_squares_saddle(np.geomspace(0.1, 7.0, 10), 5, coupling=3.0)
    state = AcceleratedPrimalDual().init(problem, problem.y0, None)
    assert 7.0 <= float(state.lipschitz) <= 1.1 * 7.0 + 1e-9
    assert 3.0 <= float(state.coupling) <= 1.1 * 3.0 + 1e-9


def test_calls_are_one_gradient_and_two_halves_of_the_coupling_a_step():
    problem = rp.Counted(least_squares_saddle([1.0, 2.0], 3))
    counts = lambda method: {
        name: int(count)
        for name, count in rp.solve(problem, method, max_steps=9, throw=False).stats.counts.items()
        if count
    }
    given = {"gradient": 9, "coupling": 2 * 9 + 1, "resolvent": 18}
    assert counts(AcceleratedPrimalDual(2.0, 1.0, 1.0)) == given
    found = counts(AcceleratedPrimalDual(strong_concavity=1.0))
    assert found == {"gradient": 9 + 31, "coupling": 2 * 9 + 62, "resolvent": 18}
    inner = AcceleratedPrimalDual(2.0, None, 1.0, inner=Extragradient(0.4, "past"), inner_steps=4)
    assert counts(inner)["gradient"] == 9
    assert counts(inner)["coupling"] == 9 * 2 * (4 + 1)


def test_matrix_game_against_linear_programming():
    payoff = np.random.default_rng(3).normal(size=(4, 5))
    problem = rp.CompositeSaddle(
        lambda x, A: 0.0 * jnp.sum(x),
        lambda x, y, A: x @ A @ y,
        jnp.full(4, 0.25),
        jnp.full(5, 0.2),
        payoff,
        nonsmooth=(Simplex(), Simplex()),
    )
    method = AcceleratedPrimalDual(1e-9, restart_every=None)
    x, y = map(np.asarray, rp.solve(problem, method, max_steps=5000, throw=False).value)
    program = scipy.optimize.linprog(
        [0, 0, 0, 0, 1],
        A_ub=np.column_stack([payoff.T, -np.ones(5)]),
        b_ub=np.zeros(5),
        A_eq=[[1, 1, 1, 1, 0]],
        b_eq=[1],
        bounds=[(0, 1)] * 4 + [(None, None)],
    )
    # 2 |A| D_X D_Y / N, where the diameter of a simplex is the root of 2.
    bound = 2 * np.linalg.norm(payoff, 2) * 2 / 5000
    assert program.fun <= np.max(x @ payoff) + 1e-12 <= program.fun + bound
    assert program.fun >= np.min(payoff @ y) - 1e-12 >= program.fun - bound


def test_couplings_that_are_curved():
    # phi = x^2/2 + 2 x y - 3/2 y^2, to whose curvature the steps must keep.
    one = jnp.array(1.0)
    problem = rp.CompositeSaddle(
        lambda x, _: (x - 3.0) ** 2 / 2,
        lambda x, y, _: x**2 / 2 + 2 * x * y - 1.5 * y**2,
        one,
        one,
        nonsmooth=(None, SquaredNorm(1.0)),
    )
    # 2 x + 2 y = 3 and 2 x = 4 y.
    for mu in (1.0, None):
        method = AcceleratedPrimalDual(1.0, 2.0, mu, curvature=(1.0, 3.0))
        np.testing.assert_allclose(rp.solve(problem, method).value, (1.0, 0.5), atol=1e-7)
    reckless = rp.solve(problem, AcceleratedPrimalDual(1.0, 2.0, 1.0), throw=False)
    assert not bool(reckless.usable)


def test_trees_in_single_precision():
    problem = rp.CompositeSaddle(
        lambda x, _: jnp.sum((x["a"] - 2) ** 2) / 2,
        lambda x, y, _: jnp.sum(x["a"] * y[0]),
        {"a": jnp.zeros(3, jnp.float32)},
        [jnp.zeros(3, jnp.float32)],
        nonsmooth=(None, SquaredNorm(1.0)),
    )
    for method in (
        AcceleratedPrimalDual(),
        AcceleratedPrimalDual(1.0, 1.0, 1.0),
        AcceleratedPrimalDual(strong_concavity=1.0, inner=Extragradient()),
    ):
        solution = rp.solve(problem, method, max_steps=500)
        assert {leaf.dtype for leaf in jax.tree.leaves(solution.value)} == {jnp.dtype("float32")}
        np.testing.assert_allclose(solution.value[0]["a"], 1.0, atol=1e-4)
        np.testing.assert_allclose(solution.value[1][0], 1.0, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"lipschitz": 0.0}, "`lipschitz` of AcceleratedPrimalDual must be"),
        ({"coupling": -1.0}, "`coupling` of AcceleratedPrimalDual must be"),
        ({"strong_concavity": 0.0}, "`strong_concavity` of AcceleratedPrimalDual must be"),
        ({"ratio": 0.0}, "`ratio` of AcceleratedPrimalDual must be"),
        ({"curvature": 1.0}, "`curvature` of AcceleratedPrimalDual must be a pair"),
        ({"curvature": (-1.0, 0.0)}, "`curvature` of AcceleratedPrimalDual must be"),
        ({"inner_steps": 0}, "`inner_steps` must be"),
        ({"restart_every": 0}, "`restart_every` must be"),
        ({"inner": Extragradient()}, "`strong_concavity` .* must be given with `inner`"),
    ],
)
def test_unfit_hyperparameters_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        AcceleratedPrimalDual(**options)
