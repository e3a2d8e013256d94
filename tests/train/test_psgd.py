"""PSGD against transcriptions in NumPy, Newton's method, and what its choices must not change."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax.tree as otu
import pytest

from raphson.train import psgd
from tests.train.walk import data, walked

FORMS = ["kron", "dense", "triangular", "xmat", "low_rank"]
KEY = jax.random.key(0)


def whitened(leaf, gradients, lr, momentum, rate, every):
    """The parameters of one leaf by "QEQ", without damping."""
    a_matrix = leaf.ndim == 2
    factors = None
    m, path = np.zeros_like(leaf), []
    for t, g in enumerate(gradients, 1):
        shaped = g if a_matrix else g[:, None]
        if factors is None:
            scale = np.mean(g**4) ** (-1 / 8)
            if a_matrix:
                factors, bounds = [np.eye(2) * scale**0.5, np.eye(3) * scale**0.5], [0.0, 0.0]
            else:
                factors, bounds = [np.eye(4) * scale, np.eye(1)], [0.0]
        if (t - 1) % every == 0:
            p = [factor.T @ factor for factor in factors]
            a = p[0] @ shaped @ p[1]
            for axis in range(len(bounds)):
                rows = a if axis == 0 else a.T
                first, second = rows @ rows.T, rows.shape[1] * np.eye(len(rows))
                if axis == 1 or not a_matrix:
                    first = np.diag(np.diag(first))
                    size = np.max(np.diag(first + second))
                else:
                    both = first + second
                    column = both[:, np.argmax(np.linalg.norm(both, axis=0))]
                    size = np.linalg.norm(both @ column) / np.linalg.norm(column)
                bounds[axis] = max(0.9 * bounds[axis] + 0.1 * size, size)
                factors[axis] = factors[axis] @ (
                    np.eye(len(rows)) - rate / bounds[axis] * (first - second)
                )
        b = min(momentum, (t - 1) / t)
        m = b * m + (1 - b) * shaped.reshape(m.shape)
        p = [factor.T @ factor for factor in factors]
        u = p[0] @ (m if a_matrix else m[:, None]) @ p[1]
        leaf = leaf - (lr(t - 1) if callable(lr) else lr) * u.reshape(leaf.shape)
        path.append(leaf)
    return path


@pytest.mark.parametrize(
    "changed",
    [{}, {"every": 3}, {"momentum": 0.0}, {"rate": 0.5}, {"lr": lambda t: 0.1 / (1 + t)}],
)
def test_is_the_algorithm(changed):
    settings = {"lr": 0.03, "momentum": 0.9, "rate": 0.1, "every": 1} | changed
    x, gradients = data()
    optimizer = psgd(
        settings["lr"],
        momentum=settings["momentum"],
        preconditioner_rate=settings["rate"],
        every=settings["every"],
        coordinates="QEQ",
        damping=0.0,
    )
    path = walked(optimizer, x, gradients)
    for i in range(2):
        expected = whitened(x[i], [g[i] for g in gradients], **settings)
        np.testing.assert_allclose([y[i] for y in path], expected, rtol=0, atol=1e-12)


def newton(form, loss, x, steps, **settings):
    """Where it is after each step, and the state."""
    optimizer = psgd(form=form, whiten=False, **settings)

    def step(carry, _):
        x, state = carry
        updates, state = optimizer.update(jax.grad(loss)(x), state, x, value_fn=loss)
        return (x + updates, state), x + updates

    (_, state), path = jax.jit(lambda x: jax.lax.scan(step, (x, optimizer.init(x)), length=steps))(
        x
    )
    return path, state[0]


def test_newton_pairs_are_the_algorithm():
    hessian = np.array([[3.0, 1.0, 0.2], [1.0, 2.0, 0.0], [0.2, 0.0, 1.0]])
    start = jnp.array([1.0, -2.0, 3.0])
    path, _ = newton(
        "triangular", lambda x: x @ hessian @ x / 2, start, 20, learning_rate=0.2, damping=0.0
    )
    x, bound = np.asarray(start), 0.0
    for count, ours in enumerate(path):
        # The draw is the only thing taken from the optimizer.
        draw, _ = jax.random.split(jax.random.fold_in(KEY, count))
        v = np.asarray(otu.random_like(draw, start))
        h = hessian @ v
        if count == 0:
            q = np.eye(3) * np.mean(v**2) ** (1 / 4) * np.mean(h**4) ** (-1 / 8)
        a, b = q @ h, np.linalg.inv(q).T @ v
        size = a @ a + b @ b
        bound = max(0.9 * bound + 0.1 * size, size)
        q = q - 0.1 / bound * np.triu(np.outer(a, a) - np.outer(b, b)) @ q
        x = x - 0.2 * q.T @ q @ (hessian @ x)
        np.testing.assert_allclose(ours, x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", ["dense", "triangular", "low_rank"])
def test_becomes_newtons_method(form):
    # At the rate 1, once P is the inverse of the Hessian, one step ends at the minimizer.
    hessian = jnp.array([[3.0, 1.0, 0.2], [1.0, 2.0, 0.0], [0.2, 0.0, 1.0]])

    def loss(x):
        return (x - 1) @ hessian @ (x - 1) / 2 + 1e-3 * jnp.sum((x - 1) ** 4)

    path, _ = newton(form, loss, jnp.full(3, 3.0), 600, learning_rate=1.0, rank=3)
    np.testing.assert_allclose(path[-1], 1, rtol=0, atol=1e-12)


def test_forms_agree_on_one_parameter():
    x, gradients = data(10)
    paths = [
        walked(psgd(0.1, form, damping=0.0), x[0][0, 0], [g[0][0, 0] for g in gradients])
        for form in ("kron", "dense")
    ]
    np.testing.assert_allclose(*paths, rtol=1e-10)


@pytest.mark.parametrize(
    ("form", "whiten"), [*((form, False) for form in FORMS), ("kron", True), ("xmat", True)]
)
def test_any_tree_in_any_precision(form, whiten):
    x = {"w": jnp.ones((2, 3), jnp.bfloat16), "b": jnp.ones(()), "none": None}
    optimizer = psgd(0.1, form, whiten, rank=2)

    def loss(x):
        return jnp.sum(x["w"].astype(float) ** 2) + x["b"] ** 2

    state = optimizer.init(x)
    updates, after = jax.jit(lambda s: optimizer.update(x, s, x, value_fn=loss))(state)
    assert jax.tree.map(jnp.result_type, updates) == jax.tree.map(jnp.result_type, x)
    assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, x)
    assert jax.tree.map(jnp.result_type, after) == jax.tree.map(jnp.result_type, state)
    assert all(np.all(leaf < 0) for leaf in jax.tree.leaves(updates))


@pytest.mark.parametrize(
    ("form", "numbers"), [("kron", 4 + 3 + 4), ("dense", 100), ("triangular", 100), ("xmat", 20),
                          ("low_rank", 50)],
)  # fmt: skip
def test_state_is_as_large_as_the_group(form, numbers):
    x, _ = data()
    state = psgd(form=form, rank=2).init(x)[0]
    sizes = [leaf.size for leaf in jax.tree.leaves(state.q) if leaf.ndim and leaf.size > 3]
    sizes += [leaf.size for leaf in jax.tree.leaves(state.q) if form == "kron" and leaf.size == 3]
    assert sum(sizes) == numbers


def test_keys_draw_other_pairs():
    x, gradients = data(3)
    paths = [walked(psgd(0.1, "xmat", key=key), x, gradients)[-1][1] for key in (None, KEY)]
    np.testing.assert_array_equal(*paths)
    other = walked(psgd(0.1, "xmat", key=jax.random.key(1)), x, gradients)[-1][1]
    assert np.all(other != paths[0])


@pytest.mark.parametrize("form", FORMS)
def test_gradients_that_are_0_are_survived(form):
    x = [jnp.ones((2, 3)), jnp.ones(4)]
    zero, one = jax.tree.map(jnp.zeros_like, x), x
    path = walked(psgd(0.1, form, rank=2), x, [zero, zero, one])
    np.testing.assert_array_equal(path[1][0], 1)
    # Not by orders of magnitude more than what P of the identity would move.
    assert np.all(np.abs(path[2][0] - 1) < 0.2)


def test_is_refused_without_what_it_needs():
    x = jnp.ones(3)
    optimizer = psgd(whiten=False)
    state = optimizer.init(x)
    for name, given in (("params", (x, state)), ("value_fn", (x, state, x))):
        says = f"`{name}` must be given to the update of psgd, got None."
        with pytest.raises(ValueError, match=f"^{says}$"):
            optimizer.update(*given)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("learning_rate", -1.0, "`learning_rate` of psgd must be a number in [0, inf), got -1.0."),
        ("momentum", 1.0, "`momentum` of psgd must be a number in [0, 1), got 1.0."),
        ("damping", -1.0, "`damping` of psgd must be a number in [0, inf), got -1.0."),
        (
            "preconditioner_rate", 0.0,
            "`preconditioner_rate` of psgd must be a number in (0, 1], got 0.0.",
        ),
        ("every", 0, "`every` must be a whole number of at least 1, got 0."),
        ("rank", 0, "`rank` must be a whole number of at least 1, got 0."),
        (
            "form", "diagonal",
            "`form` of psgd must be one of 'kron', 'dense', 'triangular', 'xmat', 'low_rank', got "
            "'diagonal'.",
        ),
        (
            "coordinates", "EQ",
            "`coordinates` of psgd must be one of 'Q0.5EQ1.5', 'QEQ', got 'EQ'.",
        ),
    ],
)  # fmt: skip
def test_unfit_hyperparameters_are_refused_in_one_sentence(name, value, says):
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        psgd(**{name: value})
