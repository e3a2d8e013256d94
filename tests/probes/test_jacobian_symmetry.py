"""The symmetric share of Jacobians that are known."""

import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.probes import jacobian_symmetry


def linear(matrix):
    return rp.RootFind(lambda y, A: A @ y, jnp.zeros(len(matrix)), jnp.asarray(matrix))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_of_a_sum_of_both_parts(share):
    # Two matrices of the same norm.
    S, A = np.array([[1.0, 0.0], [0.0, -1.0]]), np.array([[0.0, 1.0], [-1.0, 0.0]])
    found = jacobian_symmetry(linear(share * S + (1 - share) * A), jnp.ones(2))
    np.testing.assert_allclose(found, share, atol=1e-12)


def test_of_a_fixed_point_over_a_tree():
    # T(y) - y has the Jacobian [[-1, 2], [0, -1]]: |S|^2 = 2 + 2 and |A|^2 = 2.
    problem = rp.FixedPoint(lambda y, _: {"u": 2 * y["v"], "v": 0 * y["u"]}, {"u": 0.0, "v": 0.0})
    np.testing.assert_allclose(jacobian_symmetry(problem, problem.y0), 2 / (2 + np.sqrt(2)))


def test_a_jacobian_of_zero_is_symmetric():
    assert jacobian_symmetry(linear(np.zeros((2, 2))), jnp.ones(2)) == 1.0


def test_what_has_no_square_jacobian_is_refused():
    with pytest.raises(ValueError, match="`problem` must be made of equations, got a Minimize"):
        jacobian_symmetry(rp.Minimize(lambda y, _: y**2, 1.0), jnp.array(1.0))
    tall = rp.RootFind(lambda y, _: jnp.stack([y, y]), 1.0)
    with pytest.raises(ValueError, match="as many equations as unknowns, got 2 and 1"):
        jacobian_symmetry(tall, tall.y0)
