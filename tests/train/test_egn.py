"""EGN against dense Gauss-Newton systems in NumPy, least squares, and damping worked by hand."""

import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from raphson.train import egn

RNG = np.random.default_rng(0)
INPUTS = jnp.array(RNG.normal(size=(6, 4)))
TARGETS = {
    "squared": jnp.array(RNG.normal(size=(6, 3))),
    "softmax": jnp.array([0, 2, 1, 1, 0, 2]),
}
START = {"w": jnp.array(RNG.normal(size=(4, 5))), "v": jnp.array(RNG.normal(size=(5, 3)))}


def model(params, x):
    return jnp.tanh(x @ params["w"]) @ params["v"]


def flat(tree):
    return np.concatenate([np.asarray(tree["w"]).ravel(), np.asarray(tree["v"]).ravel()])


def unflat(x):
    return {"w": jnp.asarray(x[:20].reshape(4, 5)), "v": jnp.asarray(x[20:].reshape(5, 3))}


OUTPUTS = jax.jit(lambda x: jax.vmap(model, (None, 0))(unflat(x), INPUTS).ravel())
JACOBIAN = jax.jit(jax.jacfwd(OUTPUTS))


def pieces(x, loss):
    """The batch's loss, the Jacobian of the outputs, and the loss's derivatives by them."""
    outputs, jacobian = np.asarray(OUTPUTS(x)).reshape(6, 3), np.asarray(JACOBIAN(x))
    if loss == "squared":
        r = outputs - TARGETS[loss]
        return np.sum(r**2) / 2 / 6, jacobian, r.ravel(), np.eye(18)
    p = np.exp(outputs) / np.sum(np.exp(outputs), axis=1, keepdims=True)
    targets = np.eye(3)[np.asarray(TARGETS[loss])]
    q = np.zeros((18, 18))
    for i, row in enumerate(p):
        q[3 * i : 3 * i + 3, 3 * i : 3 * i + 3] = np.diag(row) - np.outer(row, row)
    return -np.mean(np.log(np.sum(p * targets, axis=1))), jacobian, (p - targets).ravel(), q


def walked(loss, steps, **settings):
    optimizer = egn(model, loss=loss, **settings)

    @jax.jit
    def step(x, state):
        updates, state = optimizer.update(x, state, x, inputs=INPUTS, targets=TARGETS[loss])
        return optax.apply_updates(x, updates), state

    x, state, path = START, optimizer.init(START), []
    for _ in range(steps):
        x, state = step(x, state)
        path.append((flat(x), float(state.damping)))
    return path


@pytest.mark.parametrize("loss", ["squared", "softmax"])
@pytest.mark.parametrize(
    "changed",
    [{}, {"momentum": 0.8}, {"adaptive": True}, {"learning_rate": lambda t: 0.5 / (1 + t)}],
)
def test_is_the_algorithm(loss, changed):
    # By the dense system in the parameters, whose solution least changes momentum times the last.
    settings = {"learning_rate": 0.5, "damping": 0.1, "momentum": 0.0, "adaptive": False} | changed
    rate, damping = settings["learning_rate"], settings["damping"]
    x, d = flat(START), np.zeros(35)
    for t, (ours, next_damping) in enumerate(walked(loss, 20, **settings)):
        value, jacobian, r, q = pieces(x, loss)
        g, hessian = jacobian.T @ r / 6, jacobian.T @ q @ jacobian / 6
        kept = settings["momentum"] * d
        d = np.linalg.solve(hessian + damping * np.eye(35), damping * kept - g)
        step = (rate(t) if callable(rate) else rate) * d
        if settings["adaptive"]:
            promised = -(g @ step + step @ hessian @ step / 2)
            ratio = (value - pieces(x + step, loss)[0]) / promised
            damping *= 0.5 if ratio > 0.75 else 2.0 if ratio < 0.25 else 1.0
        x = x + step
        np.testing.assert_allclose(ours, x, rtol=0, atol=1e-8)
        np.testing.assert_allclose(next_damping, damping, rtol=1e-12)


@pytest.mark.parametrize(
    ("loss", "by_hand"),
    [
        ("squared", lambda output, target: jnp.sum((output - target) ** 2) / 2),
        ("softmax", lambda output, target: jax.nn.logsumexp(output) - output[target]),
    ],
)
def test_losses_can_be_given(loss, by_hand):
    given = {"inputs": INPUTS, "targets": TARGETS[loss]}
    results = []
    for way in (loss, by_hand):
        optimizer = egn(model, loss=way)
        updates, _ = jax.jit(optimizer.update)(START, optimizer.init(START), START, **given)
        results.append(flat(updates))
    np.testing.assert_allclose(*results, rtol=0, atol=1e-12)


@pytest.mark.parametrize("samples", [3, 30])
def test_one_step_solves_linear_least_squares(samples):
    # With fewer samples than parameters, the solution nearest to the start.
    inputs, targets = RNG.normal(size=(samples, 10)), RNG.normal(size=(samples, 1))
    optimizer = egn(lambda w, x: jnp.atleast_1d(x @ w), damping=1e-8)
    start = jnp.array(RNG.normal(size=10))
    updates, _ = optimizer.update(
        start, optimizer.init(start), start, inputs=inputs, targets=targets
    )
    expected = np.linalg.lstsq(inputs, targets[:, 0] - inputs @ start, rcond=None)[0]
    np.testing.assert_allclose(updates, expected, rtol=0, atol=1e-6)


def test_damping_adapts_by_hand():
    # One sample, the output w^2 and the target 0, at w = 1: r = 1 and J = 2, so that with damping
    # 4 d = -2 / (4 + 4) = -1/4. The model says 2/4 - 4/16/2 = 3/8, and the loss falls by
    # (1 - (3/4)^4) / 2 = 0.342: more than three quarters.
    optimizer = egn(lambda w, x: w**2, damping=4.0, adaptive=True)
    w = jnp.ones(1)
    given = {"inputs": jnp.zeros((1, 1)), "targets": jnp.zeros((1, 1))}
    updates, state = optimizer.update(w, optimizer.init(w), w, **given)
    np.testing.assert_allclose(updates, -0.25, rtol=1e-12)
    assert state.damping == 2
    # Five times as far, to w = -1/4, the model says that the loss rises by 5/8.
    far = egn(lambda w, x: w**2, 5.0, damping=4.0, adaptive=True)
    assert far.update(w, far.init(w), w, **given)[1].damping == 8


def test_a_line_search_can_follow():
    def loss(x, inputs, targets):
        return jnp.mean(jnp.sum((jax.vmap(model, (None, 0))(x, inputs) - targets) ** 2, axis=1)) / 2

    given = {"inputs": INPUTS, "targets": TARGETS["squared"]}
    optimizer = optax.chain(egn(model, damping=1e-6), optax.scale_by_backtracking_linesearch(20))
    x, state, values = START, optimizer.init(START), []

    @jax.jit
    def step(x, state):
        value, g = jax.value_and_grad(loss)(x, **given)
        updates, state = optimizer.update(g, state, x, value=value, grad=g, value_fn=loss, **given)
        return optax.apply_updates(x, updates), state, value

    for _ in range(15):
        x, state, value = step(x, state)
        values.append(value)
    assert np.all(np.diff(values) <= 0) and values[-1] < 1e-6


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_low_precision_is_computed_in_single(dtype):
    x = jax.tree.map(lambda leaf: leaf.astype(dtype), START)
    inputs = INPUTS.astype(jnp.float32)
    optimizer = egn(model, loss="softmax", adaptive=True)
    state = optimizer.init(x)
    updates, after = jax.jit(
        lambda s: optimizer.update(x, s, x, inputs=inputs, targets=TARGETS["softmax"])
    )(state)
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(updates))
    assert jax.tree.map(jnp.result_type, state) == jax.tree.map(jnp.result_type, after)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(after.direction))
    again = pickle.loads(pickle.dumps(after))
    jax.tree.map(np.testing.assert_array_equal, again, after)


def test_is_refused_without_what_it_needs():
    optimizer = egn(model)
    state = optimizer.init(START)
    given = {"params": START, "inputs": INPUTS, "targets": TARGETS["squared"]}
    for name in given:
        says = f"`{name}` must be given to the update of egn, got None."
        rest = {key: value for key, value in given.items() if key != name}
        with pytest.raises(ValueError, match=f"^{says}$"):
            optimizer.update(START, state, **rest)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"damping": 0.0}, "`damping` of egn must be a number in (0, inf), got 0.0."),
        ({"momentum": 1.0}, "`momentum` of egn must be a number in [0, 1), got 1.0."),
        ({"loss": "l1"}, "`loss` of egn must be 'squared', 'softmax' or a function, got 'l1'."),
        ({"learning_rate": -1.0}, "`learning_rate` of egn must be a number in [0, inf), got -1.0."),
        ({"model": None}, "`model` must be a function, got None."),
    ],
)
def test_unfit_hyperparameters_are_refused_in_one_sentence(options, says):
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        egn(**({"model": model} | options))
