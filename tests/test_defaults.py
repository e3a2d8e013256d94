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
