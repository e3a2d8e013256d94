"""ReinMax and straight-through against the exact gradient, by going through all categories."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from raphson.train import reinmax, straight_through

K = 5
RNG = np.random.default_rng(0)
LOGITS = jnp.array(RNG.normal(size=K))
LINEAR, QUADRATIC = RNG.normal(size=K), RNG.normal(size=(K, K))
LOSSES = {
    "linear": lambda d: d @ LINEAR,
    "quadratic": lambda d: d @ LINEAR + d @ QUADRATIC @ d,
    "cubic": lambda d: (d @ LINEAR) ** 3,
}
KEYS = jax.random.split(jax.random.key(0), 200)
DRAWN = np.argmax(jax.vmap(lambda key: straight_through(key, LOGITS)[0])(KEYS), axis=1)


def mean_estimate(draw, loss):
    """Over all categories, each by a key that draws it."""
    keys = KEYS[np.array([np.argmax(DRAWN == category) for category in range(K)])]
    assert len(np.unique(DRAWN)) == K
    gradients = jax.vmap(lambda key: jax.grad(lambda x: loss(draw(key, x)[0]))(LOGITS))(keys)
    return jax.nn.softmax(LOGITS) @ gradients


def exact(loss):
    return jax.grad(lambda x: jax.nn.softmax(x) @ jax.vmap(loss)(jnp.eye(K)))(LOGITS)


@pytest.mark.parametrize(
    ("draw", "name", "right"),
    [
        (straight_through, "linear", True),
        (straight_through, "quadratic", False),
        (reinmax, "linear", True),
        (reinmax, "quadratic", True),
        (reinmax, "cubic", False),
    ],
)
def test_is_right_on_the_mean_up_to_its_order(draw, name, right):
    error = np.max(np.abs(mean_estimate(draw, LOSSES[name]) - exact(LOSSES[name])))
    assert error < 1e-14 if right else error > 1e-2


def test_gradients_follow_the_formula():
    a, c = RNG.normal(size=K), RNG.normal(size=K)
    p = np.array(jax.nn.softmax(LOGITS))
    warm = np.array(jax.nn.softmax(LOGITS / 1.7))

    def spread(p, a):
        return (np.diag(p) - np.outer(p, p)) @ a

    drawn, probabilities = reinmax(KEYS[0], LOGITS, 1.7)
    np.testing.assert_array_equal(drawn, np.eye(K)[DRAWN[0]])
    np.testing.assert_allclose(probabilities, p, rtol=1e-14)

    def both(draw, *options):
        drawn, probabilities = draw(KEYS[0], LOGITS, *options)
        _, pull = jax.vjp(lambda x: draw(KEYS[0], x, *options), LOGITS)
        return pull((jnp.asarray(a), jnp.asarray(c)))[0]

    expected = spread((warm + drawn) / 2, 2 * a) + spread(p, c - a / 2)
    np.testing.assert_allclose(both(reinmax, 1.7), expected, rtol=1e-12)
    np.testing.assert_allclose(both(straight_through), spread(p, a + c), rtol=1e-12)


@pytest.mark.parametrize("draw", [reinmax, straight_through])
def test_draws_by_the_probabilities(draw):
    keys = jax.random.split(jax.random.key(1), 4000)
    drawn, p = jax.vmap(lambda key: draw(key, LOGITS))(keys)
    errors = np.sqrt(p[0] * (1 - p[0]) / 4000)
    assert np.all(np.abs(drawn.mean(axis=0) - p[0]) < 5 * errors)


@pytest.mark.parametrize("draw", [reinmax, straight_through])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_rows_draw_for_themselves_in_their_dtype(draw, dtype):
    logits = jnp.zeros((3, 50, K), dtype)

    def loss(logits):
        drawn, _ = draw(KEYS[0], logits)
        return jnp.sum(drawn[..., 0]), drawn

    gradient, drawn = jax.jit(jax.grad(loss, has_aux=True))(logits)
    assert drawn.dtype == gradient.dtype == dtype and drawn.shape == logits.shape
    np.testing.assert_array_equal(drawn.sum(axis=-1), 1)
    assert np.all(drawn.sum(axis=(0, 1)) > 0)
    np.testing.assert_allclose(np.asarray(gradient.sum(axis=-1), float), 0, atol=1e-2)


@pytest.mark.parametrize("draw", [reinmax, straight_through])
def test_categories_ruled_out_are_never_drawn_and_get_no_gradient(draw):
    logits = jnp.array([0.0, -jnp.inf, 1.0])
    gradient = jax.grad(lambda x: draw(KEYS[0], x)[0] @ jnp.array([1.0, 2.0, 4.0]))(logits)
    assert np.isfinite(gradient).all() and gradient[1] == 0 and gradient[0] != 0


def test_low_temperatures_are_refused_in_one_sentence():
    says = r"^`temperature` of reinmax must be a number in \[1, inf\), got 0.5.$"
    with pytest.raises(ValueError, match=says):
        reinmax(KEYS[0], LOGITS, 0.5)
