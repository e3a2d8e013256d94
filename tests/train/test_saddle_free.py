"""saddle_free against |H| as the root of H^2 on a space that QR spans, and known saddles."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

import raphson as rp
from raphson.train import saddle_free
from tests.train.descent import descended

N = 6
BASIS = np.linalg.qr(np.random.default_rng(0).normal(size=(N, N)))[0]
A = (BASIS * np.linspace(-2, 3, N)) @ BASIS.T


def loss(x, sample):
    """A quartic with negative curvature near 0, whose slope the sample turns."""
    x = jnp.append(x["u"].ravel(), x["v"])
    return jnp.vdot(x, jnp.asarray(A) @ x) / 2 + jnp.sum(x**4) / 4 - jnp.vdot(sample, x)


def transcription(x, samples, rate, rank, damping):
    step = np.zeros(N)
    for sample in samples:
        value = lambda x: x @ A @ x / 2 + np.sum(x**4) / 4 - sample @ x  # noqa: B023
        g, H = A @ x + x**3 - sample, A + 3 * np.diag(x**2)
        span = [np.linalg.matrix_power(H, i) @ g for i in range(rank)]
        Q = np.linalg.qr(np.stack(span + ([step] if np.any(step) else []), 1))[0]
        T = Q.T @ H @ Q
        size, unit = scipy.linalg.sqrtm(T @ T).real, np.eye(len(T))
        largest = np.linalg.norm(T, 2)
        tried = [damping] if damping else [largest * 10.0**-p for p in range(7)]
        steps = [-Q @ np.linalg.solve(size + d * unit, Q.T @ g) for d in tried]
        step = steps[int(np.argmin([value(x + step) for step in steps]))]
        x = x + rate * step
        yield x


@pytest.mark.parametrize(("rank", "damping"), [(1, None), (3, None), (3, 0.7)])
def test_is_the_algorithm(rank, damping):
    rng = np.random.default_rng(1)
    x, samples = 0.3 * rng.normal(size=N), rng.normal(size=(6, N))
    start = {"u": x[:4].reshape(2, 2), "v": x[4:]}
    optimizer = saddle_free(0.5, rank, damping)
    path = descended(optimizer, loss, start, samples)
    expected = transcription(x, samples, 0.5, rank, damping)
    for ours, theirs in zip(path, expected, strict=True):
        flat = np.append(np.ravel(ours["u"]), ours["v"])
        np.testing.assert_allclose(flat, theirs, rtol=1e-7, atol=1e-8)


def test_a_whole_space_is_the_dense_method():
    problem = rp.Minimize(
        lambda y, _: loss({"u": y[:4], "v": y[4:]}, jnp.ones(N)), 0.3 * np.ones(N)
    )
    ours, theirs = (
        rp.solve(problem, method, rtol=0, atol=0, max_steps=4, throw=False).value
        for method in (saddle_free(rank=N, damping=0.5), rp.smooth.SaddleFreeNewton(0.5))
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_leaves_a_saddle_by_a_factor_that_is_known():
    # On a quadratic each entry is multiplied by 1 - l / (|l| + d), which is beyond 1 for l < 0.
    l, d = np.array([-1.0, -1e-3, 5.0]), 1e-4
    path = descended(
        saddle_free(rank=3, damping=d), lambda x, l: jnp.vdot(x, l * x) / 2, np.ones(3), [l] * 3
    )
    factors = 1 - l / (np.abs(l) + d)
    np.testing.assert_allclose(path, factors ** np.arange(1, 4)[:, None], rtol=1e-6, atol=1e-9)


def test_no_slope_is_no_step_and_a_loss_that_is_nan_is_not_taken():
    optimizer, x = saddle_free(rank=2), jnp.ones(2)

    @partial(jax.jit, static_argnums=0)
    def updated(value_fn):
        g = jax.grad(value_fn)(x)
        return optimizer.update(g, optimizer.init(x), x, value_fn=value_fn)[0]

    np.testing.assert_array_equal(updated(lambda x: jnp.sum((x - 1) ** 2)), 0)
    np.testing.assert_allclose(updated(lambda x: jnp.sum(x**2) / 2), -1.0, atol=1e-5)
    # Of the seven steps only the most damped one, half of Newton's, stays before the wall.
    walled = lambda x: jnp.where(x[0] > 0.4, jnp.sum(x**2) / 2, jnp.nan)
    np.testing.assert_allclose(updated(walled), -0.5)


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ({"damping": 0.0}, "`damping` of saddle_free must be a number in (0, inf), got 0.0."),
        ({"rank": 0}, "`rank` must be a whole number of at least 1, got 0."),
    ],
)
def test_unfit_hyperparameters_are_refused_in_one_sentence(named, says):
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        saddle_free(**named)
