"""What is chosen where no method is named, and what goes on where that fails."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp


def freudenstein_roth(y, _):
    """Its only root is (5, 4); |F| has another minimum, of 7."""
    a, b = y
    return jnp.stack([a - 13 + ((5 - b) * b - 2) * b, a - 29 + ((b + 1) * b - 14) * b])


START = jnp.array([0.5, -2.0])
KEY = jax.random.key(0)


def test_a_path_goes_on_from_the_start_where_the_fit_rests_off_a_root():
    alone = rp.root(
        freudenstein_roth, START, method=rp.roots.AdaptiveLevenbergMarquardt(), throw=False
    )
    path = rp.root(freudenstein_roth, START, method=rp.roots.HomotopyNewton())
    solution = rp.root(freudenstein_roth, START)

    assert rp.status_name(alone.status) == "not_a_root"
    np.testing.assert_allclose(solution.value, [5.0, 4.0], rtol=1e-8)
    assert solution.stats.method == "HomotopyNewton"
    assert "AdaptiveLevenbergMarquardt came to rest off a root" in solution.stats.reason
    assert int(solution.stats.steps) == int(alone.stats.steps) + int(path.stats.steps)


def test_the_calls_of_all_are_counted():
    problem = rp.Counted(rp.RootFind(freudenstein_roth, START))
    one, other = (
        rp.solve(problem, method, throw=False).stats.counts
        for method in (rp.roots.AdaptiveLevenbergMarquardt(), rp.roots.HomotopyNewton())
    )
    counts = rp.solve(problem).stats.counts
    assert {name: int(n) for name, n in counts.items()} == {
        name: int(one[name]) + int(other[name]) for name in one
    }


def test_the_path_is_followed_the_other_way_too():
    # Newton's method goes to and fro between 0 and 1; upwards F turns before it vanishes.
    solution = rp.root(lambda y, _: y**3 - 2 * y + 2, 0.0)
    (real,) = np.roots([1, 0, -2, 2])[[0]].real
    np.testing.assert_allclose(solution.value, real, rtol=1e-8)


def test_fixed_points_are_rescued_as_roots_are():
    contraction = lambda y, _: y - (y - 3) * (y**2 + 0.1)
    assert float(rp.fixed_point(contraction, -1.0).value) == pytest.approx(3.0)


def test_where_no_root_is_the_first_answer_stands():
    solution = rp.root(lambda y, _: y**2 + 1, 1.0, throw=False, max_steps=50)
    assert rp.status_name(solution.status) == "not_a_root"
    assert solution.stats.method == "AdaptiveLevenbergMarquardt"
    assert abs(float(solution.value)) < 1e-6
    assert int(solution.stats.steps) <= 50


@pytest.mark.parametrize(
    "solve",
    [
        lambda: rp.root(
            freudenstein_roth, START, method=rp.roots.AdaptiveLevenbergMarquardt(), throw=False
        ),
        lambda: jax.jit(lambda y: rp.root(freudenstein_roth, y, throw=False))(START),
        lambda: rp.solve(rp.Noisy(rp.RootFind(freudenstein_roth, START), KEY), throw=False),
        lambda: rp.least_squares(freudenstein_roth, START),
    ],
    ids=["named", "jit", "disturbed", "least squares"],
)
def test_nothing_goes_on(solve):
    assert solve().stats.method == "AdaptiveLevenbergMarquardt"


def test_without_steps_left_nothing_goes_on():
    alone = rp.root(
        freudenstein_roth, START, method=rp.roots.AdaptiveLevenbergMarquardt(), throw=False
    )
    spent = int(alone.stats.steps)
    solution = rp.root(freudenstein_roth, START, max_steps=spent, throw=False)
    assert int(solution.stats.steps) == spent
    assert solution.stats.reason == "a system of 2 unknowns: dense Jacobians"


def test_more_equations_than_unknowns_have_no_path():
    fn = lambda y, _: jnp.stack([y - 1, y + 1])
    solution = rp.root(fn, 3.0, throw=False)
    assert rp.status_name(solution.status) == "not_a_root"
    assert solution.stats.reason == "a system of 1 unknown: dense Jacobians"


def test_a_watched_run_goes_on_as_others_do():
    problem = rp.Counted(rp.RootFind(freudenstein_roth, START))
    seen = []
    with rp.watch(seen.append):
        watched = rp.solve(problem)
    solution = rp.solve(problem)

    np.testing.assert_allclose(watched.value, solution.value, rtol=1e-12)
    assert watched.stats.reason == solution.stats.reason
    assert watched.stats.method == "HomotopyNewton"
    assert int(watched.stats.steps) == int(solution.stats.steps) == seen[-1].step
    assert seen[-1].counts == {name: int(n) for name, n in solution.stats.counts.items()}


def test_the_history_of_all_is_one():
    problem = rp.RootFind(freudenstein_roth, START)
    alone = rp.trace(problem, rp.roots.AdaptiveLevenbergMarquardt(), every=3)
    history = rp.trace(problem, every=3)
    assert set(np.diff(history.steps[:-1])) <= {1, 2, 3}
    spent = int(alone.solution.stats.steps)
    assert history.steps[-1] > spent
    np.testing.assert_array_equal(history.steps[: len(alone.steps)], alone.steps)
    known = history.steps <= spent
    np.testing.assert_array_equal(history.measures["residual"][known], alone.measures["residual"])
    assert np.all(np.diff(history.seconds) > 0)
    assert history.compile_seconds > alone.compile_seconds / 2


@pytest.mark.parametrize("ending", ["interrupted", "time_limit"])
def test_what_ends_a_run_from_outside_ends_what_would_follow(ending):
    problem = rp.RootFind(freudenstein_roth, START)
    spent = int(rp.trace(problem, rp.roots.AdaptiveLevenbergMarquardt()).solution.stats.steps)
    if ending == "interrupted":
        history = rp.trace(problem, every=1, callback=lambda record: record.step > spent + 1)
    else:
        # By then some time has passed, however fast the machine.
        history = rp.trace(problem, time_limit=1e-9, callback=lambda record: False)
    assert rp.status_name(history.solution.status) == ending
    assert int(history.solution.stats.steps) <= spent + 2


def test_what_takes_over_is_taken_up_again(tmp_path):
    problem = rp.RootFind(freudenstein_roth, START)
    whole = rp.trace(problem, checkpoint=tmp_path / "run")
    again = rp.trace(problem, checkpoint=tmp_path / "run")
    np.testing.assert_array_equal(whole.solution.value, again.solution.value)
    np.testing.assert_array_equal(whole.steps, again.steps)
    assert whole.solution.stats.method == again.solution.stats.method == "HomotopyNewton"
