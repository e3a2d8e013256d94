import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.optimize

from raphson.problems import (
    brown_almost_linear,
    circle_of_roots,
    cubic_root,
    hard_nonconvex_chain,
    hard_stochastic_chain,
    himmelblau_box,
    huber_chain,
    logistic_synthetic,
    moiety_network,
    nesterov_worst,
    nonnegative_fit,
    nonsmooth_worst,
    polyak_lojasiewicz,
    powell_singular,
    propane_combustion,
    quadratic,
    rosenbrock,
    rosenbrock_system,
    rosenbrock_wall,
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


def test_nonsmooth_worst_is_least_where_it_says():
    L, R, n = 3.0, 2.0, 9
    problem = nonsmooth_worst(n, lipschitz=L, radius=R)
    minimizer, facts = np.asarray(problem.facts.minimizer), problem.facts
    assert np.linalg.norm(minimizer) == pytest.approx(R)
    assert float(problem.value(minimizer)) == pytest.approx(facts.optimum)
    assert facts.optimum == pytest.approx(-R * L / (2 * (1 + np.sqrt(n))))
    # At a minimum the mean of the n subgradients is 0; farther from 0 none is longer than L.
    gamma, alpha = problem.args
    np.testing.assert_allclose(gamma / n + alpha * minimizer, 0.0, atol=1e-15)
    assert gamma + alpha * R == pytest.approx(L) and alpha == facts.strong_convexity


def test_subgradients_of_the_worst_reveal_one_coordinate_each():
    problem = nonsmooth_worst(7)
    y, gradient = problem.y0, jax.jit(jax.grad(problem.objective))
    for revealed in range(1, 7):
        y = np.asarray(y - 0.3 * gradient(y))
        assert np.all(y[:revealed] != 0) and not np.any(y[revealed:])
        assert problem.value(y) >= 0


def test_huber_chain_is_made_of_huber_functions():
    y = np.array([0.95, 1.5, 1.49, -2.0])
    links = np.abs(np.diff(y, prepend=1.0))
    wanted = np.where(links <= 0.1, links**2 / 2, 0.1 * links - 0.005).sum()
    assert float(huber_chain(4).value(jnp.asarray(y))) == pytest.approx(wanted)


def hard_chain_points(n, count=200):
    """The start, and random points of which many have coordinates that are 0 or beyond 1."""
    rng = np.random.default_rng(5)
    ys = rng.uniform(-2, 2, (count, n)) * (rng.random((count, n)) < 0.8)
    return np.concatenate([np.zeros((1, n)), ys])


def test_hard_chain_is_made_of_psi_and_phi():
    psi = lambda t: np.exp(1 - 1 / (2 * t - 1) ** 2) if t > 0.5 else 0.0
    phi = lambda t: scipy.integrate.quad(lambda s: np.exp(0.5 - s * s / 2), -40, t, points=[0])[0]
    value = eqx.filter_jit(hard_nonconvex_chain(4).objective)
    for y in hard_chain_points(4, 10):
        pairs = list(zip(y, y[1:]))
        wanted = sum(psi(-a) * phi(-b) - psi(a) * phi(b) for a, b in pairs) - psi(1) * phi(y[0])
        assert float(value(y)) == pytest.approx(wanted, rel=1e-10)


def test_hard_chain_keeps_its_bounds():
    n = 6
    problem, ys = hard_nonconvex_chain(n), hard_chain_points(n)
    gradient = np.asarray(jax.jit(jax.vmap(jax.grad(problem.objective)))(ys))
    hessian = np.asarray(jax.jit(jax.vmap(jax.hessian(problem.objective)))(ys))
    spectra = np.linalg.eigvalsh(hessian)
    assert 20 < np.abs(spectra).max() <= problem.facts.lipschitz and spectra.min() < -1
    assert 5 < np.abs(gradient).max() <= 23
    stuck = np.abs(ys[:, -1]) < 1
    norm = np.linalg.norm(gradient, axis=1)
    assert stuck.sum() > 50 and np.all(norm[stuck] > 1)
    far = float(problem.objective(jnp.full(n, 1e4)))
    assert far == pytest.approx(problem.facts.optimum, rel=1e-7) and far > problem.facts.optimum
    assert float(problem.objective(problem.y0)) - problem.facts.optimum <= 12 * n


def test_derivatives_of_the_hard_chain_reveal_one_coordinate():
    problem = hard_nonconvex_chain(6)
    derivatives = jax.jit(lambda y: (jax.grad(problem.objective)(y), jax.hessian(problem.fn)(y, 0)))
    for y in hard_chain_points(6, 20):
        for known in range(6):
            cut = np.where(np.arange(6) < known, y, 0)
            gradient, hessian = map(np.asarray, derivatives(cut))
            assert not np.any(gradient[known + 1 :]) and not np.any(hessian[known + 1 :])
    # Just above 1/2, where Psi is below what a number can hold, nothing turns to NaN.
    near = np.nextafter(np.full(6, 0.5), 1) + np.array([0, 1e-15, 1e-9, 1e-3, 0.01, 0.02])
    assert all(np.all(np.isfinite(d)) for d in derivatives(near))


def test_a_rotated_hard_chain_is_the_chain():
    problem = hard_nonconvex_chain(5, seed=3)
    rotation = np.asarray(problem.args)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(5), atol=1e-12)
    y = hard_chain_points(5, 1)[1]
    plain = hard_nonconvex_chain(5).objective(jnp.asarray(y))
    np.testing.assert_allclose(problem.objective(jnp.asarray(rotation.T @ y)), plain)


def test_samples_of_the_hard_chain_hide_what_is_not_reached():
    problem, plain = hard_stochastic_chain(5, 4), hard_nonconvex_chain(5)
    whole, exact = (
        eqx.filter_jit(lambda y, p=p: (*p.value_and_gradient(y), p.hessian(y).as_matrix()))
        for p in (problem, plain)
    )
    sampled = eqx.filter_jit(problem.batch_value_and_gradient)
    for y in (
        [0.9, -0.8, 0.2, 0.0, 0.0],
        [0.9, 0.3, 0.0, 0.0, 0.0],
        [0.0] * 5,
        [0.9, 0.1, 0.9, 0.2, 0.8],
        [0.9] * 4 + [0.2],
    ):
        y = jnp.asarray(y)
        for got, wanted in zip(whole(y), exact(y)):
            np.testing.assert_allclose(got, wanted, atol=1e-13)
        value, gradient, _ = map(np.asarray, exact(y))
        reached = np.arange(5) <= np.max(np.flatnonzero(np.abs(y) > 0.25), initial=-1)
        shown = sampled(y, problem.data[:1])
        np.testing.assert_allclose(shown[0], value)
        np.testing.assert_allclose(shown[1], np.where(reached, 1, 4) * gradient, rtol=1e-12)
        hidden = np.asarray(sampled(y, problem.data[1:4])[1])
        np.testing.assert_allclose(hidden, np.where(reached, gradient, 0), rtol=1e-12)
        assert not np.any(hidden[~reached])


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
    "brown_almost_linear": (functools.partial(brown_almost_linear, 4), 4),
    "himmelblau_box": (himmelblau_box, 2),
    "propane_combustion": (propane_combustion, 5),
    "rosenbrock_wall": (rosenbrock_wall, 2),
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


# The published roots: Himmelblau's nine, and the positive one of the combustion.
def test_of_many_roots_one_is_within_the_bounds():
    F = himmelblau_box().mapping
    newton = lambda _, y: y - jnp.linalg.solve(jax.jacobian(F)(y), F(y))
    descend = jax.vmap(lambda y: jax.lax.fori_loop(0, 50, newton, y))
    grid = jnp.stack(jnp.meshgrid(*[jnp.linspace(-5, 5, 15)] * 2), axis=-1).reshape(-1, 2)
    roots = np.unique(np.round(descend(grid), 6), axis=0)
    assert len(roots) == 9
    assert np.sum(np.all((roots >= 1) & (roots <= 5), axis=1)) == 1
    published = [0.003114102, 34.59792, 0.06504178, 0.8593780, 0.03695186]
    np.testing.assert_allclose(propane_combustion().facts.minimizer, published, rtol=1e-6)


def test_nonnegative_fit_is_scipys():
    problem = nonnegative_fit(12, 5, seed=3)
    y, norm = scipy.optimize.nnls(*map(np.asarray, problem.args))
    np.testing.assert_allclose(y, problem.facts.minimizer, atol=1e-10)
    assert float(problem.facts.optimum) == pytest.approx(norm**2 / 2)


MAKERS = [make for make in MINIMIZE.values()] + [make for make, _ in SYSTEMS.values()]
MAKERS += [functools.partial(hard_nonconvex_chain, 4, seed=1), hard_stochastic_chain]


@pytest.mark.parametrize("make", [*MAKERS, circle_of_roots, nonnegative_fit])
def test_made_twice_it_is_the_same(make):
    assert bool(eqx.tree_equal(make(), make()))


@pytest.mark.parametrize("make", [*MAKERS, circle_of_roots, nonnegative_fit])
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
        (lambda: hard_nonconvex_chain(0), "`n` must be a whole number of at least 1, got 0"),
        (lambda: hard_nonconvex_chain(seed=-1), "`seed` must be a whole number of at least 0"),
        (lambda: hard_stochastic_chain(3, 0), "`one_in` must be a whole number of at least 1"),
        (lambda: rosenbrock_system(1), "`n` must be a whole number of at least 2"),
        (lambda: cubic_root(True), "`n` must be a whole number of at least 1, got True"),
        (lambda: brown_almost_linear(1), "`n` must be a whole number of at least 2, got 1"),
        (lambda: nonnegative_fit(3, 4), "`m` must be a whole number of at least 4, got 3"),
        (lambda: moiety_network(3), "`species` must be a whole number of at least 4, got 3"),
        (lambda: moiety_network(reactions=0), "`reactions` must be a whole number of at least 1"),
    ],
)
def test_unfit_arguments_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
