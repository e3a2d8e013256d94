"""The four sources of digits against the digits themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from raphson.problems import data_reweighting


@pytest.mark.parametrize("seed", [0, 1])
def test_labels_are_what_is_said_of_each_source(seed):
    images, digits = load_digits(return_X_y=True)
    digit_of = {image.tobytes(): digit for image, digit in zip(images, digits, strict=True)}

    def digits_of(features):
        pixels = np.round(np.asarray(features)[:, :-1] * 16)
        return np.array([digit_of[image.tobytes()] for image in pixels])

    problem = data_reweighting(seed=seed)
    above, label = problem.upper_data
    np.testing.assert_array_equal(digits_of(above), label)
    features, told, source = map(np.asarray, problem.lower_data)
    right = digits_of(features)
    assert np.bincount(source).tolist() == [269] * 4
    shares = [np.mean(told[source == j] == right[source == j]) for j in range(4)]
    np.testing.assert_allclose(shares, (1, 0.6, 0.1, 0), atol=0.07)
    assert shares[0] == 1 and shares[3] == 0
    renamed = {(a, b) for a, b in zip(right[source == 3], told[source == 3], strict=True)}
    assert len(renamed) == 10 and len({b for _, b in renamed}) == 10

    seen = [image.tobytes() for image in np.concatenate([features, above])]
    held_out = [image.tobytes() for image in np.asarray(problem.args["held_out"][0])]
    assert not set(seen) & set(held_out) and len(held_out) == 359


def test_levels_and_metrics_in_closed_form():
    problem, rng = data_reweighting(batch_size=None), np.random.default_rng(0)
    x, y = rng.normal(size=4), 0.1 * rng.normal(size=(65, 10))
    features, told, source = map(np.asarray, problem.lower_data)
    p = np.exp(x) / np.exp(x).sum()

    def entropies(features, label):
        scores = features @ y
        return np.log(np.exp(scores).sum(1)) - scores[np.arange(len(label)), label]

    losses = entropies(features, told)
    expected = sum(p[j] * losses[source == j].mean() for j in range(4))
    expected += 1e-3 / 2 * np.sum(y**2)
    z = jnp.asarray(x), jnp.asarray(y)
    np.testing.assert_allclose(problem.lower_value(*z, None), expected, rtol=1e-12)
    above = entropies(*map(np.asarray, problem.upper_data)).mean()
    np.testing.assert_allclose(problem.upper_value(*z, None), above, rtol=1e-12)
    metrics = {name: float(of(z, problem.args)) for name, of in problem.metrics.items()}
    test, label = map(np.asarray, problem.args["held_out"])
    np.testing.assert_allclose(
        [metrics[name] for name in ("clean", "harmful", "entropy", "loss", "accuracy")],
        (
            *(p[0], p[1:].max(), -p @ np.log(p), entropies(test, label).mean()),
            np.mean(np.argmax(test @ y, 1) == label),
        ),
        rtol=1e-6,  # a share is counted in single precision
    )


def test_batches_are_unbiased():
    problem = data_reweighting(batch_size=32)
    z = jnp.array([1.0, 0.0, -1.0, 0.5]), jnp.tile(jnp.arange(10.0) / 10, (65, 1))
    keys = jax.random.split(jax.random.key(0), 500)
    drawn = jax.vmap(lambda key: problem.lower_value(*z, problem.sample(key)[1]))(keys)
    error = float(jnp.mean(drawn) - problem.lower_value(*z, None))
    assert abs(error) < 4 * float(jnp.std(drawn)) / 500**0.5


@pytest.mark.parametrize("regularization", [0.0, -1.0, "much"])
def test_unfit_arguments_are_refused(regularization):
    with pytest.raises(ValueError, match="`regularization` must be a positive number"):
        data_reweighting(regularization=regularization)
