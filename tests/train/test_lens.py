"""Lenses against JAX's own derivatives, and against loops that Optax's optimizers are used in."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from raphson.train import (
    Learner,
    Lens,
    from_optax,
    gradient_learner,
    reverse_derivative,
    to_optax,
)

RNG = np.random.default_rng(0)
W = [RNG.normal(size=size) for size in ((4, 3), (2, 4), (3, 2))]
A, B, C = RNG.normal(size=3), RNG.normal(size=2), RNG.normal(size=3)


def layer(x):
    w, a = x
    return jnp.tanh(w @ a)


def assert_same(a, b, rtol=1e-12):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol), a, b)


def test_composition_is_the_chain_rule():
    functions = [jnp.sin, lambda a: a[::-1] * a, lambda a: jnp.cumsum(a) ** 2]
    f, g, h = map(reverse_derivative, functions)
    whole = reverse_derivative(lambda a: functions[2](functions[1](functions[0](a))))
    for lens in ((f >> g) >> h, f >> (g >> h), Lens() >> f >> g >> h >> Lens()):
        assert_same(lens.get(A), whole.get(A))
        assert_same(lens.put(A, C), whole.put(A, C))


def test_lenses_side_by_side_do_not_meet():
    f, g = reverse_derivative(jnp.sin), Lens(lambda a: a + 1, lambda a, b: a * b)
    both = f * g
    assert_same(both.get((A, B)), (np.sin(A), B + 1))
    assert_same(both.put((A, B), (C, B)), (np.cos(A) * C, B * B))


def test_layers_compose_along_their_inputs():
    one = reverse_derivative(layer, Learner)
    composed = (one >> one) >> one
    nested = ((W[0], W[1]), W[2])

    def whole(x):
        ((u, v), w), a = x
        return layer((w, layer((v, layer((u, a))))))

    assert_same(composed.get((nested, A)), whole((nested, A)))
    assert_same(composed.put((nested, A), C), jax.vjp(whole, (nested, A))[1](C)[0])
    other = (one >> (one >> one)).put(((W[0], (W[1], W[2])), A), C)
    ((u, v), w), da = composed.put((nested, A), C)
    assert_same(other, ((u, (v, w)), da))


def sigmoid(x, y):
    return jax.nn.sigmoid(x) - y


ERRORS = [(), (sigmoid, sigmoid)]  # half the square; cross-entropy of logits


@pytest.mark.parametrize("error", ERRORS)
def test_learner_follows_its_formula(error):
    learner = gradient_learner(layer, 0.1, *error)
    out = layer((W[0], A))
    target = RNG.normal(size=4)
    slope = jax.nn.sigmoid(out) - target if error else out - target
    dw, da = jax.vjp(layer, (W[0], A))[1](slope)[0]
    better = (jax.nn.sigmoid(A) if error else A) - da
    assert_same(learner.put((W[0], A), target), (W[0] - 0.1 * dw, better))


@pytest.mark.parametrize("error", ERRORS)
def test_composite_of_learners_is_the_learner_of_the_composite(error):
    one, two = (gradient_learner(layer, 0.1, *error) for _ in range(2))

    def whole(x):
        (u, v), a = x
        return layer((v, layer((u, a))))

    def beside(x):
        (u, v), (a, b) = x
        return layer((u, a)), layer((v, b))

    x, both = ((W[0], W[1]), A), ((W[0], W[2]), (A, B))
    assert_same((one >> two).put(x, B), gradient_learner(whole, 0.1, *error).put(x, B), 1e-10)
    targets = RNG.normal(size=4), C
    expected = gradient_learner(beside, 0.1, *error).put(both, targets)
    assert_same((one * two).put(both, targets), expected)
    assert (one * two).get(both)[1].shape == (3,)


def test_one_lens_is_a_step_of_training():
    optimizer, target = optax.adam(0.03), RNG.normal(size=4)
    model = reverse_derivative(layer, Learner)
    loss = reverse_derivative(lambda b: jnp.sum((b - target) ** 2))
    step = (from_optax(optimizer) * Lens()) >> model >> loss
    state, w = optimizer.init(W[0]), W[0]
    carry = state, w
    for _ in range(10):
        carry, _ = jax.jit(step.put)((carry, A), 1.0)
        gradient = jax.grad(lambda w: loss.get(layer((w, A))))(w)
        updates, state = optimizer.update(gradient, state, w)
        w = optax.apply_updates(w, updates)
    assert_same(carry, (state, w), 1e-10)


def test_the_input_can_be_trained_instead():
    # Deep dreaming: the optimizer stands at the input.
    optimizer = optax.sgd(0.1)
    model = reverse_derivative(layer, Learner)
    dream = (Lens() * from_optax(optimizer)) >> model >> reverse_derivative(jnp.sum)
    _, (_, a) = dream.put((W[0], (optimizer.init(A), A)), -1.0)
    assert_same(a, A + 0.1 * jax.grad(lambda a: jnp.sum(layer((W[0], a))))(A))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64])
def test_goes_to_optax_and_back(dtype):
    optimizer, x = optax.adamw(0.1), {"w": jnp.asarray(W[0], dtype)}
    again = to_optax(from_optax(optimizer), optimizer.init)
    state = again.init(x)
    ours, after = jax.jit(again.update)(x, state, x, value=jnp.array(1.0))
    plain, expected = optimizer.update(x, optimizer.init(x), x)
    assert ours["w"].dtype == dtype
    assert_same(after, expected, 1e-6)
    np.testing.assert_allclose(
        np.asarray(ours["w"], float),
        np.asarray(plain["w"], float),
        atol=1e-12 + (dtype != jnp.float64) * 1e-2,
    )


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Lens(1.0), "`get` must be a function, got 1.0."),
        (lambda: gradient_learner(layer, 0.1, sigmoid), "`slope` and `toward` must be given tog"),
        (
            lambda: to_optax(Lens(), jnp.zeros_like).update(A, A),
            "`params` must be given to the update of to_optax, got None.",
        ),
    ],
)
def test_what_is_unfit_is_refused_in_one_sentence(call, says):
    with pytest.raises(ValueError, match=f"^{re.escape(says)}"):
        call()
