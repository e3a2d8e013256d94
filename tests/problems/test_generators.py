import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from raphson.problems import (
    circle_of_roots,
    cubic_root,
    huber_chain,
    logistic_synthetic,
    moiety_network,
    nesterov_worst,
    polyak_lojasiewicz,
    powell_singular,
    quadratic,
    rosenbrock,
    rosenbrock_system,
)

MINIMIZE = {
    "quadratic": quadratic,
    "flat quadratic": functools.partial(quadratic, [0.0, 0.0, 1.0, 4.0]),
    "logistic_synthetic": functools.partial(logistic_synthetic, 60, 5),
    "nesterov convex": functools.partial(nesterov_worst, 11, smoothness=3.0),
    "nesterov strongly convex": functools.partial(nesterov_worst, 11, strong_convexity=0.1),
    "huber_chain": functools.partial(huber_chain, 6),
    "rosenbrock": functools.partial(rosenbrock, 5),
    "polyak_lojasiewicz": functools.partial(polyak_lojasiewicz, 3),
}
# Where the greatest curvature is attained, where it is at all.
PEAKS = {
    "quadratic": "y0",
    "flat quadratic": "y0",
    "logistic_synthetic": "y0",
    "nesterov convex": "y0",
    "nesterov strongly convex": "y0",
    "huber_chain": "minimizer",
    "polyak_lojasiewicz": "minimizer",
}


@functools.cache
def made(name):
    """A problem and what it is at its start, its minimizer and random points."""
    problem = MINIMIZE[name]()
    random = 3 * np.random.default_rng(2).normal(size=(40, problem.y0.size))
    ys = np.concatenate([[problem.y0, problem.facts.minimizer], random])
    value, gradient, hessian = (
        np.asarray(jax.jit(jax.vmap(f))(ys))
        for f in (problem.objective, jax.grad(problem.objective), jax.hessian(problem.objective))
    )
    return problem, ys, value, gradient, hessian


@pytest.mark.parametrize("name", MINIMIZE)
def test_minimizer_and_optimum(name):
    problem, _, value, gradient, _ = made(name)
    assert np.linalg.norm(gradient[1]) < 1e-14
    assert value[1] == pytest.approx(float(problem.facts.optimum), abs=1e-15)
    assert value.min() == value[1]


@pytest.mark.parametrize("name", MINIMIZE)
def test_curvature_stays_within_the_facts_and_attains_them(name):
    problem, _, _, _, hessian = made(name)
    facts, spectra = problem.facts, np.linalg.eigvalsh(hessian)
    if facts.lipschitz is not None:
        assert np.abs(spectra).max() <= facts.lipschitz * (1 + 1e-12)
        peak = 0 if PEAKS[name] == "y0" else 1
        assert spectra[peak].max() == pytest.approx(facts.lipschitz, rel=1e-12)
    if facts.strong_convexity is not None:
        assert spectra.min() >= facts.strong_convexity * (1 - 1e-12) - 1e-14
        if facts.hessian_lipschitz == 0:
            assert spectra.min() == pytest.approx(facts.strong_convexity, rel=1e-9, abs=1e-14)
    assert (spectra.min() > -1e-12) == facts.convex


@pytest.mark.parametrize("name", MINIMIZE)
def test_hessian_changes_no_faster_than_the_fact(name):
    problem, ys, _, _, hessian = made(name)
    if (bound := problem.facts.hessian_lipschitz) is None:
        pytest.skip("no such fact")
    change = np.linalg.norm(hessian[1:] - hessian[:-1], 2, axis=(1, 2))
    assert np.all(change <= bound * np.linalg.norm(ys[1:] - ys[:-1], axis=1) + 1e-12)


@pytest.mark.parametrize("name", MINIMIZE)
def test_polyak_lojasiewicz_inequality(name):
    problem, _, value, gradient, _ = made(name)
    if (mu := problem.facts.polyak_lojasiewicz) is None:
        pytest.skip("no such fact")
    gap = value - problem.facts.optimum
    assert np.all(np.sum(gradient**2, axis=1) / 2 >= mu * gap - 1e-12)


def test_polyak_lojasiewicz_constants_are_the_best():
    y = np.linspace(-20, 20, 400_001)
    gap, slope = y**2 + 3 * np.sin(y) ** 2, 2 * y + 3 * np.sin(2 * y)
    best = np.min(slope[gap > 0] ** 2 / (2 * gap[gap > 0]))
    facts = polyak_lojasiewicz().facts
    assert facts.polyak_lojasiewicz <= best < facts.polyak_lojasiewicz + 1e-4
    assert np.max(np.abs(12 * np.sin(2 * y))) == pytest.approx(facts.hessian_lipschitz)


def test_quadratic_has_the_spectrum():
    spectrum = [0.5, 2.0, 2.0, 7.0]
    problem = quadratic(spectrum, seed=4)
    hessian = jax.jit(jax.hessian(problem.objective))(problem.y0)
    np.testing.assert_allclose(np.linalg.eigvalsh(hessian), spectrum)
    other = quadratic(spectrum, seed=5)
    assert not np.allclose(other.facts.minimizer, problem.facts.minimizer)


def test_flat_quadratic_names_the_nearest_minimizer():
    problem, _, _, _, hessian = made("flat quadratic")
    nearest = np.linalg.pinv(hessian[0]) @ hessian[0] @ problem.facts.minimizer
    np.testing.assert_allclose(problem.facts.minimizer, nearest, atol=1e-12)
    assert problem.facts.polyak_lojasiewicz == 1.0 and problem.facts.strong_convexity == 0.0


@pytest.mark.parametrize("mu", [0.0, 0.1])
def test_nesterov_worst_is_the_quadratic_of_the_book(mu):
    L, n = 2.0, 9
    problem = nesterov_worst(n, smoothness=L, strong_convexity=mu)
    A = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    if mu:
        root = (L / mu) ** 0.5
        A[-1, -1] = (root + 3) / (root + 1)
        powers = ((root - 1) / (root + 1)) ** np.arange(1, n + 1)
        np.testing.assert_allclose(problem.facts.minimizer, powers)
    y = np.random.default_rng(0).normal(size=n)
    wanted = (L - mu) / 8 * (y @ A @ y - 2 * y[0]) + mu / 2 * y @ y
    assert float(problem.value(jnp.asarray(y))) == pytest.approx(wanted)
    hessian = (L - mu) / 4 * A + mu * np.eye(n)
    np.testing.assert_allclose(
        problem.facts.minimizer, np.linalg.solve(hessian, (L - mu) / 4 * np.eye(n)[0])
    )
    assert mu <= problem.facts.strong_convexity < problem.facts.lipschitz <= L


def test_gradients_of_the_chain_reveal_one_coordinate_each():
    problem = nesterov_worst(7)
    y, gradient = problem.y0, jax.jit(jax.grad(problem.objective))
    for revealed in range(1, 7):
        y = np.asarray(y - 0.3 * gradient(y))
        assert np.all(y[:revealed] != 0) and not np.any(y[revealed:])


def test_huber_chain_is_made_of_huber_functions():
    y = np.array([0.95, 1.5, 1.49, -2.0])
    links = np.abs(np.diff(y, prepend=1.0))
    wanted = np.where(links <= 0.1, links**2 / 2, 0.1 * links - 0.005).sum()
    assert float(huber_chain(4).value(jnp.asarray(y))) == pytest.approx(wanted)


def test_rosenbrock_is_that_of_scipy():
    y = np.random.default_rng(0).normal(size=6)
    problem = rosenbrock(6)
    assert float(problem.value(jnp.asarray(y))) == pytest.approx(scipy.optimize.rosen(y))
    residual = np.asarray(rosenbrock_system(6).residual(jnp.asarray(y)))
    assert residual @ residual == pytest.approx(scipy.optimize.rosen(y))


def test_synthetic_labels_follow_a_model():
    problem = logistic_synthetic(500, 4, seed=1)
    features, labels = map(np.asarray, problem.data)
    assert set(labels) == {-1.0, 1.0}
    right = np.sign(features @ np.asarray(problem.facts.minimizer)) == labels
    assert 0.7 < right.mean() < 0.99


# Each system with the rank of its Jacobian at the root.
SYSTEMS = {
    "rosenbrock_system": (functools.partial(rosenbrock_system, 4), 4),
    "cubic_root": (functools.partial(cubic_root, 3), 0),
    "powell_singular": (powell_singular, 2),
    "moiety_network": (moiety_network, 12),
    "larger moiety_network": (functools.partial(moiety_network, 20, 30, seed=1), 20),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_roots_and_their_rank(name):
    make, rank = SYSTEMS[name]
    problem = make()
    root = problem.facts.minimizer
    residual = eqx.filter_jit(problem.residual)
    np.testing.assert_allclose(residual(root), 0, atol=1e-12)
    assert np.linalg.norm(residual(problem.y0)) > 0.1
    jacobian = jax.jit(jax.jacobian(problem.mapping))(root)
    assert np.linalg.matrix_rank(jacobian, tol=1e-6) == rank


def test_the_circle_is_all_roots_and_the_residual_bounds_the_distance():
    problem = circle_of_roots()
    angles = np.linspace(0, 2 * np.pi, 50)
    for radius in (1.0, 0.9, 1.3):
        y = radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        size = np.linalg.norm(jax.vmap(problem.mapping)(jnp.asarray(y)), axis=1)
        assert np.all(size >= abs(radius - 1))
        if radius == 1:
            np.testing.assert_allclose(size, 0, atol=1e-15)


@pytest.mark.parametrize("seed", range(3))
def test_a_moiety_network_has_one_steady_state_and_conserves(seed):
    problem = moiety_network(seed=seed)
    stoichiometry, sides, _, moieties, _ = map(np.asarray, problem.args)
    np.testing.assert_allclose(moieties @ stoichiometry, 0, atol=1e-12)
    np.testing.assert_array_equal(sides.sum(axis=0), 2)
    found = scipy.optimize.least_squares(
        eqx.filter_jit(problem.mapping),
        problem.y0,
        jax.jit(jax.jacobian(problem.mapping)),
        xtol=1e-12,
    )
    np.testing.assert_allclose(found.x, problem.facts.minimizer, atol=1e-6)


MAKERS = [make for make in MINIMIZE.values()] + [make for make, _ in SYSTEMS.values()]


@pytest.mark.parametrize("make", [*MAKERS, circle_of_roots])
def test_made_twice_it_is_the_same(make):
    assert bool(eqx.tree_equal(make(), make()))


@pytest.mark.parametrize("make", [*MAKERS, circle_of_roots])
def test_arrays_have_the_default_precision(make):
    with jax.enable_x64(False):
        problem = make()
        floats = [leaf for leaf in jax.tree.leaves(problem) if eqx.is_inexact_array(leaf)]
        assert {leaf.dtype for leaf in floats} == {jnp.dtype("float32")}
        measures = jax.eval_shape(problem.measures, problem.y0)
        assert {measure.dtype for measure in measures.values()} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: quadratic([-1.0, 1.0]), "`spectrum` must be a vector of finite numbers"),
        (lambda: quadratic([0.0]), "one of them positive"),
        (lambda: quadratic(3.0), "`spectrum` must be a vector"),
        (lambda: quadratic([1.0, np.inf]), "`spectrum` must be a vector of finite numbers"),
        (lambda: quadratic(seed=-1), "`seed` must be a whole number of at least 0, got -1"),
        (lambda: logistic_synthetic(0), "`n` must be a whole number of at least 1, got 0"),
        (lambda: logistic_synthetic(regularization=0), "`regularization` must be a positive"),
        (lambda: nesterov_worst(2.5), "`n` must be a whole number of at least 1, got 2.5"),
        (lambda: nesterov_worst(smoothness=0), "`smoothness` must be a positive number"),
        (lambda: nesterov_worst(strong_convexity=-1), "`strong_convexity` must be a positive"),
        (lambda: nesterov_worst(strong_convexity=1), "must be less than `smoothness`, got 1 and 1"),
        (lambda: huber_chain(width="a"), "`width` must be a positive number, got 'a'"),
        (lambda: rosenbrock(1), "`n` must be a whole number of at least 2, got 1"),
        (lambda: polyak_lojasiewicz(0), "`n` must be a whole number of at least 1"),
        (lambda: rosenbrock_system(1), "`n` must be a whole number of at least 2"),
        (lambda: cubic_root(True), "`n` must be a whole number of at least 1, got True"),
        (lambda: moiety_network(3), "`species` must be a whole number of at least 4, got 3"),
        (lambda: moiety_network(reactions=0), "`reactions` must be a whole number of at least 1"),
    ],
)
def test_unfit_arguments_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
