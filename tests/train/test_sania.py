"""SANIA against a transcription in NumPy, a solver of its subproblem, and other units."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import minimize

from raphson.train import sania
from tests.train.descent import descended, logistic
from tests.train.walk import data

KEY = jax.random.key(5)
DIAGONAL = ["adagrad_sqr", "adam_sqr", "adagrad", "adam", "hutchinson"]


def loss(x, sample):
    """A sum of squares that is not 0 at its least, and has no entry without the others."""
    off = jnp.concatenate([(leaf - s).ravel() for leaf, s in zip(x, sample, strict=True)])
    return jnp.sum(off**2) / 2 + jnp.sum(off) ** 2 / 20 + 0.3


def slope(off):
    return off + np.sum(off) / 10


def transcription(x, samples, preconditioner, f_star, b2, eps):
    """The parameters, flat, after each sample."""
    n = x.size
    hessian = np.eye(n) + np.ones((n, n)) / 10
    b, path = np.zeros(n), []
    for t, sample in enumerate(samples, 1):
        off = x - sample
        value, g = off @ off / 2 + np.sum(off) ** 2 / 20 + 0.3, slope(off)
        if preconditioner == "newton":
            s = np.linalg.solve(hessian, g)
        else:
            if preconditioner == "hutchinson":
                shapes = [np.zeros((2, 3)), np.zeros(4)]
                key = jax.random.fold_in(KEY, t - 1)
                z = optax.tree.random_like(key, shapes, jax.random.rademacher)
                z = np.concatenate([np.ravel(leaf) for leaf in z])
                b = b2 * b + (1 - b2) * z * (hessian @ z)
                metric = np.abs(b / (1 - b2**t))
            elif preconditioner.startswith("adagrad"):
                metric = b = b + g**2
            else:
                b = b2 * b + (1 - b2) * g**2
                metric = b / (1 - b2**t)
            metric = np.sqrt(metric) if preconditioner in ("adagrad", "adam") else metric
            s = g / (metric + eps)
        q, gap = g @ s, max(value - f_star, 0)
        a = 1 - np.sqrt(1 - 2 * gap / q) if 2 * gap <= q else 1.0
        x = x - a * s
        path.append(x)
    return path


@pytest.mark.parametrize("preconditioner", [*DIAGONAL, "newton"])
@pytest.mark.parametrize("changed", [{}, {"f_star": 0.2, "b2": 0.5, "eps": 1e-8}])
def test_is_the_algorithm(preconditioner, changed):
    settings = {"f_star": 0.0, "b2": 0.9, "eps": 0.1} | changed
    x, samples = data(20)
    flat = [np.concatenate([leaf.ravel() for leaf in sample]) for sample in samples]
    start = np.concatenate([leaf.ravel() for leaf in x])
    expected = transcription(start, flat, preconditioner, **settings)
    optimizer = sania(preconditioner=preconditioner, **settings, key=KEY)
    path = descended(optimizer, loss, x, samples)
    ours = [np.concatenate([np.ravel(leaf) for leaf in x]) for x in path]
    # Conjugate gradients stop at 1e-5 of the gradient; of two eigenvalues, two steps are exact.
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("start", [0.5, 4.0])
def test_step_solves_the_problem_that_it_is_derived_from(start):
    # Shortest in the metric B among those where the model is at most f_star.
    x, c = np.array([start, -start]), np.array([1.0, 2.0])

    def f(x, _):
        return jnp.sum(jnp.log(jnp.cosh(jnp.asarray(c) * x)))

    (after,) = descended(sania(preconditioner="adagrad"), f, x, [np.zeros(1)])
    value, g = float(f(x, None)), c * np.tanh(c * x)
    metric = np.abs(g)

    def model(d):
        return value + g @ d + d @ (metric * d) / 2

    least = minimize(model, np.zeros(2)).x
    if model(least) > 0:
        np.testing.assert_allclose(after - x, least, rtol=1e-5)
    else:
        shortest = minimize(
            lambda d: d @ (metric * d) / 2,
            least,
            constraints={"type": "ineq", "fun": lambda d: -model(d)},
            options={"ftol": 1e-14},
        ).x
        np.testing.assert_allclose(after - x, shortest, rtol=1e-5)


@pytest.mark.parametrize(
    ("preconditioner", "invariant"),
    [("adagrad_sqr", True), ("adam_sqr", True), ("newton", True), ("adagrad", False)],
)
def test_other_units_change_nothing(preconditioner, invariant):
    a, units = logistic(), 10.0 ** np.array([-1.0, 1, 0.5, 0, -0.5, 1])
    rows = np.arange(60).reshape(12, 5)

    def f(x, sample):
        return jnp.mean(jnp.logaddexp(0, -sample @ x)) + (preconditioner == "newton") * (
            jnp.sum((x / scale) ** 2) / 20
        )

    paths = []
    for scale in (np.ones(6), 1 / units):
        optimizer = sania(preconditioner=preconditioner, eps=0.0)
        path = descended(optimizer, f, np.zeros(6), [a[row] / scale for row in rows])
        paths.append(np.array(path) / scale)
    apart = np.max(np.abs(paths[0] - paths[1])) / np.max(np.abs(paths[0]))
    assert apart < 1e-4 if invariant else apart > 0.1


def test_without_slope_or_gap_there_is_no_step():
    optimizer = sania(eps=0.0)
    x = jnp.ones(2)
    state = optimizer.init(x)
    for g, value in ((jnp.zeros(2), 1.0), (jnp.ones(2), 0.0), (jnp.ones(2), -1.0)):
        updates, _ = optimizer.update(g, state, x, value=value)
        np.testing.assert_array_equal(updates, 0)


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ({"b2": 1.0}, "`b2` of sania must be a number in [0, 1), got 1.0."),
        ({"eps": -1.0}, "`eps` of sania must be a number in [0, inf), got -1.0."),
        ({"f_star": "0"}, "`f_star` of sania must be a number in (-inf, inf), got '0'."),
        (
            {"preconditioner": "shampoo"},
            "`preconditioner` of sania must be one of 'adagrad_sqr', 'adam_sqr', 'adagrad', "
            "'adam', 'hutchinson', 'newton', got 'shampoo'.",
        ),
    ],
)
def test_unfit_hyperparameters_are_refused_in_one_sentence(named, says):
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        sania(**named)
