"""The scalar Newton steps against NumPy, Newton's method in one unknown, and Polyak's rate."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.roots import ScalarNewton

A = np.array([[0.2, -1.5, 0.1], [0.4, 0.3, -1.2], [0.7, 0.6, 0.1]])
START = np.array([2.0, -1.0, 0.5])


def curved(y, _=None, xp=jnp):
    return xp.sin(A @ y) + 0.3


def bowl(y, xp=jnp):
    return 0.05 * xp.sum((y - 1) ** 2)


def transcription(form, cap, penalized, y, count):
    for _ in range(count):
        r = curved(y, xp=np) - y
        jacobian = np.cos(A @ y)[:, None] * A - np.eye(3)
        F, g = np.abs(r).sum(), jacobian.T @ np.sign(r)
        if penalized:
            F, g = F + bowl(y, np), g + 0.1 * (y - 1)
        if form == "minimal_norm":
            y = y - F * g / (g @ g)
        else:
            y = y - np.clip(F / (3 * g), -cap, cap)
        yield y


@eqx.filter_jit
def iterates(problem, method, count):
    """Iterates, residuals and answers after 1, ..., `count` steps."""

    def step(carry, _):
        y, state = method.step(problem, *carry)
        return (y, state), (y, state.residual, method.answer(problem, y, state))

    start = problem.y0, method.init(problem, problem.y0, None)
    return jax.lax.scan(step, start, length=count)[1]


@pytest.mark.parametrize(
    "form, cap, penalty",
    [("minimal_norm", 1.0, None), ("minimal_norm", 1.0, bowl), ("componentwise", 0.4, bowl)],
)
def test_steps_are_those_of_the_formula(form, cap, penalty):
    problem = rp.FixedPoint(curved, jnp.array(START))
    ys, residuals, answers = iterates(problem, ScalarNewton(form, jnp.array(cap), penalty), 6)
    expected = np.array(list(transcription(form, cap, penalty is not None, START, 6)))
    np.testing.assert_allclose(ys, expected, rtol=1e-10)
    np.testing.assert_allclose(residuals, curved(expected.T, xp=np).T - expected, atol=1e-10)
    # The answer is the best iterate so far, the start included.
    seen = np.concatenate([[START], expected])
    sizes = np.abs(curved(seen.T, xp=np).T - seen).sum(axis=1)
    best = seen[[np.argmin(sizes[: k + 2]) for k in range(6)]]
    np.testing.assert_allclose(answers, best, rtol=1e-10)
    if form == "componentwise":
        assert np.any(np.isclose(np.abs(np.diff(seen, axis=0)), cap))


@pytest.mark.parametrize("form", ["minimal_norm", "componentwise"])
def test_in_one_unknown_it_is_newtons_method(form):
    problem = rp.FixedPoint(lambda y, _: jnp.cos(y), jnp.array([0.2]))
    ys, _, _ = iterates(problem, ScalarNewton(form), 4)
    y = 0.2
    for got in ys[:, 0]:
        y = y - (np.cos(y) - y) / (-np.sin(y) - 1)
        assert float(got) == pytest.approx(y, rel=1e-14)


def test_on_an_affine_map_each_step_comes_closer_at_the_rate_of_polyak():
    # |r|_1 >= s_min |y - y*|, and |g| <= s_max sqrt(n).
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    slope = basis * [-1.0, 2.0, -2.0, 1.5, -3.0] @ np.linalg.qr(rng.normal(size=(5, 5)))[0]
    root = rng.normal(size=5)
    problem = rp.FixedPoint(lambda y, _: y + slope @ (y - root), jnp.zeros(5))
    ys, _, _ = iterates(problem, ScalarNewton(), 60)
    distance = np.linalg.norm(np.concatenate([[np.zeros(5)], ys]) - root, axis=1)
    ratios = distance[1:] / distance[:-1]
    assert np.all(ratios <= np.sqrt(1 - 1 / (5 * 3**2)))
    # No fixed-point iteration would: an eigenvalue of its slope is outside the unit circle.
    assert np.abs(np.linalg.eigvals(np.eye(5) + slope)).max() > 1.5


def test_a_step_asks_one_residual_and_one_product():
    problem = rp.Counted(rp.FixedPoint(lambda y, _: 0.3 * jnp.cos(y), jnp.array(START)))
    solution = rp.solve(problem, ScalarNewton())
    steps, counts = int(solution.stats.steps), solution.stats.counts
    assert steps > 3 and int(counts["residual"]) == 1 + steps == 1 + int(counts["product"])


def test_at_rest_it_stalls():
    # The smallest |r| is 1, at 0.
    problem = rp.FixedPoint(lambda y, _: y + 1 + y**2, jnp.array(0.5))
    solution = rp.solve(problem, ScalarNewton(), max_steps=2000, throw=False)
    assert rp.status_name(solution.status) in ("stalled", "not_a_root")
    flat = rp.FixedPoint(lambda y, _: y + 1, jnp.array(0.5))
    solution = rp.solve(flat, ScalarNewton(), throw=False)
    assert int(solution.stats.steps) == 1 and float(solution.value) == 0.5


@pytest.mark.parametrize(
    "options, name", [({"form": "l1"}, "form"), ({"cap": 0}, "cap"), ({"cap": -1.0}, "cap")]
)
def test_bad_hyperparameters_are_refused(options, name):
    with pytest.raises(ValueError, match=f"`{name}` of ScalarNewton must be"):
        ScalarNewton(**options)
