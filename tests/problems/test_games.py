"""Games and robust models against linear programming, closed forms, and adversaries of SciPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special

import raphson as rp
from raphson.problems import (
    adversarial_training,
    digits_gan,
    distributionally_robust_logistic,
    markov_game,
    matrix_game,
    robust_least_squares,
)
from raphson.problems.data import split
from raphson.problems.games import Simplices
from raphson.saddle import AcceleratedPrimalDual, Extragradient


def measured(problem, z):
    return {name: float(value) for name, value in problem.measures(z).items()}


def test_matrix_game_is_that_of_the_other_players_program():
    game = matrix_game(6, 9, seed=4)
    A = np.asarray(game.args)
    # The column player's most guaranteed gain: max w with w <= A y, y on the simplex.
    program = scipy.optimize.linprog(
        [0] * 9 + [-1],
        A_ub=np.column_stack([-A, np.ones(6)]),
        b_ub=np.zeros(6),
        A_eq=[[1] * 9 + [0]],
        b_eq=[1],
        bounds=[(0, 1)] * 9 + [(None, None)],
    )
    np.testing.assert_allclose(game.facts.optimum, -program.fun, atol=1e-12)
    np.testing.assert_allclose(game.facts.minimizer[1], program.x[:9], atol=1e-9)
    at = measured(game, game.facts.minimizer)
    assert abs(at["gap"]) < 1e-12 and at["residual"] < 1e-12
    np.testing.assert_allclose(at["value"], game.facts.optimum, atol=1e-12)


def test_gap_of_a_matrix_game_by_hand():
    # Rock, paper, scissors: against more rock than else, paper wins 1/2 - 1/4.
    pennies = jnp.array([[0.0, 1.0, -1.0], [-1.0, 0.0, 1.0], [1.0, -1.0, 0.0]])
    game = matrix_game(3, 3)
    x, y = jnp.array([0.5, 0.25, 0.25]), jnp.full(3, 1 / 3)
    np.testing.assert_allclose(game.metrics["gap"]((x, y), pennies), 0.25, atol=1e-15)


def test_markov_game_without_a_future_is_a_matrix_game():
    game = markov_game(2, 3, discount=1e-12)
    payment = np.asarray(game.args[0])
    alone = [matrix_game(3, 3) for _ in payment]
    assert len(alone) == 2
    for A, x, y in zip(payment, *game.facts.minimizer, strict=True):
        x, y = np.asarray(x), np.asarray(y)
        np.testing.assert_allclose(np.max(x @ A), np.min(A @ y), atol=1e-9)


def test_gap_of_a_markov_game_is_that_of_all_pure_responses():
    game = markov_game(3, 2, seed=2)
    rng = np.random.default_rng(0)
    x, y = rng.dirichlet([1, 1], size=(2, 3))
    pure = [np.eye(2)[list(moves)] for moves in itertools.product(range(2), repeat=3)]
    value = jax.jit(lambda x, y: game.value((x, y)))
    most = max(float(value(x, response)) for response in pure)
    least = min(float(value(response, y)) for response in pure)
    np.testing.assert_allclose(game.metrics["gap"]((x, y), game.args), most - least, rtol=1e-12)
    at = measured(game, game.facts.minimizer)
    assert abs(at["gap"]) < 1e-11 and at["residual"] < 1e-11
    np.testing.assert_allclose(at["value"], game.facts.optimum, rtol=1e-11)


def test_value_of_a_markov_game_by_simulation_in_the_mean():
    game = markov_game(3, 2)
    payment, transition, discount = (np.asarray(a) for a in game.args)
    where, total = np.full(3, 1 / 3), 0.0
    for step in range(200):  # uniform policies
        total += discount**step * where @ payment.mean(axis=(1, 2))
        where = where @ transition.mean(axis=(1, 2))
    np.testing.assert_allclose(game.value(game.y0), total, rtol=1e-12)


def test_rows_are_projected_one_by_one():
    rows = Simplices().project(jnp.array([[1.0, 0.5, -1.0], [0.0, 0.0, 0.0]]))
    np.testing.assert_allclose(rows, [[0.75, 0.25, 0.0], [1 / 3] * 3], atol=1e-15)


def test_robust_least_squares_against_the_adversary_itself():
    radius = 0.5
    problem = robust_least_squares(radius=radius)
    A, b = (np.asarray(a) for a in problem.args[:2])
    x, y = (np.asarray(a) for a in problem.facts.minimizer)
    worst = np.linalg.norm(A @ x - b) + radius * np.sqrt(x @ x + 1)
    np.testing.assert_allclose(problem.value((x, y)), worst, rtol=1e-12)
    # The worst change is of rank one: along the residual, and along (x, -1).
    direction = np.append(x, -1.0) / np.sqrt(x @ x + 1)
    change = radius * np.outer(y, direction)
    np.testing.assert_allclose(np.linalg.norm(change), radius)
    changed = np.linalg.norm((A + change[:, :-1]) @ x - (b + change[:, -1]))
    np.testing.assert_allclose(changed, worst, rtol=1e-12)

    primal = lambda x: np.linalg.norm(A @ x - b) + radius * np.sqrt(x @ x + 1)
    found = scipy.optimize.minimize(primal, np.zeros(11), method="BFGS", tol=1e-9)
    np.testing.assert_allclose(found.fun, worst, rtol=1e-10)
    at = measured(problem, problem.facts.minimizer)
    assert abs(at["suboptimality"]) < 1e-12 and at["residual"] < 1e-12
    features, target = split("diabetes", ("diabetes",), constant=True)[1]
    np.testing.assert_allclose(at["held_out"], np.mean((features @ x - target) ** 2) / 2)


def test_robust_least_squares_is_solved_by_both_kinds_of_methods():
    problem = robust_least_squares()
    for method in (Extragradient(), AcceleratedPrimalDual(0.5)):
        x, _ = rp.solve(problem, method, max_steps=3000, throw=False).value
        np.testing.assert_allclose(x, problem.facts.minimizer[0], atol=1e-4)


def test_worst_weights_of_samples_against_a_transcription():
    penalty = 0.7
    problem = distributionally_robust_logistic(penalty=penalty)
    (a, b), held_out, mu, _ = jax.tree.map(np.asarray, problem.args)
    x, n = np.random.default_rng(0).normal(size=31) / 10, len(b)
    loss = np.logaddexp(0, -b * (a @ x))
    # Weights are affine in the losses where they are not 0; the offset makes their sum 1.
    weights = lambda t: np.maximum(0, 1 / n + (loss / n - t) / penalty)
    t = scipy.optimize.brentq(lambda t: weights(t).sum() - 1, -10, 10, xtol=1e-15)
    p = weights(t)
    worst = mu / 2 * x @ x + p @ loss - penalty * n / 2 * np.sum((p - 1 / n) ** 2)
    at = measured(problem, (jnp.asarray(x), jnp.asarray(p * n**0.5)))
    np.testing.assert_allclose(at["worst"], worst, rtol=1e-10)
    # There the saddle's own value, less h, is that of the worst case.
    h = problem.nonsmooth[1].value(jnp.asarray(p * n**0.5))
    np.testing.assert_allclose(at["value"] - h, worst, rtol=1e-9)
    np.testing.assert_allclose(
        at["held_out"], np.mean(np.logaddexp(0, -held_out[1] * (held_out[0] @ x)))
    )
    wrong = np.mean(np.sign(held_out[0] @ x) != held_out[1])
    np.testing.assert_allclose(at["held_out_error"], wrong)


def test_reweighted_regression_is_least_in_its_worst_case():
    problem = distributionally_robust_logistic(regularization=0.1)
    x, _ = rp.solve(problem, Extragradient(), rtol=1e-9, atol=1e-9).value
    worst = lambda x: float(problem.metrics["worst"]((x, problem.y0[1]), problem.args))
    slope = jax.grad(lambda x: problem.metrics["worst"]((x, problem.y0[1]), problem.args))
    np.testing.assert_allclose(slope(x), 0, atol=1e-6)
    for away in np.random.default_rng(0).normal(size=(5, 31)):
        assert worst(x + 0.01 * away) > worst(x)


def test_moments_of_images_by_hand():
    problem = digits_gan(hidden=4)
    generator, discriminator = problem.y0
    # With weights 0 in its last layer, whose biases are 0, G makes gray images of 1/2.
    gray = (generator[0], (0 * generator[1][0], generator[1][1]))
    real = np.asarray(problem.args[1])
    spread = np.sum(np.cov(real.T) ** 2)
    off = [np.sum((level - real.mean(axis=0)) ** 2) for level in (0.5, real.mean())]
    expected = np.sqrt((off[0] + spread) / (off[1] + spread))
    measure = problem.metrics["moments"]
    np.testing.assert_allclose(measure((gray, discriminator), problem.args), expected, rtol=1e-10)
    assert len({float(measure(problem.y0, problem.args)) for _ in range(20)}) == 1


def test_value_of_a_gan_by_hand():
    problem = digits_gan(hidden=4, penalty=0.5)
    _, discriminator = problem.y0
    blind = jax.tree.map(jnp.zeros_like, discriminator)
    # A discriminator of zeros says 1/2 to all.
    np.testing.assert_allclose(problem.value((problem.y0[0], blind)), -2 * np.log(2), rtol=1e-12)
    size = sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(discriminator))
    free = digits_gan(hidden=4, penalty=1e-12)
    expected = free.value(problem.y0) - 0.25 * size
    np.testing.assert_allclose(problem.value(problem.y0), expected, rtol=1e-9)


def test_generator_learns():
    problem = digits_gan()
    method = Extragradient(0.3, "past")
    z = rp.solve(problem, method, key=jax.random.key(0), max_steps=1500, throw=False).value
    before, after = (problem.metrics["moments"](at, problem.args) for at in (problem.y0, z))
    assert float(after) < 0.7 < 1.1 < float(before)


def test_adversarial_training_holds_out_against_attacks():
    problem = adversarial_training(hidden=16)
    assert problem.y0[1].shape == (1438, 64)
    (features, target), held_out, r = problem.args
    few, x, still = (features[:400], target[:400]), problem.y0[0], jnp.zeros((400, 64))
    box = rp.composite.Box(-r / 20, r / 20)
    fewer = rp.Saddle(problem.fn, x, still, (few, held_out, r), nonsmooth=(None, box))
    clean = rp.Minimize(lambda x, _: fewer.value((x, still)), x)
    plain = rp.solve(clean, rp.smooth.GradientDescent(0.5), max_steps=300, throw=False).value
    robust, _ = rp.solve(fewer, Extragradient(), max_steps=150, throw=False).value
    error = lambda x: float(problem.metrics["attacked_error"]((x, still), problem.args))
    unhurt = float(problem.metrics["held_out_error"]((plain, still), problem.args))
    assert unhurt < 0.2 < error(robust) + 0.2 < error(plain)


def test_changes_of_pixels_are_in_their_own_unit():
    problem = adversarial_training(hidden=4, radius=0.2)
    x, y = problem.y0
    box = problem.nonsmooth[1].project(jnp.full_like(y, 9.0))
    moved = problem.value((x, box))
    (features, target), _, _ = problem.args
    still = rp.Saddle(problem.fn, x, y, ((features + 0.2, target), None, None))
    np.testing.assert_allclose(moved, still.value((x, y)), rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: matrix_game(0), "`rows` must be"),
        (lambda: markov_game(discount=1.0), "`discount` must be below 1"),
        (lambda: markov_game(actions=0), "`actions` must be"),
        (lambda: robust_least_squares(radius=0.0), "`radius` must be a positive number"),
        (lambda: robust_least_squares("digits"), "`data` must be one of"),
        (lambda: distributionally_robust_logistic(penalty=-1.0), "`penalty` must be"),
        (lambda: digits_gan(latent=0), "`latent` must be"),
        (lambda: adversarial_training(radius=-1.0), "`radius` must be"),
    ],
)
def test_unfit_arguments_are_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()
