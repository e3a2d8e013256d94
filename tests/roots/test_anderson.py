"""Anderson acceleration against its constrained form in NumPy, SciPy's GMRES and the secant."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg

import raphson as rp
from raphson.roots import Anderson, KrasnoselskiiMann

RNG = np.random.default_rng(0)
N = 8
W = RNG.normal(size=(N, N)) / 4
START = RNG.normal(size=N)


def curved(y, _=None, xp=jnp):
    return xp.sin(W @ y) + xp.cos(3 * y) / 4 + 0.3


@eqx.filter_jit
def iterates(problem, method, count):
    """The iterates after 1, ..., `count` steps, and the residuals that are known of them."""

    def step(carry, _):
        y, state = method.step(problem, *carry)
        return (y, state), (y, method.known(problem, y, state).residual)

    start = problem.y0, method.init(problem, problem.y0, None)
    return jax.lax.scan(step, start, length=count)[1]


def transcription(fn, y, memory, damping, count):
    """Weights of the last points that sum to 1 and make the residual least."""
    ys, fs = [y], [fn(y) - y]
    for _ in range(count):
        kept = slice(-memory - 1, None)
        Y, F = np.array(ys[kept]), np.array(fs[kept])
        # The condition on the sum by elimination of the first weight.
        rest = np.linalg.lstsq((F[1:] - F[0]).T, -F[0], rcond=None)[0]
        weights = np.append(1 - rest.sum(), rest)
        ys.append(weights @ (Y + damping * F))
        fs.append(fn(ys[-1]) - ys[-1])
        yield ys[-1]


def affine(contraction, seed=0):
    """A map y -> A y + b with |A| = contraction that is not normal."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(N, N))
    A *= contraction / np.linalg.norm(A, 2)
    b = rng.normal(size=N)
    return A, b, rp.FixedPoint(lambda y, args: args[0] @ y + args[1], START, (A, b))


def radiation(c, n=100):
    """Chandrasekhar's H-equation by the midpoint rule; the mean of H is known."""
    mu = (np.arange(n) + 0.5) / n
    kernel = mu[:, None] / (mu[:, None] + mu[None, :]) / n
    fn = lambda H, c: 1 / (1 - c / 2 * (kernel @ H))
    return rp.FixedPoint(fn, jnp.ones(n), jnp.array(c)), 2 / c * (1 - np.sqrt(1 - c))


@pytest.mark.parametrize("damping", [1.0, 0.4])
@pytest.mark.parametrize("memory", [1, 2, 5])
def test_steps_are_those_of_the_paper(memory, damping):
    method = Anderson(memory, jnp.array(damping), jnp.array(1e-24))
    ys, residuals = iterates(rp.FixedPoint(curved, START), method, 12)
    expected = transcription(lambda y: curved(y, xp=np), START, memory, damping, 12)
    for got, residual, y in zip(ys, residuals, expected):
        np.testing.assert_allclose(got, y, rtol=0, atol=1e-7)
        np.testing.assert_allclose(residual, curved(got, xp=np) - got, rtol=0, atol=1e-14)


@pytest.mark.parametrize("contraction", [0.9, 3.0])
def test_is_gmres_on_an_affine_map(contraction):
    # Walker, Ni (2011), theorem 2.2: y_{k+1} = T(x_k), where x_k is that of GMRES on (I - A) x = b.
    A, b, problem = affine(contraction)
    ys, _ = iterates(problem, Anderson(N, regularization=jnp.array(1e-24)), N + 1)
    for k in range(1, N + 1):
        x, _ = scipy.sparse.linalg.gmres(
            np.eye(N) - A, b, x0=START, restart=k, maxiter=1, rtol=0, atol=0
        )
        np.testing.assert_allclose(ys[k], A @ x + b, rtol=0, atol=1e-8 * np.linalg.norm(x))


@pytest.mark.parametrize("memory", [1, 3, 5])
def test_every_step_contracts_an_affine_map(memory):
    # |f+| = |A (f - dF c)| <= |A| |f|, for c = 0 is allowed.
    for seed in range(3):
        _, _, problem = affine(0.9, seed)
        _, residuals = iterates(problem, Anderson(memory), 40)
        sizes = np.linalg.norm(residuals, axis=1)
        assert np.all(sizes[1:] <= 0.9 * sizes[:-1] + 1e-14)


def test_is_the_secant_method_in_one_dimension():
    fn = lambda y, xp: xp.exp(-y) + y / 3
    ys, _ = iterates(rp.FixedPoint(lambda y, _: fn(y, jnp), jnp.array(0.2)), Anderson(), 5)
    a, b = 0.2, fn(0.2, np)
    np.testing.assert_allclose(ys[0], b, rtol=1e-15)
    for got in ys[1:]:
        f, g = (fn(y, np) - y for y in (a, b))
        a, b = b, b - g * (b - a) / (g - f)
        np.testing.assert_allclose(got, b, rtol=1e-10)


@pytest.mark.parametrize("c", [0.5, 0.99, 0.999])
def test_radiative_transfer(c):
    problem, mean = radiation(c)
    solution = rp.solve(rp.Counted(problem), Anderson(), rtol=1e-12, atol=0.0)
    assert float(jnp.mean(solution.value)) == pytest.approx(mean, rel=1e-8)
    # One call of the map a step, and far fewer than without.
    steps, counts = int(solution.stats.steps), solution.stats.counts
    assert int(counts["apply"]) == 1 + steps and int(counts["residual"]) == 0
    picard = rp.solve(problem, KrasnoselskiiMann(), rtol=1e-12, atol=0.0)
    assert steps <= (15 if c == 0.5 else int(picard.stats.steps) / 5)


def test_many_moves_that_depend_on_each_other_cost_nothing():
    problem, _ = radiation(0.999)

    def steps(memory, regularization):
        method = Anderson(memory, regularization=jnp.array(regularization))
        return int(rp.solve(problem, method, rtol=1e-10, atol=0.0).stats.steps)

    assert steps(50, 1e-12) <= 2 * steps(5, 1e-12)
    assert steps(50, 1e-30) >= 3 * steps(5, 1e-12)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
def test_moves_along_one_line_are_dependent_to_rounding(dtype):
    u, v = jnp.arange(1, 7, dtype=dtype), jnp.full(6, 0.04, dtype)
    problem = rp.FixedPoint(lambda y, _: 1 + u * (v @ y), jnp.zeros(6, dtype))
    answer = 1 + np.arange(1, 7) * 0.24 / (1 - 0.84)
    ys, _ = iterates(problem, Anderson(), 12)
    assert ys.dtype == dtype
    rounding = 100 * np.finfo(dtype).eps
    np.testing.assert_allclose(ys[-1], answer, rtol=rounding)
    # Two points of a line tell all; after that the steps are rounding.
    np.testing.assert_allclose(ys[2:], np.broadcast_to(answer, (10, 6)), rtol=100 * rounding)


def test_may_find_another_answer_than_picard():
    problem, mean = radiation(0.9999)
    methods = KrasnoselskiiMann(), Anderson()
    picard, other = (rp.solve(problem, m, rtol=1e-10, atol=0.0).value for m in methods)
    assert float(jnp.mean(picard)) == pytest.approx(mean, rel=1e-8)
    # The other root of S = 1 + c S^2 / 4, which the mean S solves.
    assert float(jnp.mean(other)) == pytest.approx(4 / 0.9999 - mean, rel=1e-8)


def test_finds_what_repels_the_map():
    logistic = lambda y, r: r * y * (1 - y)
    problem = rp.FixedPoint(logistic, jnp.array(0.6), jnp.array(3.5))
    solution = rp.solve(problem, Anderson(), rtol=1e-10, atol=0.0)
    assert float(solution.value) == pytest.approx(1 - 1 / 3.5, rel=1e-9)
    picard = rp.solve(problem, KrasnoselskiiMann(), max_steps=1000, throw=False)
    assert not bool(picard.usable)


def test_changes_that_are_rounding_are_not_trusted():
    # There is no fixed point but where y is so large that y - 0.3 rounds to y.
    problem = rp.FixedPoint(lambda y, _: y - 0.3, jnp.zeros(2))
    ys, _ = iterates(problem, Anderson(), 100)
    np.testing.assert_allclose(ys[-1], -30.0, rtol=1e-9)


def test_the_scale_of_the_map_does_not_matter():
    flat = rp.FixedPoint(curved, START)
    ys, _ = iterates(flat, Anderson(), 6)
    for scale in (1e-40, 1e40):
        scaled = rp.FixedPoint(lambda y, s: s * curved(y / s), scale * START, jnp.array(scale))
        np.testing.assert_allclose(iterates(scaled, Anderson(), 6)[0] / scale, ys, rtol=1e-5)


def test_a_tree_takes_the_same_steps():
    def fn(y, _):
        out = curved(jnp.append(y["u"].ravel(), y["v"]))
        return {"u": out[: N - 1].reshape(N - 1, 1), "v": out[-1]}

    tree = rp.FixedPoint(fn, {"u": jnp.array(START[:-1, None]), "v": jnp.array(START[-1])})
    trees, residuals = iterates(tree, Anderson(3), 8)
    ys, fs = iterates(rp.FixedPoint(curved, START), Anderson(3), 8)
    for got, expected in ((trees, ys), (residuals, fs)):
        np.testing.assert_allclose(got["u"][..., 0], expected[:, :-1], rtol=0, atol=1e-9)
        np.testing.assert_allclose(got["v"], expected[:, -1], rtol=0, atol=1e-9)


def test_ends_where_a_step_moves_nothing():
    problem = rp.FixedPoint(lambda y, _: jnp.cos(y) + 1e3, jnp.array(1.0))
    method = Anderson(damping=0.5)
    solution = rp.solve(problem, method, rtol=0.0, atol=0.0, max_steps=500, throw=False)
    assert int(solution.stats.steps) < 100 and bool(solution.usable)


def test_another_damping_compiles_nothing():
    traces = []

    def fn(y, _):
        traces.append(1)
        return jnp.cos(y)

    problem = rp.FixedPoint(fn, jnp.array([0.5, 0.1]))
    steps = [int(rp.solve(problem, Anderson(damping=b)).stats.steps) for b in (1.0, 0.3)]
    assert steps[0] != steps[1] and len(traces) <= 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": 0}, "`memory` must be a whole number of at least 1, got 0"),
        ({"memory": 2.5}, "`memory` must be a whole number"),
        ({"damping": 0.0}, r"`damping` of Anderson must be a number in \(0, 1\], got 0.0"),
        ({"damping": 1.5}, "`damping` of Anderson"),
        ({"regularization": 0.0}, "`regularization` of Anderson must be a number in"),
        ({"regularization": jnp.nan}, "`regularization` of Anderson"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        Anderson(**options)
