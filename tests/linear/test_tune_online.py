"""The tuners against transcriptions in NumPy, SciPy's bounded least squares, and plain solves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial.chebyshev import chebvander
from scipy.optimize import brentq, lsq_linear

import raphson as rp
from raphson.linear import SSOR, ChebCB, TsallisINF, solve_sequence
from raphson.linear.cheb_cb import bounded_least_squares
from raphson.problems import poisson

GRID = jnp.array([1.0, 1.3, 1.6, 1.9])
INTERVAL = (-0.15, 0.65)


def play(tuner, costs, contexts, seed=0):
    """The arms drawn round by round, and with what probabilities each was."""

    def one_round(state, given):
        row, context, key = given
        value, drawn = tuner.suggest(state, key, context)
        after = tuner.observe(drawn, row[drawn.arm])
        return after, (drawn.arm, tuner.probabilities(*before(state, context)))

    def before(state, context):
        return (state, context) if isinstance(tuner, ChebCB) else (state,)

    keys = jax.random.split(jax.random.key(seed), len(costs))
    run = jax.jit(lambda *given: jax.lax.scan(one_round, tuner.init(), given)[1])
    return [np.asarray(out) for out in run(jnp.array(costs), jnp.array(contexts), keys)]


def random_costs(rounds, seed=0):
    """Costs of each arm, the best of them depending on the context."""
    rng = np.random.default_rng(seed)
    contexts = rng.uniform(*INTERVAL, rounds)
    best = 1.2 + contexts[:, None]
    costs = 20 + 300 * (np.asarray(GRID) - best) ** 2 + 5 * rng.random((rounds, len(GRID)))
    return costs.round(), contexts


def simplex(losses, eta):
    """4 (eta (losses - u))^-2 with its normalizer u by bracketing."""

    def p(u):
        return 4 / (eta * (losses - u)) ** 2

    low, high = min(losses) - 2 * np.sqrt(len(losses)) / eta, min(losses) - 2 / eta
    return p(brentq(lambda u: p(u).sum() - 1, low - 1e-9, high + 1e-9, xtol=1e-14))


def test_tsallis_inf_follows_its_transcription():
    costs, contexts = random_costs(200)
    arms, probabilities = play(TsallisINF(GRID), costs, contexts)
    K, paid = np.zeros(len(GRID)), []
    for t, (arm, got) in enumerate(zip(arms, probabilities), start=1):
        eta, s = 2 / np.sqrt(t), np.mean(paid) - 1 if paid else 1.0
        expected = simplex(K / s, eta)
        np.testing.assert_allclose(got, expected, rtol=1e-9)
        cost = costs[t - 1, arm]
        K[arm] += (cost - 1) / expected[arm]
        paid.append(cost)
    assert len(set(arms)) == len(GRID)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("worst", [0.0, 1e3, 1e12])
def test_tsallis_inf_never_meets_nan(dtype, worst):
    tuner = TsallisINF(jnp.linspace(1, 1.95, 20, dtype=dtype))
    spread = worst * jnp.linspace(0, 1, 20, dtype=dtype)
    for rounds in (0, 1, 10**6):
        state = tuner.init()
        total = jnp.array(3.0 * rounds, dtype)
        fields = (spread, total, jnp.array(rounds, jnp.int32))
        state = type(state)(*fields, state.arm, jnp.array(1.0, dtype))
        p = tuner.probabilities(state)
        assert p.dtype == dtype and jnp.all(p >= 0) and abs(p.sum() - 1) < 1e-5
        assert jnp.all(jnp.diff(p) <= 1e-7)
        after = tuner.observe(state, 1)
        assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(after))


def test_tsallis_inf_finds_the_cheapest():
    costs = np.tile([90.0, 60.0, 30.0, 80.0], (1500, 1))
    arms, _ = play(TsallisINF(GRID), costs, np.zeros(len(costs)))
    assert np.mean(arms[1000:] == 2) > 0.9
    assert np.mean(arms[:20] == 2) < 0.9


def test_bounded_least_squares_is_scipys():
    rng = np.random.default_rng(0)
    at_bounds = []
    for _ in range(60):
        samples, m = rng.integers(6, 150), 6
        rows = chebvander(2 * rng.beta(0.5, 1.5, samples) - 1, m - 1)
        y = rows @ rng.normal(size=m) * rng.choice([1, 30]) + rng.normal(size=samples)
        bound = np.append(np.abs(y).max(), 2 * np.ptp(y) / np.arange(1, m)) * rng.choice([0.1, 1])
        expected = lsq_linear(rows, y, (-bound, bound), method="bvls", tol=1e-14).x
        got = np.asarray(bounded_least_squares(rows.T @ rows, rows.T @ y, bound))
        assert np.all(np.abs(got) <= bound)
        misfit = [np.sum((rows @ x - y) ** 2) for x in (got, expected)]
        assert misfit[0] <= misfit[1] + 1e-8 * np.sum(y**2)
        at_bounds.append(np.mean(np.abs(got) == bound))
    assert 0.1 < np.mean(at_bounds) < 0.9 and min(at_bounds) == 0


def test_bounded_least_squares_with_too_few_data_is_short():
    row = chebvander(0.3, 5)[0]
    got = bounded_least_squares(jnp.outer(row, row), 7 * row, jnp.full(6, 100.0))
    np.testing.assert_allclose(got, 7 * row / (row @ row), rtol=1e-6)
    none = bounded_least_squares(jnp.outer(row, row), 7 * row, jnp.zeros(6))
    np.testing.assert_array_equal(none, 0)


def test_cheb_cb_follows_its_transcription():
    costs, contexts = random_costs(150)
    degree, d = 3, len(GRID)
    arms, probabilities = play(ChebCB(GRID, INTERVAL, degree), costs, contexts)
    low, high = INTERVAL
    features = chebvander(2 * (contexts - low) / (high - low) - 1, degree)
    m, theta, paid, off, eta = degree + 1, np.zeros((d, degree + 1)), [], 0.0, 0.0
    for t, (arm, got) in enumerate(zip(arms, probabilities), start=1):
        y = theta @ features[t - 1]
        best = y.argmin()
        expected = 1 / (d + eta * (y - y[best]))
        expected[best] += 1 - expected.sum()
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-9)

        paid.append(costs[t - 1, arm])
        off += (y[arm] - (paid[-1] - 1)) ** 2
        K, lip = max(paid), (max(paid) - min(paid)) / (high - low)
        N = 2 + 4 * (high - low) * lip / K * (1 + np.log(m))
        bound = np.append(1 / N, 2 * (high - low) * lip / (K * N * np.arange(1, m)))
        own = arms[:t] == arm
        scaled = (np.array(paid)[own] - 1) / (K * N)
        box = (-bound - 1e-12, bound + 1e-12)
        ridge = np.finfo(float).eps ** 0.5 * np.sum(features[:t][own] ** 2) / m
        rows = np.vstack([features[:t][own], ridge**0.5 * np.eye(m)])
        fit = lsq_linear(rows, np.append(scaled, np.zeros(m)), box, method="bvls", tol=1e-14)
        theta[arm] = K * N * fit.x
        alpha = (np.pi + 2 / np.pi * np.log(2 * m + 1)) / (2 * (m + 1)) * (high - low) * lip
        eta = 2 * t * np.sqrt(d * t / (off + 2 * alpha**2 * t))
    assert len(set(arms)) == d


def test_cheb_cb_chooses_by_the_context():
    costs, contexts = random_costs(1500)
    arms, _ = play(ChebCB(GRID, INTERVAL), costs, contexts)
    paid = costs[np.arange(len(arms)), arms]
    assert np.mean(paid[1000:]) < 1.1 * np.mean(costs[1000:].min(1))
    assert 1.5 * np.mean(costs[1000:].min(1)) < costs[1000:].mean(0).min()


def test_a_sequence_is_its_solves():
    rng = np.random.default_rng(0)
    xs = jnp.array(rng.uniform(0, 0.5, 30)), jnp.array(rng.normal(size=(30, 16)))
    tuner = ChebCB(GRID, (0.0, 0.5))

    def system(y, x):
        return poisson((4, 4), shift=x[0], rhs=x[1] + 0.1 * y)

    found = solve_sequence(
        system, jnp.zeros(16), xs, tuner, key=jax.random.key(0), contexts=xs[0], method=SSOR
    )
    assert found.converged.all() and len(set(found.parameters.tolist())) == 4
    y = jnp.zeros(16)
    for i, omega in enumerate(found.parameters):
        problem = system(y, (xs[0][i], xs[1][i]))
        alone = rp.solve(problem, SSOR(omega), rtol=1e-6, atol=0.0)
        y = alone.value
        assert found.costs[i] == alone.stats.steps
        np.testing.assert_allclose(found.values[i], y, atol=1e-12)


def test_stacked_systems_and_going_on():
    shifts = jnp.linspace(0.1, 0.4, 20)
    tuner = TsallisINF(GRID)
    keys = jax.random.split(jax.random.key(1))

    def run(shifts, key, state=None):
        def system(_, shift):
            return poisson((3, 3), shift)

        return solve_sequence(system, jnp.zeros(9), shifts, tuner, key=key, state=state)

    first = run(shifts[:10], keys[0])
    second = run(shifts[10:], keys[1], first.state)
    assert second.state.rounds == 20
    total = jnp.sum(first.costs) + jnp.sum(second.costs) - 20
    assert second.state.total == total


def test_a_solve_that_fails_costs_the_cap():
    found = solve_sequence(
        lambda y, shift: poisson((4, 4), shift),
        jnp.zeros(16),
        jnp.array([0.0, 100.0, -50.0]),  # slow, fast, and not positive definite
        TsallisINF(jnp.array([1.9])),
        key=jax.random.key(0),
        max_steps=12,
    )
    assert found.costs[0] == 12 and not found.converged[0]
    assert found.costs[2] == 12 and not found.converged[2]
    assert jnp.isfinite(found.values).all()


def test_other_data_compile_nothing():
    traces = []

    def system(y, shift):
        traces.append(1)
        return poisson((3, 3), shift)

    for seed, rtol in ((0, 1e-6), (1, 1e-4)):
        grid = GRID - 0.01 * seed
        xs = jnp.linspace(0, 0.1 + seed, 5)
        solve_sequence(
            system, jnp.zeros(9), xs, TsallisINF(grid), key=jax.random.key(seed), rtol=rtol
        )
        first = len(traces) if seed == 0 else first
    assert len(traces) == first > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TsallisINF(jnp.ones((2, 2))), r"`grid` must be a vector .* shape \(2, 2\)"),
        (lambda: TsallisINF([]), "`grid` must be a vector"),
        (lambda: TsallisINF([1, 2]), "`grid` must be a vector of floating-point numbers, got int"),
        (lambda: TsallisINF([1.0, jnp.nan]), "`grid` must hold finite numbers only"),
        (lambda: ChebCB(GRID, (1.0, 1.0)), "`interval` must be two finite numbers"),
        (lambda: ChebCB(GRID, 3), "`interval` must be two finite numbers, low and high, got 3"),
        (lambda: ChebCB(GRID, INTERVAL, -1), "`degree` must be a whole number of at least 0"),
        (lambda: sequence(system=None), "`system` must be a function, got None"),
        (lambda: sequence(system=lambda y, x: y), "`system` must return a LinearSystem"),
        (lambda: sequence(y0=jnp.zeros(3)), r"`y0` must be like the unknown .*\[4\].*\[3\]"),
        (lambda: sequence(xs=jnp.array(1.0)), "`xs` and `contexts` must hold arrays"),
        (lambda: sequence(contexts=jnp.ones(3)), r"leading axes \[\(2,\), \(3,\)\]"),
        (lambda: sequence(max_steps=0), "`max_steps` must be a whole number of at least 1, got 0"),
        (lambda: sequence(rtol=-1.0), "`rtol` must be a finite number of at least 0, got -1.0"),
        (lambda: sequence(tuner=ChebCB(GRID, INTERVAL)), "`context` must be a number for ChebCB"),
    ],
)
def test_unfit_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def sequence(**changed):
    arguments = {
        "system": lambda y, x: poisson((4,), x),
        "y0": jnp.zeros(4),
        "xs": jnp.zeros(2),
        "tuner": TsallisINF(GRID),
        "key": jax.random.key(0),
    }
    return solve_sequence(**(arguments | changed))
