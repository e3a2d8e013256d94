"""aegd against its formulas in NumPy, the method on all data, and the identity of energies."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.problems import rosenbrock
from raphson.smooth import EnergyGradient
from raphson.train import aegd
from tests.train.descent import descended
from tests.train.walk import data


def loss(x, sample):
    """A sum of squares that is not 0 at its least, and has no entry without the others."""
    off = jnp.concatenate([(leaf - s).ravel() for leaf, s in zip(x, sample, strict=True)])
    return jnp.sum(off**2) / 2 + jnp.sum(off) ** 2 / 20 + 0.3


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in tree])


@pytest.mark.parametrize("eta", [0.03, 2.0])
@pytest.mark.parametrize("c", [0.1, 1.0])
def test_is_the_algorithm(eta, c):
    x, samples = data(25)
    path = descended(aegd(eta, c), loss, x, samples)
    x, r = flat(x), None
    for ours, sample in zip(path, map(flat, samples), strict=True):
        off = x - sample
        value, g = off @ off / 2 + np.sum(off) ** 2 / 20 + 0.3, off + np.sum(off) / 10
        v = g / (2 * np.sqrt(value + c))
        r = (np.sqrt(value + c) if r is None else r) / (1 + 2 * eta * v**2)
        x = x - 2 * eta * r * v
        np.testing.assert_allclose(flat(ours), x, rtol=1e-11)


@pytest.mark.parametrize("eta", [1e-3, 0.1])
def test_on_all_data_it_is_the_method(eta):
    ours, theirs = (
        rp.trace(rosenbrock(4), method, every=1, max_steps=20, rtol=0.0, atol=0.0)
        for method in (aegd(eta, 2.0), EnergyGradient(eta, 2.0, elementwise=True))
    )
    np.testing.assert_allclose(ours.measures["value"], theirs.measures["value"], rtol=1e-10)
    np.testing.assert_allclose(ours.solution.value, theirs.solution.value, rtol=1e-10)


@pytest.mark.parametrize("eta", [1e-3, 1.0, 1e3])
def test_energies_fall_whatever_the_rate(eta):
    x, samples = data(25)
    optimizer, r = aegd(eta), None
    update, state = jax.jit(optimizer.update), optimizer.init(x)
    for sample in samples:
        value, g = jax.value_and_grad(loss)(x, sample)
        before = np.full(10, np.sqrt(value + 1)) if r is None else r
        updates, state = update(g, state, x, value=value)
        x, r = [a + b for a, b in zip(x, updates, strict=True)], flat(state.r)
        left = before**2 - (r - before) ** 2 - flat(updates) ** 2 / eta
        np.testing.assert_allclose(r**2, left, atol=1e-12)
        assert np.all(r < before)


def test_a_loss_that_c_does_not_make_positive_is_not_passed_over():
    optimizer, x = aegd(c=0.5), jnp.ones(2)
    updates, _ = optimizer.update(x, optimizer.init(x), x, value=-1.0)
    assert np.all(np.isnan(updates))


def test_unfit_hyperparameters_are_refused_in_one_sentence():
    with pytest.raises(ValueError, match=re.escape("`c` of aegd must be a number in (0, inf)")):
        aegd(c=0.0)
