"""Sweeps against `jax.lax.scan` and loops in NumPy, and their number in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from raphson.roots import solve_feedforward

W = np.random.default_rng(0).normal(size=(2, 3, 3)) / 2


def cell(s, x):
    return {"u": jnp.tanh(W[0] @ s["u"] + s["v"] * x["b"]), "v": s["v"] / 2 + jnp.sum(x["a"])}


def chain(T=40, dtype=jnp.float64):
    rng = np.random.default_rng(1)
    start = {"u": jnp.array(rng.normal(size=3), dtype), "v": jnp.array(0.3, dtype)}
    return start, {"a": jnp.array(rng.normal(size=(T, 2))), "b": jnp.array(rng.normal(size=(T, 3)))}


def scanned(step, start, inputs):
    return jax.lax.scan(lambda s, x: (step(s, x),) * 2, start, inputs)[1]


def agree(a, b, **tolerances):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **tolerances)


def test_is_the_sequence():
    start, inputs = chain()
    states, sweeps = solve_feedforward(cell, start, inputs)
    agree(states, scanned(cell, start, inputs), rtol=1e-12)
    assert 2 < int(sweeps) <= 40


@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_a_chain_that_forgets_takes_as_many_sweeps_as_that_takes(decay):
    # Sweep k + 1 changes each state past the k-th by decay^k.
    forgetful = lambda s, x: decay * s + x
    for atol in (1e-2, 1e-4):
        states, sweeps = solve_feedforward(forgetful, 0.0, jnp.ones(200), atol=atol)
        assert int(sweeps) == np.ceil(np.log(atol) / np.log(decay)) + 1
        exact = (1 - decay ** np.arange(1, 201)) / (1 - decay)
        np.testing.assert_allclose(states, exact, rtol=0, atol=atol / (1 - decay))


def test_a_chain_that_forgets_nothing_takes_all_sweeps():
    states, sweeps = solve_feedforward(lambda s, x: s + x, 0.0, jnp.ones(30))
    assert int(sweeps) == 30
    np.testing.assert_array_equal(states, np.arange(1, 31))


def test_a_guess_saves_sweeps():
    start, inputs = chain()
    exact, cold = solve_feedforward(cell, start, inputs)
    again, sweeps = solve_feedforward(cell, start, inputs, guess=exact)
    assert int(sweeps) == 1
    agree(again, exact, rtol=0)
    near = jax.tree.map(lambda leaf: leaf + 1e-6, exact)
    _, warm = solve_feedforward(cell, start, inputs, guess=near, atol=1e-7)
    assert 1 < int(warm) < int(cold)


def test_a_bad_guess_is_forgotten():
    # The root of a negative guess is NaN, and none of the chain's.
    rooted = lambda s, x: jnp.sqrt(s) + x
    inputs = jnp.linspace(0.1, 1, 12)
    states, sweeps = solve_feedforward(rooted, 1.0, inputs, guess=jnp.full(12, -1.0))
    np.testing.assert_allclose(states, scanned(rooted, jnp.array(1.0), inputs), rtol=1e-14)
    assert int(sweeps) == 12


def test_a_chain_without_steps():
    states, sweeps = solve_feedforward(lambda s, x: s + x, jnp.ones(2), jnp.zeros((0, 2)))
    assert states.shape == (0, 2) and int(sweeps) == 0


def past_of_all(A):
    """A step that looks at all states before, A of shape (T + 1, T): s_t, t >= 1, hears of s_u."""
    A = jnp.tril(A, -1)
    return lambda past, t_x: jnp.tanh(A[t_x[0]] @ past + t_x[1])


def triangular(T=12):
    rng = np.random.default_rng(2)
    # Row t may use s_0, ..., s_{t-1}.
    A = np.tril(rng.normal(size=(T + 1, T)), -1)
    return A, 0.4, (np.arange(1, T + 1), rng.normal(size=T))


def in_order(A, start, inputs, xp=np):
    states = [start]
    for t, x in zip(inputs[0], inputs[1]):
        states.append(xp.tanh(sum(A[t, u] * s for u, s in enumerate(states)) + x))
    return xp.stack(states[1:])


def swept_in_numpy(step, start, xs, chunk, windows, atol):
    """Each window is swept until it settles; each chunk in it is taken in order."""
    T, size = len(xs), len(xs) // windows
    states, sweeps = np.zeros(T), 0
    for first in range(0, T, size):
        for _ in range(size // chunk):
            old, sweeps = states.copy(), sweeps + 1
            for t in range(first, first + size):
                heard = old if (t - first) % chunk == 0 and t > first else states
                states[t] = step(start if t == 0 else heard[t - 1], xs[t])
            if np.max(np.abs(states - old)) <= atol:
                break
    return states, sweeps


@pytest.mark.parametrize("atol", [0.0, 1e-3])
@pytest.mark.parametrize(
    ("chunk", "windows"), [(1, 1), (4, 1), (1, 4), (2, 3), (24, 1), (1, 24), (3, 8)]
)
def test_chunks_and_windows_take_the_sweeps_of_the_paper(chunk, windows, atol):
    xs = np.random.default_rng(0).normal(size=24)
    step = lambda s, x, xp=jnp: 0.6 * xp.sin(s) + x
    states, sweeps = solve_feedforward(step, 0.5, xs, chunk=chunk, windows=windows, atol=atol)
    in_numpy = lambda s, x: step(s, x, np)
    expected, count = swept_in_numpy(in_numpy, 0.5, xs, chunk, windows, atol)
    np.testing.assert_allclose(states, expected, rtol=0, atol=1e-14)
    # Where all must rest the last sweeps may differ by rounding.
    assert abs(int(sweeps) - count) <= (windows if atol == 0 else 0)
    if atol == 0:
        np.testing.assert_allclose(states, scanned(step, jnp.array(0.5), xs), rtol=0, atol=1e-14)


@pytest.mark.parametrize(("chunk", "windows", "sweeps"), [(5, 1, 6), (1, 5, 30), (2, 3, 15)])
def test_where_nothing_is_forgotten_each_sweep_makes_one_chunk_exact(chunk, windows, sweeps):
    add = lambda s, x: s + x
    states, count = solve_feedforward(add, 0.0, jnp.ones(30), chunk=chunk, windows=windows)
    np.testing.assert_array_equal(states, np.arange(1, 31))
    assert int(count) == sweeps


@pytest.mark.parametrize(("chunk", "windows"), [(1, 1), (3, 1), (1, 3), (2, 2)])
def test_a_step_may_look_at_all_states_before(chunk, windows):
    A, start, inputs = triangular()
    options = {"history": True, "chunk": chunk, "windows": windows}
    states, sweeps = solve_feedforward(past_of_all(A), start, inputs, **options)
    np.testing.assert_allclose(states, in_order(A, start, inputs), rtol=1e-13)
    assert int(sweeps) <= 12 // chunk


def test_one_sweep_over_the_past_is_jacobis():
    A, start, inputs = triangular()
    guess = np.random.default_rng(3).normal(size=12)
    options = {"history": True, "guess": guess, "atol": 1e9}
    states, sweeps = solve_feedforward(past_of_all(A), start, inputs, **options)
    after = np.tanh(A[1:] @ np.append(start, guess[:-1]) + inputs[1])
    np.testing.assert_allclose(states, after, rtol=1e-13)
    assert int(sweeps) == 1


def test_what_all_steps_have_in_common_is_computed_once_a_sweep():
    calls = []

    def step(past, t):
        total = jnp.cumsum(past)
        jax.debug.callback(lambda _: calls.append(1), total)
        return total[t - 1] / 2 + 1

    states, sweeps = solve_feedforward(step, 0.0, jnp.arange(1, 9), history=True)
    jax.effects_barrier()
    np.testing.assert_allclose(states, 1.5 ** np.arange(8), rtol=1e-14)
    assert len(calls) == int(sweeps) == 8


def test_whole_numbers_and_booleans():
    congruence = lambda s, x: (s * 5 + x) % 16
    xs = jnp.array(np.random.default_rng(0).integers(0, 16, 40))
    states, _ = solve_feedforward(congruence, 3, xs)
    np.testing.assert_array_equal(states, scanned(congruence, jnp.array(3), xs))
    either = lambda s, x: {"on": s["on"] ^ (x > 0.5), "u": jnp.where(s["on"], s["u"] / 2, x)}
    start = {"on": jnp.array(True), "u": jnp.array(1.0)}
    xs = jnp.array(np.random.default_rng(1).uniform(size=40))
    # Whether it is on is never forgotten; with `atol` a boolean still has to rest.
    states, sweeps = solve_feedforward(either, start, xs, atol=0.5)
    np.testing.assert_array_equal(states["on"], scanned(either, start, xs)["on"])
    assert int(sweeps) > 30
    total = lambda solved: lambda xs: jnp.sum(solved(either, start, xs)["u"] ** 2)
    ours = jax.jit(jax.grad(total(lambda *args: solve_feedforward(*args)[0])))(xs)
    np.testing.assert_allclose(ours, jax.jit(jax.grad(total(scanned)))(xs), rtol=1e-12)


def test_reverse_derivatives_are_those_of_the_sequence():
    start, inputs = chain()

    def loss(solved, weights, start, inputs):
        step = lambda s, x: {
            "u": jnp.tanh(weights @ s["u"] + s["v"] * x["b"]),
            "v": s["v"] / 2 + jnp.sum(x["a"]),
        }
        states = solved(step, start, inputs)
        return jnp.sum(jnp.sin(states["u"]) @ jnp.arange(3.0)) + jnp.sum(states["v"] ** 2)

    ours = lambda *args: solve_feedforward(*args, chunk=5, windows=2)[0]
    data = jnp.array(W[0]), start, inputs
    found, exact = (
        jax.jit(jax.grad(lambda *data: loss(solved, *data), (0, 1, 2)))(*data)  # noqa: B023
        for solved in (ours, scanned)
    )
    agree(found, exact, rtol=1e-10, atol=1e-12)


def test_second_derivatives_of_the_last_state():
    xs = jnp.array(np.random.default_rng(0).normal(size=(20, 2)))

    def last(solved, a):
        return jnp.sum(solved(lambda s, x: jnp.sin(a * s) + x, jnp.full(2, 0.1), xs)[-1])

    ours = lambda *args: solve_feedforward(*args)[0]
    found, exact = (
        jax.jit(jax.hessian(lambda a: last(solved, a)))(0.8)  # noqa: B023
        for solved in (ours, scanned)
    )
    np.testing.assert_allclose(found, exact, rtol=1e-10)


def test_derivatives_in_units_far_apart():
    # What forgets at once, in the greater unit, must not end the sweeps for the other.
    decay, weights = jnp.array([1e-3, 0.9]), jnp.array([1e20, 1.0])
    last = lambda xs: solve_feedforward(lambda s, x: decay * s + x, jnp.zeros(2), xs)[0][-1]
    found = jax.jit(jax.grad(lambda xs: weights @ last(xs)))(jnp.zeros((20, 2)))
    expected = np.asarray(weights) * np.asarray(decay) ** np.arange(19, -1, -1)[:, None]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_derivatives_where_steps_look_at_all_states_before():
    A, start, inputs = triangular()
    weigh = lambda states: jnp.sum(jnp.sin(states) * jnp.arange(12.0))

    def ours(A, start, xs):
        data = inputs[0], xs
        return weigh(solve_feedforward(past_of_all(A), start, data, history=True, chunk=2)[0])

    loop = lambda A, start, xs: weigh(in_order(A, start, (inputs[0], xs), jnp))
    data = jnp.array(A), jnp.array(start), jnp.array(inputs[1])
    found, exact = (jax.jit(jax.grad(fn, (0, 1, 2)))(*data) for fn in (ours, loop))
    agree(found, exact, rtol=1e-10, atol=1e-12)


def test_jit_vmap_forward_derivatives_and_single_precision():
    def last(a):
        return solve_feedforward(lambda s, x: a * s + x, jnp.zeros_like(a), jnp.ones(20))[0][-1]

    a = jnp.array([0.1, 0.5])
    together = jax.jit(jax.vmap(last))(a)
    np.testing.assert_allclose(together, [last(one) for one in a], rtol=1e-14)
    k = np.arange(20)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(last))(a[1]), np.sum(k[1:] * 0.5 ** (k[1:] - 1)))
    states, _ = solve_feedforward(lambda s, x: s / 2 + x, jnp.float32(0), jnp.ones(9, jnp.float32))
    assert states.dtype == jnp.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": 3}, "`step` must be a function, got 3"),
        ({"step": lambda s, x: s[:1]}, r"`step\(state, input\)` must be shaped as `start`"),
        ({"start": jnp.array([1, 2])}, r"`start`, int64\[2\], got float64\[2\]"),
        ({"start": "two"}, "`start` must be made of arrays of numbers, got 'two'"),
        ({"start": None}, "`start` must be made of arrays of numbers, got None"),
        (
            {"history": True, "step": lambda past, x: past},
            r"`step\(past, input\)` must be shaped as `start`",
        ),
        ({"chunk": 0}, "`chunk` must be a whole number of at least 1"),
        ({"windows": 1.5}, "`windows` must be a whole number of at least 1"),
        ({"chunk": 2}, "`chunk` times `windows` must divide the 3 steps, got 2 and 1"),
        ({"inputs": (jnp.ones(3), jnp.ones(4))}, "`inputs` must be arrays that agree in their"),
        ({"inputs": jnp.array(1.0)}, "`inputs` must be arrays that agree in their first axis"),
        ({"guess": jnp.ones(3)}, "`guess` must be shaped as the states"),
        ({"atol": -1.0}, "`atol` must be a finite number of at least 0"),
    ],
)
def test_refuses(change, message):
    arguments = {"step": lambda s, x: s + x, "start": jnp.ones(2), "inputs": jnp.ones((3, 2))}
    with pytest.raises(ValueError, match=message):
        solve_feedforward(**(arguments | change))
