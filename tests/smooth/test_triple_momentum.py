"""TripleMomentum against its recursion in NumPy, its exact rate, and its potential each step."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.problems import convex, rosenbrock
from raphson.smooth import HeavyBall, TripleMomentum
from tests.smooth.paths import chain, path


def potential_form(y, L, mu, count):
    """The method as a run z of gradient steps for mu, and y between it and one for L."""
    root = np.sqrt(mu / L)
    share, z = (1 - root) / (1 + root), y
    for _ in range(count):
        g = chain(y)[1]
        z = root * (y - g / mu) + (1 - root) * z
        y = share * (y - g / L) + (1 - share) * z
        yield y, z


def z_of(ys, states, L, mu):
    """The paper's answer."""
    r = 1 - np.sqrt(mu / L)
    return states.current + (states.current - states.previous) * r**2 / (1 - r**2)


def test_steps_are_those_of_the_other_form():
    problem, L, mu = rosenbrock(4), 4000.0, 30.0
    ys, states = path(problem, TripleMomentum(L, mu), 40)
    zs = z_of(ys, states, L, mu)
    for t, (y, z) in enumerate(potential_form(np.asarray(problem.y0), L, mu, 40), 1):
        np.testing.assert_allclose(ys[t], y, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(zs[t], z, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(states.value[t], chain(y)[0], rtol=1e-10)
        np.testing.assert_allclose(states.gradient[t], chain(y)[1], rtol=1e-9, atol=1e-9)


def corner(y, _):
    """A slope of 25 y, but of y + 24 between 1 and 2: the heavy ball cycles on it."""
    return 12.5 * y**2 - 12 * (jnp.maximum(y - 1, 0) ** 2 - jnp.maximum(y - 2, 0) ** 2)


PROBLEMS = {
    "logistic": lambda: convex.logistic_synthetic(40, 5, regularization=0.05),
    "quadratic": lambda: convex.quadratic(np.geomspace(0.02, 3, 5), seed=1),
    "worst": lambda: convex.nesterov_worst(41, smoothness=4.0, strong_convexity=0.05),
    "corner": lambda: rp.Minimize(
        corner,
        3.3,
        facts=rp.problem.Facts(optimum=0.0, minimizer=0.0, lipschitz=25.0, strong_convexity=1.0),
    ),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_its_potential_falls_by_the_square_of_the_rate_at_every_step(name):
    problem = PROBLEMS[name]()
    facts = problem.facts
    L, mu = float(facts.lipschitz), float(facts.strong_convexity)
    ys, states = path(problem, TripleMomentum(L, mu), 60)
    zs = z_of(ys, states, L, mu)
    square = lambda x: np.sum(x.reshape(len(x), -1) ** 2, axis=1)
    minimizer = np.asarray(facts.minimizer)
    potential = (
        states.value[:-1]
        - facts.optimum
        - square(states.gradient[:-1]) / (2 * L)
        - mu * L / (2 * (L - mu)) * square(ys[:-1] - states.gradient[:-1] / L - minimizer)
        + mu * L / (L - mu) * square(zs[1:] - minimizer)
    )
    rate = (1 - np.sqrt(mu / L)) ** 2
    assert np.all(potential[1:] <= rate * potential[:-1] + 1e-15 * potential[0])
    assert potential[0] > 0


def test_the_rate_on_the_lowest_curvature_is_exact():
    problem = convex.quadratic(np.geomspace(0.1, 2, 5))
    L, mu = problem.facts.lipschitz, problem.facts.strong_convexity
    center = np.asarray(problem.facts.minimizer)
    _, vectors = np.linalg.eigh(np.asarray(problem.args[0]))
    moved = eqx.tree_at(lambda p: p.y0, problem, jnp.array(center + vectors[:, 0]))
    ys, states = path(moved, TripleMomentum(jnp.array(L), jnp.array(mu)), 80)
    errors = (1 - np.sqrt(mu / L)) ** np.arange(81)
    zs = z_of(ys, states, L, mu)
    np.testing.assert_allclose(zs - center, np.outer(errors, vectors[:, 0]), rtol=0, atol=2e-14)


def test_converges_where_the_heavy_ball_cycles():
    problem = PROBLEMS["corner"]()
    ys, _ = path(problem, TripleMomentum(25.0, 1.0), 200)
    cycling, _ = path(problem, HeavyBall(4 / 36, (4 / 6) ** 2), 200)
    assert abs(ys[-1]) < 1e-15
    assert np.abs(cycling[-30:]).min() > 0.6


def test_a_tree_takes_the_same_steps():
    flat, method = rosenbrock(4), TripleMomentum(4000.0, 30.0)
    tree = rp.Minimize(
        lambda y, _: flat.fn(jnp.append(y["u"].ravel(), y["v"]), None),
        {"u": flat.y0[:3].reshape(3, 1), "v": flat.y0[3]},
    )
    ys, _ = path(flat, method, 15)
    trees, _ = path(tree, method, 15)
    np.testing.assert_allclose(trees["u"][..., 0], ys[:, :3], rtol=1e-11)
    np.testing.assert_allclose(trees["v"], ys[:, 3], rtol=1e-11)


def test_oracle_calls():
    problem = rp.Counted(rosenbrock(4))
    solution = rp.solve(problem, TripleMomentum(4000.0, 30.0), max_steps=4, throw=False)
    counts = {name: int(count) for name, count in solution.stats.counts.items() if count > 0}
    assert counts == {"value": 1 + 4, "gradient": 1 + 4}


@pytest.mark.parametrize("mu", [0.0, 4.0, 5.0])
def test_refuses_what_is_no_strong_convexity(mu):
    with pytest.raises(ValueError, match=r"`strong_convexity` of TripleMomentum .* \(0, 4\), got"):
        TripleMomentum(4.0, mu)


def test_vmap_over_its_constants():
    problem = convex.quadratic([1.0, 4.0])

    def solved(mu):
        return rp.solve(problem, TripleMomentum(4 * mu, mu), throw=False).value

    together = jax.vmap(solved)(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(together, [problem.facts.minimizer] * 2, atol=1e-5)
