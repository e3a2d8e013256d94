import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import raphson as rp
from raphson.families import methods
from raphson.race.entrants import VARIANTS, entrant, entrants
from raphson.race.peers import PEERS

A = jnp.array([[4.0, 1.0], [1.0, 3.0]])
EASY = [
    rp.Minimize(lambda y, _: jnp.sum((y - 1) ** 2), jnp.zeros(2)),
    rp.LeastSquares(lambda y, _: y - 1, jnp.zeros(2)),
    rp.RootFind(lambda y, _: y + y**3 / 10 - 1, jnp.zeros(2)),
    rp.RootFind(lambda y, _: y**3 - 2 * y + 2, jnp.zeros(1)),  # at rest off a root, then a path
    rp.FixedPoint(lambda y, _: jnp.cos(y), jnp.zeros(2)),
    rp.BoundedLeastSquares(lambda y, _: y - 1, jnp.zeros(2), -2.0, 2.0),
    rp.LinearSystem(lx.MatrixLinearOperator(A, lx.positive_semidefinite_tag), jnp.ones(2)),
]


def test_the_default_races_as_solve_runs_it():
    default = entrant("default")
    for problem in EASY:
        assert default.answers(problem)
        solved, raced = rp.solve(problem), rp.trace(problem, default.method())
        np.testing.assert_array_equal(solved.value, raced.solution.value)
        assert int(solved.stats.steps) == int(raced.solution.stats.steps) == raced.steps[-1]
        assert solved.stats.reason == raced.solution.stats.reason != ""
    sampled = rp.FiniteSum(lambda y, x, _: (y - x) ** 2, jnp.zeros(()), jnp.ones(4), batch_size=2)
    assert not default.answers(sampled)


def test_the_default_does_not_race_where_there_is_none():
    class Unheard(rp.AbstractProblem):
        y0: jax.Array
        args: None = None
        oracles: tuple = ()
        facts: rp.Facts = rp.Facts()
        wrappers: tuple = ()

        def optimality(self, y):
            return y

        def traced(self, y):
            return self

        def rescaled(self, y_scale, value_scale):
            return self

    assert not entrant("default").answers(Unheard(jnp.zeros(2)))


def test_every_method_of_every_family_can_be_named():
    known = entrants()
    for name, cls in methods().items():
        assert known[name].ours
        assert isinstance(known[name].method(), cls)
        assert known[name].summary
    assert set(PEERS) <= set(known)


def test_settings_that_race_under_a_name_of_their_own():
    past = entrant("Extragradient.past")
    assert past.method(0.3) == rp.saddle.Extragradient(0.3, "past")
    assert past.method() == rp.saddle.Extragradient(0.1, "past")
    assert entrant("Extragradient").rate is None
    assert entrant("ImplicitGradient").method(0.3).upper == 0.3
    assert {name.split(".")[0] for name in VARIANTS} <= set(methods())


def test_every_method_of_two_levels_has_a_step_size_to_tune():
    for name in methods("bilevel"):
        rated = entrant(name)
        assert rated.rated is not None and getattr(rated.method(0.3), rated.rated) == 0.3
    assert entrant("BORep").method(0.3) == rp.bilevel.BORep(0.3)


def test_who_refuses_a_problem_does_not_answer_it():
    game, free = rp.problems.matrix_game(2, 2), rp.problems.bilinear()
    competitive = entrant("CompetitiveGradient")
    assert competitive.answers(free) and not competitive.answers(game)
    assert not entrant("AcceleratedPrimalDual").answers(game)
    # Backtracking compares values of F, which batches do not share.
    sampled = rp.problems.digits_gan()
    assert not entrant("Extragradient").answers(sampled)
    assert entrant("Extragradient.past").answers(sampled)


def test_a_misspelt_name_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="`lazynewtn`; did you mean LazyNewton"):
        entrant("lazynewtn")
    with pytest.raises(ValueError, match="`scipy.lbfgsb`; did you mean scipy.L-BFGS-B"):
        entrant("scipy.lbfgsb")


def test_whoever_samples_depends_on_the_seed():
    sampled = rp.FiniteSum(lambda y, a, _: (y - a) ** 2, jnp.array(0.0), jnp.ones(4), batch_size=2)
    assert entrant("optax.adam").draws(sampled)
    assert not entrant("optax.adam").draws(EASY[0])
    assert not entrant("GradientDescent").draws(sampled)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, peer in PEERS.items() if peer.usual])
def test_every_peer_solves_an_easy_problem(name):
    peer = entrant(name)
    problem = next(problem for problem in EASY if peer.answers(problem))
    solution = rp.solve(problem, peer.method(), key=jax.random.key(0), throw=False)
    assert bool(solution.usable), rp.status_name(solution.status)
