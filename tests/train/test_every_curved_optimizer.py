"""What every optimizer that asks for the loss, or its function, owes to its loop."""

import inspect
import io
import pickle
import re
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import raphson as rp
from raphson import train
from tests.train.descent import descended
from tests.train.walk import data

# Each with how many buffers of the parameters' size its paper needs, and what it cannot go without.
OPTIMIZERS = {
    "adahessian": (train.adahessian, 2, ("params", "value_fn")),
    "aegd": (train.aegd, 1, ("value",)),
    "oasis": (train.oasis, 2, ("params", "value_fn")),
    "polyak_momentum": (train.polyak_momentum, 1, ("value",)),
    "saddle_free": (train.saddle_free, 1, ("params", "value_fn")),
    "sania": (train.sania, 1, ("value",)),
    "sania_hutchinson": (
        partial(train.sania, preconditioner="hutchinson"),
        1,
        ("params", "value", "value_fn"),
    ),
    "sania_newton": (
        partial(train.sania, preconditioner="newton"),
        0,
        ("params", "value", "value_fn"),
    ),
    "tngd": (partial(train.tngd, learning_rate=0.3), 1, ("params",)),
}

every = pytest.mark.parametrize("name", OPTIMIZERS)


def bowl(x, shift=0.0):
    leaves = jax.tree.leaves(x)
    return sum(jnp.sum((leaf - shift) ** 2) for leaf in leaves) / 2


def called(optimizer, x, state, **changed):
    """An update on a bowl with all that can be asked for."""
    value, grad = jax.value_and_grad(bowl)(x)
    extra = {"params": x, "value": value, "grad": grad, "value_fn": bowl} | changed
    return optimizer.update(grad, state, **extra)


@every
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64])
def test_state_is_at_least_single_and_updates_are_as_gradients(name, dtype):
    make, buffers, _ = OPTIMIZERS[name]
    x = {"w": jnp.ones((2, 3), dtype), "b": jnp.zeros((), dtype), "frozen": None}
    optimizer = make()
    state = optimizer.init(x)
    updates, after = jax.jit(partial(called, optimizer))(x, state)
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(updates))
    assert np.all(np.asarray(updates["w"], float) < 0)
    assert jax.tree.map(jnp.result_type, state) == jax.tree.map(jnp.result_type, after)
    # In all, 7 parameters; what is left is scalars.
    large = [leaf for leaf in jax.tree.leaves(after) if jnp.shape(leaf) in ((2, 3), (7,))]
    assert sum(leaf.size // 6 for leaf in large) == buffers
    assert all(leaf.dtype == jnp.promote_types(dtype, jnp.float32) for leaf in large)


@every
def test_injected_hyperparameters_make_the_same_run(name):
    x, samples = data(4)
    make = OPTIMIZERS[name][0]
    defaults = {p.name: p.default for p in inspect.signature(make).parameters.values()}
    whole = [argument for argument, default in defaults.items() if type(default) is int]
    plain = descended(make(), shifted, x, samples)
    injected = optax.inject_hyperparams(make, static_args=whole)()
    injected = descended(injected, shifted, x, samples)
    for ours, theirs in zip(injected, plain, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


@every
def test_state_is_saved_restored_and_donated(name):
    x, optimizer = data(1)[0], OPTIMIZERS[name][0]()
    step = jax.jit(partial(called, optimizer))
    _, state = step(x, optimizer.init(x))
    file = io.BytesIO()
    eqx.tree_serialise_leaves(file, state)
    file.seek(0)
    saved = eqx.tree_deserialise_leaves(file, optimizer.init(x))
    plain, _ = step(x, state)
    for restored in (saved, pickle.loads(pickle.dumps(state))):
        again, _ = step(x, restored)
        for a, b in zip(plain, again, strict=True):
            np.testing.assert_array_equal(a, b)
    step = jax.jit(partial(called, optimizer), donate_argnums=1)
    _, state = step(x, optimizer.init(x))
    step(x, state)


@every
def test_solves_as_a_method(name):
    problem = rp.Minimize(
        lambda y, _: jnp.sum((y - 1.0) ** 2 * jnp.array([1.0, 9.0])), jnp.zeros(2)
    )
    solution = rp.solve(problem, OPTIMIZERS[name][0](), max_steps=500, throw=False)
    np.testing.assert_allclose(solution.value, 1.0, atol=1e-2)


@every
def test_what_is_not_given_is_named(name):
    make, _, needed = OPTIMIZERS[name]
    x, optimizer = jnp.ones(2), make()
    owner = getattr(make, "func", make).__name__
    for missing in needed:
        says = f"`{missing}` must be given to the update of {owner}, got None."
        with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
            called(optimizer, x, optimizer.init(x), **{missing: None})


@pytest.mark.parametrize(
    "name", ["adahessian", "aegd", "polyak_momentum", "saddle_free", "sania", "tngd"]
)
def test_learning_rates_are_checked_and_scheduled(name):
    make = getattr(train, name)
    with pytest.raises(ValueError, match=f"^`learning_rate` of {name} must be a number in .0, inf"):
        make(-1.0)
    x, samples = data(3)
    optimizer = make(lambda count: jnp.where(count == 1, 0.0, 0.1))
    first, second, third = descended(optimizer, shifted, x, samples)
    np.testing.assert_allclose(
        first[1], descended(make(0.1), shifted, x, samples)[0][1], rtol=1e-12
    )
    np.testing.assert_array_equal(first[1], second[1])
    assert np.all(second[1] != third[1])


def test_mask_spares_what_does_not_decay():
    x, samples = data(5)
    decayed, plain, masked = (
        descended(train.adahessian(0.03, weight_decay=decay, mask=mask), shifted, x, samples)[0]
        for decay, mask in ((0.5, None), (0.0, None), (0.5, [True, False]))
    )
    np.testing.assert_allclose(masked[0], decayed[0], rtol=1e-13)
    np.testing.assert_allclose(masked[1], plain[1], rtol=1e-13)
    assert np.all(masked[0] != plain[0])


def shifted(x, sample):
    return sum(jnp.sum((leaf - s) ** 2) for leaf, s in zip(x, sample, strict=True)) / 2
