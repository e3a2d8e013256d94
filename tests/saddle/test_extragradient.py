"""Extragradient against a transcription in NumPy, closed forms and linear programming."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

import raphson as rp
from raphson.method import advance, begin
from raphson.problems import saddles
from raphson.saddle.extragradient import SAFE, Extragradient

VARIANTS = tuple(SAFE)
SINGLE_CALL = VARIANTS[1:]
RADIUS = 0.7


def affine(seed=0, n=4, boxed=False):
    """A random monotone affine saddle, its operator as M z - q, and its projection."""
    rng = np.random.default_rng(seed)
    A, b = rng.normal(size=(n, n)), rng.normal(size=2 * n)
    M = np.block([[0.3 * np.eye(n), A], [-A.T, 0.3 * np.eye(n)]])
    z0 = rng.normal(size=2 * n)

    def fn(x, y, args):
        A, b = args
        return 0.15 * x @ x + x @ (A @ y) - 0.15 * y @ y - b[:n] @ x + b[n:] @ y

    box = rp.composite.Box(-RADIUS, RADIUS) if boxed else None
    problem = rp.Saddle(fn, z0[:n], z0[n:], (A, b), nonsmooth=(box, box))
    project = (lambda z: np.clip(z, -RADIUS, RADIUS)) if boxed else (lambda z: z)
    return problem, (lambda z: M @ z - b), project, np.linalg.norm(M, 2)


def transcription(F, P, z0, steps, variant, count, update=1.0):
    """Base and leading points as the papers index them: X_1 = X_{1/2} = X_0 = z0."""
    X, before, V = z0, z0, F(z0)
    bases, leads = [X], []
    for t in range(count):
        g = steps(t)
        if variant == "extragradient":
            Z = P(X - g * F(X))
            new = P(X - update * g * F(Z))
        elif variant == "past":
            Z = P(X - g * V)
            new = P(X - update * g * F(Z))
        elif variant == "reflected":
            Z = 2 * X - before
            new = P(X - g * F(Z))
        else:
            Z = P(X - g * V)
            new = Z + g * V - g * F(Z)
        X, before, V = new, X, F(Z)
        bases.append(X)
        leads.append(Z)
    return np.array(bases), np.array(leads)


def path(problem, method, count):
    """Iterates, base points and averages after 0, 1, ..., `count` steps."""

    @jax.jit
    def scan():
        def leg(run, until):
            run = advance(problem, method, run, rtol=0.0, atol=0.0, until=until)
            return run, (run.y, run.state.base, run.state.average)

        run = begin(problem, method, problem.y0, None, rtol=0.0, atol=0.0)
        return jax.lax.scan(leg, run, jnp.arange(count + 1))[1]

    return [None if z is None else np.concatenate(z, axis=1) for z in scan()]


@pytest.mark.parametrize("boxed", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_iterates_are_those_of_the_papers(variant, boxed):
    problem, F, P, L = affine(boxed=boxed)
    s = SAFE[variant] / L
    y, base, _ = path(problem, Extragradient(s, variant), 25)
    z0 = np.concatenate(problem.y0)
    bases, leads = transcription(F, P, z0, lambda t: s, variant, 25)
    np.testing.assert_allclose(base, bases, rtol=0, atol=1e-13)
    if variant == "extragradient":
        np.testing.assert_allclose(y, bases, rtol=0, atol=1e-13)
    elif variant == "reflected":  # Z_1 = z0 is the start: the iterate is one leading point ahead
        np.testing.assert_allclose(y[:-1], leads, rtol=0, atol=1e-13)
    else:
        np.testing.assert_allclose(y[1:], leads, rtol=0, atol=1e-13)


@pytest.mark.parametrize("variant", VARIANTS)
def test_pair_of_step_sizes_is_a_metric(variant):
    problem, F, P, _ = affine()
    y, base, _ = path(problem, Extragradient((0.02, 0.1), variant), 15)
    steps = np.repeat([0.02, 0.1], 4)
    z0 = np.concatenate(problem.y0)
    bases, _ = transcription(F, P, z0, lambda t: steps, variant, 15)
    np.testing.assert_allclose(base, bases, rtol=0, atol=1e-13)


@pytest.mark.parametrize("clip", [None, 0.6])
@pytest.mark.parametrize("variant", ["extragradient", "past"])
def test_second_step_may_be_shorter(variant, clip):
    problem, F, P, _ = affine(boxed=True)
    limited = F if clip is None else lambda z: F(z) * min(1, clip / np.linalg.norm(F(z)))
    _, base, _ = path(problem, Extragradient((0.02, 0.1), variant, clip=clip, update=0.3), 15)
    steps = np.repeat([0.02, 0.1], 4)
    z0 = np.concatenate(problem.y0)
    bases, _ = transcription(limited, P, z0, lambda t: steps, variant, 15, update=0.3)
    np.testing.assert_allclose(base, bases, rtol=0, atol=1e-13)


@pytest.mark.parametrize("update", [None, 0.1])
def test_a_shorter_second_step_converges_where_two_of_one_length_do_not(update):
    # With l = -0.4 + i the eigenvalue of F, a step multiplies by 1 - r s l + r (s l)^2.
    problem = rp.VariationalInequality(
        lambda z, M: M @ z, jnp.ones(2), np.array([[-0.4, 1], [-1, -0.4]])
    )
    s, r, l = 0.9, update or 1.0, -0.4 + 1j
    solution = rp.solve(problem, Extragradient(s, update=update), max_steps=30, throw=False)
    factor = abs(1 - r * s * l + r * (s * l) ** 2)
    np.testing.assert_allclose(np.linalg.norm(solution.value), 2**0.5 * factor**30, rtol=1e-10)
    assert (factor < 1) == (update is not None)
    if update is not None:
        by_default = rp.solve(problem, Extragradient(update=update), max_steps=5000)
        np.testing.assert_allclose(by_default.value, 0, atol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_schedule_counts_steps_from_zero(variant):
    problem, F, P, _ = affine()
    y, base, _ = path(problem, Extragradient(lambda t: 1.0 / (t + 20), variant), 15)
    z0 = np.concatenate(problem.y0)
    bases, _ = transcription(F, P, z0, lambda t: 1.0 / (t + 20), variant, 15)
    np.testing.assert_allclose(base, bases, rtol=0, atol=1e-13)


def test_schedule_may_give_a_pair_and_be_of_optax():
    problem, F, P, _ = affine()
    decay = optax.exponential_decay(0.1, 10, 0.5)
    scheduled = Extragradient(lambda t: (decay(t) / 4, decay(t)))
    _, base, _ = path(problem, scheduled, 15)
    bases, _ = transcription(
        F,
        P,
        np.concatenate(problem.y0),
        lambda t: np.repeat([0.025, 0.1], 4) * 0.5 ** (t / 10),
        "extragradient",
        15,
    )
    np.testing.assert_allclose(base, bases, rtol=0, atol=1e-6)  # Optax decays in single precision


@pytest.mark.parametrize("variant", VARIANTS)
def test_average_is_the_mean_of_leading_points(variant):
    problem, F, P, L = affine()
    method = Extragradient.from_lipschitz(L, variant, average=True)
    _, _, average = path(problem, method, 12)
    _, leads = transcription(
        F, P, np.concatenate(problem.y0), lambda t: SAFE[variant] / L, variant, 13
    )
    leads = leads[1:] if variant == "reflected" else leads[:12]
    np.testing.assert_allclose(average[-1], leads.mean(0), rtol=0, atol=1e-13)


def test_average_is_what_is_answered_and_judged():
    problem, F, _, L = affine()
    method = Extragradient.from_lipschitz(L, average=True)
    solution = rp.solve(problem, method, max_steps=12, throw=False)
    z = np.concatenate(solution.value)
    np.testing.assert_allclose(z, path(problem, method, 12)[2][-1], rtol=0, atol=1e-13)
    np.testing.assert_allclose(solution.certificate.residual, np.linalg.norm(F(z)), rtol=1e-12)


@pytest.mark.parametrize("variant", SINGLE_CALL)
def test_single_call_forms_ask_once_a_step(variant):
    problem = rp.Counted(saddles.bilinear())
    solution = rp.solve(
        problem, Extragradient(0.3, variant), max_steps=50, rtol=0, atol=0, throw=False
    )
    assert int(solution.stats.counts["operator"]) == 50 + 1


def test_extragradient_asks_twice_a_step():
    problem = rp.Counted(saddles.bilinear())
    solution = rp.solve(problem, Extragradient(0.3), max_steps=50, rtol=0, atol=0, throw=False)
    assert int(solution.stats.counts["operator"]) == 2 * 50 + 1


@pytest.mark.parametrize("boxed", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_known_residual_is_the_problems_own(variant, boxed):
    problem, *_ = affine(boxed=boxed)
    method = Extragradient(0.05, variant)
    y, state = problem.y0, method.init(problem, problem.y0, None)
    for _ in range(5):
        y, state = method.step(problem, y, state)
    known = method.known(problem, y, state)
    assert known.value is None
    for ours, theirs in zip(known.residual, problem.optimality(y), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-14)


@pytest.mark.parametrize("boxed", [False, True])
@pytest.mark.parametrize("variant", (*VARIANTS, None))
def test_solves_monotone_saddles(variant, boxed):
    problem, F, P, L = affine(boxed=boxed)
    method = Extragradient() if variant is None else Extragradient.from_lipschitz(L, variant)
    solution = rp.solve(problem, method, rtol=1e-10, atol=1e-10)
    z = np.concatenate(solution.value)
    # Where an answer solves the variational inequality, F points into the box at each bound.
    assert np.linalg.norm(z - P(z - F(z))) <= 1e-9
    assert np.all(np.abs(z) <= (RADIUS + 1e-9 if boxed else np.inf))
    if not boxed:
        M = np.array([F(e) - F(np.zeros(8)) for e in np.eye(8)]).T
        np.testing.assert_allclose(z, np.linalg.solve(M, -F(np.zeros(8))), atol=1e-8)


def test_matrix_game_against_linear_programming():
    payoff = np.random.default_rng(3).normal(size=(4, 5))
    simplices = rp.composite.Simplex(), rp.composite.Simplex()
    problem = rp.Saddle(
        lambda x, y, A: x @ A @ y, jnp.full(4, 0.25), jnp.full(5, 0.2), payoff, nonsmooth=simplices
    )
    solution = rp.solve(problem, Extragradient(), rtol=1e-10, atol=1e-10, max_steps=100_000)
    # The row player's least guaranteed loss: min v with A'x <= v, x on the simplex.
    program = scipy.optimize.linprog(
        [0, 0, 0, 0, 1],
        A_ub=np.column_stack([payoff.T, -np.ones(5)]),
        b_ub=np.zeros(5),
        A_eq=[[1, 1, 1, 1, 0]],
        b_eq=[1],
        bounds=[(0, 1)] * 4 + [(None, None)],
    )
    x, y = solution.value
    np.testing.assert_allclose(np.max(np.asarray(x) @ payoff), program.fun, atol=1e-8)
    np.testing.assert_allclose(np.min(payoff @ np.asarray(y)), program.fun, atol=1e-8)


def test_backtracking_adapts_over_ten_orders_of_magnitude():
    for scale in (1e-5, 1e5):
        base = saddles.strongly_monotone(strong_convexity=0.5)
        problem = rp.Counted(rp.Scaled(base, value_scale=scale))
        solution = rp.solve(problem, Extragradient(), rtol=1e-8, atol=0.0)
        assert int(solution.stats.steps) < 300
        accepted = float(solution.state.step_size) * scale * base.facts.lipschitz
        assert 0.3 < accepted < 1.5
        # One call more for about each of log(2) / log(1.1) = 7 steps, and those of the beginning.
        assert int(solution.stats.counts["operator"]) < 2.25 * int(solution.stats.steps) + 40


def test_backtracking_keeps_the_leading_point_where_the_operator_is_defined():
    def fn(x, y, _):
        return -jnp.sqrt(4 - x**2) + 3 * x * y + jnp.sqrt(4 - y**2)

    problem = rp.Saddle(fn, jnp.array(1.9), jnp.array(-1.5))
    assert rp.status_name(rp.solve(problem, Extragradient(1.0), throw=False).status) == "nonfinite"
    np.testing.assert_allclose(rp.solve(problem, Extragradient()).value, (0, 0), atol=1e-5)


def test_variational_inequality_without_players():
    rotation = lambda z, _: jnp.array([z[1], -z[0]]) + 0.1 * z
    problem = rp.VariationalInequality(rotation, jnp.ones(2))
    np.testing.assert_allclose(rp.solve(problem, Extragradient()).value, 0, atol=1e-5)
    with pytest.raises(ValueError, match="`step_size` .* only for a Saddle"):
        rp.solve(problem, Extragradient((0.1, 0.2)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_single_precision_stays_single(variant):
    to_float32 = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)
    problem = saddles.strongly_monotone(strong_convexity=0.5)
    x, y = to_float32(problem.y0)
    single = rp.Saddle(problem.fn, x, y, to_float32(problem.args))
    for step_size in (optax.constant_schedule(jnp.float64(0.3)), (0.3, np.float64(0.3))):
        solution = rp.solve(single, Extragradient(step_size, variant))
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(solution.value))
        for ours, exact in zip(solution.value, problem.facts.minimizer, strict=True):
            np.testing.assert_allclose(ours, exact, atol=1e-2)


@pytest.mark.parametrize("variant", VARIANTS)
def test_players_may_be_trees(variant):
    def fn(x, y, _):
        return x["a"] @ y[0] + x["b"] * y[1] + 0.5 * x["b"] ** 2 - 0.5 * jnp.sum(y[0] ** 2)

    problem = rp.Saddle(fn, {"a": jnp.ones(2), "b": jnp.array(1.0)}, [jnp.ones(2), jnp.array(2.0)])
    solution = rp.solve(problem, Extragradient((0.2, 0.3), variant))
    assert all(np.all(np.abs(leaf) < 1e-5) for leaf in jax.tree.leaves(solution.value))


def sampled(seed=0, n=1000, d=4):
    """Random monotone affine operators to sample, and what is asked of them, in turn."""
    rng = np.random.default_rng(seed)
    skew = rng.normal(size=(n, d, d))
    matrices = 0.3 * np.eye(d) + skew - skew.transpose(0, 2, 1)
    data = matrices, rng.normal(size=(n, d))
    box, asked = rp.composite.Box(-RADIUS, RADIUS), []

    def answered(z, batch, _):
        asked.append(tuple(map(np.asarray, batch)))
        return jnp.mean(batch[0], axis=0) @ z - jnp.mean(batch[1], axis=0)

    fn = lambda z, sample, _: sample[0] @ z - sample[1]
    problem = rp.VariationalSum(
        fn, rng.normal(size=d), data, batch_size=2, nonsmooth=box, batch_operator=answered
    )
    return problem, asked


@pytest.mark.parametrize("clip", [None, 0.8, lambda t: 1 / (t + 1)])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("variant", VARIANTS)
def test_sampled_steps_are_those_of_the_papers(variant, shared, clip):
    problem, asked = sampled()
    s, P = 0.1, lambda z: np.clip(z, -RADIUS, RADIUS)
    method = Extragradient(s, variant, clip=clip, shared_sample=shared)
    y, state = problem.y0, method.init(problem, problem.y0, jax.random.key(0))
    bases = []
    for _ in range(6):
        y, state = method.step(problem, y, state)
        bases.append(state.base)

    answers = iter(asked)
    drawn = lambda: (lambda a: lambda z: a[0].mean(0) @ z - a[1].mean(0))(next(answers))
    X = np.asarray(problem.y0)
    raw = None if variant == "extragradient" else drawn()(X)
    for t in range(6):
        length = np.inf if clip is None else clip if isinstance(clip, float) else clip(t)
        limited = lambda v: v * min(1, length / np.linalg.norm(v))  # noqa: B023
        if variant == "extragradient":
            Z = P(X - s * limited(drawn()(X)))
            new = P(X - s * limited(drawn()(Z)))
        elif variant == "past":
            Z = P(X - s * limited(raw))
            raw = drawn()(Z)
            new = P(X - s * limited(raw))
        elif variant == "reflected":
            # Its iterate is one leading point ahead, and so is the clip of what was asked there.
            new = P(X - s * limited(raw))
            raw = drawn()(2 * new - X)
        else:
            Z = P(X - s * limited(raw))
            V, raw = limited(raw), drawn()(Z)
            new = Z + s * V - s * limited(raw)
        X = new
        np.testing.assert_allclose(bases[t], X, rtol=0, atol=1e-13)
    assert next(answers, None) is None

    same = [all(map(np.array_equal, a, b)) for a, b in zip(asked[::2], asked[1::2], strict=False)]
    if variant == "extragradient":
        assert all(same) if shared else not any(same)
    assert not any(all(map(np.array_equal, a, b)) for a, b in zip(asked[1::2], asked[2::2]))


@pytest.mark.parametrize("variant", VARIANTS)
def test_sampled_runs_ask_batches_only_and_claim_nothing(variant):
    fn = lambda x, y, a, _: x**2 / 2 + (x - a) * y - y**2 / 2
    problem = rp.SaddleSum(fn, jnp.array(3.0), jnp.array(0.0), jnp.arange(3.0), batch_size=1)
    method = Extragradient(lambda t: 1 / (t + 5), variant)
    counted = rp.Counted(problem)
    with pytest.raises(ValueError, match="`key`"):
        rp.solve(problem, method)
    solution = rp.solve(counted, method, key=jax.random.key(0), max_steps=3000, throw=False)
    assert rp.status_name(solution.status) == "max_steps"
    calls = 2 * 3000 if variant == "extragradient" else 3000 + 1
    assert int(solution.stats.counts["operator"]) == calls
    np.testing.assert_allclose(solution.value, (0.5, -0.5), atol=0.1)
    by_default = rp.solve(problem, key=jax.random.key(0), max_steps=2000, throw=False)
    np.testing.assert_allclose(by_default.value, (0.5, -0.5), atol=0.3)


def test_a_sample_for_each_call_diverges_where_a_shared_one_converges():
    # f = a x y with a = 3 or -1, F on a batch of 1 has no common strong monotonicity.
    problem = rp.SaddleSum(
        lambda x, y, a, _: a * x * y, 1.0, 1.0, jnp.array([3.0, -1.0]), batch_size=1
    )

    def end(shared):
        method = Extragradient(0.1, shared_sample=shared)
        solution = rp.solve(problem, method, key=jax.random.key(0), max_steps=2000, throw=False)
        return float(np.linalg.norm(solution.value))

    assert end(True) < 1e-6 and end(False) > 1e3


@pytest.mark.parametrize("variant", VARIANTS)
def test_clip_delays_but_does_not_move_the_answer_of_an_exact_problem(variant):
    problem, F, _, L = affine()
    method = Extragradient(SAFE[variant] / L, variant, clip=0.5)
    # As far as the start is, no step is longer than s times the clip.
    first = method.step(problem, problem.y0, method.init(problem, problem.y0, None))[1].base
    moved = np.linalg.norm(np.concatenate(first) - np.concatenate(problem.y0))
    bound = SAFE[variant] / L * 0.5
    assert moved <= (1 + (variant == "optimistic")) * bound + 1e-15
    solution = rp.solve(problem, method, rtol=1e-10, atol=1e-10, max_steps=20_000)
    np.testing.assert_allclose(F(np.concatenate(solution.value)), 0, atol=1e-9)


def test_backtracking_may_be_clipped():
    problem, F, *_ = affine()
    solution = rp.solve(problem, Extragradient(clip=0.5), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(F(np.concatenate(solution.value)), 0, atol=1e-9)


def test_backtracking_is_refused_where_the_problem_is_sampled():
    problem, _ = sampled()
    with pytest.raises(ValueError, match="`step_size` .* where the problem is sampled, got None"):
        rp.solve(problem, Extragradient(), key=jax.random.key(0))


def test_vmap_over_step_sizes_and_grad_through_the_answer():
    problem = saddles.strongly_monotone(strong_convexity=0.5)
    steps = jax.vmap(lambda s: rp.solve(problem, Extragradient(s), throw=False).stats.steps)
    alone = [int(rp.solve(problem, Extragradient(s)).stats.steps) for s in (0.2, 0.6)]
    assert steps(jnp.array([0.2, 0.6])).tolist() == alone

    def answer(c):
        fn = lambda x, y, c: x**2 / 2 + x * y - y**2 / 2 + c * x - 2 * c * y
        pulled = rp.Saddle(fn, jnp.array(1.0), jnp.array(1.0), c)
        return rp.solve(pulled, Extragradient(0.4), rtol=1e-12, atol=1e-12).value

    # x + y = -c and y - x = -2 c.
    np.testing.assert_allclose(jax.jacobian(answer)(jnp.array(0.3)), (0.5, -1.5), atol=1e-10)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Extragradient(0.0), "`step_size` of Extragradient must be a number in (0, inf)"),
        (lambda: Extragradient((0.1, -0.1)), "`step_size` of Extragradient must be a number"),
        (lambda: Extragradient((0.1, 0.1, 0.1)), "must be one number or a pair"),
        (lambda: Extragradient(0.1, clip=0.0), "`clip` of Extragradient must be a number"),
        (lambda: Extragradient(0.1, clip=(1.0, 1.0)), "`clip` of Extragradient must be one number"),
        (
            lambda: Extragradient(0.1, update=1.5),
            "`update` of Extragradient must be a number in (0",
        ),
        (lambda: Extragradient(0.1, "optimistic", update=0.5), "`update` of Extragradient must be"),
        (lambda: Extragradient("big"), "`step_size` of Extragradient must be a number"),
        (lambda: Extragradient(0.1, "popov"), "`variant` of Extragradient must be one of"),
        (lambda: Extragradient.from_lipschitz(0.0), "`lipschitz` must be a number in (0, inf)"),
        (lambda: Extragradient.from_lipschitz(1.0, "popov"), "`variant` of Extragradient must be"),
        *((lambda v=v: Extragradient(variant=v), "0.45 / L") for v in SINGLE_CALL),
    ],
)
def test_unfit_hyperparameters_are_refused_in_one_sentence(build, says):
    with pytest.raises(ValueError, match=re.escape(says)) as refusal:
        build()
    assert "\n" not in str(refusal.value)


def test_from_lipschitz_is_safe_where_the_two_call_step_is_not():
    problem = saddles.bilinear([1.0, 0.9])
    for variant in SINGLE_CALL:
        safe = Extragradient.from_lipschitz(1.0, variant)
        assert bool(rp.solve(problem, safe).converged)
        bold = rp.solve(problem, Extragradient(0.9, variant), throw=False)
        assert rp.status_name(bold.status) in ("nonfinite", "max_steps")
        assert not float(bold.certificate.residual) < 1e3
    assert bool(rp.solve(problem, Extragradient.from_lipschitz(1.0)).converged)


@pytest.mark.parametrize(
    "make", [saddles.bilinear, saddles.strongly_monotone, saddles.local_minimax]
)
def test_facts_of_the_saddles_are_exact(make):
    problem = make()
    flat, unravel = jax.flatten_util.ravel_pytree(problem.facts.minimizer)
    F = lambda flat: jax.flatten_util.ravel_pytree(problem.operator(unravel(flat)))[0]
    np.testing.assert_allclose(F(flat), 0, atol=1e-14)
    derivative = np.asarray(jax.jacobian(F)(flat + 1))
    np.testing.assert_allclose(problem.facts.lipschitz, np.linalg.norm(derivative, 2), rtol=1e-12)
    least = np.linalg.eigvalsh((derivative + derivative.T) / 2)[0]
    assert problem.facts.convex == (least > -1e-12)
    np.testing.assert_allclose(problem.facts.strong_convexity or min(least, 0), least, atol=1e-14)


@pytest.mark.parametrize("values", [[], [1.0, 0.0], [[1.0]], [-1.0]])
def test_unfit_singular_values_are_refused(values):
    with pytest.raises(ValueError, match="`singular_values` must be a vector of positive numbers"):
        saddles.bilinear(values)
