import numpy as np

from raphson.problems import first_order_lower_bound, nesterov_worst


def test_smooth_bound_is_half_attained_by_the_worst_chain():
    # Conjugate gradients are the best that combinations of gradients can do on a quadratic.
    t = 20
    problem = nesterov_worst(2 * t + 1)
    H = np.asarray(problem.hessian(problem.y0).as_matrix())
    y = np.asarray(problem.facts.minimizer)
    b = H @ y
    best = -b[:t] @ np.linalg.solve(H[:t, :t], b[:t]) / 2 + b @ y / 2
    bound = first_order_lower_bound(t, 1.0, np.linalg.norm(y))
    assert 1 <= best / bound <= 2


def test_strongly_convex_bound():
    # q = (10 - 1) / (10 + 1)
    bound = first_order_lower_bound([0, 1], 1.0, 2.0, 0.01)
    np.testing.assert_allclose(bound, [0.02, 0.02 * (9 / 11) ** 2])
