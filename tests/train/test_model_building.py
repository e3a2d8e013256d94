"""Model building against the paper's formulas in NumPy, dense solves and steps worked by hand."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from raphson.train import model_building
from tests.train.descent import descended, logistic


def loss(x, rows):
    """Logistic, of two leaves."""
    return (
        jnp.mean(jax.nn.softplus(-rows @ jnp.append(x["w"].ravel(), x["b"]))) + 0.05 * x["b"] ** 2
    )


def paper_step(g, h, s, eta):
    """The update of a leaf by the coefficients that the paper gives."""
    y = h - g
    ss, yy, ys = np.sum(s**2), np.sum(y**2), np.sum(y * s)
    sigma = (np.sqrt(ss) * (np.sqrt(yy) + np.linalg.norm(g) / eta) - ys) / 2
    theta = (ys + 2 * sigma) ** 2 - ss * yy
    cg = -ss / (2 * sigma)
    cs = cg / theta * (-(ys + 2 * sigma) * np.sum(y * g) + yy * np.sum(s * g))
    cy = cg / theta * (-(ys + 2 * sigma) * np.sum(s * g) + ss * np.sum(y * g))
    return cg * g + cs * s + cy * y


@pytest.mark.parametrize(("rate", "c", "eta"), [(5.0, 0.1, 0.99), (1.0, 0.5, 0.3)])
def test_is_the_algorithm(rate, c, eta):
    samples = logistic(300, 5).reshape(20, 15, 5)
    start = x = {"w": np.zeros((2, 2)), "b": np.array(1.0)}
    value_and_grad = jax.jit(jax.value_and_grad(loss))
    expected, mended = [], 0
    for rows in samples:
        value, g = value_and_grad(x, rows)
        s = jax.tree.map(lambda g: -rate * np.asarray(g), g)
        ahead, h = value_and_grad(jax.tree.map(np.add, x, s), rows)
        if ahead > value - c * rate * sum(np.sum(leaf**2) for leaf in jax.tree.leaves(g)):
            s = jax.tree.map(lambda g, h, s: paper_step(g, h, s, eta), g, h, s)
            mended += 1
        x = jax.tree.map(np.add, x, s)
        expected.append(x)
    assert 4 <= mended <= 16
    path = descended(model_building(rate, c, eta), loss, start, samples)
    for ours, theirs in zip(path, expected, strict=True):
        for name in ("w", "b"):
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("epoch", "gamma"), [(1, 0.05), (4, 0.3), (7, 0.0)])
def test_learning_rates_change_between_epochs(epoch, gamma):
    # In a bowl every trial of a rate above 0.9 fails.
    def bowl(x, _):
        return jnp.sum(x**2)

    optimizer = model_building(1.5, epoch=epoch, gamma=gamma, beta=0.8, most=2.0)
    x = jnp.array([1.0, -2.0])
    rate, mended, state, rates = 1.5, 0, optimizer.init(x), []
    for t in range(1, 41):
        g = 2 * x
        value = bowl(x, None)
        fails = bowl(x - rate * g, None) > value - 0.1 * rate * jnp.sum(g**2)
        expected = paper_step(g, g - 2 * rate * g, -rate * g, 0.99) if fails else -rate * g
        extra = {"value": value, "value_fn": lambda x: bowl(x, None)}
        updates, state = optimizer.update(g, state, x, **extra)
        np.testing.assert_allclose(updates, expected, rtol=1e-6)
        x, mended = x + updates, mended + bool(fails)
        # Neither at the bottom nor far away.
        x = x / jnp.max(jnp.abs(x)) if jnp.any(x != 0) else jnp.array([1.0, -2.0])
        rates.append(rate)
        if t % epoch == 0:
            rate = 0.8 * rate if mended > gamma * epoch else min(rate / 0.8, 2.0)
            mended = 0
    ratios = np.unique(np.round(np.array(rates[1:]) / rates[:-1], 10))
    assert 0.8 in ratios and 1.25 in ratios


def test_an_epoch_may_have_its_share_of_mended_steps():
    # Of four steps, 1 is at most 0.3, and 2 are more.
    x, optimizer = jnp.zeros(2), model_building(1.0, epoch=4, gamma=0.3, beta=0.5)
    state, scales = optimizer.init(x), []
    for value in (-jnp.inf, *[jnp.inf] * 3, -jnp.inf, -jnp.inf, *[jnp.inf] * 2):
        _, state = optimizer.update(jnp.ones(2), state, x, value=value, value_fn=jnp.sum)
        scales.append(float(state.scale))
    assert scales == [1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 1.0]


def test_epochs_raise_the_learning_rate_to_the_greatest():
    def slope(x):
        return jnp.sum(x)

    x, optimizer = jnp.zeros(2), model_building(1.0, epoch=2, beta=0.5, most=3.0)
    state, rates = optimizer.init(x), []
    for _ in range(8):
        updates, state = optimizer.update(jnp.ones(2), state, x, value=slope(x), value_fn=slope)
        x, rates = x + updates, [*rates, -float(updates[0])]
    assert rates == [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 3.0, 3.0]


def mended(g, h, rate=0.7, eta=0.6):
    """The update where the trial fails, from the gradients at its ends."""
    optimizer = model_building(rate, 0.1, eta)

    def value_fn(x):
        return jnp.sum(h * x)

    # The slope is h wherever the trial leads; the value says that it failed.
    x = jnp.zeros_like(g)
    return optimizer.update(g, optimizer.init(x), x, value=-jnp.inf, value_fn=value_fn)[0]


def test_minimizes_the_model():
    rng, rate, eta = np.random.default_rng(0), 0.7, 0.6
    for _ in range(10):
        g, h = rng.normal(size=(2, 4)) * rng.exponential(size=(2, 1))
        s, y = -rate * g, h - g
        norms = np.linalg.norm(s), np.linalg.norm(y), np.linalg.norm(g)
        sigma = (norms[0] * (norms[1] + norms[2] / eta) - y @ s) / 2
        hessian = (2 * sigma * np.eye(4) + np.outer(s, y) + np.outer(y, s)) / (s @ s)
        np.testing.assert_allclose(mended(g, h), -np.linalg.solve(hessian, g), rtol=1e-11)


def test_mended_steps_by_hand():
    # The gradient stays, turns around, and turns aside: q = 0, 2 and 1.
    g = jnp.array([2.0, 0.0])
    np.testing.assert_allclose(mended(g, g, 1.0, 0.5), [-1.0, 0.0])
    np.testing.assert_allclose(mended(g, -g, 1.0, 0.5), [-1 / 3, 0.0], atol=1e-15)
    np.testing.assert_allclose(mended(g, jnp.array([2.0, 2.0]), 1.0, 0.5), [-0.75, -0.25])


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_no_mended_step_is_longer_than_eta_of_the_trial(scale):
    rng = np.random.default_rng(0)
    for spread in (1e-3, 1.0, 1e3):
        g, y = rng.normal(size=(2, 5)) * [[scale], [scale * spread]]
        step = mended(jnp.asarray(g), jnp.asarray(g + y))
        assert 0 < np.linalg.norm(step) <= 0.6 * 0.7 * np.linalg.norm(g)
        assert step @ g < 0


def test_a_leaf_at_rest_stays():
    x = {"w": jnp.ones(2), "still": jnp.zeros(3)}
    path = descended(
        model_building(1.0),
        lambda x, a: a * jnp.sum(x["w"] ** 2) + jnp.sum(x["still"] ** 2),
        x,
        jnp.array([3.0, 3.0]),
    )
    assert np.all(path[-1]["still"] == 0) and np.all(np.isfinite(path[-1]["w"]))


def test_all_leaves_are_tried_at_once():
    # Alone, the flat leaf would take its trial; the steep one's failure has both mended.
    def steep_and_flat(x, _):
        return 10.0 * x["steep"] ** 2 + 0.05 * x["flat"] ** 2

    start = {"steep": jnp.array(1.0), "flat": jnp.array(1.0)}
    (x,) = descended(model_building(1.0, eta=0.5), steep_and_flat, start, [0.0])
    q = 0.1
    np.testing.assert_allclose(x["flat"], 1 - 0.5 * 0.1 * (1 + q / 2 - q / 2) / (1 + q), rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_updates_are_as_gradients_and_nothing_large_is_held(dtype):
    x = {"w": jnp.ones((2, 3), dtype), "frozen": None}
    optimizer = model_building(optax.constant_schedule(3.0), epoch=1)
    state = optimizer.init(x)
    for value in (0.0, 1e3):
        updates, after = jax.jit(
            lambda value: optimizer.update(
                x, state, x, value=value, value_fn=lambda x: jnp.sum(x["w"] ** 2)
            )
        )(value)
        assert updates["w"].dtype == dtype
        assert [leaf.shape for leaf in jax.tree.leaves(after)] == [(), (), ()]
        assert jax.tree.map(jnp.result_type, state) == jax.tree.map(jnp.result_type, after)


def test_learning_rates_can_be_injected_scheduled_and_mapped_over():
    samples = logistic(40, 5).reshape(4, 10, 5)
    x = {"w": np.zeros((2, 2)), "b": np.array(1.0)}
    first, *_, plain = (y["w"] for y in descended(model_building(30.0), loss, x, samples))
    injected = optax.inject_hyperparams(model_building)(30.0)
    np.testing.assert_allclose(descended(injected, loss, x, samples)[-1]["w"], plain)
    scheduled = model_building(lambda count: jnp.where(count == 0, 30.0, 0.0))
    np.testing.assert_allclose(descended(scheduled, loss, x, samples)[-1]["w"], first)
    mapped = jax.vmap(lambda r: descended(model_building(r), loss, x, samples)[-1]["w"])
    np.testing.assert_allclose(mapped(jnp.array([1.0, 30.0]))[1], plain)


@pytest.mark.parametrize(
    ("name", "value", "range"),
    [
        ("learning_rate", -1.0, "[0, inf)"),
        ("c", 1.0, "[0, 1)"),
        ("eta", 0.0, "(0, 1)"),
        ("eta", 1.0, "(0, 1)"),
        ("gamma", 1.0, "[0, 1)"),
        ("beta", 1.0, "(0, 1)"),
        ("most", 0.0, "(0, inf)"),
    ],
)
def test_unfit_hyperparameters_are_refused_in_one_sentence(name, value, range):
    says = f"`{name}` of model_building must be a number in {range}, got {value!r}."
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        model_building(**{name: value})


def test_an_epoch_is_a_whole_number():
    with pytest.raises(ValueError, match="^`epoch` must be a whole number of at least 1, got 0.$"):
        model_building(epoch=0)


@pytest.mark.parametrize("name", ["value", "value_fn", "params"])
def test_what_an_update_needs_is_asked_for(name):
    x, optimizer = jnp.ones(2), model_building()
    given = {"params": x, "value": 1.0, "value_fn": jnp.sum} | {name: None}
    with pytest.raises(ValueError, match=f"^`{name}` must be given to the update of model_buil"):
        optimizer.update(x, optimizer.init(x), **given)
