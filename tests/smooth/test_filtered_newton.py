"""FilteredNewton against the filter as the paper states it, in gradients, and against Newton."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.problems import logistic_synthetic, quadratic
from raphson.smooth import FilteredNewton

N = 3


def problem_and_oracle(batch_size=8):
    problem = logistic_synthetic(40, N, regularization=0.05, batch_size=batch_size)

    def oracle(y, A, b):
        z = b * (A @ y)
        p = 1 / (1 + np.exp(z))
        value = np.mean(np.logaddexp(0, -z)) + 0.05 / 2 * y @ y
        gradient = -A.T @ (b * p) / len(z) + 0.05 * y
        return value, gradient, (A.T * (p * (1 - p))) @ A / len(z) + 0.05 * np.eye(N)

    return problem, oracle


def steps(batches, oracle, y, alpha, beta, step_size):
    """The paper's filter: the state m with covariance P, observed as g with Q."""
    S, m, one = beta / (1 - alpha**2) * np.eye(N), None, np.eye(N)
    inverse = np.linalg.inv
    for A, b in batches:
        value, g, H = oracle(y, A, b)
        H = H + 1e-6 * np.linalg.norm(H, 2) * one
        if m is None:
            m, P = g, H
        else:
            m, P = alpha * m, alpha**2 * P + beta * one
            proper = np.linalg.eigvalsh(inverse(H) - inverse(S)).min() > 1e-6 / S[0, 0]
            Q = H if proper else inverse(inverse(H) + inverse(S))
            after = inverse(inverse(P) + inverse(Q) - inverse(S))
            m, P = after @ (inverse(P) @ m + inverse(Q) @ g), after
        d, t = -inverse(P) @ m, step_size
        if step_size is None:
            t = 1.0
            assert g @ d < 0
            while oracle(y + t * d, A, b)[0] > value + 1e-4 * t * g @ d:
                t /= 2
        y = y + t * d
        yield y, P, t


# The second S is above all curvatures, the first is not.
@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.05), (0.9, 0.5), (0.0, 10.0)])
@pytest.mark.parametrize("step_size", [None, 1 / 16])
def test_directions_are_those_of_the_papers_filter(alpha, beta, step_size):
    problem, oracle = problem_and_oracle()
    method = FilteredNewton(jnp.array(alpha), jnp.array(beta), step_size)
    y, state = problem.y0, method.init(problem, problem.y0, jax.random.key(5))
    ys, covariances, batches, step = [], [], [], eqx.filter_jit(method.step)
    for _ in range(10):
        batches.append(tuple(map(np.asarray, problem.sample(jax.random.split(state.key)[1]))))
        y, state = step(problem, y, state)
        ys.append(y)
        covariances.append(state.covariance)
    expected, P, _ = zip(*steps(batches, oracle, np.zeros(N), alpha, beta, step_size), strict=True)
    np.testing.assert_allclose(ys, expected, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(covariances, P, rtol=1e-6, atol=1e-9)


def test_without_memory_is_newtons_method():
    problem = quadratic([0.5, 1.0, 4.0])
    method = FilteredNewton(0.0, 1e9, ridge=1e-12)
    solution = rp.solve(problem, method, max_steps=1, throw=False)
    np.testing.assert_allclose(solution.value, problem.facts.minimizer, atol=1e-9)


def test_singular_batches_do_no_harm():
    # Of two samples and five unknowns.
    problem = logistic_synthetic(50, 5, batch_size=2)
    solution = rp.solve(
        problem, FilteredNewton(step_size=0.02), key=jax.random.key(0), max_steps=300, throw=False
    )
    assert float(problem.value(solution.value)) < float(problem.value(problem.y0))


@pytest.mark.parametrize("beta", [1e-3, 1.0, 1e3])
def test_solves_exact_problems_whatever_the_units(beta):
    problem, _ = problem_and_oracle(None)
    solution = rp.solve(problem, FilteredNewton(beta=beta), rtol=0.0, atol=1e-7, max_steps=2000)
    np.testing.assert_allclose(solution.value, problem.facts.minimizer, atol=1e-5)


def test_oracle_calls():
    problem, _ = problem_and_oracle()
    method = FilteredNewton(step_size=0.1)
    solution = rp.solve(
        rp.Counted(problem), method, key=jax.random.key(0), max_steps=5, throw=False
    )
    counts = {name: int(count) for name, count in solution.stats.counts.items() if count > 0}
    assert counts == {"value": 1 + 5, "gradient": 1 + 5, "hessian": 5}


@pytest.mark.parametrize("bad", [{"alpha": 1.0}, {"beta": 0.0}, {"ridge": 0.0}, {"step_size": 0.0}])
def test_refuses(bad):
    with pytest.raises(ValueError, match=f"`{next(iter(bad))}` of FilteredNewton must be"):
        FilteredNewton(**bad)
