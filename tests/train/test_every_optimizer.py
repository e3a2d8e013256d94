"""What every optimizer owes to the loop that it is used in."""

import inspect
import io
import pickle
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import raphson as rp
from raphson import train
from tests.train.walk import data, walked

# Each with how many buffers of the parameters' size its paper needs.
OPTIMIZERS = {
    "adamomentum": (train.adamomentum, 2),
    "adamp": (train.adamp, 2),
    "adan": (train.adan, 4),
    "adaptive_braking": (train.adaptive_braking, 1),
    "auon": (train.auon, 1),
    "diffgrad": (train.diffgrad, 3),
    "exadam": (train.exadam, 2),
    "induced_metric": (train.induced_metric, 1),
    "lion_k": (train.lion_k, 1),
    # With the default damping its steps are far too long near the minimizer of an exact loss.
    "mfac": (partial(train.mfac, damping=1.0), 33),
    "optimistic_amsgrad": (train.optimistic_amsgrad, 10),
    "psgd": (train.psgd, 1),
    "sgdp": (train.sgdp, 1),
    "shampoo": (train.shampoo, 2),
    "steepest_descent": (train.steepest_descent, 0),
}

DECAYING = [
    name for name, (make, _) in OPTIMIZERS.items() if "mask" in inspect.signature(make).parameters
]

every = pytest.mark.parametrize("name", OPTIMIZERS)


@every
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64])
def test_state_is_at_least_single_and_updates_are_as_gradients(name, dtype):
    make, buffers = OPTIMIZERS[name]
    x = {"w": jnp.ones((2, 3), dtype), "b": jnp.zeros((), dtype), "frozen": None}
    optimizer = make(optax.cosine_decay_schedule(0.1, 10))
    state = jax.eval_shape(optimizer.init, x)
    # Shapes and dtypes are known once the program is lowered; compiling it would add nothing.
    updates, after = jax.jit(optimizer.update).lower(x, state, x).out_info
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(updates))
    assert jax.tree.map(jnp.result_type, state) == jax.tree.map(jnp.result_type, after)
    shaped = [leaf for leaf in jax.tree.leaves(after) if jnp.shape(leaf)[-2:] == (2, 3)]
    assert sum(leaf.size for leaf in shaped) == 6 * buffers
    assert all(leaf.dtype == jnp.promote_types(dtype, jnp.float32) for leaf in shaped)


@every
def test_injected_hyperparameters_can_change_along_a_run(name):
    x, gradients = data(5)
    make = OPTIMIZERS[name][0]
    sizes = {"every", "history", "max_size", "rank"}
    whole = [argument for argument in inspect.signature(make).parameters if argument in sizes]
    optimizer = optax.inject_hyperparams(make, static_args=whole)(0.03)
    for ours, plain in zip(
        walked(optimizer, x, gradients), walked(make(0.03), x, gradients), strict=True
    ):
        for a, b in zip(ours, plain, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-13)
    state = optimizer.init(x)
    state.hyperparams["learning_rate"] = jnp.array(0.0)
    updates, _ = optimizer.update(gradients[0], state, x)
    assert all(np.all(leaf == 0) for leaf in updates)


# The steps ahead of the exception are taken back at the rate that they were taken at.
@pytest.mark.parametrize("name", sorted(OPTIMIZERS.keys() - {"optimistic_amsgrad"}))
def test_schedules_count_from_0(name):
    x, gradients = data(3)
    make = OPTIMIZERS[name][0]
    optimizer = make(lambda count: jnp.where(count == 1, 0.0, 0.1))
    first, second, third = walked(optimizer, x, gradients)
    np.testing.assert_allclose(first[1], walked(make(0.1), x, gradients)[0][1], rtol=1e-14)
    np.testing.assert_array_equal(first[1], second[1])
    assert np.all(second[1] != third[1])


@every
def test_state_is_saved_and_restored(name):
    x, gradients = data(3)
    optimizer = OPTIMIZERS[name][0](0.1)
    _, state = optimizer.update(gradients[0], optimizer.init(x), x)
    file = io.BytesIO()
    eqx.tree_serialise_leaves(file, state)
    file.seek(0)
    saved = eqx.tree_deserialise_leaves(file, optimizer.init(x))
    plain, _ = optimizer.update(gradients[1], state, x)
    for restored in (saved, pickle.loads(pickle.dumps(state))):
        again, _ = optimizer.update(gradients[1], restored, x, value=jnp.array(1.0))
        for a, b in zip(plain, again, strict=True):
            np.testing.assert_array_equal(a, b)


@every
def test_state_can_be_donated(name):
    x, gradients = data(2)
    optimizer = OPTIMIZERS[name][0](0.1)
    step = jax.jit(optimizer.update, donate_argnums=1)
    state = optimizer.init(x)
    for gradient in gradients:
        _, state = step(gradient, state, x)


@every
def test_solves_as_a_method(name):
    problem = rp.Minimize(
        lambda y, _: jnp.sum((y - 1.0) ** 2 * jnp.array([1.0, 9.0])), jnp.zeros(2)
    )
    schedule = optax.cosine_decay_schedule(0.05, 1000)
    solution = rp.solve(problem, OPTIMIZERS[name][0](schedule), max_steps=1000, throw=False)
    np.testing.assert_allclose(solution.value, 1.0, atol=1e-3)


@every
def test_learning_rates_can_be_mapped_over(name):
    x, gradients = data(3)
    make = OPTIMIZERS[name][0]
    last = jax.vmap(lambda rate: walked(make(rate), x, gradients)[-1])(jnp.array([0.01, 0.1]))
    np.testing.assert_allclose(last[1][1], walked(make(0.1), x, gradients)[-1][1], rtol=1e-13)


@every
def test_a_learning_rate_below_0_is_refused(name):
    with pytest.raises(ValueError, match=f"^`learning_rate` of {name} must be a number in .0, inf"):
        OPTIMIZERS[name][0](-1.0)


@pytest.mark.parametrize("name", DECAYING)
@pytest.mark.parametrize("mask", [[True, False], lambda tree: [True, False]])
def test_mask_spares_what_does_not_decay(name, mask):
    x, gradients = data(5)
    make = OPTIMIZERS[name][0]
    decayed, plain, masked = (
        walked(make(0.03, weight_decay=decay, mask=mask), x, gradients)[-1]
        for decay, mask in ((0.5, None), (0.0, None), (0.5, mask))
    )
    np.testing.assert_allclose(masked[0], decayed[0], rtol=1e-13)
    np.testing.assert_allclose(masked[1], plain[1], rtol=1e-13)
    assert np.all(masked[0] != plain[0])


@pytest.mark.parametrize("name", ["adamomentum", "exadam"])
def test_weights_decay_as_asked(name):
    x, gradients = data(1)
    make, rate, strength = OPTIMIZERS[name][0], 0.03, 0.5
    plain = walked(make(rate), x, gradients)[0][0] - x[0]
    shrinks = plain * x[0] <= 0
    assert np.any(shrinks) and not np.all(shrinks)
    for decay, expected in {
        "decoupled": x[0] + plain - rate * strength * x[0],
        "proximal": (x[0] + plain) / (1 + rate * strength),
        "cautious": x[0] + plain - rate * strength * np.where(shrinks, x[0], 0),
    }.items():
        ours = walked(make(rate, weight_decay=strength, decay=decay), x, gradients)[0][0]
        np.testing.assert_allclose(ours, expected, rtol=1e-13)
    says = "`decay` must be one of 'decoupled', 'proximal', 'cautious', got 'l2'."
    with pytest.raises(ValueError, match=f"^{says}$"):
        make(decay="l2")
