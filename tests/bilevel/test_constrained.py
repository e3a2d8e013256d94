"""ConstrainedBilevel against solutions of the lower level by SciPy, and its refusals."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import raphson as rp
from raphson.bilevel import ConstrainedBilevel, ImplicitGradient, ProximalLagrangian
from raphson.problems import valleys


def upper(x, y, _):
    return jnp.sum((y - jnp.array([1.0, -1.0, 0.5])) ** 2) / 2 + jnp.sum(jnp.cos(x)) / 3


def lower(x, y, _):
    matrix = jnp.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 1.5]])
    return y @ matrix @ y / 2 + jnp.sum(y**4) / 20 - x[0] * y[0] - x[1] * y[1] * y[2]


def inequality(x, y, _):
    return {"plane": y[0] + y[1] - x[1], "ball": y @ y - 1.5 - x[0] ** 2, "far": y[2] - 9.0}


def equality(x, y, _):
    return y[0] - y[2] + x[0] * x[1] / 2


def stated(**more):
    more = {"inequality": inequality, "equality": equality} | more
    return ConstrainedBilevel(upper, lower, jnp.zeros(2), jnp.zeros(3), **more)


def answer_below(x):
    """The lower answer, by sequential quadratic programming."""
    flat = lambda y: np.array(jax.tree.leaves(inequality(x, y, None)))
    constraints = [
        {"type": "ineq", "fun": lambda y: -flat(y)},
        {"type": "eq", "fun": lambda y: np.atleast_1d(equality(x, y, None))},
    ]
    f = jax.jit(lambda y: lower(x, y, None))
    found = scipy.optimize.minimize(
        f, np.zeros(3), jac=jax.grad(f), constraints=constraints, method="SLSQP", tol=1e-13
    )
    assert found.status in (0, 8)  # 8: nothing is left to gain
    return found.x


@pytest.mark.parametrize(
    ("x", "active"),
    [((0.3, 0.2), set()), ((1.0, -0.5), {"plane"}), ((1.0, -1.3), {"plane", "ball"})],
)
def test_hypergradient_is_that_of_the_lower_answer(x, active):
    problem, x = stated(), np.array(x)
    y = answer_below(x)
    held = {name for name, g in inequality(x, y, None).items() if abs(g) < 1e-6}
    assert held == active
    hypergradient, conditions, left = problem.optimality((jnp.array(x), jnp.array(y)))
    for leaf in jax.tree.leaves((conditions, left)):
        np.testing.assert_allclose(leaf, 0, atol=1e-5)

    def objective(x):
        return float(upper(x, answer_below(x), None))

    h = 1e-4
    slopes = [(objective(x + h * e) - objective(x - h * e)) / (2 * h) for e in np.eye(2)]
    np.testing.assert_allclose(hypergradient, slopes, atol=1e-4)


def test_without_active_constraints_it_is_the_free_problem():
    free = rp.Bilevel(upper, lower, jnp.zeros(2), jnp.zeros(3))
    far = stated(inequality=lambda x, y, _: y - 100.0, equality=None)
    z = jnp.array([0.3, 0.1]), jnp.array([0.2, 0.1, -0.3])
    hypergradient, (L_y, lesser, _), _ = far.optimality(z)
    expected, f_y, _ = free.optimality(z)
    np.testing.assert_allclose(hypergradient, expected, atol=1e-6)
    np.testing.assert_allclose(L_y, f_y, rtol=1e-2)  # what multipliers explain for a g of 1e4
    np.testing.assert_allclose(lesser, 0, atol=0.02)


def test_multipliers_of_the_wrong_sign_are_no_answer():
    # y <= x holds y from below: f would let it fall.
    fn = {"inequality": lambda x, y, _: y - x, "feasible": lambda z, _: z}
    problem = ConstrainedBilevel(
        lambda x, y, _: (y - 1) ** 2 + (x - 1) ** 2, lambda x, y, _: (y + 1) ** 2, 0.0, 0.0, **fn
    )
    measures = problem.measures((jnp.array(1.0), jnp.array(1.0)))
    np.testing.assert_allclose(measures["lower"], 4, rtol=1e-12)
    assert float(measures["violation"]) == 0


def test_a_singular_lower_level_is_judged_by_its_best_answer():
    problem = valleys.coupled_levels()
    x, (y_1, y_2) = problem.facts.minimizer
    assert float(problem.measures((x, (y_1, y_2)))["residual"]) < 1e-14
    # Of the lower answers at this x another, at which F is more.
    other = (y_1, y_2 + jnp.array([0.3, -0.3, 0.0, 0.0, 0.0]))
    measures = problem.measures((x, other))
    assert float(measures["lower"]) < 1e-14 and float(measures["residual"]) > 0.1


def test_the_set_of_x_projects_the_hypergradient():
    bounded = stated(sets=(rp.composite.Box(-1.0, 0.0), None))
    z = jnp.zeros(2), jnp.zeros(3)
    free, boxed = (problem.optimality(z)[0] for problem in (stated(), bounded))
    np.testing.assert_allclose(boxed, -np.clip(-free, -1, 0), atol=1e-12)


def halfplane(target, feasible):
    upper = lambda x, y, t: (x - t) ** 2 + (y - 1) ** 2
    lower = lambda x, y, _: (y - 4) ** 2
    below = lambda x, y, _: y - x
    return ConstrainedBilevel(upper, lower, 0.0, 0.0, target, inequality=below, feasible=feasible)


def nearest(z, _):
    above = jnp.maximum(z[1] - z[0], 0)
    return z[0] + above / 2, z[1] - above / 2


def test_answers_are_differentiated_through_their_constraints():
    def answer(target):
        problem = halfplane(target, nearest)
        return rp.solve(problem, ProximalLagrangian(), rtol=0.0, atol=1e-10).value

    np.testing.assert_allclose(answer(3.0), (2, 2), atol=1e-9)
    np.testing.assert_allclose(jax.jacobian(answer)(3.0), (0.5, 0.5), atol=1e-8)


@pytest.mark.parametrize("boxed", [False, True])
def test_constraints_that_contradict_each_other_are_infeasible(boxed):
    pair = lambda x, y, _: jnp.stack([y - x - 1, y - x + 1])  # 0 both
    squeezed = lambda x, y, _: jnp.stack([y - x + 1, x - y + 1])  # at most 0 both
    for kind, fn in (("equality", pair), ("inequality", squeezed)):
        halfway = lambda z, _: ((z[0] + z[1]) / 2,) * 2
        more = {kind: fn, "feasible": rp.composite.Box(0.5, 0.5) if boxed else halfway}
        problem = ConstrainedBilevel(upper_scalar, upper_scalar, 0.0, 0.0, **more)
        run = rp.solve(problem, max_steps=200, throw=False)
        assert rp.status_name(run.status) == "infeasible"
        with pytest.raises(rp.SolveError, match="constraints cannot all be met"):
            rp.solve(problem, max_steps=200)


def upper_scalar(x, y, _):
    return (x - 1) ** 2 + (y - 1) ** 2


def test_a_wrong_projection_is_not_called_infeasible():
    run = rp.solve(halfplane(-3.0, lambda z, _: z), max_steps=500, throw=False)
    violated = halfplane(-3.0, None).measures(run.value)["violation"]
    assert rp.status_name(run.status) == "max_steps" or float(violated) < 1e-6


def test_what_solves_by_default():
    assert rp.solve(halfplane(3.0, nearest)).stats.method == "ProximalLagrangian"


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: stated(inequality=None, equality=None), "`inequality` or `equality` must be"),
        (lambda: stated(inequality=3), "`inequality` must be a function, got 3"),
        (lambda: stated(equality="h"), "`equality` must be a function, got 'h'"),
        (lambda: stated(feasible=1.0), "`feasible` must be a convex set of `raphson.composite`"),
        (lambda: stated(sets=(None, rp.composite.Box(0.0, 1.0))), "`sets` of a Constrained"),
        (lambda: rp.solve(stated(), ProximalLagrangian()), "`feasible` of the ConstrainedBilevel"),
        (
            lambda: rp.solve(stated(equality=lambda x, y, _: 1, feasible=lambda z, _: z)),
            "must return real floating-point arrays",
        ),
        (
            lambda: rp.solve(halfplane(3.0, None), ImplicitGradient()),
            "`method` ImplicitGradient answers AbstractBilevel, got a ConstrainedBilevel",
        ),
        (lambda: rp.Scaled(stated(), 2.0), "a `ConstrainedBilevel` cannot be scaled"),
    ],
)
def test_unfit_statements_are_refused_in_one_sentence(build, says):
    with pytest.raises(ValueError, match=re.escape(says)) as refusal:
        build()
    assert "\n" not in str(refusal.value)
