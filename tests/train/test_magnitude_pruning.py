"""Global magnitude pruning against sorting by hand, and what stays pruned under any optimizer."""

import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from raphson.train import magnitude_mask, magnitude_pruning

RNG = np.random.default_rng(0)
PARAMS = {
    "large": jnp.array(RNG.normal(size=(8, 10))),
    "small": jnp.array(0.01 * RNG.normal(size=(5, 6, 2))),
    "bias": jnp.array(RNG.normal(size=4)),
    "none": None,
}
masked = jax.jit(magnitude_mask, static_argnums=(2, 3))


def counts(mask):
    return {name: int(leaf.sum()) for name, leaf in mask.items() if leaf is not None}


@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.5, 0.9, 0.999, 1.0])
def test_keeps_the_largest_of_all(sparsity):
    mask = masked(PARAMS, sparsity)
    pooled = np.abs(np.concatenate([PARAMS["large"].ravel(), PARAMS["small"].ravel()]))
    kept = np.concatenate([mask["large"].ravel(), mask["small"].ravel()])
    assert kept.sum() == round((1 - sparsity) * 140)
    if 0 < sparsity < 1:
        assert pooled[kept].min(initial=np.inf) > pooled[~kept].max()
    assert mask["bias"].all()
    assert jax.tree.structure(mask) == jax.tree.structure(PARAMS)


def test_floor_keeps_the_largest_of_each_leaf():
    # The small leaf is a hundred times smaller, and cut off without the floor.
    assert counts(masked(PARAMS, 0.95)) == {"large": 7, "small": 0, "bias": 4}
    mask = masked(PARAMS, 0.95, 2)
    assert counts(mask) == {"large": 5, "small": 2, "bias": 4}
    for name in ("large", "small"):
        size = np.abs(PARAMS[name])
        assert size[mask[name]].min() > size[~mask[name]].max()
    # Floors that are more than the sparsity leaves go before it, and end with the leaf.
    assert counts(masked(PARAMS, 0.95, 5)) == {"large": 5, "small": 5, "bias": 4}
    assert counts(masked(PARAMS, 0.95, 1000)) == {"large": 80, "small": 60, "bias": 4}


def test_equal_sizes_keep_the_first():
    mask = masked(jnp.array([[1.0, -1.0, 1.0], [-1.0, 1.0, 1.0]]), 0.5)
    np.testing.assert_array_equal(mask, [[True, True, True], [False, False, False]])


def test_prunable_leaves_can_be_named():
    by_function = magnitude_mask(PARAMS, 0.5, 0, lambda params: {
        "large": False, "small": False, "bias": True, "none": None
    })  # fmt: skip
    assert counts(by_function) == {"large": 80, "small": 60, "bias": 2}
    sizes = {name: np.abs(PARAMS[name]).ravel() for name in ("large", "small", "bias")}
    middle = np.median(np.concatenate([*sizes.values()]))
    expected = {name: np.sum(size > middle) for name, size in sizes.items()}
    assert counts(magnitude_mask(PARAMS, 0.5, 0, True)) == expected
    assert counts(magnitude_mask(PARAMS, 0.5, 0, False)) == {"large": 80, "small": 60, "bias": 4}


def test_mixed_dtypes_are_compared_by_value():
    params = [jnp.array([[1.0, 4.0]], jnp.bfloat16), jnp.array([[3.0, 2.0]])]
    mask = magnitude_mask(params, 0.5)
    np.testing.assert_array_equal(mask[0], [[False, True]])
    np.testing.assert_array_equal(mask[1], [[True, False]])


def run(optimizer, steps, params=PARAMS):
    """The parameters after each step towards 0.3, and the last state."""

    @jax.jit
    def step(params, state):
        gradient = jax.tree.map(lambda leaf: leaf - 0.3, params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    path, state = [params], optimizer.init(params)
    for _ in range(steps):
        params, state = step(params, state)
        path.append(params)
    return path, state


@pytest.mark.parametrize("inner", [optax.adam(0.05), optax.sgd(0.1, momentum=0.9)])
def test_what_is_pruned_stays_0_and_the_rest_trains_as_alone(inner):
    path, state = run(magnitude_pruning(inner, 0.8, least_kept=3), 6)
    mask = magnitude_mask(PARAMS, 0.8, 3)
    jax.tree.map(np.testing.assert_array_equal, state.mask, mask)
    alone, _ = run(inner, 6)
    for after, plain in zip(path[1:], alone[1:], strict=True):
        expected = jax.tree.map(lambda keep, leaf: jnp.where(keep, leaf, 0), mask, plain)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-14), after, expected
        )


def test_sparsity_rises_by_its_schedule_and_nothing_comes_back():
    schedule = optax.polynomial_schedule(0.0, 0.9, 3, 12, 2)
    path, _ = run(magnitude_pruning(optax.adam(0.01), schedule, every=3), 20)
    zeros = [sum(int((leaf[name] == 0).sum()) for name in ("large", "small")) for leaf in path]
    # As the paper has it, at the last step of which the mask is.
    for step in range(20):
        t = step // 3 * 3
        share = 0.9 - 0.9 * (1 - np.clip((t - 2) / 12, 0, 1)) ** 3
        assert zeros[step + 1] == 140 - round((1 - share) * 140)
    for before, after in zip(path[:-1], path[1:], strict=True):
        for name in ("large", "small"):
            assert np.all(np.asarray(after[name])[np.asarray(before[name]) == 0] == 0)


def test_inner_sees_no_gradient_of_what_is_taken_out_and_all_extra_arguments():
    def update(updates, state, params=None, *, value):
        return updates, (updates, value)

    inner = optax.GradientTransformationExtraArgs(lambda params: (params, jnp.zeros(())), update)
    optimizer = magnitude_pruning(inner, 0.5)
    x = jnp.array([[3.0, -0.1], [0.5, -2.0]])
    _, state = optimizer.update(jnp.ones((2, 2)), optimizer.init(x), x, value=7.0)
    np.testing.assert_array_equal(state.inner[0], [[1, 0], [0, 1]])
    assert state.inner[1] == 7


def test_updates_have_the_dtypes_of_the_optimizer_and_the_state_pickles():
    x = {"w": jnp.ones((2, 2), jnp.bfloat16), "b": jnp.zeros(2, jnp.bfloat16)}
    optimizer = magnitude_pruning(optax.adam(0.1), 0.5)
    updates, state = jax.jit(optimizer.update)(x, optimizer.init(x), x)
    assert jax.tree.map(jnp.result_type, updates) == jax.tree.map(jnp.result_type, x)
    again = pickle.loads(pickle.dumps(state))
    assert jax.tree.structure(again) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, again, state)


def test_sparsity_can_be_injected():
    optimizer = optax.inject_hyperparams(magnitude_pruning, static_args=("every", "least_kept"))
    path, _ = run(optimizer(optax.sgd(0.1), sparsity=0.5), 1)
    plain, _ = run(magnitude_pruning(optax.sgd(0.1), 0.5), 1)
    jax.tree.map(np.testing.assert_array_equal, path[-1], plain[-1])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sparsity": 1.1}, "`sparsity` of magnitude_pruning must be a number in [0, 1], got 1.1."),
        ({"every": 0}, "`every` must be a whole number of at least 1, got 0."),
        ({"least_kept": -1}, "`least_kept` must be a whole number of at least 0, got -1."),
    ],
)
def test_unfit_arguments_are_refused_in_one_sentence(options, says):
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        magnitude_pruning(optax.sgd(0.1), **({"sparsity": 0.5} | options))
    with pytest.raises(ValueError, match=r"^`sparsity` of magnitude_mask must be .* got -0.5.$"):
        magnitude_mask(PARAMS, -0.5)
