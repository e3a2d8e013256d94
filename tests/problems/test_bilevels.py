"""Two levels on real data, against NumPy: values, gradients, hypergradients, what was held out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.svm import LinearSVC

import raphson as rp
from raphson.bilevel import ProximalLagrangian
from raphson.problems import (
    constrained_svm,
    hyper_cleaning,
    hyper_representation,
    margin_svm,
    weight_decay,
)

MAKERS = [hyper_cleaning, weight_decay, hyper_representation, constrained_svm, margin_svm]
each = pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)


def three(data, scale):
    """Rows to train on, to validate with, and held out, by counting."""
    features, target = data(return_X_y=True)
    held_out, rest = [], []
    for i in range(len(target)):
        (held_out if i % 5 == 4 else rest).append(i)
    validation = rest[3::4]
    training = [i for i in rest if i not in set(validation)]
    features = scale(features, rest)
    return [(features[of], target[of]) for of in (training, validation, held_out)]


def digits(constant):
    def scale(features, _):
        ones = np.ones((len(features), int(constant)))
        return np.hstack([features / 16, ones])

    return three(load_digits, scale)


def tumors():
    def scale(features, rest):
        features = (features - features[rest].mean(0)) / features[rest].std(0)
        return np.hstack([features, np.ones((len(features), 1))])

    parts = three(load_breast_cancer, scale)
    return [(features, 2.0 * target - 1) for features, target in parts]


def near(z, rng, size=0.3):
    return jax.tree.map(lambda leaf: leaf + size * rng.standard_normal(leaf.shape), z)


def probabilities(logits):
    exps = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exps / exps.sum(axis=1, keepdims=True)


def entropies(logits, label):
    return -np.log(probabilities(logits)[np.arange(len(label)), label])


def test_hyper_cleaning_by_hand():
    problem = hyper_cleaning(corrupted=0.3, regularization=0.02, seed=3)
    (a, right), (b, validation), (c, held_out) = digits(True)
    label = np.asarray(problem.lower_data[2])
    x, y = near(problem.y0, np.random.default_rng(0))
    weight, logits = 1 / (1 + np.exp(-np.asarray(x))), np.asarray(y)
    lower = np.mean(weight * entropies(a @ logits, label)) + 0.01 * np.sum(logits**2)
    np.testing.assert_allclose(problem.lower_value(x, y, None), lower, rtol=1e-12)
    upper = np.mean(entropies(b @ logits, validation))
    np.testing.assert_allclose(problem.upper_value(x, y, None), upper, rtol=1e-12)

    measured = {name: of((x, y), problem.args) for name, of in problem.metrics.items()}
    np.testing.assert_allclose(measured["loss"], np.mean(entropies(c @ logits, held_out)))
    right_now = np.mean(np.argmax(c @ logits, axis=1) == held_out)
    np.testing.assert_allclose(measured["accuracy"], right_now)
    guessed, wrong = weight < 0.5, label != right
    precision, recall = np.mean(wrong[guessed]), np.mean(guessed[wrong])
    f1 = 2 * precision * recall / (precision + recall)
    np.testing.assert_allclose(measured["detection"], f1)


@pytest.mark.parametrize("part", [0.0, 0.3, 0.5, 0.999])
def test_as_many_labels_are_wrong_as_asked(part):
    problem, other = (hyper_cleaning(corrupted=part, seed=seed) for seed in (0, 1))
    (_, right), *_ = digits(True)
    label = np.asarray(problem.lower_data[2])
    assert len(label) == 1079 and set(label) == set(range(10))
    wrong = label != right
    np.testing.assert_array_equal(wrong, problem.args["corrupted"])
    assert wrong.sum() == round(part * 1079)
    if part:
        # Every other digit is as likely: its share of some hundred draws is near 1/9.
        shares = np.bincount((label - right)[wrong] % 10, minlength=10)[1:] / wrong.sum()
        np.testing.assert_allclose(shares, 1 / 9, atol=5 / (81 * wrong.sum() / 8) ** 0.5)
        assert not np.array_equal(problem.args["corrupted"], other.args["corrupted"])
    machine = constrained_svm(corrupted=part)
    a, b = tumors()[0]
    turned = np.sign(np.asarray(machine.args["signed"])[:, -1]) != b
    np.testing.assert_array_equal(turned, machine.args["corrupted"])
    assert turned.sum() == round(part * 342)


def test_a_sample_is_detected_by_its_weight():
    problem = hyper_cleaning()
    wrong, y = problem.args["corrupted"], problem.y0[1]
    detection = lambda x: float(problem.metrics["detection"]((x, y), problem.args))
    assert detection(jnp.where(wrong, -1.0, 1.0)) == 1.0
    assert detection(jnp.where(wrong, 1.0, -1.0)) == 0.0
    np.testing.assert_allclose(detection(jnp.full(1079, -1.0)), 2 * 540 / (1079 + 540))
    assert detection(problem.y0[0]) == 0.0


def test_weight_decay_by_hand():
    problem = weight_decay()
    (a, label), (b, validation), _ = digits(True)
    x, y = near(problem.y0, np.random.default_rng(0))
    logits = np.asarray(y)
    lower = np.mean(entropies(a @ logits, label)) + np.sum(np.exp(np.asarray(x)) * logits**2) / 2
    np.testing.assert_allclose(problem.lower_value(x, y, None), lower, rtol=1e-12)
    upper = np.mean(entropies(b @ logits, validation))
    np.testing.assert_allclose(problem.upper_value(x, y, None), upper, rtol=1e-12)


def test_hyper_representation_by_hand():
    problem = hyper_representation(width=5, regularization=0.3)
    (a, label), (b, validation), (c, held_out) = digits(False)
    x, y = near(problem.y0, np.random.default_rng(0))
    measured = {name: of((x, y), problem.args) for name, of in problem.metrics.items()}
    lower, upper = (value(x, y, None) for value in (problem.lower_value, problem.upper_value))
    weight, bias, y = (np.asarray(leaf) for leaf in (*x, y))

    def of(pixels, label):
        features = np.hstack([np.tanh(pixels @ weight + bias), np.ones((len(label), 1))])
        return features @ y, np.sum((features @ y - np.eye(10)[label]) ** 2) / 2 / len(label)

    np.testing.assert_allclose(lower, of(a, label)[1] + 0.15 * np.sum(y**2), rtol=1e-12)
    np.testing.assert_allclose(upper, of(b, validation)[1], rtol=1e-12)
    told, loss = of(c, held_out)
    np.testing.assert_allclose(measured["loss"], loss)
    np.testing.assert_allclose(measured["accuracy"], np.mean(told.argmax(1) == held_out))


def primal(a, b, penalty):
    """The machine by Newton's method on 1/2 |w|^2 + 1/2 sum of penalty max(0, 1 - b a'w)^2."""
    w = np.zeros(a.shape[1])
    for _ in range(50):
        gap = np.maximum(0, 1 - b * (a @ w))
        gradient = w - a.T @ (penalty * b * gap)
        w = w - np.linalg.solve(np.eye(w.size) + (a.T * (penalty * (gap > 0))) @ a, gradient)
    return w, penalty * np.maximum(0, 1 - b * (a @ w))


def test_dual_of_the_machine_leads_to_its_primal():
    problem = constrained_svm()
    (a, b), (c, validation), (d, held_out) = tumors()
    b = np.where(problem.args["corrupted"], -b, b)
    x = near(problem.y0[0], np.random.default_rng(0))
    w, y = primal(a, b, np.exp(np.asarray(x)))
    _, f_y = problem.lower_gradient(x, jnp.asarray(y), None)
    # At the minimum on y >= 0: no slope where y is positive, none downward where it is 0.
    np.testing.assert_allclose(f_y[y > 0], 0, atol=1e-12)
    assert 0 < np.sum(y > 0) < len(y) and np.all(np.asarray(f_y)[y == 0] >= 0)
    margin = validation * (c @ w)
    np.testing.assert_allclose(problem.upper_value(x, y, None), np.mean(np.log1p(np.exp(-margin))))
    accuracy = problem.metrics["accuracy"]((x, y), problem.args)
    np.testing.assert_allclose(accuracy, np.mean(np.sign(d @ w) == held_out))


def test_hypergradient_of_the_machine_is_that_of_differences_of_its_primal():
    problem = constrained_svm()
    (a, b), (c, validation), _ = tumors()
    b = np.where(problem.args["corrupted"], -b, b)
    x = np.asarray(near(problem.y0[0], np.random.default_rng(0)))
    measured, *_ = jax.jit(lambda z: problem.optimality(z))(
        (jnp.asarray(x), jnp.asarray(primal(a, b, np.exp(x))[1]))
    )
    above = lambda x: np.mean(np.log1p(np.exp(-validation * (c @ primal(a, b, np.exp(x))[0]))))
    direction = np.random.default_rng(1).standard_normal(x.size)
    h = 1e-5
    slope = (above(x + h * direction) - above(x - h * direction)) / (2 * h)
    np.testing.assert_allclose(measured @ direction, slope, rtol=1e-6)


def owed(S, x, regularization):
    """The machine that owes these margins, by Newton's method on its primal, and its slacks."""
    w = np.zeros(S.shape[1])
    for _ in range(30):
        short = S[x - S @ w > 0]
        matrix = regularization * np.eye(w.size) + short.T @ short
        w = np.linalg.solve(matrix, short.T @ x[x - S @ w > 0])
    return w, np.maximum(x - S @ w, 0)


def test_margin_svm_by_hand():
    problem = margin_svm(samples=60, corrupted=0.25, regularization=0.4, seed=2)
    (a, b), (c, validation), (d, held_out) = ((a / 31**0.5, b) for a, b in tumors())
    wrong = np.asarray(problem.args["corrupted"])
    assert wrong.sum() == 15 and wrong.shape == (60,)
    S = a[:60] * np.where(wrong, -b[:60], b[:60])[:, None]
    np.testing.assert_array_equal(problem.constraints(*problem.y0)[0], np.zeros(60))
    x, (w, t) = near(problem.y0, np.random.default_rng(0))
    g, h = problem.constraints(x, (w, t))
    np.testing.assert_allclose(g, x - t - S @ w, rtol=1e-12)
    assert h.shape == (0,)
    lower = problem.lower_value(x, (w, t), None)
    np.testing.assert_allclose(lower, 0.2 * w @ w + t @ t / 2, rtol=1e-12)
    for value, a, b in (
        (problem.upper_value(x, (w, t), None), c, validation),
        (problem.metrics["loss"]((x, (w, t)), problem.args), d, held_out),
    ):
        np.testing.assert_allclose(value, np.mean(np.log1p(np.exp(-b * (a @ w)))), rtol=1e-12)
    accuracy = problem.metrics["accuracy"]((x, (w, t)), problem.args)
    np.testing.assert_allclose(accuracy, np.mean(np.sign(d @ w) == held_out))


def test_machine_with_margins_of_one_is_that_of_scikit_learn():
    problem = margin_svm()
    (a, b), *_ = tumors()
    b = np.where(problem.args["corrupted"], -b[:100], b[:100])
    # It has half the sum of squares and no regularization: C = 1 / 2.
    svc = LinearSVC(C=0.5, fit_intercept=False, tol=1e-12, max_iter=10**6)
    w = svc.fit(a[:100] / 31**0.5, b).coef_[0]
    ours, slack = owed(np.asarray(problem.args["signed"]), np.ones(100), 1.0)
    np.testing.assert_allclose(ours, w, atol=1e-6)
    z = jnp.ones(100), (ours, slack)
    _, (L_y, complementary, _), _ = jax.jit(lambda z: problem.optimality(z))(z)
    np.testing.assert_allclose(np.concatenate([*L_y, complementary]), 0, atol=1e-10)


def test_hypergradient_of_the_margins_is_that_of_differences():
    problem = margin_svm(samples=40)
    S, x = (
        np.asarray(problem.args["signed"]),
        np.asarray(near(problem.y0[0], np.random.default_rng(0))),
    )
    measured, *_ = jax.jit(lambda z: problem.optimality(z))((x, owed(S, x, 1.0)))
    above = lambda x: float(problem.upper_value(x, owed(S, x, 1.0), None))
    direction, h = np.random.default_rng(1).standard_normal(x.size), 1e-5
    slope = (above(x + h * direction) - above(x - h * direction)) / (2 * h)
    np.testing.assert_allclose(measured @ direction, slope, rtol=1e-6)


def test_projection_on_the_margins_is_that_of_nonnegative_least_squares():
    problem = margin_svm(samples=30)
    S = np.asarray(problem.args["signed"])
    x, (w, t) = near(problem.y0, np.random.default_rng(0), 2.0)
    nearest = problem.nearest_feasible((x, (w, t)))
    # What the cone of G z <= 0 cuts off a point is nearest to it among all G'a with a >= 0.
    G = np.hstack([np.eye(30), -S, -np.eye(30)])
    z = np.concatenate([x, w, t])
    expected = z - G.T @ scipy.optimize.nnls(G.T, z)[0]
    np.testing.assert_allclose(np.concatenate([nearest[0], *nearest[1]]), expected, atol=1e-10)
    assert np.sum(G @ z > 0) > 5


def test_learned_margins_lower_the_loss_held_out():
    problem = margin_svm()
    machine = owed(np.asarray(problem.args["signed"]), np.ones(100), 1.0)
    before = problem.metrics["loss"]((jnp.ones(100), machine), problem.args)
    z = rp.solve(problem, ProximalLagrangian(0.6), max_steps=1000, throw=False).value
    after = {name: float(of(z, problem.args)) for name, of in problem.metrics.items()}
    assert after["loss"] < 0.8 * float(before) and after["detection"] > 0.3
    assert float(jnp.max(problem.constraints(*z)[0])) < 1e-12


@each
def test_gradients_are_those_of_differences(make):
    problem, rng = make(), np.random.default_rng(0)
    x, y = near(problem.y0, rng, 0.1)
    dx, dy = near(jax.tree.map(jnp.zeros_like, problem.y0), rng, 1.0)
    total = lambda pair: sum(
        jnp.vdot(g, d)
        for g, d in zip(jax.tree.leaves(pair), jax.tree.leaves((dx, dy)), strict=True)
    )
    h = 1e-5
    moved = [jax.tree.map(lambda z, d: z + s * h * d, (x, y), (dx, dy)) for s in (1, -1)]  # noqa: B023
    for value, gradient in (
        (problem.upper_value, problem.upper_gradient),
        (problem.lower_value, problem.lower_gradient),
    ):
        forward, backward = (float(value(*z, None)) for z in moved)
        slope = total(gradient(x, y, None))
        np.testing.assert_allclose(slope, (forward - backward) / (2 * h), rtol=1e-6, atol=1e-8)


def test_hypergradient_of_the_ridge_heads_is_that_of_differences_of_their_closed_form():
    problem = hyper_representation(width=4, regularization=0.1)
    (a, label), (b, validation), _ = digits(False)
    weight, bias = (np.asarray(leaf) for leaf in problem.y0[0])

    def features(pixels, weight):
        return np.hstack([np.tanh(pixels @ weight + bias), np.ones((len(pixels), 1))])

    def heads(weight):
        h = features(a, weight)
        return np.linalg.solve(h.T @ h / len(h) + 0.1 * np.eye(5), h.T @ np.eye(10)[label] / len(h))

    def above(weight):
        told = features(b, weight) @ heads(weight)
        return np.sum((told - np.eye(10)[validation]) ** 2) / 2 / len(b)

    measured, *_ = jax.jit(lambda z: problem.optimality(z))(
        (problem.y0[0], jnp.asarray(heads(weight)))
    )
    direction, h = np.random.default_rng(0).standard_normal(weight.shape), 1e-5
    slope = (above(weight + h * direction) - above(weight - h * direction)) / (2 * h)
    np.testing.assert_allclose(np.sum(measured[0] * direction), slope, rtol=1e-7)


def test_hypergradient_of_the_weights_is_that_of_a_dense_solution():
    """At a point that need not be a minimum: -f_xy f_yy^-1 F_y from the softmax by hand."""
    problem = hyper_cleaning()
    x, y = near(problem.y0, np.random.default_rng(0), 0.1)
    measured, *_ = jax.jit(lambda z: problem.optimality(z))((x, y))
    a, label = (np.asarray(leaf) for leaf in problem.lower_data[1:])
    b, validation = (np.asarray(leaf) for leaf in problem.upper_data)
    weight, y = 1 / (1 + np.exp(-np.asarray(x))), np.asarray(y)
    p = probabilities(a @ y)
    hessian = 0.001 * np.eye(650)
    for i in range(10):
        for j in range(10):
            curvature = weight * (p[:, i] * (i == j) - p[:, i] * p[:, j])
            hessian[i::10, j::10] += (a.T * curvature) @ a / len(a)
    F_y = b.T @ (probabilities(b @ y) - np.eye(10)[validation]) / len(b)
    v = np.linalg.solve(hessian, F_y.ravel()).reshape(65, 10)
    slopes = weight * (1 - weight) / len(a)  # of each weight by its x
    mixed = slopes * np.sum((p - np.eye(10)[label]) * (a @ v), axis=1)
    np.testing.assert_allclose(measured, -mixed, rtol=1e-6, atol=1e-9)


def test_batches_are_of_the_samples_of_each_level():
    problem = hyper_cleaning(batch_size=7)
    assert problem.stochastic and not hyper_cleaning().stochastic
    (pixels, _), (number, features, label) = problem.sample(jax.random.key(0))
    assert pixels.shape == (7, 65) and number.shape == (7,)
    np.testing.assert_array_equal(features, problem.lower_data[1][number])
    np.testing.assert_array_equal(label, problem.lower_data[2][number])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: hyper_cleaning(corrupted=1.0), r"`corrupted` must be a number in \[0, 1\)"),
        (lambda: hyper_cleaning(regularization=0.0), "`regularization` must be a positive"),
        (lambda: hyper_cleaning(seed=-1), "`seed` must be a whole number"),
        (lambda: hyper_cleaning(batch_size=0), "`batch_size` must be a whole number"),
        (lambda: weight_decay(start=-1.0), "`start` must be a positive number"),
        (lambda: hyper_representation(width=0), "`width` must be a whole number"),
        (lambda: constrained_svm(corrupted=-0.1), r"`corrupted` must be a number in \[0, 1\)"),
        (lambda: constrained_svm(start="low"), "`start` must be a positive number"),
        (lambda: margin_svm(samples=343), "`samples` must be at most 342, got 343"),
        (lambda: margin_svm(samples=0), "`samples` must be a whole number of at least 1"),
        (lambda: margin_svm(corrupted=1.0), r"`corrupted` must be a number in \[0, 1\)"),
        (lambda: margin_svm(regularization=0.0), "`regularization` must be a positive"),
    ],
)
def test_refuses_what_is_unfit(call, message):
    with pytest.raises(ValueError, match=message):
        call()
