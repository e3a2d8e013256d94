"""Continuation against its predictor in NumPy, branches in closed form and direct solutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.problems import shear_flow9
from raphson.roots import continuation


class Newton(rp.AbstractMethod):
    """Of one unknown."""

    question = rp.RootFind

    def init(self, problem, y, key):
        return problem.residual(y)

    def step(self, problem, y, state):
        y = y - state / problem.jacobian(y).as_matrix()[0, 0]
        return y, problem.residual(y)


def cube_root(p):
    return rp.RootFind(lambda y, p: y**3 - p, jnp.array(1.5), p)


def test_each_root_is_sought_from_the_line_through_the_last_two():
    parameters = np.array([2.0, 2.5, 2.7, 4.0, 3.0])
    roots = []
    for k, p in enumerate(parameters):
        y = 1.5 if k == 0 else roots[-1]
        if k > 1:
            slope = (roots[-1] - roots[-2]) / (parameters[k - 1] - parameters[k - 2])
            y = y + (p - parameters[k - 1]) * slope
        roots.append(y - (y**3 - p) / (3 * y**2))
    got, found = continuation(cube_root, parameters, method=Newton(), atol=0.0, max_steps=1)
    np.testing.assert_allclose(got, roots, rtol=1e-12)
    assert not np.any(found)


def test_a_branch_in_closed_form():
    parameters = jnp.linspace(1.0, 8.0, 6)
    roots, found = continuation(cube_root, parameters, atol=1e-12)
    assert np.all(found)
    np.testing.assert_allclose(roots, np.cbrt(parameters), rtol=1e-10)


def test_a_branch_that_ends_is_reported():
    root_of = lambda p: rp.RootFind(lambda y, p: y**2 - p, jnp.array(1.0), p)
    _, found = continuation(root_of, jnp.array([1.0, 0.5, -0.5]))
    assert found.tolist() == [True, True, False]


def test_the_laminar_flow_in_the_reynolds_number():
    reynolds = jnp.linspace(100.0, 300.0, 5)
    roots, found = continuation(shear_flow9, reynolds, atol=1e-10)
    assert np.all(found)
    direct = shear_flow9(300.0)
    jacobian = jax.jit(jax.jacobian(direct.mapping))
    spectra = [
        np.sort_complex(np.linalg.eigvals(np.asarray(jacobian(y))))
        for y in (roots[-1], direct.facts.minimizer)
    ]
    np.testing.assert_allclose(*spectra, atol=1e-8)
    # Friction alone damps the first and the last mode.
    for rate in (-((np.pi / 2) ** 2) / 300, -9 * (np.pi / 2) ** 2 / 300):
        assert np.min(np.abs(spectra[0] - rate)) < 1e-8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"problem_at": 3}, "`problem_at` must be a function"),
        ({"parameters": jnp.zeros((2, 2))}, "`parameters` must be a vector"),
        ({"atol": -1.0}, "`atol` must be a finite number"),
        ({"max_steps": 0}, "`max_steps` must be a whole"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        continuation(**({"problem_at": cube_root, "parameters": jnp.ones(2)} | arguments))


def test_a_tree_in_single_precision():
    def problem_at(p):
        start = {"u": jnp.ones(2, jnp.float32)}
        return rp.RootFind(lambda y, p: {"u": y["u"] ** 3 - p}, start, p)

    roots, _ = jax.jit(lambda p: continuation(problem_at, p, atol=1e-4))(
        jnp.array([1, 2], jnp.float32)
    )
    assert roots["u"].dtype == jnp.float32
    np.testing.assert_allclose(roots["u"][1], 2 ** (1 / 3), rtol=1e-4)
