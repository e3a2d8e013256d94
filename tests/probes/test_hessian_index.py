"""The index against spectra that are known and NumPy's eigenvalues."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.probes import hessian_index


def form(y, A):
    return jnp.vdot(y, A @ y) / 2


@pytest.mark.parametrize("negative", [0, 2, 5])
def test_is_the_share_of_a_known_spectrum(negative):
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    signs = np.where(np.arange(5) < negative, -1, 1)
    A = (basis * signs * np.geomspace(1e-3, 1e3, 5)) @ basis.T
    problem = rp.Minimize(form, jnp.ones(5), jnp.asarray(A))
    assert float(hessian_index(problem, problem.y0)) == negative / 5


def test_is_of_the_point_also_on_a_tree_and_mapped():
    def fn(y, _):
        return jnp.sum(jnp.cos(y["u"])) + jnp.prod(y["u"]) * y["v"]

    problem = rp.Minimize(fn, {"u": jnp.zeros(3), "v": jnp.zeros(())})
    points = np.random.default_rng(0).normal(size=(6, 4))
    expected = []
    for *u, v in points:
        pairs = (
            v
            * (np.ones((3, 3)) - np.eye(3))
            * np.array([[u[3 - i - j] if i != j else 0 for j in range(3)] for i in range(3)])
        )
        slopes = [u[1] * u[2], u[0] * u[2], u[0] * u[1]]
        H = np.block([[pairs - np.diag(np.cos(u)), np.c_[slopes]], [np.r_[slopes], 0.0]])
        expected.append(np.mean(np.linalg.eigvalsh(H) < 0))
    probe = jax.vmap(lambda y: hessian_index(problem, {"u": y[:3], "v": y[3]}))
    np.testing.assert_array_equal(probe(jnp.asarray(points)), expected)
    assert len(set(expected)) > 1


def test_rounding_is_no_negative_curvature():
    # Of rank 1, in 20 dimensions: nineteen eigenvalues are 0 but for rounding.
    a = jnp.asarray(np.random.default_rng(0).normal(size=20))
    problem = rp.Minimize(lambda y, a: jnp.vdot(a, y) ** 2 / 2, jnp.zeros(20), a)
    assert float(hessian_index(problem, problem.y0)) == 0
    shallow = rp.Minimize(form, jnp.zeros(2), jnp.diag(jnp.array([1.0, -1e-3])))
    assert float(hessian_index(shallow, shallow.y0)) == 0.5
    assert float(hessian_index(shallow, shallow.y0, rtol=1e-2)) == 0


def test_is_nan_where_the_hessian_is_not_finite():
    problem = rp.Minimize(lambda y, _: jnp.sum(jnp.abs(y) ** 1.5), jnp.zeros(2))
    assert np.isnan(hessian_index(problem, problem.y0))


def test_refuses():
    with pytest.raises(ValueError, match="`problem` must be an objective"):
        hessian_index(rp.RootFind(lambda y, _: y, jnp.zeros(2)), jnp.zeros(2))  # pyright: ignore
    with pytest.raises(ValueError, match="`rtol` must be a number"):
        hessian_index(rp.Minimize(form, jnp.zeros(2), jnp.eye(2)), jnp.zeros(2), rtol=-1.0)
