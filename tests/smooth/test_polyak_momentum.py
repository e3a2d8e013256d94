"""PolyakMomentum against its formulas in NumPy, Optax's Polyak step, closed forms, its bound."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import raphson as rp
from raphson.problems import convex, cutest, cutest_best, rosenbrock
from raphson.smooth import PolyakMomentum
from tests.smooth.paths import chain, path

KINDS = pytest.mark.parametrize("kind", ["moving_average", "heavy_ball"])


def moving_average(y, optimum, m, count):
    d = 0.0
    for _ in range(count):
        value, g = chain(y)
        d = g + m * d
        y = y - (value - optimum) / (d @ d) * d
        yield y, True


def heavy_ball(y, optimum, m, count):
    before = y
    for _ in range(count):
        value, g = chain(y)
        bound = value - optimum + m * g @ (y - before)
        y, before = y - max(bound, 0.0) / (g @ g) * g + m * (y - before), y
        yield y, bound > 0


@pytest.mark.parametrize(("optimum", "m"), [(0.0, 0.95), (-1.5, 0.6)])
@pytest.mark.parametrize("expected", [moving_average, heavy_ball])
def test_steps_are_the_formulas(expected, optimum, m):
    problem, count = rosenbrock(4), 25
    method = PolyakMomentum(optimum, m, expected.__name__)
    ys, states = path(problem, method, count)
    used = []
    for t, (y, positive) in enumerate(expected(np.asarray(problem.y0), optimum, m, count), 1):
        np.testing.assert_allclose(ys[t], y, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(states.value[t], chain(ys[t])[0], rtol=1e-11)
        np.testing.assert_allclose(states.gradient[t], chain(ys[t])[1], rtol=1e-10, atol=1e-9)
        used.append(positive)
    if expected is heavy_ball and optimum == 0:  # some of its step sizes were clipped at 0
        assert 0 < sum(used) < count


@KINDS
def test_without_momentum_it_is_optaxs_polyak_step(kind):
    problem = convex.quadratic([0.3, 1.0, 4.0], seed=1)
    ys, _ = path(problem, PolyakMomentum(-0.1, 0.0, kind), 20)
    method = rp.as_method(optax.polyak_sgd(max_learning_rate=1e9, f_min=-0.1))
    np.testing.assert_allclose(ys, path(problem, method, 20)[0], rtol=1e-7)


@KINDS
@pytest.mark.parametrize("degree", [2, 4, 6])
def test_on_a_power_polyaks_step_is_an_exact_share(kind, degree):
    problem = rp.Minimize(lambda y, degree: 3 * y**degree, 2.0, degree)
    ys, _ = path(problem, PolyakMomentum(0.0, 0.0, kind), 15)
    np.testing.assert_allclose(ys, 2 * (1 - 1 / degree) ** np.arange(16), rtol=1e-13)


PROBLEMS = {
    "quadratic": lambda: convex.quadratic(np.geomspace(0.02, 3, 5), seed=1),
    "huber": lambda: convex.huber_chain(),
    "logistic": lambda: convex.logistic_synthetic(40, 5, regularization=0.05),
    "worst": lambda: convex.nesterov_worst(41, smoothness=4.0),
}


@pytest.mark.parametrize("m", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("name", PROBLEMS)
def test_each_step_comes_closer_by_its_length(name, m):
    # |y+ - y*|^2 <= |y - y*|^2 - (f - f*)^2 / |d|^2, and the last term is |y+ - y|^2.
    problem = PROBLEMS[name]()
    ys, states = path(problem, PolyakMomentum(problem.facts.optimum, m), 150)
    gap = states.value - problem.facts.optimum
    ahead = gap[:-1] > 1e-13 * gap[0]  # below, f - f* is rounding
    far = np.sum((ys - np.asarray(problem.facts.minimizer)) ** 2, axis=1)
    moved = np.sum(np.diff(ys, axis=0) ** 2, axis=1)
    assert np.all((far[1:] + moved <= far[:-1] * (1 + 1e-12))[ahead])
    assert np.sum(ahead) > 20


def test_the_heavy_ball_may_diverge_where_the_moving_average_cannot():
    problem = convex.huber_chain()
    safe, bold = (
        path(problem, PolyakMomentum(0.0, 0.9, kind), 1000)[1].value
        for kind in ("moving_average", "heavy_ball")
    )
    assert safe[-1] < 1e-20 and bold[-1] > 1e20


def test_a_step_size_is_kept_where_f_is_not_above_its_optimum():
    problem = rp.Minimize(lambda y, _: (y - 1) ** 2 - 5, 3.0)
    # f = -1 at the start: steps of size 1 lead to the mirror image, and back.
    ys, states = path(problem, PolyakMomentum(0.0, 0.0), 4)
    np.testing.assert_allclose(ys, [3, -1, 3, -1, 3])
    np.testing.assert_allclose(states.step_size, 1)


@KINDS
def test_converges_where_f_above_its_optimum_is_all_rounding(kind):
    easy = convex.quadratic([0.5, 1.0, 2.0])
    lifted = rp.Minimize(lambda y, args: 1e6 + easy.fn(y, args), easy.y0, easy.args)
    solution = rp.solve(lifted, PolyakMomentum(1e6, 0.5, kind), rtol=0.0, atol=1e-9)
    np.testing.assert_allclose(solution.value, easy.facts.minimizer, atol=1e-8)


def test_rests_on_the_level_of_an_optimum_that_is_too_high():
    problem = rp.Minimize(lambda y, _: jnp.sum((y - 1) ** 2) - 5, jnp.array([4.0, 1.0]))
    solution = rp.solve(problem, PolyakMomentum(0.0, 0.5), throw=False)
    assert rp.status_name(solution.status) == "stalled"
    assert float(problem.value(solution.value)) == pytest.approx(0, abs=1e-12)


def test_a_step_that_moves_nothing_by_chance_does_not_end_the_run():
    # From y = 3 by -s f' = -4 to -1, where m p = -2 undoes -s f' = 2; then by 2 to 1.
    problem = rp.Minimize(lambda y, _: jnp.where(y > 0, (y - 1) ** 2, -2 * y) - 9, 3.0)
    solution = rp.solve(problem, PolyakMomentum(0.0, 0.5, "heavy_ball"))
    assert (float(solution.value), int(solution.stats.steps)) == (1, 3)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("ROSENBR", "heavy_ball"), ("HELIX", "moving_average"), ("JENSMP", "moving_average")],
)
def test_reaches_the_best_value_known(name, kind):
    problem, best = cutest(name), cutest_best(name)
    solution = rp.solve(problem, PolyakMomentum(best, 0.9, kind), rtol=0.0, atol=1e-6)
    assert float(problem.value(solution.value)) <= best + 1e-11


@KINDS
def test_a_tree_takes_the_same_steps(kind):
    flat, method = rosenbrock(4), PolyakMomentum(0.0, 0.8, kind)
    tree = rp.Minimize(
        lambda y, _: flat.fn(jnp.append(y["u"].ravel(), y["v"]), None),
        {"u": flat.y0[:3].reshape(3, 1), "v": flat.y0[3]},
    )
    ys, _ = path(flat, method, 15)
    trees, _ = path(tree, method, 15)
    np.testing.assert_allclose(trees["u"][..., 0], ys[:, :3], rtol=1e-11)
    np.testing.assert_allclose(trees["v"], ys[:, 3], rtol=1e-11)


@KINDS
def test_oracle_calls(kind):
    problem = rp.Counted(rosenbrock(4))
    method = PolyakMomentum(0.0, 0.8, kind)
    counts = rp.solve(problem, method, rtol=0, atol=0, max_steps=4, throw=False).stats.counts
    counts = {name: int(count) for name, count in counts.items() if count > 0}
    assert counts == {"value": 1 + 4, "gradient": 1 + 4}


def test_refuses_what_is_no_momentum():
    with pytest.raises(ValueError, match=r"`momentum` of PolyakMomentum .* \[0, 1\), got 1.0"):
        PolyakMomentum(0.0, 1.0)
    with pytest.raises(ValueError, match="`kind` of PolyakMomentum must be one of"):
        PolyakMomentum(kind="nesterov")
