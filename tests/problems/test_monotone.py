"""The constants that the sums of affine operators promise, from their matrices."""

import numpy as np
import pytest
import scipy.linalg

from raphson.problems.monotone import cocoercive_sum, monotone_sum


def moments(problem):
    A = np.asarray(problem.data[0])
    return A.mean(axis=0), (A.transpose(0, 2, 1) @ A).mean(axis=0)


def check_facts(problem):
    mean, _ = moments(problem)
    np.testing.assert_allclose(problem.operator(problem.facts.minimizer), 0, atol=1e-12)
    np.testing.assert_allclose(problem.facts.lipschitz, np.linalg.norm(mean, 2), rtol=1e-12)
    least = np.linalg.eigvalsh((mean + mean.T) / 2)[0]
    np.testing.assert_allclose(problem.facts.strong_convexity or 0, least, atol=1e-12)
    # What each sample says at the solution differs.
    at = problem.data[0] @ problem.facts.minimizer - problem.data[1]
    assert np.linalg.norm(at, axis=1).min() > 1e-3


@pytest.mark.parametrize("columns", [1, 3, 40])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_constant_of_the_samples_is_one(columns, seed):
    problem = cocoercive_sum(60, 8, columns, seed=seed)
    mean, squares = moments(problem)
    symmetric = (mean + mean.T) / 2
    of_samples = scipy.linalg.eigh(squares, symmetric, eigvals_only=True)[-1]
    np.testing.assert_allclose(of_samples, 1, rtol=1e-10)
    of_mean = scipy.linalg.eigh(mean.T @ mean, symmetric, eigvals_only=True)[-1]
    assert of_mean < (0.5 if columns < 8 else 1)
    # It is no gradient, unless there is one column.
    assert (np.linalg.norm(mean - mean.T) > 1e-3) == (columns > 1)
    check_facts(problem)


@pytest.mark.parametrize("seed", [0, 1])
def test_skew_operators_are_scaled_to_one(seed):
    problem = monotone_sum(60, 6, seed=seed)
    mean, squares = moments(problem)
    np.testing.assert_allclose(mean, -mean.T)
    np.testing.assert_allclose(np.linalg.norm(squares, 2), 1, rtol=1e-12)
    assert problem.facts.strong_convexity is None
    check_facts(problem)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: cocoercive_sum(2, 20), "`num_samples` must be at least"),
        (lambda: cocoercive_sum(columns=0), "`columns` must be a whole number"),
        (lambda: monotone_sum(n=3), "`n` must be even, got 3"),
        (lambda: monotone_sum(batch_size=0), "`batch_size` must be a whole number"),
    ],
)
def test_unfit_arguments_are_refused(build, says):
    with pytest.raises(ValueError, match=says):
        build()
