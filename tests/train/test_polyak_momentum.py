"""polyak_momentum against its formulas in NumPy, the method on all data, Optax, and its bound."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import raphson as rp
from raphson.train import polyak_momentum
from tests.train.descent import descended
from tests.train.walk import data

KINDS = pytest.mark.parametrize("kind", ["moving_average", "heavy_ball"])


def loss(x, sample):
    """A sum of squares that is not 0 at its least, and has no entry without the others."""
    off = jnp.concatenate([(leaf - s).ravel() for leaf, s in zip(x, sample, strict=True)])
    return jnp.sum(off**2) / 2 + jnp.sum(off) ** 2 / 20 + 0.3


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in tree])


def transcription(x, samples, greatest, m, kind, f_star, c):
    """The parameters after each sample, and what bounded the step size."""
    d, before = np.zeros_like(x), x
    for sample in samples:
        off = x - sample
        value, g = off @ off / 2 + np.sum(off) ** 2 / 20 + 0.3, off + np.sum(off) / 10
        if kind == "moving_average":
            d = g + m * d
            eta = (value - f_star) / (c * d @ d)
            x = x - min(max(eta, 0), greatest) * d
        else:
            eta = (value - f_star + m * g @ (x - before)) / (c * g @ g)
            x, before = x - min(max(eta, 0), greatest) * g + m * (x - before), x
        yield x, "none" if eta <= 0 else "greatest" if eta >= greatest else "free"


@KINDS
def test_is_the_algorithm(kind):
    x, samples = data(25)
    bounded = set()
    for settings in ((0.4, 0.5, 0.3, 1.0), (0.3, 0.9, 0.0, 2.0), (1.0, 0.9, 0.3, 1.0)):
        greatest, m, f_star, c = settings
        path = descended(polyak_momentum(greatest, m, kind, f_star, c), loss, x, samples)
        expected = transcription(flat(x), map(flat, samples), greatest, m, kind, f_star, c)
        for ours, (theirs, bound) in zip(path, expected, strict=True):
            np.testing.assert_allclose(flat(ours), theirs, rtol=1e-9, atol=1e-11)
            bounded.add(bound)
    below = {"none"} if kind == "heavy_ball" else set()
    assert bounded == {"greatest", "free"} | below


@KINDS
def test_on_all_data_it_is_the_method(kind):
    problem = rp.problems.quadratic(np.array([0.3, 1.0, 4.0]), seed=1)
    optimizer = polyak_momentum(1e9, 0.7, kind, -0.1)
    ours, theirs = (
        rp.trace(problem, method, every=1, max_steps=15, rtol=0.0, atol=0.0, throw=False)
        for method in (optimizer, rp.smooth.PolyakMomentum(-0.1, 0.7, kind))
    )
    np.testing.assert_allclose(ours.measures["gap"], theirs.measures["gap"], rtol=1e-9)


@KINDS
def test_without_momentum_it_is_optaxs_polyak_step(kind):
    x, samples = data(10)
    ours = descended(polyak_momentum(0.6, 0.0, kind, 0.1, 1.5), loss, x, samples)
    optaxs = optax.polyak_sgd(max_learning_rate=0.4, scaling=1.5, f_min=0.1)
    for a, b in zip(ours, descended(optaxs, loss, x, samples), strict=True):
        np.testing.assert_allclose(flat(a), flat(b), rtol=1e-10)


@pytest.mark.parametrize("momentum", [0.5, 0.99])
@pytest.mark.parametrize("greatest", [0.3, 1e3])
def test_the_moving_average_never_moves_away_from_what_fits_all(momentum, greatest):
    rng = np.random.default_rng(0)
    A, answer = rng.normal(size=(40, 6)) * np.geomspace(1, 10, 6), rng.normal(size=6)

    def misfit(x, a):
        return (a @ (x - jnp.asarray(answer))) ** 2 / 2

    samples = A[rng.integers(40, size=200)]
    path = descended(polyak_momentum(greatest, momentum), misfit, np.zeros(6), samples)
    away = np.linalg.norm(np.array(path) - answer, axis=1)
    assert np.all(np.diff(away) < 1e-12) and away[-1] < 0.9 * away[0]


@KINDS
def test_without_slope_or_gap_there_is_no_step(kind):
    optimizer, x = polyak_momentum(kind=kind), jnp.ones(2)
    for g, value in ((jnp.zeros(2), 1.0), (jnp.ones(2), 0.0), (jnp.ones(2), -1.0)):
        updates, _ = jax.jit(optimizer.update)(g, optimizer.init(x), x, value=value)
        np.testing.assert_array_equal(updates, 0)


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ({"momentum": 1.0}, "`momentum` of polyak_momentum must be a number in [0, 1), got 1.0."),
        ({"f_star": "0"}, "`f_star` of polyak_momentum must be a number in (-inf, inf), got '0'."),
        ({"c": 0.0}, "`c` of polyak_momentum must be a number in (0, inf), got 0.0."),
        (
            {"kind": "nesterov"},
            "`kind` of polyak_momentum must be one of 'moving_average', 'heavy_ball', "
            "got 'nesterov'.",
        ),
    ],
)
def test_unfit_hyperparameters_are_refused_in_one_sentence(named, says):
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        polyak_momentum(**named)
