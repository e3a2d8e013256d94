import numpy as np
import pytest

from raphson.race.profiles import best_ratios, data_profile, performance_profile

# Three methods on three problems. The least cost is 10, 10 and 30, so the ratios are
# A: 1, 2, -;  B: 2, 1, -;  C: 1, -, 1.
COSTS = np.array([[10.0, 20.0, np.inf], [20.0, 10.0, np.inf], [10.0, np.inf, 30.0]])


def listed(curves):
    return [(xs.tolist(), [pytest.approx(share) for share in shares]) for xs, shares in curves]


def test_performance_profile_by_hand():
    assert [(list(xs), list(ys)) for xs, ys in performance_profile(COSTS)] == listed(
        [
            (np.array([1.0, 2.0]), [1 / 3, 2 / 3]),
            (np.array([1.0, 2.0]), [1 / 3, 2 / 3]),
            (np.array([1.0]), [2 / 3]),
        ]
    )


def test_data_profile_by_hand():
    assert [(list(xs), list(ys)) for xs, ys in data_profile(COSTS)] == listed(
        [
            (np.array([10.0, 20.0]), [1 / 3, 2 / 3]),
            (np.array([10.0, 20.0]), [1 / 3, 2 / 3]),
            (np.array([10.0, 30.0]), [1 / 3, 2 / 3]),
        ]
    )


def test_a_start_that_solves_costs_nothing():
    ratios = best_ratios(np.array([[0.0], [5.0], [np.inf]]))
    assert ratios.ravel().tolist() == [1.0, np.inf, np.inf]


def test_a_problem_that_nobody_solved_counts():
    [(factors, shares)] = performance_profile(np.array([[4.0, np.inf]]))
    assert (factors.tolist(), shares.tolist()) == ([1.0], [0.5])
