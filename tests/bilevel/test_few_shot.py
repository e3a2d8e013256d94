"""Few-shot learning: the levels by hand, the inference against NumPy, and what is refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.bilevel import FewShot, NormalInverseWishart, adapted
from raphson.problems import few_shot_digits

SCALES = np.array([0.5, 2.0, 1.0])


def loss(y, sample, scales):
    return jnp.sum(scales * (y - sample) ** 2) / 2


def diagonal(tasks=4, **options):
    """A loss with a diagonal second derivative, which random signs then find exactly."""
    support, query = (jax.random.normal(jax.random.key(n), (tasks, n, 3)) for n in (2, 5))
    start = jnp.array([0.1, -0.2, 0.3])
    return FewShot(loss, start, support, query, SCALES, variance=0.5, **options)


def test_levels_by_hand():
    problem = diagonal()
    x = {"mean": jnp.array([1.0, 2.0, 3.0]), "log_variance": jnp.array([0.1, -0.2, 0.4])}
    y = jax.random.normal(jax.random.key(9), (4, 3))
    query, support = np.asarray(problem.upper_data), np.asarray(problem.lower_data)
    of, (mean, spread) = np.asarray(y), (np.asarray(x[name]) for name in ("mean", "log_variance"))
    each = lambda data: [np.mean(((s - of) ** 2 @ SCALES) / 2) for s, of in zip(data, of)]
    prior = np.sum((of - mean) ** 2 / np.exp(spread), axis=1) / 2
    np.testing.assert_allclose(problem.upper_value(x, y, None), np.mean(each(query)))
    lower = np.mean(each(support) + prior / 2)
    np.testing.assert_allclose(problem.lower_value(x, y, None), lower)
    np.testing.assert_allclose(problem.y0[0]["log_variance"], np.log(0.5))
    np.testing.assert_array_equal(problem.y0[1], np.tile(problem.y0[0]["mean"], (4, 1)))


def test_new_task_is_adapted_to_the_most_probable_weights():
    x = {"mean": jnp.array([1.0, 2.0, 3.0]), "log_variance": jnp.array([-2.0, 0.0, 2.0])}
    support = np.random.default_rng(0).standard_normal((4, 3))
    found = adapted(loss, x, jnp.asarray(support), SCALES, 200, 0.4)
    precision = np.exp(-np.asarray(x["log_variance"]))
    expected = (SCALES * support.sum(0) + precision * x["mean"]) / (4 * SCALES + precision)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    # A step is implicit in the prior, and so no narrow one makes it diverge.
    narrow = x | {"log_variance": jnp.full(3, -30.0)}
    found = adapted(loss, narrow, jnp.asarray(support), SCALES, 200, 0.4)
    np.testing.assert_allclose(found, x["mean"], rtol=1e-6)


@pytest.mark.parametrize("drawn", [None, 2])
def test_follows_the_algorithm(drawn):
    problem, key = diagonal(tasks_per_step=drawn), jax.random.key(4)
    method = NormalInverseWishart(0.3, 3, 0.2, 1.5, 2)
    options = {"rtol": 0.0, "atol": 0.0, "throw": False}
    x, y = rp.solve(problem, method, key=key, max_steps=8, **options).value

    samples = np.concatenate([problem.upper_data, problem.lower_data], axis=1)
    first = mean = np.asarray(problem.y0[0]["mean"])
    variance, weights = np.full(3, 0.5), np.tile(mean, (4, 1))
    for _ in range(8):
        chosen = np.arange(4)
        if drawn:
            key, now = jax.random.split(key)
            chosen = np.asarray(problem.sample(now)[0][0])
        key, _ = jax.random.split(key)
        own = np.tile(mean, (len(chosen), 1))
        for _ in range(3):
            gradient = SCALES * (own - samples[chosen].mean(axis=1))
            own = (own - 0.2 * gradient + 0.2 / 7 / variance * mean) / (1 + 0.2 / 7 / variance)
        weights[chosen] = own
        spread = 1 / (7 * SCALES + 1 / variance)
        mean = mean + 0.3 * ((own.mean(0) + 1.5 / 4 * first) / (1 + 1.5 / 4) - mean)
        seen = np.mean(spread + (own - mean) ** 2, axis=0)
        goal = (seen + 1.5 / 4 * (0.5 + (mean - first) ** 2)) / (1 + 1.5 / 4)
        variance = variance + 0.3 * (goal - variance)
    np.testing.assert_allclose(x["mean"], mean, rtol=1e-10)
    np.testing.assert_allclose(np.exp(x["log_variance"]), variance, rtol=1e-10)
    np.testing.assert_allclose(y, weights, rtol=1e-10)


def test_inference_is_expectation_maximization():
    """Where posteriors are normal and independent, each step raises the evidence."""
    problem = diagonal(30)
    samples = np.concatenate([problem.upper_data, problem.lower_data], axis=1)

    def evidence(x):
        mean, spread = (np.asarray(x[name]) for name in ("mean", "log_variance"))
        total = np.exp(spread) + 1 / (7 * SCALES)
        return -np.mean(np.log(total) + (samples.mean(1) - mean) ** 2 / total)

    method = NormalInverseWishart(1.0, 100, 0.4, prior=0.0)
    y, state = problem.y0, method.init(problem, problem.y0, jax.random.key(0))
    step, raised = eqx.filter_jit(method.step), []
    for _ in range(10):
        before = evidence(y[0])
        y, state = step(problem, y, state)
        raised.append(evidence(y[0]) - before)
    assert min(raised) > 0 and raised[-1] < raised[0] / 100


def test_tree_of_weights_in_single_precision():
    support, query = (jax.random.normal(jax.random.key(n), (4, n, 3), "float32") for n in (2, 5))
    flat = lambda y: jnp.append(y["u"], y["v"])
    of_tree = lambda y, sample, _: jnp.sum((flat(y) - sample) ** 2)
    start = {"u": jnp.zeros(2, "float32"), "v": jnp.zeros((), "float32")}
    problem = FewShot(of_tree, start, support, query, tasks_per_step=2)
    options = {"key": jax.random.key(0), "max_steps": 5, "throw": False}
    x, y = rp.solve(problem, NormalInverseWishart(), **options).value
    assert jax.tree.structure(x["mean"]) == jax.tree.structure(start)
    assert {leaf.dtype.name for leaf in jax.tree.leaves((x, y))} == {"float32"}


def test_other_methods_answer_it():
    problem, method = diagonal(), rp.bilevel.ImplicitGradient(1.0)
    (x, y), before = rp.solve(problem, method, max_steps=20, throw=False).value, problem.y0
    assert problem.upper_value(x, y, None) < problem.upper_value(*before, None)


def test_digits_are_five_in_their_order_and_samples_of_one_task_differ():
    problem = few_shot_digits(tasks=12, shots=3, seed=1)
    for data in (problem.lower_data, problem.upper_data):
        pixels, label = data
        assert pixels.shape == (12, 15, 65)
        np.testing.assert_array_equal(label, np.tile(np.repeat(np.arange(5), 3), (12, 1)))
    from sklearn.datasets import load_digits

    images, digit = load_digits(return_X_y=True)
    kept = np.arange(len(digit)) % 5 != 4
    known = {image.tobytes(): (i, d) for i, (image, d) in enumerate(zip(images / 16, digit))}
    for task in range(12):
        both = np.vstack([problem.lower_data[0][task], problem.upper_data[0][task]])
        found = [known[row.tobytes()] for row in both[:, :64]]
        assert len({i for i, _ in found}) == 30 and all(kept[i] for i, _ in found)
        digits = [d for _, d in found[:15:3]]
        assert digits == sorted(set(digits))
        np.testing.assert_array_equal([d for _, d in found], np.tile(np.repeat(digits, 3), 2))


def test_metrics_of_digits_are_those_of_adapted_weights():
    problem = few_shot_digits(tasks=2, shots=2)
    x = problem.y0[0]
    measured = {name: of((x, None), problem.args) for name, of in problem.metrics.items()}
    (support, label), (query, truth) = jax.tree.map(np.asarray, problem.args)
    right = []
    for a, b, c, d in zip(support, label, query, truth):
        y = np.zeros((65, 5))
        for _ in range(50):
            p = np.exp(a @ y)
            p /= p.sum(axis=1, keepdims=True)
            gradient = a.T @ (p - np.eye(5)[b]) / len(b) + y / len(b)
            y -= 0.5 / (1 + 0.5 / len(b)) * gradient
        right.append(np.mean(np.argmax(c @ y, axis=1) == d))
    np.testing.assert_allclose(measured["accuracy"], np.mean(right), rtol=1e-6)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: diagonal(tasks_per_step=5), "at most the number of blocks, 4, got 5"),
        (lambda: FewShot(loss, 0.0, jnp.ones((2, 2)), jnp.ones((3, 2))), "common leading axis"),
        (
            lambda: FewShot(loss, 0.0, jnp.ones((2, 2)), jnp.ones((2, 2)), variance=0.0),
            "`variance` must be a number",
        ),
        (lambda: FewShot("loss", 0.0, jnp.ones((2, 2)), jnp.ones((2, 2))), "`loss` must be"),
        (lambda: few_shot_digits(shots=100), "`shots` must be at most"),
        (lambda: NormalInverseWishart(1.5), "`step_size` of NormalInverseWishart must be"),
        (lambda: NormalInverseWishart(inner_steps=0), "`inner_steps` must be"),
        (lambda: NormalInverseWishart(lower_step_size=0.0), "`lower_step_size` of"),
        (lambda: NormalInverseWishart(prior=-1.0), "`prior` of"),
        (lambda: NormalInverseWishart(probes=0), "`probes` must be"),
    ],
)
def test_refuses_what_is_unfit(call, message):
    with pytest.raises(ValueError, match=message):
        call()
