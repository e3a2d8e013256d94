import pickle

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
from sklearn import datasets, linear_model, metrics, preprocessing

import raphson as rp
from raphson.problems import logistic, perceptron, ridge, robust, softmax

ALL = [logistic, softmax, ridge, robust, perceptron]
LINEAR = [logistic, softmax, ridge, robust]


def split(name):
    features, target = datasets.__dict__[f"load_{name}"](return_X_y=True)
    kept = np.arange(len(target)) % 5 < 4
    return features[kept], target[kept], features[~kept], target[~kept]


def points(problem, count=10):
    y, unravel = jax.flatten_util.ravel_pytree(problem.y0)
    return [unravel(y + 3 * row) for row in np.random.default_rng(1).normal(size=(count, y.size))]


@pytest.mark.parametrize(
    "make, name, classes",
    [(logistic, "breast_cancer", 2), (softmax, "digits", 10), (ridge, "diabetes", None)],
)
def test_every_fifth_row_is_held_out_and_training_rows_set_the_scale(make, name, classes):
    problem = make(name)
    kept, target, held_out, held_out_target = split(name)
    if name == "digits":
        kept, held_out = kept / 16, held_out / 16
    else:
        scaler = preprocessing.StandardScaler().fit(kept)
        kept, held_out = scaler.transform(kept), scaler.transform(held_out)
    for (features, _), wanted in [(problem.data, kept), (problem.held_out, held_out)]:
        np.testing.assert_allclose(features[:, :-1], wanted, atol=1e-12)
        np.testing.assert_array_equal(features[:, -1], 1)
    if classes == 10:
        np.testing.assert_array_equal(problem.data[1], target)
        np.testing.assert_array_equal(problem.held_out[1], held_out_target)
    elif classes == 2:
        np.testing.assert_array_equal(problem.data[1], 2 * target - 1)
    else:
        np.testing.assert_allclose(problem.data[1], (target - target.mean()) / target.std())


def test_logistic_minimizer_is_that_of_scikit_learn():
    mu = 1e-2
    problem = logistic("breast_cancer", regularization=mu)
    features, labels = map(np.asarray, problem.data)
    model = linear_model.LogisticRegression(
        C=1 / (mu * len(labels)), fit_intercept=False, tol=1e-10, max_iter=10_000
    ).fit(features, labels)
    np.testing.assert_allclose(problem.facts.minimizer, model.coef_[0], atol=1e-6)
    entropy = metrics.log_loss(labels, model.predict_proba(features))
    wanted = entropy + mu / 2 * np.sum(model.coef_**2)
    assert float(problem.facts.optimum) == pytest.approx(wanted, abs=1e-10)
    assert float(eqx.filter_jit(problem.value)(problem.facts.minimizer)) == pytest.approx(
        wanted, abs=1e-10
    )


def test_ridge_minimizer_is_that_of_scikit_learn():
    problem = ridge("diabetes", regularization=0.1)
    features, target = map(np.asarray, problem.data)
    model = linear_model.Ridge(0.1 * len(target), fit_intercept=False, solver="svd")
    wanted = model.fit(features, target).coef_
    np.testing.assert_allclose(problem.facts.minimizer, wanted, atol=1e-12)
    squares = np.mean((features @ wanted - target) ** 2) / 2
    assert float(problem.facts.optimum) == pytest.approx(squares + 0.05 * wanted @ wanted)


def test_robust_minimizer_is_that_of_scipy():
    problem = robust("diabetes", width=0.3)
    features, target = map(np.asarray, problem.data)
    fit = scipy.optimize.least_squares(
        lambda y: features @ y - target,
        np.zeros(11),
        loss="soft_l1",
        f_scale=0.3,
        gtol=1e-12,
        ftol=1e-15,
        xtol=1e-15,
    )
    np.testing.assert_allclose(problem.facts.minimizer, fit.x, atol=1e-6)
    assert float(problem.facts.optimum) == pytest.approx(fit.cost / len(target), rel=1e-10)


def test_softmax_is_the_cross_entropy():
    problem = softmax("digits", regularization=0.1)
    features, target = map(np.asarray, problem.data)
    y = np.random.default_rng(0).normal(size=(65, 10))
    odds = np.exp(features @ y)
    wanted = metrics.log_loss(target, odds / odds.sum(1, keepdims=True)) + 0.05 * np.sum(y**2)
    assert float(eqx.filter_jit(problem.value)(jnp.asarray(y))) == pytest.approx(wanted)


def test_perceptron_is_the_cross_entropy_of_two_layers():
    problem = perceptron("digits", hidden=5, seed=3)
    (weight, bias), (out_weight, out_bias) = jax.tree.map(np.asarray, problem.y0)
    assert weight.shape == (64, 5) and out_weight.shape == (5, 10)
    assert not bias.any() and not out_bias.any()
    assert weight.std() == pytest.approx(1 / 8, rel=0.2)
    bias, out_bias = bias + 0.3, out_bias + np.arange(10)
    features, target = map(np.asarray, problem.held_out)
    odds = np.exp(np.tanh(features @ weight + bias) @ out_weight + out_bias)
    wanted = metrics.log_loss(target, odds / odds.sum(1, keepdims=True))
    y = jax.tree.map(jnp.asarray, ((weight, bias), (out_weight, out_bias)))
    assert float(eqx.filter_jit(problem.measures)(y)["held_out"]) == pytest.approx(wanted)


def test_perceptron_learns_digits_from_batches():
    problem = perceptron("digits")
    assert jax.eval_shape(problem.sample, jax.random.key(0))[0].shape == (64, 64)
    solution = rp.solve(
        problem, optax.adam(1e-2), key=jax.random.key(0), max_steps=200, throw=False
    )
    (weight, bias), (out_weight, out_bias) = solution.value
    features, target = problem.held_out
    logits = jnp.tanh(features @ weight + bias[None]) @ out_weight + out_bias[None]
    assert jnp.mean(jnp.argmax(logits, axis=1) == target) > 0.9


@pytest.mark.parametrize("make", [logistic, ridge, robust])
def test_minimizer_and_optimum(make):
    problem = make()
    measures = eqx.filter_jit(problem.measures)(problem.facts.minimizer)
    assert measures["residual"] < 1e-13
    assert abs(measures["gap"]) < 1e-14


@pytest.mark.parametrize("make", [logistic, ridge, robust])
def test_curvature_stays_within_the_facts(make):
    problem = make()
    hessian = jax.jit(jax.hessian(problem.objective))
    ys = [problem.y0, *points(problem)]
    hessians = [np.asarray(hessian(y)) for y in ys]
    spectra = np.array([np.linalg.eigvalsh(h) for h in hessians])
    facts = problem.facts
    assert spectra.max() <= facts.lipschitz * (1 + 1e-12)
    assert spectra.min() >= (facts.strong_convexity or 0.0) * (1 - 1e-12)
    if make is not robust:  # attained where every sample curves most
        assert spectra[0, -1] == pytest.approx(facts.lipschitz, rel=1e-12)
    if make is ridge:
        assert spectra[0, 0] == pytest.approx(facts.strong_convexity, rel=1e-9)
    for y, z, h, k in zip(ys, ys[1:], hessians, hessians[1:]):
        change, distance = np.linalg.norm(h - k, 2), np.linalg.norm(y - z)
        assert change <= facts.hessian_lipschitz * distance + 1e-12


def test_softmax_curvature_tends_to_its_bound_where_two_classes_share_all_probability():
    problem = softmax("digits")
    y = problem.y0.at[-1, :2].set(40.0)  # through the constant feature
    features = np.asarray(problem.data[0])
    top = np.linalg.eigh(features.T @ features)[1][:, -1]
    direction = jnp.zeros_like(y).at[:, 0].set(top).at[:, 1].set(-top) / 2**0.5
    curvature = jnp.vdot(direction, eqx.filter_jit(problem.hvp)(y, direction))
    assert float(curvature) == pytest.approx(problem.facts.lipschitz, rel=1e-10)


@pytest.mark.parametrize("make", ALL)
def test_made_twice_it_is_the_same_and_it_pickles(make):
    problem = make()
    again, pickled = make(), pickle.loads(pickle.dumps(problem))
    for other in (again, pickled):
        assert jax.tree.structure(other) == jax.tree.structure(problem)
        assert bool(eqx.tree_equal(other, problem))


@pytest.mark.parametrize("make", ALL)
def test_arrays_have_the_default_precision(make):
    with jax.enable_x64(False):
        problem = make()
        floats = [leaf for leaf in jax.tree.leaves(problem) if eqx.is_inexact_array(leaf)]
        assert {leaf.dtype for leaf in floats} == {jnp.dtype("float32")}
        measures = jax.eval_shape(problem.measures, problem.y0)
        assert {measure.dtype for measure in measures.values()} == {jnp.dtype("float32")}


@pytest.mark.parametrize("make", ALL)
def test_batches_are_drawn_only_where_asked_for(make):
    assert not make(batch_size=None).stochastic
    problem = make(batch_size=7)
    batch = jax.eval_shape(problem.sample, jax.random.key(0))
    assert {leaf.shape[0] for leaf in jax.tree.leaves(batch)} == {7}


@pytest.mark.parametrize("make", LINEAR)
def test_no_batches_by_default(make):
    assert not make().stochastic


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: logistic("breast_cancr"), "did you mean 'breast_cancer'"),
        (lambda: softmax("diabetes"), "`data` must be one of breast_cancer, digits"),
        (lambda: ridge(regularization=0.0), "`regularization` must be a positive number, got 0.0"),
        (lambda: logistic(regularization=-1), "`regularization` must be a positive number"),
        (lambda: robust(width=float("nan")), "`width` must be a positive number"),
        (lambda: perceptron(hidden=0), "`hidden` must be a whole number of at least 1"),
        (lambda: perceptron(batch_size=0), "`batch_size` must be a whole number of at least 1"),
    ],
)
def test_unfit_arguments_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence.replace("(", r"\(")):
        make()
