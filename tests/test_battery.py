"""What every method must pass by being listed in its family.

A new method adds its rows here by its line in the family's `__init__.py`; nothing is edited.
"""

import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax.tree as otu
import pytest

import raphson as rp
from raphson.bilevel.problem import AbstractBilevel, AbstractLevels
from raphson.composite.problem import Composite
from raphson.families import methods
from raphson.linear.problem import LinearSystem
from raphson.problem import AbstractObjective, AbstractResidual, Known
from raphson.roots.problem import AbstractBounded
from raphson.saddle.problem import AbstractVariational
from raphson.smooth.risk_parity import RiskParity

# A prior that is inferred from tasks is no answer that a residual judges; it has tests of its own.
METHODS = {n: m for n, m in methods().items() if m.question is not rp.bilevel.FewShot}
# For two unknowns at most, and the problems here have three: it has tests of its own as well.
del METHODS["CenterOfGravity"]
each = pytest.mark.parametrize("name", METHODS)
# What the engine, the question or a wrapper has to hold, hardly the method: the quick suite asks it
# of one method for each question.
FIRST = {method.question: name for name, method in reversed(METHODS.items())}
one_of_each = pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in FIRST.values() else pytest.mark.slow) for n in METHODS],
)

SHIFT = 0.25


# One problem for each question, all with the answer 1 + a for the data `a`; `trees` asks for a
# PyTree iterate.
def objective(a, dtype, trees):
    def fn(y, a):
        one = 1.0 + a
        return jnp.sum((y["u"] - one) ** 2) + jnp.sum(2 * (y["v"] - one) ** 2)

    if not trees:
        return rp.Minimize(lambda y, a: fn({"u": y[:2], "v": y[2]}, a), jnp.zeros(3, dtype), a)
    return rp.Minimize(fn, {"u": jnp.zeros(2, dtype), "v": jnp.zeros((), dtype)}, a)


def residual(a, dtype, trees):
    def fn(y, a):
        d = jax.tree.map(lambda leaf: leaf - (1.0 + a), y)
        return {"u": d["u"] + 0.1 * d["u"] ** 3, "v": 2 * d["v"] + d["u"][0]}

    if not trees:

        def flat(y, a):
            out = fn({"u": y[:2], "v": y[2]}, a)
            return jnp.append(out["u"], out["v"])

        return rp.RootFind(flat, jnp.zeros(3, dtype), a)
    return rp.RootFind(fn, {"u": jnp.zeros(2, dtype), "v": jnp.zeros((), dtype)}, a)


def fit(a, dtype, trees):
    problem = residual(a, dtype, trees)
    return rp.LeastSquares(problem.fn, problem.y0, a)


def fixed_point(a, dtype, trees):
    problem = residual(a, dtype, trees)
    # A contraction with the same answer.
    fn = lambda y, a: otu.add_scale(y, -0.4, problem.fn(y, a))
    return rp.FixedPoint(fn, problem.y0, a)


def within_bounds(a, dtype, trees):
    problem = residual(a, dtype, trees)
    return rp.BoundedRootFind(problem.fn, problem.y0, -1.0, 4.0, a)


def system(a, dtype, trees):
    matrix = jnp.array([[4.0, 1.0, 0.0], [1.0, 3.0, 1.0], [0.0, 1.0, 5.0]], dtype)
    if not trees:
        return LinearSystem(matrix, matrix @ jnp.full(3, 1.0 + a, dtype))

    def mv(y):
        out = matrix @ jnp.append(y["u"], y["v"])
        return {"u": out[:2], "v": out[2]}

    import lineax as lx

    like = {"u": jnp.zeros(2, dtype), "v": jnp.zeros((), dtype)}
    tags = lx.positive_semidefinite_tag
    operator = lx.FunctionLinearOperator(mv, jax.eval_shape(lambda: like), tags)
    return LinearSystem(operator, mv(jax.tree.map(lambda leaf: leaf + 1.0 + a, like)))


def saddle(a, dtype, trees):
    def fn(x, y, a):
        dx, dy = jax.tree.map(lambda leaf: leaf - (1.0 + a), (x, y))
        if trees:
            dx, dy = dx["u"], dy["v"]
        return jnp.sum(dx**2) / 2 + jnp.sum(dx * dy) - jnp.sum(dy**2) / 2

    zeros = jnp.zeros(2, dtype)
    if trees:
        return rp.Saddle(fn, {"u": zeros}, {"v": zeros}, a)
    return rp.Saddle(fn, zeros, zeros, a)


def split_saddle(a, dtype, trees):
    """f(x) + x'y - |y|^2 / 2, with the strong concavity in the nonsmooth part."""
    leaf = (lambda z: jax.tree.leaves(z)[0]) if trees else (lambda z: z)

    def fn(x, a):
        return jnp.sum((leaf(x) - (1.0 + a)) ** 2) / 2 - (1.0 + a) * jnp.sum(leaf(x))

    coupling = lambda x, y, _: jnp.sum(leaf(x) * leaf(y))
    zeros, parts = jnp.zeros(2, dtype), (None, rp.composite.SquaredNorm(1.0))
    x, y = ({"u": zeros}, {"v": zeros}) if trees else (zeros, zeros)
    return rp.CompositeSaddle(fn, coupling, x, y, a, nonsmooth=parts)


def levels(a, dtype, trees):
    """The lower answer is (x + 1 + a) / 2, and there the upper gradient by y vanishes too."""

    def upper(x, y, a):
        dx, dy = jax.tree.map(lambda leaf: leaf - (1.0 + a), (x, y))
        return (otu.norm(dx, squared=True) + otu.norm(dy, squared=True)) / 2

    def lower(x, y, a):
        x, y = jax.tree.leaves(x)[0], jax.tree.leaves(y)[0]
        return jnp.sum((y - (x + 1.0 + a) / 2) ** 2) / 2

    zeros = jnp.zeros(2, dtype)
    if trees:
        return rp.Bilevel(upper, lower, {"u": zeros}, {"v": zeros}, a)
    return rp.Bilevel(upper, lower, zeros, zeros, a)


def blocks(a, dtype, trees):
    """`levels` with a lower level for each entry of x."""
    leaf = (lambda z: jax.tree.leaves(z)[0]) if trees else (lambda z: z)

    def upper(x, y, i, a):
        one = 1.0 + a
        return (jnp.sum((leaf(x) - one) ** 2) + jnp.sum((leaf(y) - one) ** 2)) / 2

    def lower(x, y, i, a):
        return jnp.sum((leaf(y) - (leaf(x)[i] + 1.0 + a) / 2) ** 2) / 2

    zeros, data = jnp.zeros(2, dtype), jnp.arange(2)[:, None]
    x, y = ({"u": zeros}, {"v": zeros}) if trees else (zeros, zeros)
    return rp.bilevel.MultiBlockBilevel(upper, lower, x, y, data, data, a)


def composite(a, dtype, trees):
    # What the slope adds the absolute values take away, where y is positive.
    problem = objective(a, dtype, trees)
    fn = lambda y, a: problem.fn(y, a) - 0.5 * otu.sum(y)
    return Composite(rp.Minimize(fn, problem.y0, a), rp.composite.L1(0.5))


def portfolio(a, dtype, trees):
    matrix = jnp.array([[1.0, 0.3, -0.2], [0.3, 1.0, 0.1], [-0.2, 0.1, 1.0]], dtype)
    budget = (1.0 + a) ** 2 * jnp.sum(matrix, axis=1)
    start = jnp.array([2.0, 1.5, 2.5], dtype)
    if not trees:
        return RiskParity(matrix, budget, start)
    halves = [{"u": flat[:2], "v": flat[2]} for flat in (budget, start)]
    return RiskParity(matrix, *halves)


PROBLEMS = {
    AbstractObjective: objective,
    AbstractResidual: residual,
    rp.LeastSquares: fit,
    rp.FixedPoint: fixed_point,
    AbstractBounded: within_bounds,
    LinearSystem: system,
    Composite: composite,
    AbstractVariational: saddle,
    rp.Saddle: saddle,
    rp.CompositeSaddle: split_saddle,
    AbstractBilevel: levels,
    AbstractLevels: levels,
    rp.bilevel.MultiBlockBilevel: blocks,
    RiskParity: portfolio,
}


def problem_for(method, a=0.0, dtype=jnp.float64, trees=False):
    return PROBLEMS[method.question](a, dtype, trees)


def answer(value):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(value)])


def make(name):
    method = METHODS[name]()
    return method, problem_for(method), (jax.random.key(0) if method.stochastic else None)


def bitwise(a, b):
    """Whether two trees hold the same bits."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


def sharp(dtype):
    """A tolerance at which the answer is known to a few digits less than the arithmetic has."""
    return 1e-9 if dtype == jnp.float64 else 1e-4


@each
def test_solves_known_problem(name):
    method, problem, key = make(name)
    solution = rp.solve(problem, method, key=key, rtol=1e-9, atol=1e-9)
    assert bool(solution.converged)
    np.testing.assert_allclose(answer(solution.value), 1.0, atol=1e-7)
    assert float(solution.certificate.residual) <= 1e-9 * max(1, float(solution.certificate.scale))


@each
def test_protocol(name):
    method, problem, key = make(name)
    y = problem.y0
    state = method.init(problem, y, key)
    assert all(eqx.is_array(leaf) for leaf in jax.tree.leaves(state))
    stepped, after = method.step(problem, y, state)
    assert jax.tree.map(jnp.shape, (stepped, after)) == jax.tree.map(jnp.shape, (y, state))
    known = method.known(problem, stepped, after)
    assert isinstance(known, Known)
    # Of two levels it depends on a linear system, which many methods only follow.
    if known.residual is not None and not isinstance(problem, AbstractLevels):
        expected = problem.optimality(stepped)
        np.testing.assert_allclose(answer(known.residual), answer(expected), atol=1e-12)


@each
def test_pure(name):
    method, problem, key = make(name)
    state = method.init(problem, problem.y0, key)
    before = jax.tree.map(np.array, (problem.y0, state))
    first = method.step(problem, problem.y0, state)
    second = method.step(problem, problem.y0, state)
    assert bitwise(first, second)
    assert bitwise(before, (problem.y0, state))


@each
def test_pytree_iterate(name):
    method, _, key = make(name)
    problem = problem_for(method, trees=True)
    solution = rp.solve(problem, method, key=key, rtol=1e-9, atol=1e-9)
    assert jax.tree.structure(solution.value) == jax.tree.structure(problem.y0)
    np.testing.assert_allclose(answer(solution.value), 1.0, atol=1e-7)


@each
def test_float32_stays_float32(name):
    method, _, key = make(name)
    problem = problem_for(method, a=jnp.float32(0.0), dtype=jnp.float32)
    solution = rp.solve(problem, method, key=key)
    floating = [
        leaf
        for leaf in jax.tree.leaves((solution.value, solution.state, solution.certificate))
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]
    assert {leaf.dtype for leaf in floating} == {jnp.dtype("float32")}
    assert bool(solution.usable)
    np.testing.assert_allclose(answer(solution.value), 1.0, atol=5e-3)


@one_of_each
def test_inside_jit(name):
    method, _, key = make(name)

    @jax.jit
    def solved(a):
        problem = problem_for(method, a)
        return rp.solve(problem, method, key=key, rtol=1e-9, atol=1e-9, throw=False).value

    np.testing.assert_allclose(answer(solved(SHIFT)), 1 + SHIFT, atol=1e-7)


@each
def test_vmap_over_data_and_starts(name):
    method, _, key = make(name)

    def solved(a, start):
        problem = problem_for(method, a)
        moved = jax.tree.map(lambda leaf: leaf + start, problem.y0)
        problem = eqx.tree_at(lambda p: p.y0, problem, moved)
        return rp.solve(problem, method, key=key, rtol=1e-9, atol=1e-9, throw=False).value

    shifts, starts = jnp.array([0.0, SHIFT]), jnp.array([0.5, -0.5])
    together = jax.vmap(solved)(shifts, starts)
    for i in range(2):
        alone = solved(shifts[i], starts[i])
        each_of = jax.tree.map(lambda leaf: leaf[i], together)  # noqa: B023
        np.testing.assert_allclose(answer(each_of), answer(alone), rtol=1e-7)


@one_of_each
def test_derivatives_by_the_implicit_function_theorem(name):
    method, _, key = make(name)

    def total(a):
        problem = problem_for(method, a)
        value = rp.solve(problem, method, key=key, rtol=1e-10, atol=1e-10, throw=False).value
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(value))

    size = answer(problem_for(method).y0).size
    expected = 2 * size * (1 + SHIFT)  # of size (1 + a)^2
    np.testing.assert_allclose(jax.grad(total)(SHIFT), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.jvp(total, (SHIFT,), (1.0,))[1], expected, rtol=1e-6)


@one_of_each
def test_unconverged_derivative_is_nan(name):
    method, _, key = make(name)

    def total(a):
        problem = problem_for(method, a)
        value = rp.solve(problem, method, key=key, max_steps=0, throw=False).value
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(value))

    assert np.isnan(jax.grad(total)(SHIFT)) and np.isnan(jax.jvp(total, (SHIFT,), (1.0,))[1])


# Where a problem holds the user's function, if not as `fn`.
HELD = {Composite: lambda p: p.smooth.fn, rp.Bilevel: lambda p: p.lower_fn}


@each
def test_no_retrace(name):
    method, problem, key = make(name)
    held = HELD.get(type(problem), lambda p: p.fn)
    try:
        inner = held(problem)
    except AttributeError:
        pytest.skip("the problem holds no function of the user's")
    traces = []

    def fn(*inputs):
        traces.append(None)
        return inner(*inputs)

    problem = eqx.tree_at(held, problem, fn)
    rp.solve(problem, method, key=key)
    first = len(traces)
    assert first <= 2
    other = eqx.tree_at(lambda p: p.args, problem, SHIFT)
    rp.solve(other, METHODS[name](), key=key, rtol=1e-5, max_steps=5000)
    assert len(traces) == first


@each
def test_resumed_run_ends_bit_for_bit(name, tmp_path):
    method, problem, key = make(name)
    options = {"key": key, "rtol": 0.0, "atol": 0.0}
    whole = rp.trace(problem, method, max_steps=9, **options)
    file = tmp_path / "run"
    rp.trace(problem, method, max_steps=4, checkpoint=file, **options)
    resumed = rp.trace(problem, method, max_steps=9, checkpoint=file, **options)
    assert bitwise(whole.solution.value, resumed.solution.value)
    assert bitwise(whole.solution.state, resumed.solution.state)
    for measure, history in whole.measures.items():
        assert history[-1].tobytes() == resumed.measures[measure][-1].tobytes()


@one_of_each
def test_state_pickles(name):
    method, problem, key = make(name)
    solution = rp.solve(problem, method, key=key)
    again = pickle.loads(pickle.dumps(solution))
    assert bitwise((again.value, again.state), (solution.value, solution.state))
    assert rp.status_name(again.status) == rp.status_name(solution.status)


@each
def test_counts_are_those_of_the_steps(name):
    method, problem, key = make(name)
    counted = rp.Counted(problem)
    zero = rp.solve(counted, method, key=key, max_steps=0, throw=False).stats.counts
    two = rp.solve(counted, method, key=key, rtol=0.0, atol=0.0, max_steps=2, throw=False)
    assert sum(map(int, zero.values())) >= 1
    assert sum(map(int, two.stats.counts.values())) > sum(map(int, zero.values()))
    plain = rp.solve(problem, method, key=key, rtol=0.0, atol=0.0, max_steps=2, throw=False)
    np.testing.assert_array_equal(answer(plain.value), answer(two.value))


WRAPPERS = {
    "noisy": lambda p: rp.Noisy(p, jax.random.key(1), noise=1e-3),
    "inexact": lambda p: rp.Inexact(p, 1e-2),
    "delayed": lambda p: rp.Delayed(p, 1),
    "faulty": lambda p: rp.Faulty(p, 2),
    "scaled": lambda p: rp.Scaled(p, 2.0),
}


@one_of_each
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_works_under_wrapper(name, wrapper):
    method, problem, key = make(name)
    if wrapper == "scaled" and isinstance(problem, rp.bilevel.MultiBlockBilevel):
        pytest.skip("a problem of many blocks is scaled by its functions")
    wrapped = WRAPPERS[wrapper](problem)
    solution = rp.solve(wrapped, method, key=key, max_steps=300, throw=False)
    assert np.all(np.isfinite(answer(solution.value)))
    # Whatever the oracles said, the certificate is that of the true problem.
    bare = wrapped.bare
    expected = float(otu.norm(bare.optimality(solution.value)))
    np.testing.assert_allclose(
        float(solution.certificate.residual), expected, rtol=1e-9, atol=1e-12
    )
    if bool(solution.converged):
        assert expected <= float(solution.certificate.tolerance)
    if wrapper == "scaled":
        np.testing.assert_allclose(2 * answer(solution.value), 1.0, atol=1e-3)
